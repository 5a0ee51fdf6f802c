// Command azmtls looks at the mutual-TLS credential of this machine, tries and mends it, and simulates a machine for
// programs in any language. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/terminal"
	"github.com/spf13/cobra"
)

// The exit codes. README.md documents them.
const (
	exitOK      = 0
	exitProblem = 1 // the machine has a problem: no token, no binding, something to mend
	exitUsage   = 2 // the command was used wrongly
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, newRootCommand())
	stop()
	os.Exit(code)
}

// run runs a command and returns the exit code.
func run(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errUnhealthy) { // the report has said all
		fmt.Fprintln(root.ErrOrStderr(), "azmtls:", err)
	}
	if _, failed := errors.AsType[*failure](err); failed {
		return exitProblem
	}
	return exitUsage
}

// failure is an error of the machine. All others are of the one who typed the command.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// failed marks an error as the machine's.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// global are the flags that all commands have.
type global struct {
	machine machine.Config
	color   string
}

func newRootCommand() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "azmtls",
		Short: "Look at, try and mend the mutual-TLS credential of this machine",
		Long: "Azmtls looks at the mutual-TLS credential of this machine, tries and mends it, and simulates a machine.\n\n" +
			"Its commands exit with 0 if all is well or was done, with 1 if the machine has a problem, " +
			"with 2 if they were used wrongly.",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&g.color, "color", "auto", "auto, always or never")
	root.AddCommand(
		newDoctorCommand(g), newTokenCommand(g), newListCommand(g), newRenewCommand(g), newPurgeCommand(g),
		newSimulateCommand(),
	)
	return root
}

// onMachine gives a command the flags that say which machine and identity.
func (g *global) onMachine(cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&g.machine.ID, "id", "", "client id, object:GUID or resource id of a user-assigned identity")
	flags.BoolVar(&g.machine.Simulate, "simulate", false, "use a machine that is simulated in this process")
	flags.StringVar(&g.machine.Fault, "fault", "",
		"with --simulate, what goes wrong: "+strings.Join(machine.Faults(), ", "))
	return cmd
}

// open returns the machine, and a writer for what is found.
func (g *global) open(cmd *cobra.Command) (*machine.Machine, *terminal.Writer, error) {
	w, err := terminal.New(cmd.OutOrStdout(), g.color)
	if err != nil {
		return nil, nil, err
	}
	m, err := machine.Open(g.machine)
	return m, w, err
}

// run is the RunE of a command that does something on a machine.
func (g *global) run(
	do func(*cobra.Command, *machine.Machine, *terminal.Writer) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		m, w, err := g.open(cmd)
		if err != nil {
			return err
		}
		defer m.Close()
		return do(cmd, m, w)
	}
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// interactive reports whether there is somebody to ask. Tests answer in their place.
func interactive(cmd *cobra.Command) bool {
	in := cmd.InOrStdin()
	_, isFile := in.(*os.File)
	return !isFile || terminal.IsTerminal(in)
}
