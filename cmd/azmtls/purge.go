package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/terminal"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
	"github.com/spf13/cobra"
)

func newPurgeCommand(g *global) *cobra.Command {
	var alias string
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Delete stored bindings",
		Long: `Purge deletes the stored bindings of an alias, or all. Keys stay. It asks first, unless --yes is given;
without a terminal to ask at it needs --yes. What it asks about it names whole. Entries whose alias
cannot be read stay. Programs that run go on with what they have in memory, others have a new
certificate issued.`,
		Args: cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if all == (alias != "") {
				return errors.New("purge needs either --alias or --all")
			}
			return nil
		},
		RunE: g.run(func(cmd *cobra.Command, m *machine.Machine, w *terminal.Writer) error {
			entries, err := m.Stored(cmd.Context())
			if err != nil {
				return failed(err)
			}
			aliases := matching(entries, alias)
			if len(aliases) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "Nothing of that is stored.")
				return nil
			}
			if !yes {
				agreed, err := agrees(cmd, w, aliases)
				if err != nil || !agreed {
					return err
				}
			}
			for _, a := range aliases {
				if err := m.Options.Store.DeleteAll(cmd.Context(), a); err != nil {
					return failed(err)
				}
				w.Printf("deleted what was stored for %s\n", eventlog.Mask(a))
			}
			return nil
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&alias, "alias", "", "whose bindings, whole, as list --full shows it")
	flags.BoolVar(&all, "all", false, "those of all aliases")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	return g.onMachine(cmd)
}

// matching returns the aliases that are meant, each once. An empty one means all.
func matching(entries []mtls.Stored, alias string) []string {
	var aliases []string
	for _, s := range entries {
		if s.Alias != "" && (alias == "" || s.Alias == alias) && !slices.Contains(aliases, s.Alias) {
			aliases = append(aliases, s.Alias)
		}
	}
	slices.Sort(aliases)
	return aliases
}

// agrees asks whether these are to be deleted.
func agrees(cmd *cobra.Command, w *terminal.Writer, aliases []string) (bool, error) {
	if !interactive(cmd) {
		return false, errors.New("there is no terminal to ask at: give --yes")
	}
	for _, a := range aliases {
		w.Printf("  %s\n", a)
	}
	w.Printf("Delete what is stored for these? [y/N] ")
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil {
		return false, failed(err)
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes", nil
}
