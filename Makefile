# `make test` installs what is missing and runs everything: it is what CI runs.

STATICCHECK := $(CURDIR)/.tools/bin/staticcheck
MODULE := github.com/azmtls/azmtls

# Modules of their own, so that what they need is no dependency of the library.
NESTED := cmd/azmtls e2e examples/storage examples/keyvault examples/otel examples/prometheus examples/grpc

# Tests that take long since they repeat. The race detector and Wine make them longer still: the plain run of unit has them.
LONG := Fleet|HostileEntra|EveryBinding|CostIsFlat

.PHONY: test static tools wine lint supply unit fips soak-short fuzz-short mutate-short windows cli e2e examples bench soak fuzz \
	reliability

# Wine uses one processor. What else needs no quiet goes on beside it.
test: tools
	$(MAKE) -j2 --output-sync=target windows static
	$(MAKE) unit soak-short cli e2e examples

static:
	$(MAKE) -j1 fuzz-short lint supply mutate-short fips

tools:
	./scripts/install-tools.sh

wine: tools
	./scripts/install-wine.sh

lint: tools
	@test -z "$$(gofmt -l *.go */)" || { gofmt -d *.go */; exit 1; }
	for os in linux windows darwin; do GOOS=$$os go vet ./... && GOOS=$$os $(STATICCHECK) ./... || exit 1; done
	./scripts/build-everywhere.sh
	go mod tidy -diff
	for module in $(NESTED); do (cd $$module && go vet ./... && $(STATICCHECK) ./... && go mod tidy -diff) || exit 1; done
	go run golang.org/x/sys/windows/mkwinsyscall winstore/syscall_windows.go | diff winstore/zsyscall_windows.go -

# Checksums, known vulnerabilities, and the API against the last release.
supply: tools
	./scripts/supply.sh

# Of the packages under internal, internal/limits has no statements to cover: it holds constants. internal/secrets does not look at
# everything under the race detector.
unit:
	AZMTLS_REAL_PARTS=1 go test -race -vet=off -timeout 15m -skip 'KilledWhileSaving|$(LONG)' -coverprofile=coverage.out -coverpkg=$(MODULE),$(MODULE)/mtls,$(MODULE)/tpmstore,$(MODULE)/internal/... ./...
	AZMTLS_REAL_PARTS=1 go test -vet=off -timeout 15m -run 'Matrix|HourOfFaults|Allocations|Model|KilledWhileSaving|$(LONG)' . ./mtls ./tpmstore ./internal/tokencache
	./scripts/check-coverage.sh coverage.out 85 $(MODULE) $(MODULE)/mtls $(MODULE)/tpmstore $$(go list ./internal/... | grep -v -e '/internal/limits$$' -e '/internal/secrets$$')

# With FIPS 140-3 enforced: whatever else is used fails.
fips:
	GODEBUG=fips140=only go test -vet=off -count=1 -timeout 15m -skip 'Matrix|HourOfFaults|Soak|Model|Kill|Stress|Busy|NotNow|$(LONG)' ./...

# Goroutines, clients and clocks under random faults: see soak_test.go. AZMTLS_SEED repeats a run.
soak-short:
	AZMTLS_SOAK=60s go test -race -count=1 -timeout 10m -v -run '^TestSoak$$' .

soak:
	AZMTLS_SOAK=30m go test -race -count=1 -timeout 1h -v -run '^TestSoak$$' .

# Whatever parses, on made-up input: 20 seconds for each target, or an hour for all of them.
fuzz-short:
	./scripts/fuzz.sh each 20

fuzz:
	./scripts/fuzz.sh all 3600

# The Windows build, executed under Wine. The race detector is not to be had there. Of the leaves of internal, those that Windows
# makes a difference to.
ON_WINDOWS := . ./mtls ./winstore ./tpmstore ./imdstest/... ./internal/clock ./internal/imds ./internal/callers

windows: wine
	mkdir -p .tools/windows/tmp
	x86_64-w64-mingw32-gcc -Wall -Werror -shared -o .tools/windows/AttestationClientLib.dll winstore/testdata/attestation.c -lncrypt
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go build -o .tools/windows/quickstart.exe ./examples/quickstart
	AZMTLS_ATTESTATION_DLL=$(CURDIR)/.tools/windows/AttestationClientLib.dll AZMTLS_QUICKSTART=$(CURDIR)/.tools/windows/quickstart.exe \
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 GOTMPDIR=$(CURDIR)/.tools/windows/tmp \
	go test -short -vet=off -count=1 -timeout 15m -skip 'HourOfFaults|Soak|Model|UploadsStream|EntraHangs|$(LONG)' -coverprofile=.tools/windows/coverage.out -coverpkg=$(MODULE)/winstore -exec $(CURDIR)/scripts/wine.sh $(ON_WINDOWS)
	./scripts/check-coverage.sh .tools/windows/coverage.out 85 $(MODULE)/winstore

cli: tools
	cd cmd/azmtls && AZMTLS_REAL_PARTS=1 go test -race -count=1 ./...

e2e: tools
	cd e2e && AZMTLS_AZURITE=$(CURDIR)/.tools/node_modules/azurite/dist/src/blob/main.js AZMTLS_NODE_MODULES=$(CURDIR)/.tools/node_modules \
	go test -race -count=1 ./...

examples:
	go run ./examples/quickstart
	go run ./examples/quickstart -tpm
	go run ./examples/chained
	go run ./examples/chained -without
	go run ./examples/managed
	for example in storage keyvault otel prometheus grpc; do (cd examples/$$example && go run . && go test -race -count=1 ./...) || exit 1; done

# Writes BENCHMARKS.md. It takes about 5 minutes, and wants the machine for itself.
bench: tools
	go run ./scripts/benchtable

# Changes the library in a few places, one at a time, and looks whether a test of the same package notices.
mutate-short:
	go run ./scripts/mutate -own -n 6 ./internal/...

# Writes RELIABILITY.md. It takes hours, unless less is asked for.
SOAK ?= 30m
FUZZ ?= 1h
MUTANTS ?= 1000

reliability: wine
	mkdir -p .tools/windows/tmp
	go run ./scripts/reliability -soak $(SOAK) -fuzz $(FUZZ) -mutants $(MUTANTS)
