#!/usr/bin/env bash
# Runs the fuzz targets of this module:
#
#   scripts/fuzz.sh each 20     20 seconds for each target, two at once for each CPU: CI has little time
#   scripts/fuzz.sh all 3600    3600 seconds for all of them together, as many at once as there are CPUs
#
# At its end it prints how often each was executed. An input that fails is kept in the testdata of its package.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-each} seconds=${2:-20}
lanes=$(nproc)
[ "$mode" = all ] || lanes=$((2 * lanes))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A target is a line: its program, the folder that it runs in, the one that keeps what it found, its name.
go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... | while read -r package dir; do
	grep -qs '^func Fuzz' "$dir"/*_test.go || continue
	program=$work/${package//\//_}
	go test -c -fuzz . -o "$program" "$package"
	(cd "$dir" && "$program" -test.list '^Fuzz') | grep '^Fuzz' | while read -r target; do
		echo "$program $dir $(go env GOCACHE)/fuzz/$package $target"
	done
done >"$work/targets"
count=$(wc -l <"$work/targets")
[ "$count" -gt 0 ] || { echo "there are no fuzz targets" >&2; exit 1; }
[ "$mode" != all ] || seconds=$((seconds * lanes / count))

run() { # program dir cache target
	local log
	log=$work/$(basename "$1").$4.log
	mkdir -p "$3"
	if (cd "$2" && "$1" -test.run '^$' -test.fuzz "^$4\$" -test.fuzztime "${seconds}s" -test.fuzzcachedir "$3" -test.parallel 1) >"$log" 2>&1; then
		echo "$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1) ${2#"$PWD"/} $4" >>"$work/executions"
	else
		cat "$log"
		return 1
	fi
}
export -f run
export work seconds
xargs -P "$lanes" -L 1 bash -c 'run "$@"' run <"$work/targets"

sort -k 2 "$work/executions" | while read -r executions package target; do
	printf '%12d  %s %s\n' "$executions" "$package" "$target"
done
total=$(awk '{ n += $1 } END { print n }' "$work/executions")
echo "$count targets, ${seconds}s each: $total executions"
if [ "${AZMTLS_RELIABILITY:-}" = 1 ]; then
	printf 'RELIABILITY {"name":"fuzz","targets":%d,"seconds":%d,"executions":%d}\n' "$count" "$seconds" "$total"
fi
