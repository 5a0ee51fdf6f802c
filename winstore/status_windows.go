package winstore

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"syscall"

	"github.com/azmtls/azmtls/mtls"
	"golang.org/x/sys/windows"
)

// statusError is what a function of Windows returned. It unwraps to the [syscall.Errno]; an HRESULT that was made of a
// Win32 error, to that.
type statusError struct {
	function string
	code     syscall.Errno
}

// failed names the function in its error; nil stays nil.
func failed(function string, err error) error {
	var code syscall.Errno
	if err == nil || !errors.As(err, &code) {
		return err
	}
	return &statusError{function, code}
}

func (e *statusError) Error() string {
	name, known := statusNames[uint32(e.plain())]
	if !known {
		name = e.code.Error()
	}
	return fmt.Sprintf("%s: 0x%08X (%s)", e.function, uint32(e.code), name)
}

func (e *statusError) Unwrap() error { return e.plain() }

// plain undoes HRESULT_FROM_WIN32.
func (e *statusError) plain() syscall.Errno {
	if e.code&0xFFFF0000 == 0x80070000 {
		return e.code & 0xFFFF
	}
	return e.code
}

// is reports whether an error is one of these codes: Win32 errors, or HRESULTs, which x/sys gives the type Handle.
func is[code windows.Handle | syscall.Errno](err error, codes ...code) bool {
	for _, c := range codes {
		if errors.Is(err, syscall.Errno(c)) {
			return true
		}
	}
	return false
}

// nteVBSCannotDecryptKey is what a KeyGuard key of an earlier boot fails with. x/sys does not have it.
//
// https://learn.microsoft.com/windows/win32/api/ncrypt/nf-ncrypt-ncryptimportkey
const nteVBSCannotDecryptKey windows.Handle = 0x8009003A

// dead reports errors that say of a key that it is gone, or that it will never sign again. All others say nothing of
// it: the provider, its service, the TPM or the user's profile may be back in a moment, and certificates depend on the
// key.
func dead(err error) bool {
	return errors.Is(err, rsa.ErrVerification) || // it does sign, and wrongly
		is(err, windows.ERROR_FILE_NOT_FOUND) ||
		is(
			err,
			windows.NTE_BAD_KEYSET,
			windows.NTE_NOT_FOUND,
			windows.NTE_NO_KEY,
			windows.NTE_KEYSET_NOT_DEF,
			windows.NTE_PROV_TYPE_NOT_DEF,
			windows.CRYPT_E_NOT_FOUND,
			windows.CRYPT_E_NO_KEY_PROPERTY,
			windows.NTE_BAD_KEY,
			windows.NTE_BAD_DATA,
			windows.NTE_BAD_PUBLIC_KEY,
			windows.NTE_KEYSET_ENTRY_BAD,
			windows.NTE_DECRYPTION_FAILURE,
			nteVBSCannotDecryptKey,
			windows.TPM_20_E_INTEGRITY, // the TPM was cleared
		)
}

// notNow marks a failure of Windows that is not about the key as [mtls.ErrKeyNotNow].
func notNow(err error) error {
	var status *statusError
	if dead(err) || !errors.As(err, &status) {
		return err
	}
	return fmt.Errorf("%w: %w", mtls.ErrKeyNotNow, err)
}

// statusNames are the codes that certificates and keys fail with. The text that Windows has for them is in the
// language of the machine.
var statusNames = map[uint32]string{
	uint32(windows.ERROR_FILE_NOT_FOUND):           "ERROR_FILE_NOT_FOUND",
	uint32(windows.ERROR_ACCESS_DENIED):            "ERROR_ACCESS_DENIED",
	uint32(windows.ERROR_INVALID_HANDLE):           "ERROR_INVALID_HANDLE",
	uint32(windows.ERROR_INVALID_PARAMETER):        "ERROR_INVALID_PARAMETER",
	uint32(windows.ERROR_MOD_NOT_FOUND):            "ERROR_MOD_NOT_FOUND",
	uint32(windows.ERROR_PROC_NOT_FOUND):           "ERROR_PROC_NOT_FOUND",
	uint32(windows.ERROR_BAD_EXE_FORMAT):           "ERROR_BAD_EXE_FORMAT",
	uint32(windows.RPC_S_SERVER_UNAVAILABLE):       "RPC_S_SERVER_UNAVAILABLE",
	uint32(windows.RPC_S_SERVER_TOO_BUSY):          "RPC_S_SERVER_TOO_BUSY",
	uint32(windows.RPC_S_CALL_FAILED):              "RPC_S_CALL_FAILED",
	uint32(windows.NTE_BAD_UID):                    "NTE_BAD_UID",
	uint32(windows.NTE_BAD_HASH):                   "NTE_BAD_HASH",
	uint32(windows.NTE_BAD_KEY):                    "NTE_BAD_KEY",
	uint32(windows.NTE_BAD_LEN):                    "NTE_BAD_LEN",
	uint32(windows.NTE_BAD_DATA):                   "NTE_BAD_DATA",
	uint32(windows.NTE_BAD_ALGID):                  "NTE_BAD_ALGID",
	uint32(windows.NTE_BAD_FLAGS):                  "NTE_BAD_FLAGS",
	uint32(windows.NTE_BAD_TYPE):                   "NTE_BAD_TYPE",
	uint32(windows.NTE_BAD_KEY_STATE):              "NTE_BAD_KEY_STATE",
	uint32(windows.NTE_NO_KEY):                     "NTE_NO_KEY",
	uint32(windows.NTE_NO_MEMORY):                  "NTE_NO_MEMORY",
	uint32(windows.NTE_EXISTS):                     "NTE_EXISTS",
	uint32(windows.NTE_PERM):                       "NTE_PERM",
	uint32(windows.NTE_NOT_FOUND):                  "NTE_NOT_FOUND",
	uint32(windows.NTE_BAD_PROVIDER):               "NTE_BAD_PROVIDER",
	uint32(windows.NTE_BAD_PROV_TYPE):              "NTE_BAD_PROV_TYPE",
	uint32(windows.NTE_BAD_PUBLIC_KEY):             "NTE_BAD_PUBLIC_KEY",
	uint32(windows.NTE_BAD_KEYSET):                 "NTE_BAD_KEYSET",
	uint32(windows.NTE_PROV_TYPE_NOT_DEF):          "NTE_PROV_TYPE_NOT_DEF",
	uint32(windows.NTE_KEYSET_NOT_DEF):             "NTE_KEYSET_NOT_DEF",
	uint32(windows.NTE_KEYSET_ENTRY_BAD):           "NTE_KEYSET_ENTRY_BAD",
	uint32(windows.NTE_PROVIDER_DLL_FAIL):          "NTE_PROVIDER_DLL_FAIL",
	uint32(windows.NTE_FAIL):                       "NTE_FAIL",
	uint32(windows.NTE_SYS_ERR):                    "NTE_SYS_ERR",
	uint32(windows.NTE_SILENT_CONTEXT):             "NTE_SILENT_CONTEXT",
	uint32(windows.NTE_TEMPORARY_PROFILE):          "NTE_TEMPORARY_PROFILE",
	uint32(windows.NTE_INVALID_HANDLE):             "NTE_INVALID_HANDLE",
	uint32(windows.NTE_INVALID_PARAMETER):          "NTE_INVALID_PARAMETER",
	uint32(windows.NTE_BUFFER_TOO_SMALL):           "NTE_BUFFER_TOO_SMALL",
	uint32(windows.NTE_NOT_SUPPORTED):              "NTE_NOT_SUPPORTED",
	uint32(windows.NTE_DECRYPTION_FAILURE):         "NTE_DECRYPTION_FAILURE",
	uint32(windows.NTE_INTERNAL_ERROR):             "NTE_INTERNAL_ERROR",
	uint32(windows.NTE_UI_REQUIRED):                "NTE_UI_REQUIRED",
	uint32(windows.NTE_DEVICE_NOT_READY):           "NTE_DEVICE_NOT_READY",
	uint32(windows.NTE_VALIDATION_FAILED):          "NTE_VALIDATION_FAILED",
	uint32(windows.NTE_DEVICE_NOT_FOUND):           "NTE_DEVICE_NOT_FOUND",
	uint32(nteVBSCannotDecryptKey):                 "NTE_VBS_CANNOT_DECRYPT_KEY",
	uint32(windows.TPM_20_E_INTEGRITY):             "TPM_20_E_INTEGRITY",
	uint32(windows.TPM_20_E_LOCKOUT):               "TPM_20_E_LOCKOUT",
	uint32(windows.TPM_E_PCP_DEVICE_NOT_READY):     "TPM_E_PCP_DEVICE_NOT_READY",
	uint32(windows.TPM_E_PCP_UNSUPPORTED_PSS_SALT): "TPM_E_PCP_UNSUPPORTED_PSS_SALT",
	uint32(windows.TBS_E_TPM_NOT_FOUND):            "TBS_E_TPM_NOT_FOUND",
	uint32(windows.CRYPT_E_NOT_FOUND):              "CRYPT_E_NOT_FOUND",
	uint32(windows.CRYPT_E_EXISTS):                 "CRYPT_E_EXISTS",
	uint32(windows.CRYPT_E_NO_PROVIDER):            "CRYPT_E_NO_PROVIDER",
	uint32(windows.CRYPT_E_NO_KEY_PROPERTY):        "CRYPT_E_NO_KEY_PROPERTY",
}
