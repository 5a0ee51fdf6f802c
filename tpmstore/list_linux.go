package tpmstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/azmtls/azmtls/internal/remaining"
	"github.com/azmtls/azmtls/mtls"
)

// List implements [mtls.Lister]. Of a folder with very many files it lists the first few thousand.
func (s Store) List(ctx context.Context) ([]mtls.Stored, error) { return s.files().list(ctx) }

func (s files) list(ctx context.Context) ([]mtls.Stored, error) {
	f, err := openFolder(s.folder, false)
	if isNowhere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.close()
	names, err := f.bindings()
	if err != nil {
		return nil, fmt.Errorf("tpmstore: listing folder %s: %w", f.path, err)
	}
	var all []mtls.Stored
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		all = append(all, s.look(ctx, f, name))
	}
	return all, nil
}

// bindings returns the names of the files of bindings, those that were set aside not among them.
func (f *folder) bindings() ([]string, error) {
	var found []string
	err := f.names(func(batch []string) (more bool) {
		for _, name := range batch {
			if strings.HasSuffix(name, extension) && !strings.HasPrefix(name, temporary) {
				found = append(found, name)
			}
		}
		return true
	})
	return found, err
}

// look reads one file, as Load would, and says why Load would not return it.
func (s files) look(ctx context.Context, f *folder, name string) mtls.Stored {
	data, _, err := f.readSettled(name)
	if err != nil {
		return mtls.Stored{Err: fmt.Errorf("tpmstore: reading the stored binding: %w", err)}
	}
	r, err := decodeRecord(data)
	if err != nil {
		return mtls.Stored{Err: fmt.Errorf("tpmstore: the file would be set aside: %w", err)}
	}
	if fileName(r.Alias) != name {
		return mtls.Stored{Err: errors.New("tpmstore: the file would be set aside: it belongs to another alias")}
	}
	b, err := r.binding(r.Alias)
	if err != nil {
		return mtls.Stored{Alias: r.Alias, Err: fmt.Errorf("tpmstore: the file would be set aside: %w", err)}
	}
	if err := s.vet(ctx, b); err != nil {
		return mtls.Stored{Alias: r.Alias, Binding: b, Err: fmt.Errorf("tpmstore: %w", err)}
	}
	return mtls.Stored{Alias: r.Alias, Binding: b}
}

// vet says why Load would not return a binding.
func (s files) vet(ctx context.Context, b *mtls.Binding) error {
	if err := remaining.Vet(b.Certificate.Leaf.NotAfter, b.UsableUntil(), s.now()); err != nil {
		return err
	}
	return s.prove(b.Certificate.PrivateKey.(*key), ctx)
}
