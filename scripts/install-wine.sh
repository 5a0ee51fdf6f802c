#!/usr/bin/env bash
# Installs Wine, on which the tests execute what is written for Windows, and the compiler for the DLL that they load. Wine comes
# from a Debian 13 root of its own: the one of Debian 12 lacks what Go programs need at their start. Needs root, and Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
command -v unshare >/dev/null || missing+=(util-linux)
command -v x86_64-w64-mingw32-gcc >/dev/null || missing+=(gcc-mingw-w64-x86-64)
if [ "${#missing[@]}" -gt 0 ]; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "install-wine: please install: ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

root=.tools/wine
[ -e "$root/ready" ] && exit 0

# The mirror that this machine's own packages come from, unless another is named.
mirror=${AZMTLS_DEBIAN_MIRROR:-$(
  grep -rhoE '^(deb |URIs: )[^#]*https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
    grep -oE 'https?://[^ ]+' | head -n 1 || true
)}
if [ -z "$mirror" ]; then
  echo "install-wine: Wine is taken from a Debian mirror, and the apt sources of this machine (/etc/apt/sources.list and" \
    "sources.list.d) name none whose path ends in /debian; set AZMTLS_DEBIAN_MIRROR to the URL of one" >&2
  exit 1
fi

rm -rf "$root"
mkdir -p "$root"
mmdebstrap --quiet --variant=apt --mode=root --aptopt='APT::Install-Recommends "false"' \
  --include=wine64,libgnutls30t64 trixie "$root" "$mirror"
[ -e "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
[ -e "$root/dev/urandom" ] || mknod -m 666 "$root/dev/urandom" c 1 9
mkdir -p "$root/prefix"
./scripts/wine.sh wineboot -i >"$root/install.log" 2>&1 || { cat "$root/install.log" >&2; exit 1; }
mkdir "$root/registry"
cp "$root"/prefix/*.reg "$root/registry/"
touch "$root/ready"
