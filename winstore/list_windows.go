package winstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/azmtls/azmtls/internal/remaining"
	"github.com/azmtls/azmtls/mtls"
)

// List implements [mtls.Lister]. It lists the certificates that carry a friendly name of MSAL's, those of other
// programs among them. The keys of their bindings implement [io.Closer].
func (Store) List(ctx context.Context) ([]mtls.Stored, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return list(time.Now())
}

func list(now time.Time) ([]mtls.Stored, error) {
	entries, err := readAll()
	if err != nil {
		return nil, err
	}
	defer entries.free()
	var all []mtls.Stored
	for _, e := range entries {
		if e.alias != "" {
			all = append(all, e.look(now))
		}
	}
	return all, nil
}

// look says why Load would not return an entry.
func (e entry) look(now time.Time) mtls.Stored {
	leaf, err := e.parse()
	if err != nil {
		return mtls.Stored{Alias: e.alias, Err: fmt.Errorf("winstore: its certificate: %w", err)}
	}
	bare := &mtls.Binding{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, Leaf: leaf},
		Endpoint:    e.endpoint, ClientID: strings.ToLower(leaf.Subject.CommonName),
	}
	if err := remaining.Vet(leaf.NotAfter, bare.UsableUntil(), now); err != nil {
		return mtls.Stored{Alias: e.alias, Binding: bare, Err: fmt.Errorf("winstore: %w", err)}
	}
	b, err := candidate{e, leaf}.binding()
	if err != nil {
		return mtls.Stored{Alias: e.alias, Binding: bare, Err: fmt.Errorf("winstore: %w", err)}
	}
	return mtls.Stored{Alias: e.alias, Binding: b}
}
