package mtls

import (
	"maps"
	"time"

	"github.com/azmtls/azmtls/internal/remaining"
)

// maxTombstones bounds how many an identity has. The budget lets no more come in a day than half of it.
const maxTombstones = 1000

// tombstones remember certificates that were evicted, by thumbprint and until their NotAfter, so that a store that
// could not be cleaned never brings them back.
type tombstones map[string]time.Time

func (t tombstones) add(b *Binding, now time.Time) {
	maps.DeleteFunc(t, func(_ string, notAfter time.Time) bool { return now.After(notAfter) })
	for oldest := range t {
		if len(t) < maxTombstones {
			break
		}
		delete(t, oldest)
	}
	notAfter := now.Add(remaining.Least)
	if leaf := b.Certificate.Leaf; leaf != nil && leaf.NotAfter.After(notAfter) {
		notAfter = leaf.NotAfter
	}
	t[b.Thumbprint()] = notAfter
}

func (t tombstones) bar(b *Binding) bool {
	_, barred := t[b.Thumbprint()]
	return barred
}

func (t tombstones) lift(b *Binding) { delete(t, b.Thumbprint()) }
