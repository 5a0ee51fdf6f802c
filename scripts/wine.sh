#!/usr/bin/env bash
# Runs a Windows program under the Wine that install-wine.sh installed, on the files of this project:
#
#   GOOS=windows go test -exec "$PWD/scripts/wine.sh" ./winstore
#
# Mounts and processes live in namespaces of their own, and end with the program. Each program finds the registry, and in it the
# certificate store, as Wine's installation left it. Programs take turns: they share one Wine.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
export project root=$project/.tools/wine dir=$PWD

exec 9>"$root.lock"
flock 9
[ ! -d "$root/registry" ] || cp "$root"/registry/*.reg "$root/prefix/"
exec unshare --mount --pid --fork --kill-child --propagation private bash -euc '
  mount -t proc proc "$root/proc"
  mkdir -p "$root$project"
  mount --bind "$project" "$root$project"
  export WINEPREFIX=/prefix WINEARCH=win64 WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml=" LANG=C.UTF-8 HOME=/root XDG_RUNTIME_DIR=/run
  unset DISPLAY WAYLAND_DISPLAY
  status=0
  chroot "$root" /bin/sh -c "cd \"\$dir\" && exec /usr/lib/wine/wine64 \"\$@\"" wine "$@" || status=$?
  [ -d "$root/registry" ] || chroot "$root" /usr/lib/wine/wineserver -w
  exit "$status"
' wine "$@"
