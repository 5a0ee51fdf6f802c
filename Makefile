# `make test` installs what is missing and runs everything: it is what CI runs.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
MODULE := github.com/azmtls/azmtls

# Modules of their own, so that what they need is no dependency of the library.
NESTED := e2e examples/storage examples/keyvault

.PHONY: test tools lint unit e2e examples bench

test: tools lint unit e2e examples

tools:
	./scripts/install-tools.sh

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	GOOS=linux go vet ./...
	GOOS=windows go vet ./...
	GOOS=darwin go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff
	for module in $(NESTED); do (cd $$module && go vet ./... && go run $(STATICCHECK) ./... && go mod tidy -diff) || exit 1; done

unit:
	AZMTLS_REAL_PARTS=1 go test -race -coverprofile=coverage.out -coverpkg=$(MODULE),$(MODULE)/mtls ./...
	./scripts/check-coverage.sh coverage.out 85 $(MODULE) $(MODULE)/mtls

e2e: tools
	cd e2e && AZMTLS_AZURITE=$(CURDIR)/.tools/node_modules/azurite/dist/src/blob/main.js go test -race -count=1 ./...

examples:
	go run ./examples/quickstart
	go run ./examples/chained
	go run ./examples/chained -without
	cd examples/storage && go run .
	cd examples/keyvault && go run .

bench:
	go test -run '^$$' -bench . -benchmem .
