//go:build race

package secrets

// thorough is left to runs without the race detector, which makes the look at each byte cost minutes.
const thorough = false
