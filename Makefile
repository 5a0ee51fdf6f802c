# `make test` installs what is missing and runs everything: it is what CI runs.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
MODULE := github.com/azmtls/azmtls

.PHONY: test tools lint unit e2e bench

test: tools lint unit e2e

tools:
	./scripts/install-tools.sh

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	GOOS=linux go vet ./...
	GOOS=windows go vet ./...
	GOOS=darwin go vet ./...
	cd e2e && go vet ./...
	go run $(STATICCHECK) ./...
	cd e2e && go run $(STATICCHECK) ./...
	go mod tidy -diff
	cd e2e && go mod tidy -diff

unit:
	AZMTLS_REAL_PARTS=1 go test -race -coverprofile=coverage.out -coverpkg=$(MODULE),$(MODULE)/mtls ./...
	./scripts/check-coverage.sh coverage.out 85 $(MODULE) $(MODULE)/mtls

e2e: tools
	cd e2e && AZMTLS_AZURITE=$(CURDIR)/.tools/node_modules/azurite/dist/src/blob/main.js go test -race -count=1 ./...

bench:
	go test -run '^$$' -bench . -benchmem .
