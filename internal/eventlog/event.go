package eventlog

import (
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/internal/stage"
)

// Event is one step, in values. Its text is a line of azcore's log.
type Event struct {
	Step Step
	// Kind is the step's, but for a [Note].
	Kind log.Event
	Time time.Time
	// Duration is how long the step took, 0 if that is not known.
	Duration time.Duration
	// Alias, Thumbprint and Replaced, the thumbprint of the binding whose place this one took, are masked by [Emit].
	Alias, Thumbprint, Replaced string
	// Host is where it was: host[:port].
	Host string
	// Resource is what a token is for.
	Resource string
	// Bound says that a token is bound to its binding.
	Bound bool
	// Stage is the one that ended, or in which Err came about.
	Stage stage.Stage
	Err   error
	// Detail is what else there is to say.
	Detail string
}

// Step says what happened.
type Step string

const (
	// Note is what is said in words alone.
	Note Step = "note"
	// StageEnded is the end of a stage on the way to a token, with or without an error.
	StageEnded Step = "stage"

	TokenObtained  Step = "token"
	TokenRefreshed Step = "refresh" // in the background
	TokenFailed    Step = "token_failed"
	RefreshFailed  Step = "refresh_failed" // the old token serves on
	BearerGranted  Step = "bearer"         // where a bound token was wanted
	FellBack       Step = "fallback"       // azidentity serves instead of IMDS v2
	CameBack       Step = "fallback_over"

	Minted        Step = "mint"
	MintFailed    Step = "mint_failed"
	Reissued      Step = "reissue" // a certificate that was evicted
	Loaded        Step = "load"
	LoadFailed    Step = "load_failed"
	SaveFailed    Step = "save_failed"
	Adopted       Step = "adopt" // a newer binding of another process
	Renewed       Step = "renewal"
	RenewalFailed Step = "renewal_failed" // the old binding serves on

	ConnectionLost Step = "connection_lost" // and a fresh one is tried
	Refused        Step = "refusal"
	Evicted        Step = "eviction"
	Kept           Step = "keep" // though refused, for want of a unit of the budget
	OnceMore       Step = "recovery"
)

var steps = map[Step]struct {
	kind  log.Event
	words string
}{
	StageEnded:     {Authentication, "stage {stage} ended"},
	TokenObtained:  {Authentication, "got a {type} token for {resource} with binding {binding}"},
	TokenRefreshed: {Authentication, "refreshed the {type} token for {resource} with binding {binding}"},
	TokenFailed:    {Authentication, "no token for {resource}"},
	RefreshFailed:  {Authentication, "refreshing the token for {resource} failed, the old one is used on"},
	BearerGranted:  {Authentication, "Entra binds no tokens for {resource}, bearer tokens for it for an hour"},
	FellBack:       {Authentication, "IMDS v2 does not serve, azidentity does"},
	CameBack:       {Authentication, "IMDS v2 serves again"},
	Minted:         {Binding, "minted binding {binding} of {alias}"},
	MintFailed:     {Binding, "minting a binding of {alias} failed"},
	Reissued: {
		Binding,
		"IMDS issued the evicted certificate {binding} of {alias} again; it is asked to bypass its cache",
	},
	Loaded:         {Binding, "loaded binding {binding} of {alias} from the store"},
	LoadFailed:     {Binding, "no binding of {alias} taken from the store"},
	SaveFailed:     {Binding, "saving binding {binding} of {alias} failed, it lives in memory only"},
	Adopted:        {Binding, "binding {replaced} of {alias} was replaced by {binding}, which another process stored"},
	Renewed:        {Binding, "renewed binding {replaced} of {alias} by {binding}"},
	RenewalFailed:  {Binding, "renewing binding {binding} of {alias} failed, it serves on"},
	ConnectionLost: {Recovery, "connection to {host} lost, trying a fresh one with the same binding"},
	Refused:        {Recovery, "the binding with certificate {binding} was refused at {host}"},
	Evicted:        {Recovery, "evicted binding {binding} of {alias}"},
	Kept:           {Recovery, "binding {binding} of {alias} is kept: there were too many evictions of late"},
	OnceMore:       {Recovery, "trying once more with another binding than {replaced} at {host}"},
}

// String says it in words.
func (e Event) String() string {
	kind := "bearer"
	if e.Bound {
		kind = "mtls_pop"
	}
	text := strings.NewReplacer(
		"{stage}", string(e.Stage), "{type}", kind, "{resource}", e.Resource, "{host}", e.Host,
		"{alias}", e.Alias, "{binding}", e.Thumbprint, "{replaced}", e.Replaced,
	).Replace(steps[e.Step].words)
	if e.Detail != "" && text != "" {
		text += ", "
	}
	text += e.Detail
	if e.Duration != 0 {
		text += ", after " + e.Duration.Round(time.Millisecond).String()
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}
