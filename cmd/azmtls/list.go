package main

import (
	"fmt"
	"time"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/doctor"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/terminal"
	"github.com/spf13/cobra"
)

func newListCommand(g *global) *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the stored bindings",
		Long: `List shows the bindings of this user's store, of which no program has told anybody: alias, certificate,
strength of the key, end, when its renewal is due, and why one is of no use. It changes nothing.
Identifiers are masked unless --full is given.`,
		Args: cobra.NoArgs,
		RunE: g.run(func(cmd *cobra.Command, m *machine.Machine, w *terminal.Writer) error {
			entries, err := m.Stored(cmd.Context())
			if err != nil {
				return failed(err)
			}
			if len(entries) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "Nothing is stored.")
			}
			for _, s := range entries {
				if full {
					w.Printf("%s\n  ", s.Alias)
				}
				w.Printf("%s\n", doctor.Describe(s, time.Now()))
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&full, "full", false, "show the whole alias, as purge --alias takes it")
	return g.onMachine(cmd)
}
