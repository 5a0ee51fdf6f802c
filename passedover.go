package azmtls

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
)

// passedOver says why a key is not a stronger one, if it knows; else it returns nothing.
func passedOver(key mtls.Key) string {
	weak, ok := key.(interface{ PassedOver() []mtls.PassedOver })
	if !ok {
		return ""
	}
	var reasons []string
	for _, p := range weak.PassedOver() {
		reasons = append(reasons, fmt.Sprintf("no %s key from %q: %v", p.Strength, p.Provider, p.Err))
	}
	return strings.Join(reasons, "; ")
}

func bracketed(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// once logs something that is asked for again and again: once, until it is something else.
type once struct{ latest atomic.Pointer[string] }

func (o *once) log(ctx context.Context, text string) {
	if old := o.latest.Swap(&text); text != "" && (old == nil || *old != text) {
		eventlog.Writef(ctx, eventlog.Binding, "%s", text)
	}
}
