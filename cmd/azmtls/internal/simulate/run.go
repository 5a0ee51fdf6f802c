package simulate

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/google/uuid"
)

// Config says what is simulated, and where.
type Config struct {
	// Listen is the address of IMDS, Control that of the endpoint that steers: host:port, port 0 for a free one.
	Listen, Control string
	// AnyAddress allows addresses that are not loopback: whoever reaches them can steer the simulator.
	AnyAddress bool
	// Authority is a file for the certificate that the token endpoint and the resource are trusted by. Empty: none.
	Authority string
	// Faults are there from the beginning.
	Faults []imdstest.Fault
	// Options are those of the simulator.
	Options imdstest.Options
}

// Addresses are where everything is.
type Addresses struct {
	IMDS     string `json:"imds"`
	Token    string `json:"token"`
	Resource string `json:"resource"`
	Control  string `json:"control"`
	// ResourceAddress is what a vault's name must lead to. Empty: the URL of the resource leads there.
	ResourceAddress string `json:"resource_address,omitempty"`
	Authority       string `json:"authority,omitempty"`
}

// Validate says what is wrong with a Config, without a look at the machine. Nil: nothing.
func (c Config) Validate() error {
	for _, address := range []string{c.Listen, c.Control} {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("%q is no address: %w", address, err)
		}
		if ip := net.ParseIP(host); !c.AnyAddress && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%q is not loopback: others could reach the simulator; --any-address allows it", address)
		}
	}
	ids := []string{c.Options.TenantID, c.Options.ClientID}
	for _, i := range c.Options.UserAssigned {
		if i.ClientID == "" {
			return errors.New("a user-assigned identity has a client id")
		}
		ids = append(ids, i.ClientID, i.ObjectID)
	}
	for _, id := range ids {
		if id != "" && (uuid.Validate(id) != nil || len(id) != 36) { // uuid takes other forms than the services do
			return fmt.Errorf("%q is not a GUID", id)
		}
	}
	return nil
}

// Run simulates until the context ends. Started is told the addresses when everything listens, rejected each request
// that the real services would refuse as well.
func Run(ctx context.Context, c Config, started func(Addresses), rejected func(imdstest.Rejection)) error {
	if err := c.Validate(); err != nil {
		return err
	}
	imds, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	steering, err := net.Listen("tcp", c.Control)
	if err != nil {
		_ = imds.Close()
		return err
	}
	c.Options.Listener = imds
	server := imdstest.NewServer(&c.Options)
	defer server.Close()
	if c.Authority != "" {
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Authority().Raw})
		if err := os.WriteFile(c.Authority, certificate, 0o644); err != nil {
			_ = steering.Close()
			return fmt.Errorf("writing the authority: %w", err)
		}
	}
	control := &http.Server{Handler: newControl(server, c.Faults), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(steering) }()
	addresses := Addresses{
		IMDS: server.IMDSURL(), Token: server.TokenURL(), Resource: server.ResourceURL(),
		Control: "http://" + steering.Addr().String(), Authority: c.Authority,
	}
	if c.Options.Vault != "" {
		addresses.ResourceAddress = server.ResourceAddress()
	}
	started(addresses)
	watch(ctx, server, rejected)
	_ = control.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// watch tells of rejections until the context ends.
func watch(ctx context.Context, server *imdstest.Server, rejected func(imdstest.Rejection)) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	told := 0
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-ticker.C:
		}
		rejections := server.Rejections()
		for _, r := range rejections[told:] {
			rejected(r)
		}
		told = len(rejections)
	}
}
