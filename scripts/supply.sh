#!/usr/bin/env bash
# Looks at what the library is built of: checksums, known vulnerabilities, and, once there is a release, whether its API is still
# there. Licences and the list of dependencies are tests of the root (supply_test.go).
set -euo pipefail
cd "$(dirname "$0")/.."

vulndb=v0.0.0-20261105234957-e22db6528018 # the Go vulnerability database, as a module: raise it now and then
govulncheck=v1.9.0
apidiff=v0.0.0-20261113113407-e3970619a1a4

go mod verify

database=.tools/vulndb-$vulndb
if [ ! -e "$database/index/db.json" ]; then
  mkdir -p .tools
  files=$(cd .tools && go mod download -json "golang.org/x/vulndb@$vulndb" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  go run "golang.org/x/vulndb/cmd/indexdb@$vulndb" -vulns "$files/data/osv" -out "$database"
fi
GOBIN=$PWD/.tools/bin go install "golang.org/x/vuln/cmd/govulncheck@$govulncheck"
for system in linux windows; do
  GOOS=$system .tools/bin/govulncheck -format json -db "file://$PWD/$database" . ./mtls ./tpmstore ./winstore ./imdstest \
    > .tools/vulnerabilities.json
  go run ./scripts/vulnerable < .tools/vulnerabilities.json
done
(cd cmd/azmtls && ../../.tools/bin/govulncheck -format json -db "file://$OLDPWD/$database" .) > .tools/vulnerabilities.json
go run ./scripts/vulnerable < .tools/vulnerabilities.json

tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)
if [ -z "$tag" ]; then
  echo "supply: there is no release yet that the API could be compared with"
  exit 0
fi
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$tag" | tar -xf - -C "$before"
GOBIN=$before/bin go install "golang.org/x/exp/cmd/apidiff@$apidiff"
for package in . mtls tpmstore winstore imdstest; do
  (cd "$before/$package" && "$before/bin/apidiff" -w "$before/api" .)
  changes=$("$before/bin/apidiff" -incompatible "$before/api" "./$package")
  [ -z "$changes" ] || { echo "supply: $package has changed incompatibly since $tag:" "$changes" >&2; exit 1; }
done
