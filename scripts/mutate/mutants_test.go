package main

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is changed is what is said, in its line, and the rest of the file stays as it is.
func TestMutants(t *testing.T) {
	source := `package p

func f(a, b int) (bool, error) {
	defer done()
	c := make(chan int, 5)
	if a < b && a != 7 {
		count++
		call()
		total = a + b
		return true, nil
	}
	return false, err
}
`
	found, err := mutantsOf("p", "p.go", []byte(source))
	require.NoError(t, err)
	var whats []string
	for _, m := range found {
		whats = append(whats, m.what)
		mutated := m.apply([]byte(source))
		require.NotEqual(t, source, string(mutated))
		require.Equal(t, strings.Count(source, "\n"), strings.Count(string(mutated), "\n"), "lines keep their numbers")
		_, err := parser.ParseFile(token.NewFileSet(), "p.go", mutated, 0)
		require.NoError(t, err, m.what)
	}
	require.ElementsMatch(t, []string{
		"defer removed", "condition negated", "< became <=", "&& became ||", "!= became ==", "7 became 15", "++ removed",
		"no room in a channel", "call removed", "assignment removed", "+ became -", "returns false instead of true",
		"returns true instead of false", "returns nil instead of err",
	}, whats)
}

// A zero beside an error is not looked at; any other is.
func TestZeroBesideAnError(t *testing.T) {
	for result, mutated := range map[string]bool{
		"0, err": false, "0, 0, errors.New(text)": false, "0, failure{}": false, "0, nil": true, "0, false": true, "0": true,
		"1, err": true,
	} {
		found, err := mutantsOf("p", "p.go", []byte("package p\n\nfunc f() { return "+result+" }\n"))
		require.NoError(t, err)
		whats := ""
		for _, m := range found {
			whats += m.what
		}
		require.Equal(t, mutated, strings.Contains(whats, "became"), result)
	}
}

// The same seed makes the same choice, and another one another.
func TestSample(t *testing.T) {
	all := make([]mutant, 100)
	for i := range all {
		all[i].line = i
	}
	require.Equal(t, sample(all, 7, 10), sample(all, 7, 10))
	require.NotEqual(t, sample(all, 7, 10), sample(all, 8, 10))
	require.Len(t, sample(all, 7, 1000), 100)
}

// The share is of those that compile. All packages below internal are one part.
func TestTally(t *testing.T) {
	var sum tally
	for fate, n := range map[string]int{killed: 9, survived: 1, notCompiling: 10} {
		for range n {
			sum.add(fate)
		}
	}
	require.Equal(t, tally{Tried: 20, Killed: 9, Survived: 1, NotCompiling: 10, Percent: 90}, sum)
	for pkg, part := range map[string]string{
		module: "root", module + "/mtls": "mtls", module + "/internal/csr": "internal", module + "/internal/imds": "internal",
	} {
		require.Equal(t, part, mutant{pkg: pkg}.part())
	}
}
