package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
)

// overTPM shows what a key in a TPM is good for: a binding outlives its process, and nobody else can use it.
func overTPM(ctx context.Context, out *account) error {
	if err := swtpm.Available(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tpm, err := swtpm.Start(dir)
	if err != nil {
		return err
	}
	defer tpm.Stop()
	server := imdstest.NewServer(nil)
	defer server.Close()
	authority := filepath.Join(dir, "authority.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Authority().Raw})
	if err := os.WriteFile(authority, certificate, 0o600); err != nil {
		return err
	}
	out.step("Started a TPM (swtpm), IMDS v2 and Entra on loopback.")
	process := func(mints int) error {
		program, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, program, "-tpm", "-device", tpm.Socket, "-folder", dir, "-authority", authority)
		cmd.Env = append(os.Environ(), "AZURE_POD_IDENTITY_AUTHORITY_HOST="+server.IMDSURL())
		said, err := cmd.CombinedOutput()
		for line := range bytes.Lines(said) {
			out.detail("  %s", bytes.TrimSpace(line))
		}
		if err != nil {
			return err
		}
		out.counts(server)
		if issued := server.Counts().Issued; issued != mints {
			return fmt.Errorf("there were %d mints where there should be %d", issued, mints)
		}
		return nil
	}
	out.step("The first process makes a key in the TPM and has it certified.")
	if err := process(1); err != nil {
		return err
	}
	out.step("The second process finds key and certificate in the folder: no mint.")
	if err := process(1); err != nil {
		return err
	}
	if err := tpm.Wipe(); err != nil {
		return err
	}
	out.step("The TPM was wiped: it knows no key any more. The third process heals.")
	if err := process(2); err != nil {
		return err
	}
	if rejections := server.Rejections(); len(rejections) > 0 {
		return fmt.Errorf("the simulator found fault with the requests: %v", rejections)
	}
	out.step("Healed: the dead certificate is gone from the folder, one more was minted.")
	return nil
}

// tpmProcess is one of those processes: it gets a token over a key in the TPM.
func tpmProcess(ctx context.Context, device, folder, authority string) error {
	log.SetListener(func(event log.Event, message string) {
		if event == azmtls.EventRecovery || event == azmtls.EventBinding {
			fmt.Println(message)
		}
	})
	defer log.SetListener(nil)
	certificate, err := os.ReadFile(authority)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificate) {
		return errors.New("the file with the authority holds no certificate")
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ID:                 identity,
		KeyProvider:        tpmstore.Keys{Device: device, Folder: folder},
		Store:              tpmstore.Store{Folder: folder},
		MinBindingStrength: mtls.StrengthTPM,
		MTLSTransport:      &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	})
	if err != nil {
		return err
	}
	defer cred.Close()
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		return err
	}
	fmt.Printf("got a token that expires in %s\n", time.Until(token.ExpiresOn).Round(time.Second))
	return nil
}
