#!/usr/bin/env bash
# Installs the real parts that the tests run against, where they are missing: a C compiler (for the race detector),
# OpenSSL, curl, Node.js, Azurite, @azure/identity, Apache httpd, nginx, swtpm, OpenSSL's tpm2 provider and staticcheck.
# Run as root on a Debian machine it needs nothing else; elsewhere it says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

azurite_version=3.37.0 # keep in step with e2e/azurite_test.go's expectations of the emulator
identity_version=4.9.1 # of @azure/identity, the latest for Node.js 18, which Debian 12 has

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v openssl >/dev/null || missing+=(openssl)
command -v curl >/dev/null || missing+=(curl)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
[ -x /usr/sbin/apache2 ] || missing+=(apache2-bin)
[ -x /usr/sbin/nginx ] || missing+=(nginx-light)
command -v swtpm >/dev/null || missing+=(swtpm)
compgen -G '/usr/lib/*/ossl-modules/tpm2.so' >/dev/null || missing+=(tpm2-openssl)
if [ "${#missing[@]}" -gt 0 ]; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "install-tools: please install: ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -qq
  # Debian starts a server when it installs one. The tests start their own, on loopback.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

stamp=.tools/azurite-$azurite_version-identity-$identity_version
if [ ! -e "$stamp" ]; then
  rm -rf .tools/node_modules
  mkdir -p .tools
  npm install --prefix .tools --no-package-lock --no-save --no-audit --no-fund --loglevel=error \
    "azurite@$azurite_version" "@azure/identity@$identity_version"
  touch "$stamp"
fi

staticcheck=v0.8.2
stamp=.tools/staticcheck-$staticcheck
if [ ! -e "$stamp" ]; then
  GOBIN=$PWD/.tools/bin go install "honnef.co/go/tools/cmd/staticcheck@$staticcheck"
  touch "$stamp"
fi
