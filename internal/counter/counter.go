// Package counter counts what happens on many cores at once.
package counter

import (
	"sync/atomic"
	"unsafe"
)

// Counter counts. Those who count at the same time mostly do so in different places of memory, so that it costs each
// of them the same, however many they are: a single atomic.Uint64 would make the cores wait for each other. The zero
// value is ready.
type Counter struct{ shards [shards]shard }

const shards = 64 // a power of two

type shard struct {
	n atomic.Uint64
	_ [120]byte // two cache lines: processors fetch them in pairs
}

// Inc counts one more.
func (c *Counter) Inc() { c.shards[here()%shards].n.Add(1) }

// Load returns the count. Of what is counted meanwhile it may miss some.
func (c *Counter) Load() (n uint64) {
	for i := range c.shards {
		n += c.shards[i].n.Load()
	}
	return n
}

// here returns a number that goroutines mostly differ in: a hash of where the stack is. It may be any, so that a
// stack that moves does no harm.
func here() uintptr {
	var local byte
	const golden = 0x9E3779B9 // Fibonacci hashing
	return uintptr(uint32(uintptr(unsafe.Pointer(&local))>>10)*golden) >> 26
}
