package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/platform"
	wire "github.com/azmtls/azmtls/internal/problem"
	see "github.com/azmtls/azmtls/internal/troubleshooting"
	"github.com/google/uuid"
)

// others are the variables by which a platform names another source of tokens than IMDS; azidentity goes by them too.
var others = []struct{ variable, platform string }{
	{"IDENTITY_ENDPOINT", "App Service, Service Fabric or Azure Arc"},
	{"MSI_ENDPOINT", "App Service, Cloud Shell or Machine Learning"},
	{"IMDS_ENDPOINT", "Azure Arc"},
}

func (v *visit) environment(context.Context) Finding {
	f := ok("nothing points elsewhere")
	if v.machine.Server == nil {
		for _, o := range others {
			if os.Getenv(o.variable) != "" {
				f = note("%s is set: tokens come from %s, not from IMDS", o.variable, o.platform).advise(
					see.Elsewhere, "Use ManagedIdentityCredential: it leaves such platforms to azidentity.")
			}
		}
		if os.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST") != "" {
			f.Details = append(f.Details,
				"AZURE_POD_IDENTITY_AUTHORITY_HOST takes the place of IMDS's address: "+v.machine.Endpoint)
		}
	}
	if platform.StoreIsSwitchedOff() {
		f.Details = append(f.Details,
			platform.StoreVariable+" switches the store off: each process mints its own certificate")
	}
	return f
}

// answer is what something said over HTTP.
type answer struct {
	status int
	server string // its Server header
	date   time.Time
	body   []byte
}

// firstAnswer is how long IMDS, which is a hop away, gets for an answer.
const firstAnswer = 4 * time.Second

// ask asks IMDS, without a proxy and without following a redirect, as the library does.
func (v *visit) ask(ctx context.Context, path string, query url.Values, headers ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.machine.Endpoint+path+"?"+query.Encode(), nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: time.Second}).DialContext, DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if wrapped, isURL := errors.AsType[*url.Error](err); isURL {
			err = wrapped.Err // without the URL, which may name an identity
		}
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, server: resp.Header.Get("Server")}
	a.date, _ = http.ParseTime(resp.Header.Get("Date"))
	a.body, _ = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return a, nil
}

// findIMDS probes for IMDS v2: a request without the header Metadata gets 400 where it is, and 404 where it is not.
func (v *visit) findIMDS(ctx context.Context) Finding {
	a, err := v.ask(ctx, imds.MetadataPath, imds.Query(imds.ID{}))
	switch {
	case err != nil:
		v.silent = errors.Is(err, context.DeadlineExceeded)
		f := problem("nothing answers at %s", v.machine.Endpoint)
		f.Details = []string{err.Error()}
		return f.advise(see.Unreachable, "Is this an Azure VM? Then look for a route, a firewall or a container network "+
			"that hides 169.254.169.254. Elsewhere use another credential.")
	case !imds.IsServer(a.server):
		return stranger(v.machine.Endpoint, a)
	case a.status == http.StatusNotFound:
		v.date(a)
		return withoutV2(a)
	}
	v.imds = true
	v.date(a)
	return ok("version 2 answers at %s (%s)", v.machine.Endpoint, wire.Clean(a.server))
}

func stranger(endpoint string, a answer) Finding {
	return problem("what answers at %s is not IMDS: %d %s, Server %.40q",
		endpoint, a.status, http.StatusText(a.status), wire.Clean(a.server)).
		advise(see.NotIMDS, "Another cloud, a proxy or a portal stands at the address of IMDS. Use another credential there.")
}

func withoutV2(a answer) Finding {
	return problem("IMDS is there (%s), without version 2", wire.Clean(a.server)).
		advise(see.NoVersion2, "Azure has not given this machine IMDS v2 yet. "+
			"ManagedIdentityCredential uses v1 until it does.")
}

func (v *visit) date(a answer) {
	if !a.date.IsZero() {
		v.skew, v.dated = time.Since(a.date), true
	}
}

// findV1 probes for IMDS v1, which refuses a request without the header Metadata.
func (v *visit) findV1(ctx context.Context) Finding {
	if v.silent {
		return skipped("IMDS does not answer") // it would take as long again to find that out
	}
	query := url.Values{"api-version": {"2018-02-01"}, "resource": {"https://management.azure.com/"}}
	a, err := v.ask(ctx, "/metadata/identity/oauth2/token", query)
	if err != nil || !imds.IsServer(a.server) {
		return skipped("IMDS does not answer")
	}
	if a.status != http.StatusBadRequest {
		return note("IMDS v1 answers %d %s to a probe", a.status, http.StatusText(a.status))
	}
	return ok("version 1 answers too, for ManagedIdentityCredential to fall back on")
}

// tolerated is a difference between clocks that nobody minds: the Date header counts whole seconds.
const tolerated = 5 * time.Second

func (v *visit) clock(context.Context) Finding {
	switch {
	case !v.dated:
		return skipped("IMDS says no time")
	case v.skew.Abs() <= tolerated:
		return ok("agrees with that of IMDS")
	}
	direction := "ahead of"
	if v.skew < 0 {
		direction = "behind"
	}
	f := note("is %s %s that of IMDS", v.skew.Abs().Round(time.Second), direction)
	if v.skew.Abs() > 5*time.Minute {
		f.State = Problem
	}
	return f.advise(see.Clock, "Set the clock of this machine: "+
		"certificates seem expired, or not yet valid, to a clock that is wrong.")
}

// identity asks IMDS whom it has certificates for.
func (v *visit) identity(ctx context.Context) Finding {
	if !v.imds {
		return skipped("IMDS v2 does not answer")
	}
	a, err := v.ask(ctx, imds.MetadataPath, imds.Query(v.machine.ID()),
		"Metadata", "true", "x-ms-client-request-id", uuid.NewString())
	if err != nil {
		return problem("IMDS does not say: %v", err).advise(see.NoIdentity, "Try again; IMDS may be busy or being updated.")
	}
	switch {
	case !imds.IsServer(a.server):
		v.imds = false
		return stranger(v.machine.Endpoint, a)
	case a.status == http.StatusNotFound:
		v.imds = false
		return withoutV2(a)
	}
	if a.status != http.StatusOK {
		v.imds = false
		f := problem("IMDS answers %d %s", a.status, http.StatusText(a.status))
		if said := wire.Read(a.body); said.Text != "" {
			f.Details = []string{said.Text}
		}
		return f.advise(see.NoIdentity, "Assign an identity to this machine; name one by --id where it has several.")
	}
	var metadata imds.Metadata
	if err := json.Unmarshal(a.body, &metadata); err != nil {
		return problem("the metadata cannot be read").
			advise(see.NoIdentity, "Something stands between this machine and IMDS.")
	}
	f := ok("client %s of tenant %s", eventlog.Mask(metadata.ClientID), eventlog.Mask(metadata.TenantID))
	for _, unit := range []struct{ name, id string }{{"vmId", metadata.CuID.VMID}, {"vmssId", metadata.CuID.VMSSID}} {
		if unit.id != "" {
			f.Details = append(f.Details, fmt.Sprintf("%s %s", unit.name, eventlog.Mask(unit.id)))
		}
	}
	return f
}
