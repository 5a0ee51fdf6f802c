package clock

import (
	"math/rand/v2"
	"time"
)

// Jitter is by how much a time is varied, either way, so that a fleet does not act in step.
const Jitter = 0.1

// Vary returns a factor from 1-Jitter to 1+Jitter.
func Vary() float64 { return 1 - Jitter + 2*Jitter*rand.Float64() }

// Spread returns the time, varied.
func Spread(d time.Duration) time.Duration { return time.Duration(float64(d) * Vary()) }
