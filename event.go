package azmtls

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/stage"
)

// Event is one step of a credential, or of a binding on its behalf, as [ImdsV2MtlsCredentialOptions.Observer] gets
// it. It holds no token, no key and no full identifier. Its text is also a line of azcore's log.
type Event struct {
	// Step is what happened.
	Step Step
	// Kind is what azcore's log calls it: [EventAuthentication], [EventBinding] or [EventRecovery].
	Kind log.Event
	// Time is when it happened.
	Time time.Time
	// Duration is how long it took. It is zero where that is not known.
	Duration time.Duration
	// Alias is the masked name of the identity in memory and store.
	Alias string
	// Thumbprint is the masked x5t#S256 of the binding's certificate, Replaced that of the one whose place it took.
	Thumbprint, Replaced string
	// Host is where it happened: host[:port].
	Host string
	// Resource is what the token is for.
	Resource string
	// Bound says that the token is a proof-of-possession token.
	Bound bool
	// Stage is the one that ended, or where Err came about.
	Stage Stage
	// Err is the failure, or the evidence against a binding. Identifiers in its text are masked.
	Err error
	// Detail is what else there is to say, in words.
	Detail string
}

// Step says what an [Event] is about.
type Step string

const (
	// StepNote is something that is told in words alone.
	StepNote Step = Step(eventlog.Note)
	// StepStage is the end of a Stage, with its Duration, and with Err if it failed.
	StepStage Step = Step(eventlog.StageEnded)

	// StepToken: a token was obtained.
	StepToken Step = Step(eventlog.TokenObtained)
	// StepTokenFailed: none was.
	StepTokenFailed Step = Step(eventlog.TokenFailed)
	// StepRefresh: a token was replaced in the background.
	StepRefresh Step = Step(eventlog.TokenRefreshed)
	// StepRefreshFailed: it was not, and serves on.
	StepRefreshFailed Step = Step(eventlog.RefreshFailed)
	// StepBearer: Entra binds no tokens for the resource, which gets bearer tokens for about an hour.
	StepBearer Step = Step(eventlog.BearerGranted)
	// StepFallback: IMDS v2 does not serve, and azidentity does, with Err as the cause. Of a [ManagedIdentityCredential]
	// only.
	StepFallback Step = Step(eventlog.FellBack)
	// StepFallbackOver: IMDS v2 serves again.
	StepFallbackOver Step = Step(eventlog.CameBack)

	// StepMint: a binding was minted.
	StepMint Step = Step(eventlog.Minted)
	// StepMintFailed: none was.
	StepMintFailed Step = Step(eventlog.MintFailed)
	// StepReissue: IMDS issued an evicted certificate again, and is asked for another.
	StepReissue Step = Step(eventlog.Reissued)
	// StepRenewal: a binding was replaced before its end, in the background or by Renew.
	StepRenewal Step = Step(eventlog.Renewed)
	// StepRenewalFailed: it was not, and serves on.
	StepRenewalFailed Step = Step(eventlog.RenewalFailed)
	// StepLoad: a binding was loaded from the store.
	StepLoad Step = Step(eventlog.Loaded)
	// StepLoadFailed: the store failed, or what it has cannot be used.
	StepLoadFailed Step = Step(eventlog.LoadFailed)
	// StepSaveFailed: a binding was not saved.
	StepSaveFailed Step = Step(eventlog.SaveFailed)
	// StepAdopt: a newer binding, which another process stored, took the place of one.
	StepAdopt Step = Step(eventlog.Adopted)

	// StepConnectionLost: a connection was lost, which may be the binding's fault. A fresh one is tried.
	StepConnectionLost Step = Step(eventlog.ConnectionLost)
	// StepRefusal: a binding was refused.
	StepRefusal Step = Step(eventlog.Refused)
	// StepEviction: a refused binding was evicted.
	StepEviction Step = Step(eventlog.Evicted)
	// StepKeep: a refused binding was kept, since too many were evicted of late.
	StepKeep Step = Step(eventlog.Kept)
	// StepRecovery: the request is sent once more with another binding.
	StepRecovery Step = Step(eventlog.OnceMore)
)

// String returns the name of the step, for example "token_failed".
func (s Step) String() string { return string(s) }

// String says it in words, as azcore's log has it.
func (e Event) String() string { return e.internal().String() }

// MarshalJSON implements json.Marshaler: errors are texts, and durations seconds. What is empty is left out.
func (e Event) MarshalJSON() ([]byte, error) {
	failure := ""
	if e.Err != nil {
		failure = e.Err.Error()
	}
	return json.Marshal(struct {
		Step       Step      `json:"step"`
		Kind       log.Event `json:"kind"`
		Time       time.Time `json:"time"`
		Seconds    float64   `json:"seconds,omitempty"`
		Alias      string    `json:"alias,omitempty"`
		Thumbprint string    `json:"thumbprint,omitempty"`
		Replaced   string    `json:"replaced,omitempty"`
		Host       string    `json:"host,omitempty"`
		Resource   string    `json:"resource,omitempty"`
		Bound      bool      `json:"bound,omitempty"`
		Stage      Stage     `json:"stage,omitempty"`
		Error      string    `json:"error,omitempty"`
		Detail     string    `json:"detail,omitempty"`
	}{
		e.Step, e.Kind, e.Time, e.Duration.Seconds(), e.Alias, e.Thumbprint, e.Replaced, e.Host, e.Resource, e.Bound, e.Stage,
		failure, e.Detail,
	})
}

// LogEvents returns an Observer that writes to a logger, nil for slog.Default: failures and what recovery does as
// warnings, the end of stages for debugging, all else as information.
func LogEvents(logger *slog.Logger) func(Event) {
	if logger == nil {
		logger = slog.Default()
	}
	return func(e Event) {
		level := slog.LevelInfo
		switch {
		case e.Step == StepStage:
			level = slog.LevelDebug
		case e.Err != nil || e.Kind == EventRecovery:
			level = slog.LevelWarn
		}
		logger.LogAttrs(context.Background(), level, e.String(), slog.Any("event", e))
	}
}

// LogValue implements slog.LogValuer: what is empty is left out.
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("step", string(e.Step))}
	for _, a := range [...]struct{ key, value string }{
		{"alias", e.Alias}, {"thumbprint", e.Thumbprint}, {"replaced", e.Replaced}, {"host", e.Host},
		{"resource", e.Resource}, {"stage", string(e.Stage)}, {"detail", e.Detail},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	if e.Duration != 0 {
		attrs = append(attrs, slog.Duration("duration", e.Duration))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

func newEvent(e eventlog.Event) Event {
	return Event{
		Step: Step(e.Step), Kind: e.Kind, Time: e.Time, Duration: e.Duration,
		Alias: e.Alias, Thumbprint: e.Thumbprint, Replaced: e.Replaced, Host: e.Host,
		Resource: e.Resource, Bound: e.Bound, Stage: Stage(e.Stage), Err: e.Err, Detail: e.Detail,
	}
}

func (e Event) internal() eventlog.Event {
	return eventlog.Event{
		Step: eventlog.Step(e.Step), Kind: e.Kind, Time: e.Time, Duration: e.Duration,
		Alias: e.Alias, Thumbprint: e.Thumbprint, Replaced: e.Replaced, Host: e.Host,
		Resource: e.Resource, Bound: e.Bound, Stage: stage.Stage(e.Stage), Err: e.Err, Detail: e.Detail,
	}
}
