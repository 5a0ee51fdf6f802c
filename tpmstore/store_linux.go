package tpmstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/remaining"
	"github.com/azmtls/azmtls/mtls"
)

// Load returns the binding of the alias or [mtls.ErrNotFound]: more than 24 hours must be left of it, its token window
// must be open and the TPM must know its key. One whose key is dead, since the TPM was cleared for instance, is
// deleted. While the TPM cannot be used the binding stays, and the error says why it is not given out.
func (s Store) Load(ctx context.Context, alias string) (*mtls.Binding, error) {
	return s.files().load(ctx, alias)
}

// Save keeps the binding under the alias, unless a newer one is there that can be used. An expired one of the alias is
// deleted.
func (s Store) Save(ctx context.Context, alias string, b *mtls.Binding) error {
	return s.files().save(ctx, alias, b)
}

// DeleteAll deletes the alias's file, and what was set aside of it. The key stays in key.pem: it may serve others.
func (s Store) DeleteAll(ctx context.Context, alias string) error {
	return s.files().deleteAll(ctx, alias)
}

func (s Store) files() files { return files{s.Folder, time.Now, (*key).prove} }

// files is a Store whose clock and view of keys tests can choose.
type files struct {
	folder string
	now    func() time.Time
	prove  func(*key, context.Context) error // nil, errDead or any other error
}

func (s files) load(ctx context.Context, alias string) (*mtls.Binding, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := openFolder(s.folder, false)
	if isNowhere(err) {
		return nil, mtls.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.close()
	b, seen, err := f.binding(alias)
	if unfit, ok := errors.AsType[*unfitError](err); ok {
		// That this fails does no harm but to the next who comes upon it.
		err := f.locked(ctx, lockWait, func() error { return f.setAside(fileName(alias), unfit.info) })
		f.report(ctx, alias, unfit, err)
		return nil, mtls.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if remaining.Vet(b.Certificate.Leaf.NotAfter, b.UsableUntil(), s.now()) != nil {
		return nil, mtls.ErrNotFound
	}
	k := b.Certificate.PrivateKey.(*key)
	switch err := s.prove(k, ctx); {
	case errors.Is(err, errDead):
		f.discard(ctx, alias, seen, err)
		return nil, mtls.ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("tpmstore: the key of the stored binding cannot be used now: %w", err)
	}
	return b, nil
}

func (s files) save(ctx context.Context, alias string, b *mtls.Binding) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := storable(alias, b)
	if err != nil {
		return err
	}
	data, err := r.encode()
	if err != nil {
		return fmt.Errorf("tpmstore: %w", err)
	}
	return s.change(ctx, true, func(f *folder) error {
		f.sweep()
		stored, _, err := f.binding(alias)
		if unfit, ok := errors.AsType[*unfitError](err); ok {
			asideErr := f.setAside(fileName(alias), unfit.info)
			f.report(ctx, alias, unfit, asideErr)
			if asideErr != nil {
				return asideErr
			}
		}
		now, leaf := s.now(), b.Certificate.Leaf
		switch {
		case err == nil && now.Before(stored.UsableUntil()) && stored.Certificate.Leaf.NotBefore.After(leaf.NotBefore):
			return nil
		case now.Before(leaf.NotAfter):
			return f.write(fileName(alias), data)
		case err == nil && !now.Before(stored.Certificate.Leaf.NotAfter):
			return f.remove(fileName(alias))
		}
		return nil
	})
}

// storable returns the record of a binding that can be stored.
func storable(alias string, b *mtls.Binding) (record, error) {
	switch {
	case alias == "":
		return record{}, errors.New("tpmstore: a stored binding needs an alias")
	case b == nil || b.Certificate.Leaf == nil:
		return record{}, errors.New("tpmstore: there is no certificate to store")
	}
	k, ok := b.Certificate.PrivateKey.(*key)
	if !ok {
		return record{}, fmt.Errorf(
			"tpmstore: only a binding whose private key is in a TPM is stored, one in software never: %w",
			mtls.ErrKeyNotKept,
		)
	}
	if _, err := mtls.NewBinding(b.Certificate.Leaf, k, b.Endpoint, b.ClientID); err != nil {
		return record{}, fmt.Errorf("tpmstore: the binding cannot be stored: %w", err)
	}
	return newRecord(alias, b, k), nil
}

func (s files) deleteAll(ctx context.Context, alias string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.change(ctx, false, func(f *folder) error { return f.remove(fileName(alias), fileName(alias)+aside) })
	if isNowhere(err) {
		return nil
	}
	return err
}

// isNowhere reports that there is no folder, and so nothing in it.
func isNowhere(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoPlace) }

// change runs f on the folder while nobody else changes it.
func (s files) change(ctx context.Context, create bool, f func(*folder) error) error {
	opened, err := openFolder(s.folder, create)
	if err != nil {
		return err
	}
	defer opened.close()
	err = opened.locked(ctx, lockWait, func() error { return f(opened) })
	if err != nil {
		return fmt.Errorf("tpmstore: changing folder %s: %w", opened.path, err)
	}
	return nil
}

// binding reads the binding of an alias. The error is mtls.ErrNotFound, or an *unfitError for a file that is none.
func (f *folder) binding(alias string) (*mtls.Binding, fs.FileInfo, error) {
	data, seen, err := f.readSettled(fileName(alias))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, mtls.ErrNotFound
	}
	if err != nil {
		return nil, nil, fmt.Errorf("tpmstore: reading the stored binding: %w", err)
	}
	r, err := decodeRecord(data)
	if err != nil {
		return nil, nil, &unfitError{seen, err}
	}
	b, err := r.binding(alias)
	if err != nil {
		return nil, nil, &unfitError{seen, err}
	}
	return b, seen, nil
}

// readSettled reads a file that other processes may replace meanwhile.
func (f *folder) readSettled(name string) (data []byte, seen fs.FileInfo, err error) {
	for range 10 {
		if data, seen, err = f.read(name); !errors.Is(err, errExchanged) {
			break
		}
	}
	return data, seen, err
}

// report says that a file is no binding, and what became of it.
func (f *folder) report(ctx context.Context, alias string, unfit *unfitError, asideErr error) {
	name := fileName(alias)
	outcome := "it is set aside as " + name + aside
	if asideErr != nil {
		outcome = "it could not be set aside: " + asideErr.Error()
	}
	eventlog.Writef(ctx, eventlog.Recovery, "file %s/%s of %s is not used: %v; %s",
		f.path, name, eventlog.Mask(alias), unfit.reason, outcome)
}

// discard deletes the file of a binding whose key is dead. That it fails does no harm but to the next who comes upon
// it.
func (f *folder) discard(ctx context.Context, alias string, seen fs.FileInfo, reason error) {
	name := fileName(alias)
	err := f.locked(ctx, lockWait, func() error {
		if same, err := f.unchanged(name, seen); err != nil || !same {
			return err
		}
		return f.remove(name)
	})
	if err != nil {
		eventlog.Writef(ctx, eventlog.Recovery, "deleting the orphaned binding of %s: %v", eventlog.Mask(alias), err)
	}
	eventlog.Writef(ctx, eventlog.Recovery, "the stored binding of %s is orphaned: %v", eventlog.Mask(alias), reason)
}

var _ mtls.Store = Store{}
