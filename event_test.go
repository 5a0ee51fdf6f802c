package azmtls_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// observed keeps the events of a credential.
type observed struct {
	mu     sync.Mutex
	events []azmtls.Event
}

func (o *observed) observe(e azmtls.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
}

// by makes it the observer of a credential.
func (o *observed) by(options *azmtls.ImdsV2MtlsCredentialOptions) { options.Observer = o.observe }

// take returns the events that came since it was called last.
func (o *observed) take() []azmtls.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	events := o.events
	o.events = nil
	return events
}

// stepsOf are the events in short: without stages, which are as many as there are requests.
func stepsOf(events []azmtls.Event) (short []azmtls.Step) {
	for _, e := range events {
		if e.Step != azmtls.StepStage {
			short = append(short, e.Step)
		}
	}
	return short
}

func find(t *testing.T, events []azmtls.Event, step azmtls.Step) azmtls.Event {
	t.Helper()
	for _, e := range events {
		if e.Step == step {
			return e
		}
	}
	require.Fail(t, "no such event", "%s in %v", step, events)
	return azmtls.Event{}
}

// took says that something took time. The clock of Windows ticks slower than some steps take.
func took(t *testing.T, d time.Duration) {
	t.Helper()
	if runtime.GOOS != "windows" {
		require.Positive(t, d)
	}
}

// The first token, a heal, a token from memory and a failure, as the observer sees them. Every event is a line of
// azcore's log too.
func TestObserver(t *testing.T) {
	var lines []string
	log.SetEvents(azmtls.EventAuthentication, azmtls.EventBinding, azmtls.EventRecovery)
	hunt.Listen(t, func(_ log.Event, line string) { lines = append(lines, line) })
	defer log.SetEvents()
	seen := &observed{}
	f := newFixture(t, imdstest.Options{}, seen.by)
	_, err := f.token(vault)
	require.NoError(t, err)
	first := seen.take()
	var stages []azmtls.Stage
	for _, e := range first {
		require.Equal(t, f.clock.Wall(), e.Time)
		if e.Step == azmtls.StepStage {
			stages = append(stages, e.Stage)
			took(t, e.Duration)
			require.NoError(t, e.Err)
		}
	}
	require.Equal(t, []azmtls.Stage{azmtls.StageMetadata, azmtls.StageKey, azmtls.StageIssue, azmtls.StageToken}, stages)
	require.Equal(t, []azmtls.Step{azmtls.StepMint, azmtls.StepToken}, stepsOf(first))
	minted, token := find(t, first, azmtls.StepMint), find(t, first, azmtls.StepToken)
	require.Equal(t, azmtls.EventBinding, minted.Kind)
	require.Equal(t, "system…#att=0", minted.Alias)
	require.Equal(t, f.store.get(alias).Thumbprint()[:6]+"…", minted.Thumbprint)
	require.Equal(t, "https://vault.azure.net", token.Resource)
	require.Equal(t, minted.Thumbprint, token.Thumbprint)
	require.False(t, token.Bound)
	took(t, token.Duration)

	_, err = f.token(vault)
	require.NoError(t, err)
	require.Empty(t, seen.take(), "a cached answer is none")

	f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
	require.NoError(t, f.cred.Close())
	f.boundToken(storage)
	healed := seen.take()
	require.Equal(t, []azmtls.Step{
		azmtls.StepRefusal, azmtls.StepEviction, azmtls.StepRecovery, azmtls.StepMint, azmtls.StepToken,
	}, stepsOf(healed))
	refused := find(t, healed, azmtls.StepRefusal)
	require.Equal(t, minted.Thumbprint, refused.Thumbprint)
	require.NotEmpty(t, refused.Host)
	require.ErrorContains(t, refused.Err, "unknown certificate authority")
	require.True(t, find(t, healed, azmtls.StepToken).Bound)
	require.Equal(t, azmtls.EventRecovery, refused.Kind)

	f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_scope", AADSTS: "AADSTS70011"}, Times: 1,
	})
	_, err = f.token("https://other.example")
	require.Error(t, err)
	failed := seen.take()
	require.Equal(t, []azmtls.Step{azmtls.StepTokenFailed}, stepsOf(failed))
	e := find(t, failed, azmtls.StepTokenFailed)
	require.Equal(t, azmtls.StageToken, e.Stage)
	require.Equal(t, err, e.Err, "it is the caller's")

	var told []string
	for _, e := range append(append(first, healed...), failed...) {
		told = append(told, e.String())
	}
	require.Equal(t, told, lines)
}

// What happens in the background is told too: here, a refresh that fails and then works.
func TestObserverOfRefreshes(t *testing.T) {
	seen := &observed{}
	f := newFixture(t, imdstest.Options{}, seen.by)
	_, err := f.token(vault)
	require.NoError(t, err)
	seen.take()
	f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_scope", AADSTS: "AADSTS70011"}, Times: 1,
	})
	for _, want := range []azmtls.Step{azmtls.StepRefreshFailed, azmtls.StepRefresh} {
		f.clock.Advance(35 * time.Minute / 2)
		var got []azmtls.Event
		require.Eventually(t, func() bool {
			_, err := f.token(vault)
			require.NoError(t, err)
			f.clock.Advance(time.Second)
			got = append(got, seen.take()...)
			return len(stepsOf(got)) > 0
		}, 10*time.Second, time.Millisecond)
		require.Equal(t, []azmtls.Step{want}, stepsOf(got))
	}
	status := f.cred.Status()
	require.EqualValues(t, 2, status.Counters.Tokens)
	require.EqualValues(t, 1, status.Counters.Refreshes)
	require.Equal(t, azmtls.StepRefreshFailed, status.LastError.Step)
}

// An observer may ask for the very token whose events it gets, and its panic harms nobody.
func TestObserverMayAskAndPanic(t *testing.T) {
	var f *fixture
	var inside atomic.Bool
	var asked, calls atomic.Int32
	f = newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
		o.Observer = func(e azmtls.Event) {
			calls.Add(1)
			if e.Step == azmtls.StepMint && inside.CompareAndSwap(false, true) {
				if _, err := f.token(vault); err == nil {
					asked.Add(1)
				}
			}
			panic("bug")
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	panics := logged(t, "the observer panicked: bug")
	_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
	require.NoError(t, err)
	require.EqualValues(t, 1, asked.Load())
	require.EqualValues(t, calls.Load(), panics())
	require.Greater(t, panics(), 4)
}

// Credentials that share a binding each hear of their own steps: of the mint, the one whose call began it.
func TestObserversAreOfTheirCredential(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	cache := &mtls.Cache{Clock: f.clock.Clock()}
	seen := [2]*observed{{}, {}}
	for i, want := range [][]azmtls.Step{{azmtls.StepMint, azmtls.StepToken}, {azmtls.StepToken}} {
		cred := f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Cache, o.Observer = cache, seen[i].observe })
		_, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
		require.NoError(t, err)
		require.Equal(t, want, stepsOf(seen[i].take()))
		require.EqualValues(t, 1-i, cred.Status().Counters.Mints)
	}
	require.Empty(t, seen[0].take())
}

// What a resource says of a binding is told as well, though the request is the client's.
func TestObserverOfABoundClient(t *testing.T) {
	seen := &observed{}
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, seen.by)
	_, err := f.scheme(vault)
	require.NoError(t, err)
	seen.take()
	f.resourceRefuses()
	require.NoError(t, f.cred.Close())
	_, err = f.scheme(vault)
	require.NoError(t, err)
	require.Equal(t, []azmtls.Step{
		azmtls.StepRefusal, azmtls.StepEviction, azmtls.StepRecovery, azmtls.StepMint, azmtls.StepToken,
	}, stepsOf(seen.take()))
	require.EqualValues(t, 1, f.cred.Status().Counters.Recoveries)
}

// No event holds a full identifier, whoever wrote it.
func TestEventsAreMasked(t *testing.T) {
	seen := &observed{}
	f := newFixture(t, imdstest.Options{}, seen.by)
	answer := imdstest.Respond{Status: 400, Body: `{"error":"of ` + clientID + `"}`}
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: answer})
	_, err := f.token(vault)
	require.Error(t, err)
	text, jsonErr := json.Marshal(seen.take())
	require.NoError(t, jsonErr)
	require.Contains(t, string(text), "of 111111…")
	require.NotContains(t, string(text), clientID)
	status, jsonErr := json.Marshal(f.cred.Status())
	require.NoError(t, jsonErr)
	require.Contains(t, string(status), "of 111111…")
	require.NotContains(t, string(status), clientID)
}

// Events go to dashboards as JSON, and to a logger by LogEvents.
func TestEventsInJSONAndSlog(t *testing.T) {
	e := azmtls.Event{
		Step: azmtls.StepTokenFailed, Kind: azmtls.EventAuthentication, Time: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
		Duration: 1500 * time.Millisecond, Resource: "https://vault.azure.net", Stage: azmtls.StageIssue,
		Err: errors.New("400 Bad Request"),
	}
	text, err := json.Marshal(e)
	require.NoError(t, err)
	require.JSONEq(t, `{"step":"token_failed","kind":"azmtls.Authentication","time":"2026-11-25T12:00:00Z","seconds":1.5,
		"resource":"https://vault.azure.net","stage":"issue","error":"400 Bad Request"}`, string(text))
	require.Equal(t, "no token for https://vault.azure.net, after 1.5s: 400 Bad Request", e.String())

	var out bytes.Buffer
	observe := azmtls.LogEvents(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	observe(e)
	require.JSONEq(t, `{"level":"WARN","msg":"no token for https://vault.azure.net, after 1.5s: 400 Bad Request",
		"event":{"step":"token_failed","resource":"https://vault.azure.net","stage":"issue","duration":1500000000,
		"error":"400 Bad Request"}}`, out.String())
	for step, level := range map[azmtls.Step]string{
		azmtls.StepStage: "DEBUG", azmtls.StepToken: "INFO", azmtls.StepMint: "INFO",
	} {
		out.Reset()
		observe(azmtls.Event{Step: step})
		require.Contains(t, out.String(), level)
	}
	azmtls.LogEvents(nil)
}

// An error says at which stage it came about: for who gave up, the one that was waited in.
func TestErrorsHaveAStage(t *testing.T) {
	type options = azmtls.ImdsV2MtlsCredentialOptions
	for name, test := range map[string]struct {
		edit  func(*options)
		fault imdstest.Fault
		scope string
		want  azmtls.Stage
	}{
		"scope":    {scope: "a b", want: azmtls.StageInput},
		"metadata": {fault: imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Malformed()}, want: azmtls.StageMetadata},
		"key": {
			edit: func(o *options) { o.KeyProvider = &keys{err: errors.New("no key")} }, want: azmtls.StageKey,
		},
		"the key's signature": {
			edit: func(o *options) { o.KeyProvider = &keys{broken: func() error { return errors.New("dead") }} },
			want: azmtls.StageKey,
		},
		"attestation": {
			edit: func(o *options) { o.Attestation = attestFunc(func() (string, error) { return "", nil }) },
			want: azmtls.StageAttestation,
		},
		"issue": {
			edit:  func(o *options) { o.TokenType = azmtls.TokenTypeMtlsPoP },
			fault: imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 400}}, want: azmtls.StageIssue,
		},
		"what was issued": {
			fault: imdstest.Fault{Endpoint: imdstest.Issue, At: imdstest.AtAnswer, Do: imdstest.ForeignKey{}},
			want:  azmtls.StageIssue,
		},
		"token": {
			fault: imdstest.Fault{
				Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_scope", AADSTS: "AADSTS70011"},
			},
			want: azmtls.StageToken,
		},
		"refusal": {
			fault: imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48)},
			want:  azmtls.StageToken,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, test.edit)
			if test.fault.Do != nil {
				f.server.Inject(test.fault)
			}
			if test.scope == "" {
				test.scope = vault
			}
			_, err := f.token(test.scope)
			var failure *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, test.want.String(), failure.Stage.String())
		})
	}
	for endpoint, want := range map[imdstest.Endpoint]azmtls.Stage{
		imdstest.Metadata: azmtls.StageMetadata, imdstest.Issue: azmtls.StageIssue, imdstest.Token: azmtls.StageToken,
	} {
		f := newFixture(t, imdstest.Options{}, nil)
		gate := make(chan struct{})
		held := imdstest.Edit(func(map[string]any) { <-gate })
		f.server.Inject(imdstest.Fault{Endpoint: endpoint, At: imdstest.AtAnswer, Do: held})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
		cancel()
		close(gate)
		var failure *azmtls.AuthenticationError
		require.ErrorAs(t, err, &failure)
		require.Equal(t, want, failure.Stage)
		_, err = f.token(vault) // the work goes on until this
		require.NoError(t, err)
	}
}

// Every step and stage of the inside has its name outside.
func TestStepsAndStagesAreExported(t *testing.T) {
	for _, test := range []struct{ inside, outside, kind string }{
		{"internal/eventlog/event.go", "event.go", "Step"}, {"internal/stage/stage.go", "stage.go", "Stage"},
	} {
		inside, err := os.ReadFile(test.inside)
		require.NoError(t, err)
		outside, err := os.ReadFile(test.outside)
		require.NoError(t, err)
		declared := regexp.MustCompile(`(?m)^\t(\w+)\s+`+test.kind+` = "`).FindAllStringSubmatch(string(inside), -1)
		require.NotEmpty(t, declared)
		for _, name := range declared {
			require.Regexp(t, test.kind+`\(\w+\.`+name[1]+`\)`, string(outside))
		}
	}
}

// A store that fails to save is told of. One that keeps no bindings with such keys is not: most machines have no
// other keys, and there is nothing to mend.
func TestStoreThatDoesNotKeepTheKey(t *testing.T) {
	for err, told := range map[error]int{
		errors.New("the disk is full"):                  1,
		fmt.Errorf("in memory: %w", mtls.ErrKeyNotKept): 0,
	} {
		seen := &observed{}
		f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			seen.by(o)
			o.Store = &unsaving{err: err}
		})
		_, tokenErr := f.token(vault)
		require.NoError(t, tokenErr)
		n := 0
		for _, e := range seen.take() {
			if e.Step == azmtls.StepSaveFailed {
				n++
			}
		}
		require.Equal(t, told, n, err)
	}
}

// unsaving is a store that saves nothing.
type unsaving struct {
	mtls.NoStore
	err error
}

func (u *unsaving) Save(context.Context, string, *mtls.Binding) error { return u.err }
