package main

import (
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/terminal"
	"github.com/azmtls/azmtls/mtls"
	"github.com/spf13/cobra"
)

func newTokenCommand(g *global) *cobra.Command {
	var scope, kind string
	var show bool
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Get a token, as a program would",
		Long: `Token gets a token as a program would: it makes a key and stores a binding where there is none. It shows
when the token ends and what it is bound to; the token itself only with --print, since whoever has a
bearer token can use it.`,
		Args: cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if kind != "pop" && kind != "bearer" {
				return fmt.Errorf("--type is pop or bearer, not %q", kind)
			}
			return nil
		},
		RunE: g.run(func(cmd *cobra.Command, m *machine.Machine, w *terminal.Writer) error {
			options := m.Options
			if !show {
				options.Observer = w.Step
			}
			cred, err := azmtls.NewImdsV2MtlsCredential(&options)
			if err != nil {
				return err
			}
			defer cred.Close()
			begin := time.Now()
			opts := policy.TokenRequestOptions{Scopes: []string{scope}}
			var token azcore.AccessToken
			var binding *mtls.Binding
			if kind == "pop" {
				token, binding, err = cred.GetBoundToken(cmd.Context(), opts)
			} else {
				token, err = cred.GetToken(cmd.Context(), opts)
			}
			if err != nil {
				return failed(err)
			}
			if show {
				w.Printf("%s\n", token.Token)
				return nil
			}
			w.Token(kind, token, binding, cred.Status(), time.Since(begin))
			return nil
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&scope, "scope", "https://management.azure.com/.default", "what the token is for")
	flags.StringVar(&kind, "type", "bearer", "pop (bound to the certificate) or bearer")
	flags.BoolVar(&show, "print", false, "write the token itself, and nothing else")
	return g.onMachine(cmd)
}
