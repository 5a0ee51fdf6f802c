package winstore

import (
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
)

var errBlob = errors.New("winstore: the public key that Windows exported is malformed")

const rsaPublicMagic = 0x31415352 // "RSA1"

// parseRSAPublicBlob reads CNG's RSAPUBLICBLOB: a BCRYPT_RSAKEY_BLOB of six words, then exponent and modulus,
// big-endian.
//
// https://learn.microsoft.com/windows/win32/api/bcrypt/ns-bcrypt-bcrypt_rsakey_blob
func parseRSAPublicBlob(blob []byte) (*rsa.PublicKey, error) {
	const header = 24
	if len(blob) < header || binary.LittleEndian.Uint32(blob) != rsaPublicMagic {
		return nil, errBlob
	}
	exponentSize, modulusSize := uint64(
		binary.LittleEndian.Uint32(blob[8:]),
	), uint64(
		binary.LittleEndian.Uint32(blob[12:]),
	)
	if uint64(len(blob)) != header+exponentSize+modulusSize {
		return nil, errBlob
	}
	exponent, modulus := blob[header:header+exponentSize], blob[header+exponentSize:]
	return rsaPublicKey(new(big.Int).SetBytes(exponent), modulus)
}

// parsePublicKeyBlob reads CryptoAPI's PUBLICKEYBLOB of an RSA key: a BLOBHEADER, an RSAPUBKEY, the modulus,
// little-endian.
//
// https://learn.microsoft.com/windows/win32/seccrypto/rsa-schannel-key-blobs
func parsePublicKeyBlob(blob []byte) (*rsa.PublicKey, error) {
	const header, publicKeyBlob = 20, 6
	if len(blob) < header || blob[0] != publicKeyBlob || binary.LittleEndian.Uint32(blob[8:]) != rsaPublicMagic {
		return nil, errBlob
	}
	bits, exponent := uint64(binary.LittleEndian.Uint32(blob[12:])), binary.LittleEndian.Uint32(blob[16:])
	if bits%8 != 0 || uint64(len(blob)) != header+bits/8 {
		return nil, errBlob
	}
	modulus := slices.Clone(blob[header:])
	slices.Reverse(modulus)
	return rsaPublicKey(new(big.Int).SetUint64(uint64(exponent)), modulus)
}

func rsaPublicKey(exponent *big.Int, modulus []byte) (*rsa.PublicKey, error) {
	n := new(big.Int).SetBytes(modulus)
	if exponent.BitLen() < 2 || exponent.BitLen() > 31 || n.Sign() == 0 {
		return nil, errBlob
	}
	return &rsa.PublicKey{N: n, E: int(exponent.Int64())}, nil
}
