package tpmstore

import (
	"crypto"
	"crypto/fips140"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"
)

// clearTPM clears a TPM as its owner does: what it wrapped is gone, and what it kept.
func clearTPM(t *testing.T, tpm *swtpm.TPM) {
	on(t, tpm.Socket, func(s *session) (any, error) {
		_, err := tpm2.Clear{AuthHandle: emptyAuth(tpm2.TPMRHLockout, nil)}.Execute(s)
		return nil, err
	})
}

// keep makes a primary key persistent, as a provisioning tool does.
func keep(t *testing.T, socket string, template tpm2.TPM2BPublic) {
	on(t, socket, func(s *session) (any, error) {
		made, err := tpm2.CreatePrimary{PrimaryHandle: emptyAuth(tpm2.TPMRHOwner, nil), InPublic: template}.Execute(s)
		if err != nil {
			return nil, err
		}
		defer flush(s, made.ObjectHandle)
		_, err = tpm2.EvictControl{
			Auth:             emptyAuth(tpm2.TPMRHOwner, nil),
			ObjectHandle:     &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name},
			PersistentHandle: persistentSRK,
		}.Execute(s)
		return nil, err
	})
}

// evict removes it again.
func evict(t *testing.T, socket string) {
	on(t, socket, func(s *session) (any, error) {
		kept, err := tpm2.ReadPublic{ObjectHandle: persistentSRK}.Execute(s)
		if err != nil {
			return nil, err
		}
		_, err = tpm2.EvictControl{
			Auth:             emptyAuth(tpm2.TPMRHOwner, nil),
			ObjectHandle:     &tpm2.NamedHandle{Handle: persistentSRK, Name: kept.Name},
			PersistentHandle: persistentSRK,
		}.Execute(s)
		return nil, err
	})
}

// own gives the owner of a TPM a password.
func own(t *testing.T, socket string) {
	on(t, socket, func(s *session) (any, error) {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: emptyAuth(tpm2.TPMRHOwner, nil), NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")},
		}.Execute(s)
		return nil, err
	})
}

func signs(k *key) error {
	_, err := k.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
	return err
}

// A key is dead when the TPM was cleared or its file is damaged: then, and only then, another is made.
func TestDeadKeyIsMadeAnew(t *testing.T) {
	spoil := func(edit func(w *wrapped)) func(*testing.T, *swtpm.TPM, string) {
		return func(t *testing.T, _ *swtpm.TPM, file string) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			w, err := parseWrapped(text)
			require.NoError(t, err)
			edit(&w)
			require.NoError(t, os.WriteFile(file, w.encode(), 0o600))
		}
	}
	for name, kill := range map[string]func(t *testing.T, tpm *swtpm.TPM, file string){
		"wiped":        func(t *testing.T, tpm *swtpm.TPM, _ string) { require.NoError(t, tpm.Wipe()) },
		"cleared":      func(t *testing.T, tpm *swtpm.TPM, _ string) { clearTPM(t, tpm) },
		"a bit":        spoil(func(w *wrapped) { w.private[len(w.private)/2] ^= 1 }),
		"half of it":   spoil(func(w *wrapped) { w.private = w.private[:len(w.private)/2] }),
		"ten bytes":    spoil(func(w *wrapped) { w.private = w.private[:10] }),
		"far too long": spoil(func(w *wrapped) { w.private = make([]byte, 4000) }),
		"other public": spoil(func(w *wrapped) { w.public[len(w.public)-1] ^= 2 }),
		"no PEM":       writeFile(func([]byte) []byte { return []byte("hello") }),
		"PEM cut off":  writeFile(func(b []byte) []byte { return b[:len(b)/2] }),
		"readable by all": func(t *testing.T, _ *swtpm.TPM, file string) {
			require.NoError(t, os.Chmod(file, 0o644))
		},
		"a folder": func(t *testing.T, _ *swtpm.TPM, file string) {
			require.NoError(t, os.Remove(file))
			require.NoError(t, os.MkdirAll(filepath.Join(file, "deep"), 0o700))
		},
		"a symbolic link": func(t *testing.T, _ *swtpm.TPM, file string) {
			require.NoError(t, os.Rename(file, file+".moved"))
			require.NoError(t, os.Symlink(file+".moved", file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			tpm := startTPM(t)
			keys := Keys{tpm.Socket, t.TempDir()}
			old := tpmKeyOf(t, keys)
			require.Equal(t, old.Public(), tpmKeyOf(t, keys).Public())
			events := logged(t, "the key ")
			kill(t, tpm, filepath.Join(keys.Folder, folderName, keyFile))
			fresh := tpmKeyOf(t, keys)
			require.Len(t, events(), 1)
			require.Contains(t, events()[0], "is made anew", "and kept")
			require.NotEqual(t, old.Public(), fresh.Public())
			require.NoError(t, signs(fresh))
			require.Equal(t, fresh.Public(), tpmKeyOf(t, keys).Public(), "it is kept")
			require.Empty(t, handles(t, tpm.Socket, firstTransient))
			if name == "wiped" || name == "cleared" {
				err := signs(old)
				require.ErrorIs(t, err, errDead)
				require.NotErrorIs(t, err, mtls.ErrKeyNotNow)
				require.ErrorContains(t, err, "the TPM was cleared")
			}
		})
	}
}

func writeFile(spoil func([]byte) []byte) func(*testing.T, *swtpm.TPM, string) {
	return func(t *testing.T, _ *swtpm.TPM, file string) { write(spoil)(t, file) }
}

// What a TPM says to the commands for a key that is good never costs the key.
func TestNotNow(t *testing.T) {
	tpm := startTPM(t)
	p := startProxy(t, tpm.Socket)
	keys := Keys{p.Socket, t.TempDir()}
	old := tpmKeyOf(t, keys)
	file := filepath.Join(keys.Folder, folderName, keyFile)
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, command := range []tpm2.TPMCC{tpm2.TPMCCReadPublic, tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCSign} {
		for _, code := range []tpm2.TPMRC{
			tpm2.TPMRCLockout, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable, tpm2.TPMRCCanceled, tpm2.TPMRCFailure,
			tpm2.TPMRCObjectMemory, tpm2.TPMRCMemory, tpm2.TPMRCInitialize, tpm2.TPMRCHierarchy | 0x100,
			tpm2.TPMRCBadAuth | 0x900, tpm2.TPMRCAuthFail | 0x900, tpm2.TPMRCReboot, tpm2.TPMRCNeedsTest, tpm2.TPMRCType | 0x100,
			0xfff, 0x80280400,
		} {
			t.Run(fmt.Sprintf("%x/%x", uint32(command), uint32(code)), func(t *testing.T) {
				p.set(func(p *proxy) { p.answer = refusing(command, code, 0) })
				defer p.set(func(p *proxy) { p.answer = nil })
				err := signs(old)
				require.ErrorIs(t, err, mtls.ErrKeyNotNow)
				require.NotErrorIs(t, err, errDead)
				if command == tpm2.TPMCCSign {
					return // only loading is tried by those who look whether a key is good
				}
				k, err := keys.Key(t.Context())
				require.NoError(t, err)
				require.Equal(t, mtls.StrengthSoftware, k.Strength())
				require.ErrorIs(t, k.(softwareKey).PassedOver()[0].Err, mtls.ErrKeyNotNow)
				now, err := os.ReadFile(file)
				require.NoError(t, err)
				require.Equal(t, kept, now)
			})
		}
	}
	require.Equal(t, old.Public(), tpmKeyOf(t, keys).Public())
	require.Empty(t, handles(t, tpm.Socket, firstTransient))
}

// A device that goes away while it is looked at costs no key, although it is "not exist" that the system says then,
// too.
func TestDeviceGoesAway(t *testing.T) {
	tpm := startTPM(t)
	keys := Keys{tpm.Socket, t.TempDir()}
	old := tpmKeyOf(t, keys)
	f, err := openFolder(keys.Folder, false)
	require.NoError(t, err)
	defer f.close()
	_, err = f.key(t.Context(), newDevice(filepath.Join(t.TempDir(), "gone")))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorIs(t, err, mtls.ErrKeyNotNow)
	_, err = f.kept(t.Context(), newDevice(filepath.Join(t.TempDir(), "gone")))
	require.NotErrorIs(t, err, errNoKey)
	require.Equal(t, old.Public(), tpmKeyOf(t, keys).Public())
}

// The storage root key that the TPM keeps is used where it is there, whatever its template, and left as it is.
func TestParentThatTheTPMKeeps(t *testing.T) {
	rsaRoot := tpm2.New2B(tpm2.RSASRKTemplate)
	for name, template := range map[string]tpm2.TPM2BPublic{
		"the TCG's": storageRootTemplate(), "RSA": rsaRoot, "go-tpm's": tpm2.New2B(tpm2.ECCSRKTemplate),
	} {
		t.Run(name, func(t *testing.T) {
			tpm := startTPM(t)
			keep(t, tpm.Socket, template)
			keys := Keys{tpm.Socket, t.TempDir()}
			k := tpmKeyOf(t, keys)
			require.Equal(t, persistentSRK, k.wrapped.parent)
			require.Equal(t, []tpm2.TPMHandle{persistentSRK}, handles(t, tpm.Socket, firstPersistent))
			require.NoError(t, signs(k))
			require.Empty(t, handles(t, tpm.Socket, firstTransient), "every key is flushed")

			evict(t, tpm.Socket) // it is not cleared: the key is not dead
			err := signs(k)
			if name == "the TCG's" {
				require.NoError(t, err, "the TPM makes it again")
			} else {
				require.ErrorIs(t, err, mtls.ErrKeyNotNow)
				require.ErrorContains(t, err, "put it back")
			}
			keep(t, tpm.Socket, template)
			require.Equal(t, k.Public(), tpmKeyOf(t, keys).Public())

			own(t, tpm.Socket) // without the owner's password only what is kept can be used
			require.NoError(t, signs(k))
			owned := tpmKeyOf(t, Keys{tpm.Socket, t.TempDir()})
			require.Nil(t, owned.wrapped.storageRoot)
			require.NoError(t, signs(owned))

			clearTPM(t, tpm)
			require.ErrorIs(t, signs(k), errDead)
			require.ErrorIs(t, signs(owned), mtls.ErrKeyNotNow, "nobody can tell")
		})
	}
}

// A TPM whose owner has a password and that keeps no storage root key gives no key, and says why.
func TestOwnerHasAPassword(t *testing.T) {
	tpm := startTPM(t)
	keys := Keys{tpm.Socket, t.TempDir()}
	old := tpmKeyOf(t, keys)
	own(t, tpm.Socket)
	require.ErrorIs(t, signs(old), mtls.ErrKeyNotNow)
	k, err := keys.Key(t.Context())
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthSoftware, k.Strength())
	reason := k.(softwareKey).PassedOver()[0].Err
	require.ErrorIs(t, reason, tpm2.TPMRCBadAuth)
	require.ErrorContains(t, reason, "making the storage root key")
}

// What lies at the handle of the storage root key and is no parent is passed by.
func TestNoParentIsKept(t *testing.T) {
	tpm := startTPM(t)
	keep(t, tpm.Socket, keyTemplate())
	k := tpmKeyOf(t, Keys{tpm.Socket, t.TempDir()})
	require.Equal(t, tpm2.TPMRHOwner, k.wrapped.parent)
	require.NoError(t, signs(k))
}

// Failed attempts at other keys lock a TPM out, and do not lock this key.
func TestLockout(t *testing.T) {
	tpm := startTPM(t)
	k := tpmKeyOf(t, Keys{tpm.Socket, t.TempDir()})
	on(t, tpm.Socket, func(s *session) (any, error) {
		response, err := s.Send([]byte{ // TPM2_DictionaryAttackParameters, which go-tpm does not have
			0x80, 0x02, 0, 0, 0, 39, 0, 0, 0x01, 0x3a, 0x40, 0, 0, 0x0a, // header, TPM_RH_LOCKOUT
			0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, // an empty password
			0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 3, 0xe8, // no try at all, 1000 s of recovery
		})
		require.Equal(t, make([]byte, 4), response[6:headerSize])
		return nil, err
	})
	require.NoError(t, signs(k))
	withDA := keyTemplate()
	area, err := withDA.Contents()
	require.NoError(t, err)
	area.ObjectAttributes.NoDA = false
	_, err = use(t.Context(), k.device, func(s *session) (any, error) {
		root, err := storageRoot(s)
		if err != nil {
			return nil, err
		}
		defer root.flush(s)
		made, err := tpm2.Create{ParentHandle: root.auth(), InPublic: tpm2.New2B(*area)}.Execute(s)
		if err != nil {
			return nil, err
		}
		other := wrapped{
			parent: tpm2.TPMRHOwner, parentName: root.name, public: made.OutPublic.Bytes(), private: made.OutPrivate.Buffer,
		}
		root.flush(s)
		return other.sign(s, digestOf(crypto.SHA256), padding{hash: crypto.SHA256})
	})
	require.ErrorIs(t, err, tpm2.TPMRCLockout, "the TPM is locked out")
}

// A TPM that fills the space that a signature has with salt is found out when it makes its first key.
func TestSaltThatFillsTheSpace(t *testing.T) {
	software, err := mtls.SoftwareKeys{}.Key(t.Context())
	require.NoError(t, err)
	for name, salt := range map[string]int{"fills the space": 222, "none": 0} {
		t.Run(name, func(t *testing.T) {
			if fips140.Enabled() && salt > crypto.SHA256.Size() {
				t.Skip("Go signs with no such salt there")
			}
			tpm := startTPM(t)
			p := startProxy(t, tpm.Socket)
			p.set(func(p *proxy) { p.answer, p.edit = impersonate(software, salt) })
			keys := Keys{p.Socket, t.TempDir()}
			k, err := keys.Key(t.Context())
			require.NoError(t, err)
			require.Equal(t, mtls.StrengthSoftware, k.Strength())
			passedOver := k.(softwareKey).PassedOver()
			require.Len(t, passedOver, 1)
			require.Equal(t, mtls.StrengthTPM, passedOver[0].Strength)
			require.ErrorContains(t, passedOver[0].Err, "salt is not as long as the hash")
			require.NoFileExists(t, filepath.Join(keys.Folder, folderName, keyFile))
			strength, passedOver, err := keys.Choose(t.Context())
			require.NoError(t, err)
			require.Equal(t, mtls.StrengthSoftware, strength)
			require.ErrorContains(t, passedOver[0].Err, "salt is not as long as the hash")
		})
	}
}
