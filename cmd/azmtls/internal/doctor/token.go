package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	see "github.com/azmtls/azmtls/internal/troubleshooting"
	"github.com/azmtls/azmtls/mtls"
)

// token gets a trial token, and tells each step with its time.
func (v *visit) token(ctx context.Context) Finding {
	if !v.imds {
		return skipped("IMDS v2 does not answer")
	}
	options, how, stored := v.trial()
	var mu sync.Mutex
	var steps []string
	evicted := false
	options.Observer = func(e azmtls.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Step {
		case azmtls.StepStage:
			outcome := "done"
			if e.Err != nil {
				outcome = "failed"
			}
			steps = append(steps, fmt.Sprintf("%s %s after %s", e.Stage, outcome, e.Duration.Round(time.Millisecond)))
		case azmtls.StepRefusal, azmtls.StepEviction, azmtls.StepRecovery, azmtls.StepLoad, azmtls.StepMint:
			steps = append(steps, e.String())
			evicted = evicted || e.Step == azmtls.StepEviction
		}
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return problem("%v", err).advise(see.NoToken, "Mend what the error says.")
	}
	defer cred.Close()
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{v.options.Scope}})
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		return refusedToken(err, how, steps)
	}
	f := ok("for %s, good for %s", v.options.Scope, time.Until(token.ExpiresOn).Round(time.Minute))
	f.Details = append([]string{how}, steps...)
	if evicted {
		f.State = Note
		advice := "A certificate was refused and replaced. If that goes on, look why: the details name the host."
		if stored {
			advice = "The stored certificate was refused. It is still there: " +
				"the next program replaces it, or azmtls purge deletes it."
		}
		f = f.advise(see.Refused, advice)
	}
	return f
}

func refusedToken(err error, how string, steps []string) Finding {
	f := problem("there is none")
	f.Details = append(append([]string{how}, steps...), err.Error())
	failure, explained := errors.AsType[*azmtls.AuthenticationError](err)
	switch {
	case !explained:
		return f.advise(see.NotCertified, "IMDS v2 certifies no key that this machine offers, or has no identity for it. "+
			"ManagedIdentityCredential uses v1 meanwhile.")
	case failure.Stage == azmtls.StageToken:
		return f.advise(see.NoToken, "The certificate was issued and Entra gave no token for it: the error says why.")
	}
	return f.advise(see.NoToken, "The error says at which stage it failed, and what can be done.")
}

// trial returns the options of the trial token, and says how it is gotten: over the stored binding, for one.
func (v *visit) trial() (_ *azmtls.ImdsV2MtlsCredentialOptions, how string, stored bool) {
	options := v.machine.Options
	options.Cache = &mtls.Cache{Clock: options.Cache.Clock}
	if v.options.Try {
		options.Store = &watched{options.Store, &v.endpoint}
		return &options, "gotten as a program would (--try)", false
	}
	options.KeyProvider = mtls.SoftwareKeys{} // also for a mint after a refusal: the machine's own would keep its key
	for _, s := range v.own(v.entries) {
		if s.Err == nil {
			options.Store = &watched{oneBinding{binding: s.Binding}, &v.endpoint}
			return &options, "over the stored binding; the store and the machine's keys stay as they are", true
		}
	}
	options.Store = &watched{mtls.NoStore{}, &v.endpoint}
	how = "over a key in memory, and nothing was kept; --try takes the machine's key and store, as a program would"
	return &options, how, false
}

// oneBinding is a store of one binding that nobody can change.
type oneBinding struct {
	mtls.NoStore
	binding *mtls.Binding
}

func (o oneBinding) Load(context.Context, string) (*mtls.Binding, error) { return o.binding, nil }

// watched is a store that tells the endpoint of the latest binding that went through it.
type watched struct {
	mtls.Store
	endpoint *atomic.Pointer[string]
}

func (w *watched) Load(ctx context.Context, alias string) (*mtls.Binding, error) {
	b, err := w.Store.Load(ctx, alias)
	if err == nil {
		w.endpoint.Store(&b.Endpoint)
	}
	return b, err
}

func (w *watched) Save(ctx context.Context, alias string, b *mtls.Binding) error {
	w.endpoint.Store(&b.Endpoint)
	return w.Store.Save(ctx, alias, b)
}

// recovery says what would happen if the binding was refused now, in a program that begins now: its budget is whole.
func (v *visit) recovery(ctx context.Context) Finding {
	if !v.imds {
		return skipped("IMDS v2 does not answer")
	}
	entries := v.entries
	if v.options.Try { // the trial token may have changed the store
		entries, _ = v.machine.Stored(ctx)
		defer closeKeys(entries)
	}
	f := ok("a refused certificate would be evicted and replaced at once, and the request sent once more")
	f.Details = []string{
		"from memory, and from the store what it has for this identity: " + count(len(v.own(entries)), "binding"),
		"a newer one that another process stored is taken first",
		"the next eviction is possible 1 s later, then 2, 4 … up to 5 min (Entra) or 1 h (resources); " +
			"each process counts its own",
	}
	return f
}
