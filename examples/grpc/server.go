package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// service is a gRPC service that takes proof-of-possession tokens: it demands a client certificate, and a token that is
// bound to it (RFC 8705, section 3). What it serves is gRPC's health service.
type service struct {
	*grpc.Server
	address  string
	audience string
	clients  *x509.CertPool   // authorities of client certificates
	issuer   *ecdsa.PublicKey // of tokens

	mu      sync.Mutex
	refused map[string]bool // thumbprints of certificates that are not served any more
	served  map[string]int  // calls by thumbprint
}

func serve(clients *x509.CertPool, own tls.Certificate, issuer *ecdsa.PublicKey, audience string) (*service, error) {
	s := &service{
		audience: audience, clients: clients, issuer: issuer,
		refused: map[string]bool{}, served: map[string]int{},
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
		MinVersion: tls.VersionTLS13,
	}
	s.Server = grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.UnaryInterceptor(s.authorize))
	healthpb.RegisterHealthServer(s.Server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.address = listener.Addr().String()
	go func() { _ = s.Serve(listener) }()
	return s, nil
}

// refuse makes the service refuse a certificate from now on.
func (s *service) refuse(thumbprint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[thumbprint] = true
}

// authorize is the interceptor that checks each call.
func (s *service) authorize(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (any, error) {
	if err := s.check(ctx); err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return handle(ctx, req)
}

func (s *service) check(ctx context.Context) error {
	certificate, err := clientCertificate(ctx)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(certificate.Raw)
	thumbprint := base64.RawURLEncoding.EncodeToString(digest[:])
	incoming, _ := metadata.FromIncomingContext(ctx)
	authorization := strings.Join(incoming.Get("authorization"), "")
	scheme, token, _ := strings.Cut(authorization, " ")
	if scheme != "mtls_pop" {
		return fmt.Errorf("the scheme is %q, not mtls_pop", scheme)
	}
	var claims struct {
		jwt.RegisteredClaims
		Confirmation struct {
			Thumbprint string `json:"x5t#S256"`
		} `json:"cnf"`
	}
	_, err = jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return s.issuer, nil },
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(s.audience), jwt.WithExpirationRequired())
	if err != nil {
		return errors.New("the token is not valid")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case claims.Confirmation.Thumbprint != thumbprint:
		return errors.New("the token is bound to another certificate than that of the connection")
	case s.refused[thumbprint]:
		return errCertificate
	}
	s.served[thumbprint]++
	return nil
}

// errCertificate is how the service says that the certificate is to blame. Real services have words of their own.
var errCertificate = errors.New("the client certificate is refused")

func clientCertificate(ctx context.Context) (*x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if ok {
		if info, isTLS := p.AuthInfo.(credentials.TLSInfo); isTLS && len(info.State.PeerCertificates) > 0 {
			return info.State.PeerCertificates[0], nil
		}
	}
	return nil, errors.New("there is no client certificate")
}
