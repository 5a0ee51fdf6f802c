# `make test` installs what is missing and runs everything: it is what CI runs.

STATICCHECK := $(CURDIR)/.tools/bin/staticcheck
MODULE := github.com/azmtls/azmtls

# Modules of their own, so that what they need is no dependency of the library.
NESTED := e2e examples/storage examples/keyvault

.PHONY: test tools lint unit fips windows e2e examples bench

test: tools lint unit fips windows e2e examples

tools:
	./scripts/install-tools.sh
	./scripts/install-wine.sh

lint: tools
	@test -z "$$(gofmt -l *.go */)" || { gofmt -d *.go */; exit 1; }
	for os in linux windows darwin; do GOOS=$$os go vet ./... && GOOS=$$os $(STATICCHECK) ./... || exit 1; done
	./scripts/build-everywhere.sh
	go mod tidy -diff
	for module in $(NESTED); do (cd $$module && go vet ./... && $(STATICCHECK) ./... && go mod tidy -diff) || exit 1; done
	go run golang.org/x/sys/windows/mkwinsyscall winstore/syscall_windows.go | diff winstore/zsyscall_windows.go -

# Of the packages under internal, internal/limits has no statements to cover: it holds constants.
unit:
	AZMTLS_REAL_PARTS=1 go test -race -timeout 15m -coverprofile=coverage.out -coverpkg=$(MODULE),$(MODULE)/mtls,$(MODULE)/tpmstore,$(MODULE)/internal/... ./...
	go test -timeout 15m -run 'Matrix|HourOfFaults|Allocations' .
	./scripts/check-coverage.sh coverage.out 85 $(MODULE) $(MODULE)/mtls $(MODULE)/tpmstore $$(go list ./internal/... | grep -v '/internal/limits$$')

# With FIPS 140-3 enforced: whatever else is used fails. The simulations of long times are left to unit, here and under Wine.
fips:
	GODEBUG=fips140=only go test -count=1 -timeout 15m -skip 'Matrix|HourOfFaults|Fleet' ./...

# The Windows build, executed under Wine. The race detector is not to be had there.
windows: tools
	mkdir -p .tools/windows/tmp
	x86_64-w64-mingw32-gcc -Wall -Werror -shared -o .tools/windows/AttestationClientLib.dll winstore/testdata/attestation.c -lncrypt
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go build -o .tools/windows/quickstart.exe ./examples/quickstart
	AZMTLS_ATTESTATION_DLL=$(CURDIR)/.tools/windows/AttestationClientLib.dll AZMTLS_QUICKSTART=$(CURDIR)/.tools/windows/quickstart.exe \
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 GOTMPDIR=$(CURDIR)/.tools/windows/tmp \
	go test -count=1 -timeout 15m -skip 'HourOfFaults|Fleet' -coverprofile=.tools/windows/coverage.out -coverpkg=$(MODULE)/winstore -exec $(CURDIR)/scripts/wine.sh ./...
	./scripts/check-coverage.sh .tools/windows/coverage.out 85 $(MODULE)/winstore

e2e: tools
	cd e2e && AZMTLS_AZURITE=$(CURDIR)/.tools/node_modules/azurite/dist/src/blob/main.js go test -race -count=1 ./...

examples:
	go run ./examples/quickstart
	go run ./examples/quickstart -tpm
	go run ./examples/chained
	go run ./examples/chained -without
	go run ./examples/managed
	cd examples/storage && go run .
	cd examples/keyvault && go run .

# Writes BENCHMARKS.md. It takes about 5 minutes, and wants the machine for itself.
bench:
	go run ./scripts/benchtable
