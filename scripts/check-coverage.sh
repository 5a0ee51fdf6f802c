#!/usr/bin/env bash
# Fails when a package that must be covered is not: check-coverage.sh PROFILE PERCENT PACKAGE...
set -euo pipefail
profile=$1 least=$2
shift 2
for package in "$@"; do
  awk -v package="$package" -v least="$least" '
    NR > 1 {
      file = $1; sub(/:.*/, "", file); sub(/\/[^\/]*$/, "", file)
      if (file != package) next
      if (!($1 in statements)) { statements[$1] = $2; total += $2 }
      if ($3 > 0 && !($1 in hit)) { hit[$1] = 1; covered += $2 }
    }
    END {
      percent = total ? 100 * covered / total : 0
      printf "coverage of %s: %.1f %% of %d statements (at least %s %%)\n", package, percent, total, least
      exit percent < least
    }' "$profile"
done
