package terminal

import (
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
)

// Step writes what the credential tells of itself, where it is more than that a stage ended.
func (w *Writer) Step(e azmtls.Event) {
	switch e.Step {
	case azmtls.StepStage, azmtls.StepToken, azmtls.StepTokenFailed:
	case azmtls.StepRefusal, azmtls.StepEviction, azmtls.StepKeep, azmtls.StepRecovery, azmtls.StepConnectionLost:
		w.Printf("%s\n", w.Paint(Yellow, e.String()))
	default:
		w.Printf("%s\n", w.Paint(Gray, e.String()))
	}
}

// Token writes what can be shown of a token. The binding is nil for a bearer token.
func (w *Writer) Token(kind string, token azcore.AccessToken, b *mtls.Binding, s azmtls.Status, took time.Duration) {
	w.Printf("%s after %s\n", w.Paint(Green, "a token"), took.Round(time.Millisecond))
	types := map[string]string{"pop": "mtls_pop, bound to the certificate", "bearer": "bearer, over mutual TLS"}
	w.pair("type", types[kind])
	w.pair("expires", moment(token.ExpiresOn))
	w.pair("refresh from", moment(token.RefreshOn))
	if s.Binding != nil {
		w.Binding(*s.Binding)
	}
	if b != nil {
		w.pair("bound to", eventlog.Mask(b.Thumbprint()))
	}
	if s.Counters.Recoveries > 0 {
		w.pair("healed", fmt.Sprintf("%d evicted, %d minted", s.Counters.Evictions, s.Counters.Mints))
	}
}

// Binding writes what can be shown of a binding in use.
func (w *Writer) Binding(b mtls.BindingStatus) {
	from := "loaded from the store"
	if b.Minted {
		from = "minted now"
	}
	w.pair("certificate", fmt.Sprintf("%s, %s, key %s", b.Thumbprint, from, b.Strength))
	w.pair("good until", moment(b.UsableUntil))
	w.pair("renewal due", moment(b.RenewalDue))
}

func (w *Writer) pair(name, value string) {
	w.Printf("  %s  %s\n", w.Paint(Gray, pad(name, 12)), value)
}

func moment(t time.Time) string {
	return fmt.Sprintf("%s (in %s)", t.UTC().Format(time.DateTime+" MST"), time.Until(t).Round(time.Minute))
}
