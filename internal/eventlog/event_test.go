package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/stretchr/testify/require"
)

// declaredSteps returns the constants of type Step, by name.
func declaredSteps(t *testing.T) map[string]eventlog.Step {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	require.NoError(t, err)
	found := map[string]eventlog.Step{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Step" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			found[spec.Names[0].Name] = eventlog.Step(value)
		}
		return true
	})
	return found
}

// Every step has words and a kind, and no two have the same name: else its line would be empty, or nobody's.
func TestEveryStepIsToldOf(t *testing.T) {
	names := map[eventlog.Step]string{}
	for name, step := range declaredSteps(t) {
		require.Empty(t, names[step], name)
		names[step] = name
		var got eventlog.Event
		ctx := eventlog.Observe(t.Context(), &eventlog.Observer{Notify: func(e eventlog.Event) { got = e }})
		eventlog.Emit(ctx, eventlog.Event{Step: step, Kind: eventlog.Binding, Detail: "detail"})
		require.Equal(t, step, got.Step)
		require.Contains(t, []log.Event{eventlog.Authentication, eventlog.Binding, eventlog.Recovery}, got.Kind, name)
		if step != eventlog.Note {
			require.NotEqual(t, "detail", got.String(), name)
		}
	}
	require.Greater(t, len(names), 15)
}

// A line says what is known, and nothing of what is not.
func TestEventInWords(t *testing.T) {
	for want, e := range map[string]eventlog.Event{
		"something": {
			Step: eventlog.Note, Detail: "something",
		},
		"minted binding abc of system…#att=0, usable until noon, after 1.5s": {
			Step: eventlog.Minted, Alias: "system…#att=0", Thumbprint: "abc", Detail: "usable until noon",
			Duration: 1500 * time.Millisecond,
		},
		"renewed binding def of x by abc": {
			Step: eventlog.Renewed, Alias: "x", Thumbprint: "abc", Replaced: "def",
		},
		"got a bearer token for https://vault.azure.net with binding abc": {
			Step: eventlog.TokenObtained, Resource: "https://vault.azure.net", Thumbprint: "abc",
		},
		"got a mtls_pop token for https://v with binding abc": {
			Step: eventlog.TokenObtained, Resource: "https://v", Bound: true, Thumbprint: "abc",
		},
		"the binding with certificate abc was refused at example:443: alert": {
			Step: eventlog.Refused, Thumbprint: "abc", Host: "example:443", Err: errors.New("alert"),
		},
		"no binding of x taken from the store: no key": {
			Step: eventlog.LoadFailed, Alias: "x", Err: errors.New("no key"),
		},
		"stage issue ended, after 2ms": {
			Step: eventlog.StageEnded, Stage: "issue", Duration: 2 * time.Millisecond,
		},
		"Entra binds no tokens for r, bearer tokens for it for an hour: AADSTS392196": {
			Step: eventlog.BearerGranted, Resource: "r", Err: errors.New("AADSTS392196"),
		},
	} {
		require.Equal(t, want, e.String())
	}
}

// What identifies is masked in one place, whoever tells: in fields and in the text of errors, which stay what they
// are otherwise.
func TestEmitMasks(t *testing.T) {
	const id = "11111111-2222-3333-4444-555555555555"
	now := clock.NewFake(time.Now())
	var recorded, notified eventlog.Event
	ctx := eventlog.Observe(t.Context(), &eventlog.Observer{
		Clock:  now.Clock(),
		Record: func(e eventlog.Event) { recorded = e },
		Notify: func(e eventlog.Event) { notified = e },
	})
	cause := errors.New("no client " + id)
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.RenewalFailed, Alias: id + "#att=0", Thumbprint: "0123456789", Replaced: "abcdefghij",
		Err: fmt.Errorf("x: %w", cause),
	})
	require.Equal(t, recorded, notified)
	require.Equal(t, "111111…#att=0", notified.Alias)
	require.Equal(t, "012345…", notified.Thumbprint)
	require.Equal(t, "abcdef…", notified.Replaced)
	require.ErrorIs(t, notified.Err, cause)
	require.Equal(t, "x: no client 111111…", notified.Err.Error())
	require.Equal(t, now.Wall(), notified.Time)
	require.NotContains(t, notified.String(), id)

	eventlog.Emit(ctx, eventlog.Event{Step: eventlog.TokenFailed, Err: eventlog.Clean(cause)})
	require.Same(t, cause, notified.Err, "the caller's own error, which shows its correlation id")
}

// What happens in deferred work is recorded at once, and told when the work has ended: in order, with that of the
// work around it.
func TestDeferred(t *testing.T) {
	var told []string
	recorded := 0
	ctx := eventlog.Observe(t.Context(), &eventlog.Observer{
		Record: func(eventlog.Event) { recorded++ },
		Notify: func(e eventlog.Event) { told = append(told, e.Detail) },
	})
	var outer, inner eventlog.Deferred
	within := eventlog.Defer(ctx, &outer)
	deeper := eventlog.Carry(eventlog.Defer(context.Background(), &inner), within)
	eventlog.Writef(within, eventlog.Binding, "one")
	eventlog.Writef(deeper, eventlog.Binding, "two")
	require.Empty(t, told)
	require.Equal(t, 2, recorded)
	inner.Pass(within)
	require.Empty(t, told, "the work around it goes on")
	eventlog.Writef(within, eventlog.Binding, "three")
	outer.Pass(ctx)
	require.Equal(t, "one two three", strings.Join(told, " "))
	eventlog.Writef(deeper, eventlog.Binding, "late")
	require.Equal(t, "one two three late", strings.Join(told, " "), "nobody is left who would tell it")
}
