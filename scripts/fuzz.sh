#!/bin/sh
# Runs each fuzz target of this module for a while: scripts/fuzz.sh 20s
set -eu
cd "$(dirname "$0")/.."
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "$package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${1:-20s}" "$package"
	done
done
