// A stand-in for AttestationClientLib.dll, as strict as a library can be: it uses the key that it is given, logs from a thread of its
// own and counts what it has not got back. What it returns is in the environment of the test.
//
//	x86_64-w64-mingw32-gcc -shared -o AttestationClientLib.dll attestation.c -lncrypt
#include <windows.h>
#include <bcrypt.h>
#include <ncrypt.h>
#include <stdlib.h>
#include <string.h>

typedef void (*LogFunction)(void *context, const char *tag, int level, const char *function, int line, const char *message);
typedef struct { LogFunction Log; void *Context; } AttestationLogInfo;

static AttestationLogInfo *info;
static LONG calls, outstanding;

static int set(const char *variable) {
    char value[2];
    return GetEnvironmentVariableA(variable, value, sizeof value) > 0;
}

static DWORD WINAPI logFromThread(void *unused) {
    info->Log(info->Context, "Attestation", 0, "logFromThread", 42, "secret");
    return 0;
}

__declspec(dllexport) long InitAttestationLib(AttestationLogInfo *given) {
    if (given == NULL || given->Log == NULL || set("ATTEST_INIT_FAILS")) return 0x1234;
    info = given;
    return 0;
}

__declspec(dllexport) long AttestKeyGuardImportKey(const char *endpoint, const char *auth_token, const char *client_payload,
                                                   NCRYPT_KEY_HANDLE key, char **token, const char *client_id) {
    char answer[4096];
    BYTE blob[4096];
    DWORD size = 0;
    HANDLE thread;
    InterlockedIncrement(&calls);
    if (info == NULL || auth_token == NULL || client_payload == NULL || token == NULL) return 1;
    if (strcmp(auth_token, "") != 0 || strcmp(client_payload, "{}") != 0) return 4;
    if (strcmp(endpoint, "https://attest.example") != 0 || strlen(client_id) != 36) return 2;
    if (NCryptExportKey(key, 0, BCRYPT_RSAPUBLIC_BLOB, NULL, blob, sizeof blob, &size, 0) != 0 || size == 0) return 3;
    thread = CreateThread(NULL, 0, logFromThread, NULL, 0, NULL);
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
    *token = NULL;
    if (GetEnvironmentVariableA("ATTEST_JWT", answer, sizeof answer) > 0) {
        *token = strdup(answer);
        InterlockedIncrement(&outstanding);
    }
    return set("ATTEST_FAILS") ? (long)0x80090016 : 0;
}

__declspec(dllexport) void FreeAttestationToken(char *token) {
    if (token == NULL) return;
    memset(token, 'x', strlen(token));
    free(token);
    InterlockedDecrement(&outstanding);
}

__declspec(dllexport) long Calls(void) { return calls; }
__declspec(dllexport) long Outstanding(void) { return outstanding; }
