package winstore

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"slices"

	"golang.org/x/sys/windows"
)

// capiKey is a key of the older CryptoAPI, which signs PKCS #1 v1.5 only. Whoever stored the certificate chose it;
// azmtls makes none.
type capiKey struct {
	provider windows.Handle
	spec     uint32
}

func (k *capiKey) publicKey() (*rsa.PublicKey, error) {
	var handle windows.Handle
	if err := cryptGetUserKey(k.provider, k.spec, &handle); err != nil {
		return nil, failed("CryptGetUserKey", err)
	}
	defer cryptDestroyKey(handle)
	blob, err := sized(func(data *byte, size *uint32) error {
		return failed("CryptExportKey", cryptExportKey(handle, 0, cryptPublicKeyBlob, 0, data, size))
	})
	if err != nil {
		return nil, err
	}
	return parsePublicKeyBlob(blob)
}

var capiHashes = map[crypto.Hash]uint32{
	crypto.SHA256: cryptAlgorithmSHA256,
	crypto.SHA384: cryptAlgorithmSHA384,
	crypto.SHA512: cryptAlgorithmSHA512,
}

func (k *capiKey) sign(digest []byte, p padding) ([]byte, error) {
	if p.pss {
		return nil, errors.New("winstore: a key of CryptoAPI cannot sign RSASSA-PSS")
	}
	var hash windows.Handle
	if err := cryptCreateHash(k.provider, capiHashes[p.hash], 0, 0, &hash); err != nil {
		return nil, failed("CryptCreateHash", err)
	}
	defer cryptDestroyHash(hash)
	if err := cryptSetHashParam(hash, cryptHashValue, &digest[0], 0); err != nil {
		return nil, failed("CryptSetHashParam", err)
	}
	signature, err := sized(func(data *byte, size *uint32) error {
		return failed("CryptSignHash", cryptSignHash(hash, k.spec, nil, 0, data, size))
	})
	slices.Reverse(signature) // CryptoAPI is little-endian
	return signature, err
}

func (k *capiKey) close() { _ = windows.CryptReleaseContext(k.provider, 0) }
