package tpmstore

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/azmtls/azmtls/mtls"
)

// record is what a file of the store holds.
type record struct {
	Alias       string `json:"alias"`
	Endpoint    string `json:"endpoint"`
	ClientID    string `json:"client_id"`
	Certificate []byte `json:"certificate"` // DER
	Device      string `json:"device"`      // of the TPM that has the key
	Key         string `json:"key"`         // as in key.pem
}

// A file of the store is one line with the version and the SHA-256 of what follows, and a record in JSON:
//
//	azmtls binding v1 <64 hexadecimal digits>
//	{ … }
const (
	titleV1 = "azmtls binding v1 "
	title   = "azmtls binding v"
)

// extension ends the name of each file with a binding.
const extension = ".binding"

// fileName returns the name of an alias's file.
func fileName(alias string) string {
	return fmt.Sprintf("%x%s", sha256.Sum256([]byte(alias)), extension)
}

func (r record) encode() ([]byte, error) {
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	file := append([]byte(headLine(body)), body...)
	if len(file) > maxFile {
		return nil, fmt.Errorf("the binding takes %d bytes where a file of the store has room for %d", len(file), maxFile)
	}
	return file, nil
}

func headLine(body []byte) string { return fmt.Sprintf("%s%x\n", titleV1, sha256.Sum256(body)) }

// decodeRecord reads a file of the store.
func decodeRecord(file []byte) (record, error) {
	var r record
	head, body, found := bytes.Cut(file, []byte("\n"))
	switch {
	case !found || !bytes.HasPrefix(head, []byte(title)):
		return r, errors.New("it is no file of this store, or its beginning is damaged")
	case !bytes.HasPrefix(head, []byte(titleV1)):
		return r, fmt.Errorf("it has another version than this program writes: %.40q", head)
	case string(head)+"\n" != headLine(body):
		return r, errors.New("it is damaged: its checksum is another")
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("it is damaged: %w", err)
	}
	return r, nil
}

// newRecord returns the record of a binding.
func newRecord(alias string, b *mtls.Binding, k *key) record {
	return record{
		Alias:       alias,
		Endpoint:    b.Endpoint,
		ClientID:    b.ClientID,
		Certificate: b.Certificate.Leaf.Raw,
		Device:      k.device.path,
		Key:         string(k.wrapped.encode()),
	}
}

// binding makes a binding of a record, if it is one of this alias.
func (r record) binding(alias string) (*mtls.Binding, error) {
	if r.Alias != alias {
		return nil, errors.New("it belongs to another alias")
	}
	leaf, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	wrapped, err := parseWrapped([]byte(r.Key))
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	return mtls.NewBinding(
		leaf,
		&key{device: newDevice(r.Device), wrapped: wrapped},
		r.Endpoint,
		strings.ToLower(r.ClientID),
	)
}
