package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/simulate"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/spf13/cobra"
)

func newSimulateCommand() *cobra.Command {
	c := simulate.Config{}
	var faults, version string
	var identities []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Simulate an Azure VM for programs in any language",
		Long: `Simulate runs IMDS (v2 and v1), Entra's mTLS token endpoint and a protected resource on loopback, until it is
interrupted. Programs find IMDS by AZURE_POD_IDENTITY_AUTHORITY_HOST and trust the other two by the certificate that
--ca-out writes. What goes wrong is in a file (--faults) or sent to the control endpoint; README.md has the form.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch version {
			case "":
			case "1.2":
				c.Options.TLSVersion = tls.VersionTLS12
			case "1.3":
				c.Options.TLSVersion = tls.VersionTLS13
			default:
				return fmt.Errorf("--tls is 1.2 or 1.3, not %q", version)
			}
			for _, id := range identities {
				c.Options.UserAssigned = append(c.Options.UserAssigned, assigned(id))
			}
			if faults != "" {
				file, err := os.Open(faults)
				if err != nil {
					return err
				}
				defer file.Close()
				if c.Faults, err = simulate.ReadFaults(file); err != nil {
					return fmt.Errorf("%s: %w", faults, err)
				}
			}
			if err := c.Validate(); err != nil {
				return err
			}
			return failed(simulate.Run(cmd.Context(), c, func(a simulate.Addresses) {
				if asJSON {
					_ = json.NewEncoder(cmd.OutOrStdout()).Encode(a)
					return
				}
				resource := a.Resource
				if a.ResourceAddress != "" {
					resource += " at " + a.ResourceAddress
				}
				fmt.Fprintf(cmd.OutOrStdout(), "IMDS      %s\nToken     %s\nResource  %s\nControl   %s\n",
					a.IMDS, a.Token, resource, a.Control)
				if a.Authority != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "Authority %s\n", a.Authority)
				}
			}, func(r imdstest.Rejection) { fmt.Fprintln(cmd.ErrOrStderr(), "rejected:", r) }))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Listen, "listen", "127.0.0.1:0", "address of IMDS")
	flags.StringVar(&c.Control, "control", "127.0.0.1:0", "address of the control endpoint")
	flags.BoolVar(&c.AnyAddress, "any-address", false, "allow addresses that are not loopback")
	flags.StringVar(&c.Authority, "ca-out", "", "file for the certificate that the servers are trusted by")
	flags.StringVar(&faults, "faults", "", "file with faults in JSON")
	flags.BoolVar(&asJSON, "json", false, "write the addresses as JSON")
	flags.StringVar(&version, "tls", "", "1.2 or 1.3 only; empty: both")
	flags.StringArrayVar(&identities, "user-assigned", nil,
		"a user-assigned identity: CLIENT-ID[,OBJECT-ID][,/RESOURCE-ID]; none: whichever is asked for is assigned")
	flags.BoolVar(&c.Options.NoSystemAssigned, "no-system-assigned", false,
		"the machine has no system-assigned identity")
	flags.StringVar(&c.Options.TenantID, "tenant", "", "tenant id; empty: a random one")
	flags.StringVar(&c.Options.ClientID, "client", "", "client id of the system-assigned identity; empty: a random one")
	flags.StringVar(&c.Options.Vault, "vault", "", "have the resource be the key vault of this host name")
	flags.DurationVar(&c.Options.CertificateLifetime, "certificate-lifetime", 0, "of issued certificates; 0: 7 days")
	flags.DurationVar(&c.Options.TokenLifetime, "token-lifetime", 0, "of tokens; 0: an hour")
	flags.BoolVar(&c.Options.RequireAttestation, "require-attestation", false,
		"refuse certificate requests without an attestation token")
	return cmd
}

// assigned reads an identity: its client id, then the others in any order.
func assigned(text string) imdstest.Identity {
	var i imdstest.Identity
	for n, id := range strings.Split(text, ",") {
		switch {
		case n == 0:
			i.ClientID = id
		case strings.HasPrefix(id, "/"):
			i.ResourceID = id
		default:
			i.ObjectID = id
		}
	}
	return i
}
