package imdstest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

var (
	versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}
	stages   = []imdstest.Stage{
		imdstest.AtConnect, imdstest.AtHello, imdstest.AtCertificate, imdstest.AtRequest, imdstest.AtAnswer, imdstest.AtBody,
	}
)

func thumbprint(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// heard is what a client reads from a server: the bytes on the wire, the text in them, and how it ended.
type heard struct {
	raw  bytes.Buffer
	text string
	err  error
}

type recorder struct {
	net.Conn
	raw *bytes.Buffer
}

func (r recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.raw.Write(p[:n])
	return n, err
}

// lastRecord returns the type and the length of the last TLS record.
func (h *heard) lastRecord() (kind byte, length int) {
	for b := h.raw.Bytes(); len(b) >= 5; b = b[min(5+length, len(b)):] {
		kind, length = b[0], int(b[3])<<8|int(b[4])
	}
	return kind, length
}

// listen asks the token endpoint for a token and reads until the connection ends.
func listen(t *testing.T, s *imdstest.Server, leaf *x509.Certificate) *heard {
	t.Helper()
	h := &heard{}
	tcp, err := net.Dial("tcp", strings.TrimPrefix(s.TokenURL(), "https://"))
	if err != nil {
		h.err = err // a reset AtConnect can come before connect has returned
		return h
	}
	defer tcp.Close()
	config := s.MTLSTransport().TLSClientConfig
	config.ServerName = "127.0.0.1"
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: testKey()}}
	conn := tls.Client(recorder{tcp, &h.raw}, config)
	if h.err = conn.Handshake(); h.err != nil {
		return h
	}
	body := form("bearer").Encode()
	_, wrote := fmt.Fprintf(conn, "POST /%s/oauth2/v2.0/token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", tenant, len(body), body)
	text, err := io.ReadAll(conn)
	h.text, h.err = string(text), err
	if err == nil {
		h.err = wrote // a reset is reported once, to whoever comes first
	}
	return h
}

// Every ending at every stage: the connection ends as the action says, after what the stage says.
func TestEndings(t *testing.T) {
	const closeNotify = 19 // the length of an alert in a record of TLS 1.3
	notified := func(h *heard, version uint16) bool {
		kind, length := h.lastRecord()
		return kind == 21 || (version == tls.VersionTLS13 && length == closeNotify)
	}
	done := map[imdstest.Stage]imdstest.Counts{
		imdstest.AtCertificate: {TokenConnections: 1},
		imdstest.AtRequest:     {TokenConnections: 1, Token: 1},
		imdstest.AtAnswer:      {TokenConnections: 1, Token: 1, TokenIssued: 1},
		imdstest.AtBody:        {TokenConnections: 1, Token: 1, TokenIssued: 1},
	}
	for name, test := range map[string]struct {
		action imdstest.Action
		check  func(*testing.T, *heard, uint16)
	}{
		"Reset": {imdstest.Reset{}, func(t *testing.T, h *heard, _ uint16) {
			if runtime.GOOS == "windows" && h.err == nil {
				return // Wine now and then reports a reset as an end
			}
			require.Error(t, h.err)
			require.Regexp(t, "reset|broken pipe|aborted|closed", h.err.Error())
		}},
		"EOF": {imdstest.EOF{}, func(t *testing.T, h *heard, version uint16) {
			require.True(t, h.err == nil || h.err == io.EOF, "%v", h.err)
			require.False(t, notified(h, version))
		}},
		"CloseNotify": {imdstest.CloseNotify{}, func(t *testing.T, h *heard, version uint16) {
			require.True(t, h.err == nil || h.err == io.EOF, "%v", h.err)
			require.True(t, notified(h, version))
		}},
	} {
		for _, version := range versions {
			for _, stage := range stages {
				t.Run(fmt.Sprintf("%s/%s/%s", tls.VersionName(version), stage, name), func(t *testing.T) {
					t.Parallel()
					s := newServer(t, imdstest.Options{TLSVersion: version})
					leaf, err := s.IssueCertificate(testKey().Public(), client)
					require.NoError(t, err)
					remove := s.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: stage, Do: test.action})
					h := listen(t, s, leaf)
					test.check(t, h, version)
					want := done[stage]
					want.Faults = 1
					require.Equal(t, want, s.Counts())
					switch {
					case stage == imdstest.AtBody && name == "Reset": // which takes along what was not read yet
						require.NotContains(t, h.text, "}", "only a part of the body")
					case stage == imdstest.AtBody:
						require.Contains(t, h.text, "200 OK")
						require.Contains(t, h.text, "access_token")
						require.NotContains(t, h.text, "}", "only a part of the body")
					default:
						require.Empty(t, h.text)
					}
					remove()
					require.Contains(t, listen(t, s, leaf).text, "token_type", "it is over when it is removed")
				})
			}
		}
	}
}

// A delay goes on as if nothing had happened, in the same connection and at every stage.
func TestDelay(t *testing.T) {
	const delay = 20 * time.Millisecond
	for _, version := range versions {
		s := newServer(t, imdstest.Options{TLSVersion: version})
		leaf, err := s.IssueCertificate(testKey().Public(), client)
		require.NoError(t, err)
		for _, stage := range stages {
			s.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: stage, Do: imdstest.Delay(delay)})
		}
		begin := time.Now()
		status, body, err := postForm(over(s, leaf), s, form("bearer"))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		require.NotEmpty(t, body["access_token"])
		require.GreaterOrEqual(t, time.Since(begin), time.Duration(len(stages))*delay)
		require.Equal(t, len(stages), s.Counts().Faults)
	}
}

// hanging injects a Hang and returns when it has struck, with the outcome of the request to come.
func hanging(t *testing.T, s *imdstest.Server, stage imdstest.Stage, c *http.Client) <-chan error {
	t.Helper()
	s.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: stage, Do: imdstest.Hang{}})
	done := make(chan error, 1)
	go func() {
		_, _, err := postForm(c, s, form("bearer"))
		done <- err
	}()
	require.Eventually(t, func() bool { return s.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
	return done
}

func TestCloseEndsWhatHangs(t *testing.T) {
	for _, stage := range stages {
		s := imdstest.NewServer(&imdstest.Options{TenantID: tenant, ClientID: client})
		leaf, err := s.IssueCertificate(testKey().Public(), client)
		require.NoError(t, err)
		done := hanging(t, s, stage, over(s, leaf))
		s.Close()
		s.Close()
		require.Error(t, <-done, stage)
	}
}

// A peer that goes takes what hangs with it, so that many of them leave nothing behind.
func TestPeerEndsWhatHangs(t *testing.T) {
	for _, stage := range stages {
		s := newServer(t, imdstest.Options{})
		leaf, err := s.IssueCertificate(testKey().Public(), client)
		require.NoError(t, err)
		c := over(s, leaf)
		dialed := make(chan net.Conn, 1)
		c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			dialed <- conn
			return conn, err
		}
		done := hanging(t, s, stage, c)
		require.NoError(t, (<-dialed).Close())
		require.Error(t, <-done)
		require.Eventually(t, func() bool {
			stacks := make([]byte, 1<<20)
			return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("imdstest.Hang.strike"))
		}, 10*time.Second, time.Millisecond, stage)
	}
}

// Which calls a fault strikes: by certificate, by call, by rate.
func TestWhenFaultsStrike(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	leaf, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	for _, stage := range []imdstest.Stage{imdstest.AtRequest, imdstest.AtAnswer} {
		run := func(f imdstest.Fault, calls int) (statuses []int) {
			f.Endpoint, f.At, f.Do = imdstest.Token, stage, imdstest.Respond{Status: 503, Body: "{}"}
			defer s.Inject(f)()
			for range calls {
				status, _, err := postForm(over(s, leaf), s, form("bearer"))
				require.NoError(t, err)
				statuses = append(statuses, status)
			}
			return statuses
		}
		require.Equal(t, []int{200, 503, 503, 200}, run(imdstest.Fault{Skip: 1, Times: 2}, 4))
		require.Equal(t, []int{200, 200}, run(imdstest.Fault{Thumbprint: "another"}, 2))
		require.Equal(t, []int{503, 503}, run(imdstest.Fault{Thumbprint: thumbprint(leaf)}, 2))
		half := run(imdstest.Fault{Rate: 0.5}, 20)
		require.Contains(t, half, 200)
		require.Contains(t, half, 503)
		require.Equal(t, half, run(imdstest.Fault{Rate: 0.5}, 20), "the same calls every time")
	}
}

// Of two faults of a stage, the first one strikes, and the second when the first one is spent.
func TestFirstFaultStrikes(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	leaf, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	for _, status := range []int{500, 503} {
		s.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Respond{Status: status, Body: "{}"}, Times: 1})
	}
	for _, want := range []int{500, 503, 200} {
		status, _, err := postForm(over(s, leaf), s, form("bearer"))
		require.NoError(t, err)
		require.Equal(t, want, status)
	}
}
