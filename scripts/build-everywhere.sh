#!/usr/bin/env bash
# Builds the library for every platform that it is promised for, as far as Go has it, and in the ways that its users build: without
# the linked functions of azcore's log (internal/eventlog), and with vendored modules and trimmed paths.
set -euo pipefail

packages=$(go list ./... | grep -v /examples/)
for target in $(go tool dist list | grep -E '^(linux|windows|darwin|freebsd)/(amd64|arm64|386)$'); do
  GOOS=${target%/*} GOARCH=${target#*/} CGO_ENABLED=0 go build $packages
done
for system in linux windows darwin; do # one static binary for each
  (cd cmd/azmtls && GOOS=$system CGO_ENABLED=0 go build -o /dev/null .)
done
go vet -tags azmtls_nolinkname ./...

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar --exclude=./.git --exclude=./.tools -cf - . | tar -xf - -C "$copy"
cd "$copy"
go mod vendor
go build -mod=vendor -trimpath ./...
