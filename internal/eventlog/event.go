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
	kind         log.Event
	words, after string
}{
	StageEnded:     {Authentication, "stage ended:", ""},
	TokenObtained:  {Authentication, "got a token", ""},
	TokenRefreshed: {Authentication, "refreshed the token", ""},
	TokenFailed:    {Authentication, "no token", ""},
	RefreshFailed:  {Authentication, "could not refresh the token", ", the old one is used on"},
	BearerGranted:  {Authentication, "Entra binds no tokens", ", bearer tokens for it for an hour"},
	FellBack:       {Authentication, "IMDS v2 does not serve, azidentity does", ""},
	CameBack:       {Authentication, "IMDS v2 serves again", ""},
	Minted:         {Binding, "minted", ""},
	MintFailed:     {Binding, "could not mint a binding", ""},
	Reissued:       {Binding, "IMDS issued the evicted certificate again:", ", it is asked to bypass its cache"},
	Loaded:         {Binding, "loaded", " from the store"},
	LoadFailed:     {Binding, "took no binding", " from the store"},
	SaveFailed:     {Binding, "could not save", ", it lives in memory only"},
	Adopted:        {Binding, "adopted", ", which another process stored"},
	Renewed:        {Binding, "renewed:", ""},
	RenewalFailed:  {Binding, "could not renew", ", it serves on"},
	ConnectionLost: {Recovery, "lost the connection", ", trying a fresh one with the same binding"},
	Refused:        {Recovery, "refused", ""},
	Evicted:        {Recovery, "evicted", ""},
	Kept:           {Recovery, "kept", ", there were too many evictions of late"},
	OnceMore:       {Recovery, "trying once more with another binding", ""},
}

// String says it in words.
func (e Event) String() string {
	text := &strings.Builder{}
	text.WriteString(steps[e.Step].words)
	add := func(before, value string) {
		if value != "" {
			text.WriteString(before + value)
		}
	}
	if e.Step == StageEnded {
		add(" ", string(e.Stage))
	}
	add(" for ", e.Resource)
	switch {
	case e.Bound:
		add(", bound to binding ", e.Thumbprint)
	case e.Resource != "":
		add(" with binding ", e.Thumbprint)
	default:
		add(" binding ", e.Thumbprint)
	}
	add(" of ", e.Alias)
	add(" in the place of ", e.Replaced)
	add(" at ", e.Host)
	add("", steps[e.Step].after)
	if text.Len() > 0 {
		add(", ", e.Detail)
	} else {
		add("", e.Detail)
	}
	if e.Duration != 0 {
		add(", after ", e.Duration.Round(time.Millisecond).String())
	}
	if e.Err != nil {
		add(": ", e.Err.Error())
	}
	return text.String()
}
