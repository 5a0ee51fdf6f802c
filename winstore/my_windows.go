package winstore

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// my is the open certificate store CurrentUser\My.
type my struct{ store windows.Handle }

const encoding = windows.X509_ASN_ENCODING | windows.PKCS_7_ASN_ENCODING

// openMy opens the store.
func openMy(flags uint32) (*my, error) {
	name, err := windows.UTF16PtrFromString("MY")
	if err != nil {
		return nil, err
	}
	store, err := windows.CertOpenStore(
		windows.CERT_STORE_PROV_SYSTEM_W,
		0,
		0,
		windows.CERT_SYSTEM_STORE_CURRENT_USER|flags,
		uintptr(unsafe.Pointer(name)),
	)
	if err != nil {
		return nil, fmt.Errorf(`winstore: opening CurrentUser\My: %w`, failed("CertOpenStore", err))
	}
	return &my{store}, nil
}

func (m *my) close() { _ = windows.CertCloseStore(m.store, 0) }

// One process of a user at a time reads or changes the store, whatever the alias. Who opens the store gets a copy of
// it: one that lacks an entry, if another process deletes one meanwhile, and Wine writes it back as a whole, with what
// another process has deleted. Each turn takes some milliseconds.
const (
	turnName = "MY"
	turnWait = time.Second
)

// readMy returns the entries of an alias. It does so out of turn rather than not at all.
func readMy(alias string) (entries, error) {
	return read(func(m *my) (entries, error) { return m.of(alias) })
}

// readAll returns all entries, in the same manner.
func readAll() (entries, error) { return read((*my).snapshot) }

func read(look func(*my) (entries, error)) (seen entries, err error) {
	once := func() error {
		m, err := openMy(windows.CERT_STORE_READONLY_FLAG)
		if err != nil {
			return err
		}
		defer m.close()
		seen, err = look(m)
		return err
	}
	if err = inTurn(turnName, turnWait, once); errors.Is(err, errBusy) {
		err = once()
	}
	return seen, err
}

// changeMy opens the store, runs f on it and has the changes written, which Windows does at once and Wine when told to.
func changeMy(f func(m *my) error) error {
	return inTurn(turnName, turnWait, func() error {
		m, err := openMy(0)
		if err != nil {
			return err
		}
		defer m.close()
		return errors.Join(f(m), failed("CertControlStore", certControlStore(m.store, 0, certStoreControlCommit, nil)))
	})
}

// entry is one certificate of the store.
type entry struct {
	context  *windows.CertContext
	alias    string // as its friendly name has it; empty if that is none of MSAL's
	endpoint string
}

// entries is a snapshot: the store may change while one goes through it.
type entries []entry

func (m *my) snapshot() (entries, error) {
	var all entries
	var context *windows.CertContext
	for {
		next, err := windows.CertEnumCertificatesInStore(m.store, context) // frees the one before
		if err != nil {
			if is(err, windows.CRYPT_E_NOT_FOUND, windows.Handle(windows.ERROR_NO_MORE_FILES)) {
				return all, nil
			}
			all.free()
			return nil, fmt.Errorf(`winstore: listing CurrentUser\My: %w`, failed("CertEnumCertificatesInStore", err))
		}
		context = next
		e := entry{context: windows.CertDuplicateCertificateContext(context)}
		if alias, endpoint, ok := decodeName(friendlyName(context)); ok {
			e.alias, e.endpoint = alias, endpoint
		}
		all = append(all, e)
	}
}

// of returns the entries of one alias.
func (m *my) of(alias string) (entries, error) {
	all, err := m.snapshot()
	if err != nil {
		return nil, err
	}
	var own, others entries
	for _, e := range all {
		if e.alias != "" && e.alias == strings.TrimSpace(alias) {
			own = append(own, e)
		} else {
			others = append(others, e)
		}
	}
	others.free()
	return own, nil
}

// removeAll deletes the entries that are to go, as many as it can.
func (m *my) removeAll(own entries, goes func(entry) bool) error {
	var errs []error
	for _, e := range own {
		if goes(e) {
			errs = append(errs, e.remove())
		}
	}
	return errors.Join(errs...)
}

func (all entries) free() {
	for _, e := range all {
		_ = windows.CertFreeCertificateContext(e.context)
	}
}

// der returns a copy of the certificate.
func (e entry) der() []byte {
	if e.context.EncodedCert == nil {
		return nil
	}
	return bytes.Clone(unsafe.Slice(e.context.EncodedCert, e.context.Length))
}

func (e entry) parse() (*x509.Certificate, error) { return x509.ParseCertificate(e.der()) }

// remove deletes the certificate, and not its key: that may serve the next one. One that another program has deleted
// meanwhile is as good as deleted.
func (e entry) remove() error {
	// The function frees the context, whatever it returns.
	err := windows.CertDeleteCertificateFromStore(windows.CertDuplicateCertificateContext(e.context))
	if is(err, windows.CRYPT_E_NOT_FOUND, windows.Handle(windows.ERROR_FILE_NOT_FOUND)) {
		return nil
	}
	return failed("CertDeleteCertificateFromStore", err)
}

// add stores a certificate under a friendly name, linked to its key if that is anywhere. Both are set before it is
// stored: a property that is set on a stored certificate can get lost. One that is there already, under whatever name,
// is left as it is.
func (m *my) add(der []byte, name string, key container) error {
	context, err := windows.CertCreateCertificateContext(encoding, &der[0], uint32(len(der)))
	if err != nil {
		return failed("CertCreateCertificateContext", err)
	}
	defer windows.CertFreeCertificateContext(context)
	if err := setFriendlyName(context, name); err != nil {
		return err
	}
	if key != (container{}) {
		if err := setKeyContainer(context, key); err != nil {
			return err
		}
	}
	return failed(
		"CertAddCertificateContextToStore",
		windows.CertAddCertificateContextToStore(m.store, context, windows.CERT_STORE_ADD_NEW, nil),
	)
}

// friendlyName returns the friendly name of a certificate, empty if it has none.
func friendlyName(context *windows.CertContext) string {
	data, err := property(context, certFriendlyNameProperty)
	if err != nil || len(data) < 2 {
		return ""
	}
	return windows.UTF16ToString(unsafe.Slice((*uint16)(unsafe.Pointer(&data[0])), len(data)/2))
}

func setFriendlyName(context *windows.CertContext, name string) error {
	wide, err := windows.UTF16FromString(name)
	if err != nil {
		return err
	}
	blob := &windows.CryptDataBlob{Size: uint32(2 * len(wide)), Data: (*byte)(unsafe.Pointer(&wide[0]))}
	return failed(
		"CertSetCertificateContextProperty",
		certSetCertificateContextProperty(context, certFriendlyNameProperty, 0, unsafe.Pointer(blob)),
	)
}
