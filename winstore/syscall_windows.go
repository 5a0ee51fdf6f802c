package winstore

//go:generate go run golang.org/x/sys/windows/mkwinsyscall -output zsyscall_windows.go syscall_windows.go

//sys certControlStore(store windows.Handle, flags uint32, control uint32, para unsafe.Pointer) (err error) = crypt32.CertControlStore
//sys certGetCertificateContextProperty(context *windows.CertContext, property uint32, data *byte, size *uint32) (err error) = crypt32.CertGetCertificateContextProperty
//sys certSetCertificateContextProperty(context *windows.CertContext, property uint32, flags uint32, data unsafe.Pointer) (err error) = crypt32.CertSetCertificateContextProperty

//sys ncryptOpenStorageProvider(provider *windows.Handle, name *uint16, flags uint32) (ret error) = ncrypt.NCryptOpenStorageProvider
//sys ncryptOpenKey(provider windows.Handle, key *windows.Handle, name *uint16, legacyKeySpec uint32, flags uint32) (ret error) = ncrypt.NCryptOpenKey
//sys ncryptCreatePersistedKey(provider windows.Handle, key *windows.Handle, algorithm *uint16, name *uint16, legacyKeySpec uint32, flags uint32) (ret error) = ncrypt.NCryptCreatePersistedKey
//sys ncryptSetProperty(object windows.Handle, property *uint16, input *byte, size uint32, flags uint32) (ret error) = ncrypt.NCryptSetProperty
//sys ncryptGetProperty(object windows.Handle, property *uint16, output *byte, size uint32, result *uint32, flags uint32) (ret error) = ncrypt.NCryptGetProperty
//sys ncryptFinalizeKey(key windows.Handle, flags uint32) (ret error) = ncrypt.NCryptFinalizeKey
//sys ncryptExportKey(key windows.Handle, exportKey windows.Handle, blobType *uint16, parameters unsafe.Pointer, output *byte, size uint32, result *uint32, flags uint32) (ret error) = ncrypt.NCryptExportKey
//sys ncryptSignHash(key windows.Handle, padding unsafe.Pointer, hash *byte, hashSize uint32, signature *byte, size uint32, result *uint32, flags uint32) (ret error) = ncrypt.NCryptSignHash
//sys ncryptDeleteKey(key windows.Handle, flags uint32) (ret error) = ncrypt.NCryptDeleteKey
//sys ncryptFreeObject(object windows.Handle) (ret error) = ncrypt.NCryptFreeObject

//sys cryptGetUserKey(provider windows.Handle, keySpec uint32, key *windows.Handle) (err error) = advapi32.CryptGetUserKey
//sys cryptExportKey(key windows.Handle, exportKey windows.Handle, blobType uint32, flags uint32, data *byte, size *uint32) (err error) = advapi32.CryptExportKey
//sys cryptDestroyKey(key windows.Handle) (err error) = advapi32.CryptDestroyKey
//sys cryptCreateHash(provider windows.Handle, algorithm uint32, key windows.Handle, flags uint32, hash *windows.Handle) (err error) = advapi32.CryptCreateHash
//sys cryptSetHashParam(hash windows.Handle, parameter uint32, data *byte, flags uint32) (err error) = advapi32.CryptSetHashParam
//sys cryptSignHash(hash windows.Handle, keySpec uint32, description *uint16, flags uint32, signature *byte, size *uint32) (err error) = advapi32.CryptSignHashW
//sys cryptDestroyHash(hash windows.Handle) (err error) = advapi32.CryptDestroyHash

// Constants of wincrypt.h and ncrypt.h that x/sys does not have.
const (
	certKeyProvInfoProperty  = 2
	certFriendlyNameProperty = 11
	certStoreControlCommit   = 3

	ncryptSilent         = 0x40
	ncryptPersist        = 0x80000000
	ncryptOverwriteKey   = 0x80
	ncryptVirtualIso     = 0x20000
	ncryptPerBootKey     = 0x40000
	ncryptAllowSigning   = 2
	ncryptAllowAllUsages = 0xffffff
	bcryptPadPKCS1       = 2
	bcryptPadPSS         = 8
	cryptPublicKeyBlob   = 6
	cryptHashValue       = 2
	cryptAlgorithmSHA256 = 0x800c
	cryptAlgorithmSHA384 = 0x800d
	cryptAlgorithmSHA512 = 0x800e
)

// keyProvInfo is CRYPT_KEY_PROV_INFO, the link from a certificate to the container of its key.
type keyProvInfo struct {
	container      *uint16
	provider       *uint16
	providerType   uint32 // 0 for a provider of CNG
	flags          uint32
	parameterCount uint32
	parameters     uintptr
	keySpec        uint32
}

// pkcs1PaddingInfo is BCRYPT_PKCS1_PADDING_INFO, pssPaddingInfo BCRYPT_PSS_PADDING_INFO.
type (
	pkcs1PaddingInfo struct{ hash *uint16 }
	pssPaddingInfo   struct {
		hash *uint16
		salt uint32
	}
)
