//go:build !race

package secrets

// thorough has each word of a text measured.
const thorough = true
