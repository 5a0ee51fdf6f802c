package winstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/azmtls/azmtls/internal/eventlog"
	"golang.org/x/sys/windows"
)

const attestationDLL = "AttestationClientLib.dll"

// attestationLibrary is the loaded AttestationClientLib.dll. Its functions are declared in AttestationApi.h of the
// NuGet package Microsoft.Azure.Security.KeyGuardAttestation:
//
//	long InitAttestationLib(AttestationLogInfo *info)
//	long AttestKeyGuardImportKey(const char *endpoint, const char *auth_token, const char *client_payload,
//	                             NCRYPT_KEY_HANDLE key, char **token, const char *client_id)
//	void FreeAttestationToken(char *token)
type attestationLibrary struct {
	attestKey, freeToken *windows.Proc
	info                 attestationLogInfo // the library keeps a pointer to it
}

// attestationLogInfo is AttestationLogInfo: a function that the library calls with each line of its log.
type attestationLogInfo struct {
	log     uintptr
	context uintptr
}

// loadAttestation loads the library from a path, or from where it is installed, but never from the working directory or
// the PATH, where somebody else may have put one.
func loadAttestation(path string) (*attestationLibrary, error) {
	name, from := attestationDLL, uintptr(
		windows.LOAD_LIBRARY_SEARCH_APPLICATION_DIR|windows.LOAD_LIBRARY_SEARCH_SYSTEM32,
	)
	if path != "" {
		if !filepath.IsAbs(path) {
			return nil, errors.New("KeyGuardAttestation.Library must be an absolute path")
		}
		name, from = path, windows.LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR|windows.LOAD_LIBRARY_SEARCH_SYSTEM32
	}
	handle, err := windows.LoadLibraryEx(name, 0, from)
	if err != nil {
		return nil, fmt.Errorf(
			"loading %s, is it installed beside the executable, and for this architecture? %w",
			attestationDLL,
			failed("LoadLibraryEx", err),
		)
	}
	library, err := initAttestation(&windows.DLL{Name: name, Handle: handle})
	if err != nil {
		_ = windows.FreeLibrary(handle)
		return nil, err
	}
	return library, nil
}

func initAttestation(dll *windows.DLL) (*attestationLibrary, error) {
	initialize, err := dll.FindProc("InitAttestationLib")
	if err != nil {
		return nil, err
	}
	l := &attestationLibrary{info: attestationLogInfo{log: attestationLog()}}
	if l.attestKey, err = dll.FindProc("AttestKeyGuardImportKey"); err != nil {
		return nil, err
	}
	if l.freeToken, err = dll.FindProc("FreeAttestationToken"); err != nil {
		return nil, err
	}
	if code, _, _ := initialize.Call(uintptr(unsafe.Pointer(&l.info))); int32(code) != 0 {
		return nil, fmt.Errorf("InitAttestationLib: 0x%08X", uint32(code))
	}
	return l, nil
}

// attest returns the token of a key. The call goes over the network.
func (l *attestationLibrary) attest(endpoint string, key windows.Handle, clientID string) (string, error) {
	wantedFrom, err := windows.BytePtrFromString(endpoint)
	if err != nil {
		return "", err
	}
	client, err := windows.BytePtrFromString(clientID)
	if err != nil {
		return "", err
	}
	var noToken byte
	payload := [...]byte{'{', '}', 0} // newer versions refuse NULL and ""
	var token *byte
	code, _, _ := l.attestKey.Call(
		uintptr(unsafe.Pointer(wantedFrom)),
		uintptr(unsafe.Pointer(&noToken)),
		uintptr(unsafe.Pointer(&payload)),
		uintptr(key),
		uintptr(unsafe.Pointer(&token)),
		uintptr(unsafe.Pointer(client)),
	)
	if token != nil {
		defer func() { _, _, _ = l.freeToken.Call(uintptr(unsafe.Pointer(token))) }()
	}
	if int32(code) != 0 {
		return "", fmt.Errorf(
			"winstore: AttestKeyGuardImportKey: 0x%08X; is this a Trusted Launch VM whose vTPM is capable of attestation "+
				"(tpmtool getdeviceinformation)?",
			uint32(code),
		)
	}
	jwt := windows.BytePtrToString(token)
	if jwt == "" {
		return "", errors.New("winstore: AttestKeyGuardImportKey returned no token")
	}
	return jwt, nil
}

// attestationLog is the library's way to our log. It is made once: Windows callbacks of Go are never freed.
var attestationLog = sync.OnceValue(func() uintptr {
	const levelWarning = 1
	return windows.NewCallbackCDecl(
		func(_ uintptr, _ *byte, level uintptr, function *byte, line uintptr, _ *byte) uintptr {
			if int32(level) <= levelWarning { // the message itself may hold tokens
				eventlog.Writef(
					context.Background(),
					eventlog.Binding,
					"%s: trouble in %s, line %d",
					attestationDLL,
					windows.BytePtrToString(function),
					int32(line),
				)
			}
			return 0
		},
	)
})
