//go:build !race

package mtls

// modelSequences is how many sequences TestModel runs.
const modelSequences = 100_000
