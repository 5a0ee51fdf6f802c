package main

import (
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/terminal"
	"github.com/spf13/cobra"
)

func newRenewCommand(g *global) *cobra.Command {
	return g.onMachine(&cobra.Command{
		Use:   "renew",
		Short: "Have a new certificate issued now",
		Long: `Renew has IMDS issue a new certificate now, one that it has not issued before, and puts it into the
store in the place of the one that is there. Programs that run take it when they renew theirs, or when
theirs is refused.`,
		Args: cobra.NoArgs,
		RunE: g.run(func(cmd *cobra.Command, m *machine.Machine, w *terminal.Writer) error {
			options := m.Options
			options.Observer = w.Step
			cred, err := azmtls.NewImdsV2MtlsCredential(&options)
			if err != nil {
				return err
			}
			defer cred.Close()
			if err := cred.Renew(cmd.Context()); err != nil {
				return failed(err)
			}
			if b := cred.Status().Binding; b != nil {
				w.Binding(*b)
			}
			return nil
		}),
	})
}
