//go:build race

package mtls

// modelSequences is how many sequences TestModel runs: the race detector makes each one slow.
const modelSequences = 5_000
