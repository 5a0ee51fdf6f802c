package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// What each command writes for a simulated machine, well and with each of its faults, and its exit code.
func TestCommands(t *testing.T) {
	for name, test := range map[string]struct {
		args string
		code int
	}{
		"doctor":                     {"doctor --simulate", exitOK},
		"doctor-try":                 {"doctor --simulate --try --id 11111111-2222-3333-4444-555555555555", exitOK},
		"doctor-color":               {"doctor --simulate --color always", exitOK},
		"doctor-json":                {"doctor --simulate --json", exitOK},
		"doctor-no-version-2":        {"doctor --simulate --fault no-version-2", exitProblem},
		"doctor-not-imds":            {"doctor --simulate --fault not-imds", exitProblem},
		"doctor-key-refused":         {"doctor --simulate --fault key-refused", exitProblem},
		"doctor-unknown-identity":    {"doctor --simulate --fault unknown-identity", exitProblem},
		"doctor-certificate-refused": {"doctor --simulate --fault certificate-refused", exitOK},
		"token":                      {"token --simulate", exitOK},
		"token-pop":                  {"token --simulate --type pop", exitOK},
		"token-heals":                {"token --simulate --type pop --fault certificate-refused", exitOK},
		"token-heals-on-words":       {"token --simulate --fault invalid-client", exitOK},
		"token-lost":                 {"token --simulate --fault connection-lost", exitOK},
		"token-fails":                {"token --simulate --fault unknown-identity", exitProblem},
		"token-type":                 {"token --simulate --type jwt", exitUsage},
		"token-scope":                {"token --simulate --scope /.default", exitProblem},
		"list":                       {"list --simulate", exitOK},
		"renew":                      {"renew --simulate", exitOK},
		"purge-nothing":              {"purge --simulate --all", exitOK},
		"purge-neither":              {"purge --simulate", exitUsage},
		"purge-both":                 {"purge --simulate --all --alias a", exitUsage},
		"fault-unknown":              {"token --simulate --fault tuesday", exitUsage},
		"fault-real":                 {"token --fault key-refused", exitUsage},
		"id-strange":                 {"token --simulate --id object:", exitUsage},
		"color-strange":              {"list --simulate --color mauve", exitUsage},
		"arguments":                  {"list --simulate everything", exitUsage},
		"unknown":                    {"explain", exitUsage},
		"help":                       {"--help", exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, code := command(t, strings.NewReader(""), strings.Fields(test.args)...)
			require.Equal(t, test.code, code, errs)
			text := "$ azmtls " + test.args + "\n" + out
			if errs != "" {
				text += "-- stderr --\n" + errs
			}
			golden(t, name, text)
		})
	}
}

// The doctor's JSON is what its schema says, healthy or not.
func TestSchema(t *testing.T) {
	printed, _, code := command(t, nil, "doctor", "--schema")
	require.Equal(t, exitOK, code)
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(printed))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	require.NoError(t, compiler.AddResource("schema.json", parsed))
	compiled, err := compiler.Compile("schema.json")
	require.NoError(t, err)
	for _, fault := range []string{"", "not-imds", "key-refused"} {
		out, _, _ := command(t, nil, "doctor", "--simulate", "--json", "--fault", fault)
		report, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
		require.NoError(t, err)
		require.NoError(t, compiled.Validate(report))
		require.Equal(t, fault == "", report.(map[string]any)["healthy"])
		finding := report.(map[string]any)["findings"].([]any)[0].(map[string]any)
		finding["state"] = "so-so"
		require.Error(t, compiled.Validate(report), "the schema is strict")
	}
}

// The token itself is written only when it is asked for, and then nothing else is.
func TestPrint(t *testing.T) {
	out, errs, code := command(t, nil, "token", "--simulate", "--print")
	require.Equal(t, exitOK, code)
	require.Empty(t, errs)
	require.Regexp(t, `^eyJ[\w-]+\.[\w-]+\.[\w-]+\n$`, out)
	out, _, _ = command(t, nil, "token", "--simulate")
	require.NotContains(t, out, "eyJ")
}

// Colour is for terminals, or for who asks for it. TestTerminal has one.
func TestColor(t *testing.T) {
	out, _, _ := command(t, nil, "doctor", "--simulate")
	require.NotContains(t, out, "\x1b")
	out, _, _ = command(t, nil, "doctor", "--simulate", "--color", "always")
	require.Contains(t, out, "\x1b[32mok")
}

// Shells complete commands and flags.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out, _, code := command(t, nil, "completion", shell)
		require.Equal(t, exitOK, code)
		require.NotEmpty(t, out)
	}
	out, _, _ := command(t, nil, "__complete", "token", "--fa")
	require.Contains(t, out, "--fault")
}

// JSON has no trace of colour.
func TestJSONIsPlain(t *testing.T) {
	out, _, _ := command(t, nil, "doctor", "--simulate", "--json", "--color", "always")
	require.True(t, json.Valid(bytes.TrimSpace([]byte(out))))
}
