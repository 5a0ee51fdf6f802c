package winstore

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
)

// mutexNames returns the names of the mutex that guards an alias's certificates, in the order in which they are tried:
// one for the machine and, where that is denied, one for the session. They are MSAL.NET's (InterprocessLock), so that
// Go and .NET take turns.
func mutexNames(alias string) []string { return scoped("MSAL_MI_P_" + mutexSuffix(alias)) }

func scoped(name string) []string { return []string{`Global\` + name, `Local\` + name} }

// mutexSuffix is the first half of the SHA-256 of the alias in its canonical form, in lower-case hex.
func mutexSuffix(alias string) string {
	canonical := strings.Map(toUpperInvariant, strings.TrimSpace(alias))
	if canonical == "" {
		return "0"
	}
	sum := sha256.Sum256([]byte(canonical))
	return hex.EncodeToString(sum[:16])
}

// toUpperInvariant is .NET's String.ToUpperInvariant: unlike Unicode's, it never turns a letter that is not ASCII into
// one that is (dotless i, long s).
func toUpperInvariant(r rune) rune {
	if upper := unicode.ToUpper(r); r <= unicode.MaxASCII || upper > unicode.MaxASCII {
		return upper
	}
	return r
}
