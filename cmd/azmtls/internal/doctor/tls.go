package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	see "github.com/azmtls/azmtls/internal/troubleshooting"
)

// tokenEndpoint looks at the way to the token endpoint: the proxy, and whose certificates it shows. A proxy that
// intercepts TLS shows its own.
func (v *visit) tokenEndpoint(ctx context.Context) Finding {
	endpoint := v.endpoint.Load()
	if endpoint == nil {
		return skipped("it is not known: IMDS names it when it issues a certificate")
	}
	u, err := url.Parse(*endpoint)
	if err != nil {
		return problem("%v", err).advise(see.TokenEndpoint, "IMDS names an address that is none.")
	}
	template := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if v.machine.Options.MTLSTransport != nil {
		template = v.machine.Options.MTLSTransport.Clone()
	}
	f := ok("%s", u.Host)
	if template.Proxy != nil {
		proxy, err := template.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: u.Host}})
		switch {
		case err != nil:
			return problem("the proxy of the environment cannot be used: %v", err).
				advise(see.TokenEndpoint, "Mend HTTPS_PROXY and NO_PROXY.")
		case proxy != nil && proxy.Scheme == "https":
			return problem("the proxy %s is reached over TLS, which would show it the certificate", proxy.Host).
				advise(see.TokenEndpoint, "Use an http or socks5 proxy: what goes through it is encrypted all the same.")
		case proxy != nil:
			f.Details = append(f.Details, fmt.Sprintf("through the proxy %s (%s)", proxy.Host, proxy.Scheme))
		}
	}
	var seen tls.ConnectionState
	if template.TLSClientConfig == nil {
		template.TLSClientConfig = &tls.Config{}
	}
	template.TLSClientConfig.VerifyConnection = func(state tls.ConnectionState) error {
		seen = state
		return nil
	}
	template.DisableKeepAlives = true
	if template.DialContext == nil {
		template.DialContext = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+u.Host+"/", nil)
	if err != nil {
		return problem("%v", err).advise(see.TokenEndpoint, "IMDS names a host that is none.")
	}
	// Without a client certificate the request may be refused. By then the server has shown its own.
	resp, err := template.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	if seen.Version == 0 {
		failed := problem("no TLS with %s: %v", u.Host, err)
		failed.Details = f.Details
		return failed.advise(see.TokenEndpoint, "Open the way to this host; "+
			"if a proxy intercepts TLS, exempt the host from it.")
	}
	f.Summary += ", " + tls.VersionName(seen.Version)
	for i, c := range seen.PeerCertificates {
		f.Details = append(f.Details, fmt.Sprintf("certificate %d: %s, issued by %s, until %s",
			i+1, name(c.Subject.CommonName), name(c.Issuer.CommonName), c.NotAfter.UTC().Format(time.DateOnly)))
	}
	return f
}

func name(commonName string) string {
	if commonName == "" {
		return "(no name)"
	}
	return fmt.Sprintf("%.80q", commonName)
}
