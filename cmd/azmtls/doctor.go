package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/doctor"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/terminal"
	"github.com/spf13/cobra"
)

//go:embed schema.json
var schema string

// errUnhealthy is what the doctor command returns when there is a problem.
var errUnhealthy = failed(errors.New("there is a problem"))

func newDoctorCommand(g *global) *cobra.Command {
	var asJSON, printSchema bool
	var o doctor.Options
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at all that a token depends on, and say what to do",
		Long: `Doctor looks at IMDS, the identity, the keys, the stored bindings, a trial token and the way to the
token endpoint. It changes nothing on this machine unless --try is given: the trial token is gotten over
the stored binding if that is good, else over a key in memory, which costs one certificate of those that
IMDS issues.

It exits with 0 if tokens can be had over mutual TLS, with 1 if something is in the way, with 2 if it was used
wrongly.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printSchema {
				fmt.Fprint(cmd.OutOrStdout(), schema)
				return nil
			}
			m, w, err := g.open(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			progress := terminal.NewProgress(cmd.ErrOrStderr())
			o.Progress = progress.Say
			report := doctor.Examine(cmd.Context(), m, o)
			progress.Done()
			if asJSON {
				encoder := json.NewEncoder(w)
				encoder.SetIndent("", "  ")
				if err := encoder.Encode(report); err != nil {
					return failed(err)
				}
			} else {
				w.Report(report)
			}
			if !report.Healthy {
				return errUnhealthy
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "write the report as JSON")
	flags.BoolVar(&printSchema, "schema", false, "write the schema of the JSON, and look at nothing")
	flags.BoolVar(&o.Try, "try", false, "get the trial token as a program would: it may make a key and store a binding")
	flags.StringVar(&o.Scope, "scope", "https://management.azure.com/.default", "what the trial token is for")
	return g.onMachine(cmd)
}
