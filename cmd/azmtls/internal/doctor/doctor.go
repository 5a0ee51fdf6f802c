package doctor

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/mtls"
)

// Options say how far the doctor goes.
type Options struct {
	// Scope is what the trial token is for.
	Scope string
	// Try has the trial token gotten as a program would: it may make a key, store a binding and delete a dead one. Without
	// it nothing that outlives the call changes: a stored binding that is good is used, else one is minted over a key in
	// memory.
	Try bool
	// Progress is told what is looked at, before it is. It may be nil.
	Progress func(what string)
}

// visit is one visit of the doctor: what was learnt by the looks so far.
type visit struct {
	machine  *machine.Machine
	options  Options
	imds     bool                   // IMDS v2 is there
	silent   bool                   // somebody took the connection to IMDS, and said nothing
	entries  []mtls.Stored          // what the store held before the trial token
	endpoint atomic.Pointer[string] // of the binding of the trial token; nil if there was none
	skew     time.Duration
	dated    bool // skew is known
}

// look is something that the doctor looks at.
type look struct {
	id, what string
	do       func(*visit, context.Context) Finding
}

var looks = []look{
	{"environment", "Environment", (*visit).environment},
	{"imds", "IMDS", (*visit).findIMDS},
	{"imds-v1", "IMDS v1", (*visit).findV1},
	{"clock", "Clock", (*visit).clock},
	{"identity", "Identity", (*visit).identity},
	{"keys", "Keys", (*visit).keys},
	{"store", "Stored bindings", (*visit).stored},
	{"token", "Trial token", (*visit).token},
	{"token-endpoint", "Token endpoint", (*visit).tokenEndpoint},
	{"recovery", "Recovery", (*visit).recovery},
}

// limit is how long one look may take.
const limit = 30 * time.Second

// Examine looks at everything, and goes on where something is wrong.
func Examine(ctx context.Context, m *machine.Machine, o Options) Report {
	v := &visit{machine: m, options: o}
	defer func() { closeKeys(v.entries) }()
	r := Report{
		Version: 1, Time: time.Now().UTC().Truncate(time.Second), Machine: m.Name,
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	for _, l := range looks {
		if o.Progress != nil {
			o.Progress(l.what)
		}
		begin := time.Now()
		limited, cancel := context.WithTimeout(ctx, limit)
		f := l.do(v, limited)
		cancel()
		f.ID, f.What, f.Seconds = l.id, l.what, time.Since(begin).Seconds()
		r.Findings = append(r.Findings, f)
	}
	r.Healthy = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.State == Problem })
	return r
}

func ok(format string, args ...any) Finding {
	return Finding{State: OK, Summary: fmt.Sprintf(format, args...)}
}

func note(format string, args ...any) Finding {
	return Finding{State: Note, Summary: fmt.Sprintf(format, args...)}
}

func problem(format string, args ...any) Finding {
	return Finding{State: Problem, Summary: fmt.Sprintf(format, args...)}
}

func skipped(why string) Finding { return Finding{State: Skipped, Summary: why} }
