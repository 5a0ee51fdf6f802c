package winstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// saveForEver saves bindings under an alias until it is killed, and says so once it has begun.
func saveForEver(arguments []string) (err error) {
	s := &stresser{shared: arguments[0]}
	if s.key, err = newCAPIKey(arguments[1]); err != nil {
		return err
	}
	if s.authority, err = newTestAuthority(); err != nil {
		return err
	}
	for first := true; ; first = false {
		now := time.Now()
		b, err := s.binding(now)
		if err != nil {
			return err
		}
		if err := s.unlessBusy(save(s.shared, b, now)); err != nil {
			return err
		}
		if first {
			fmt.Println("saving")
		}
	}
}

// A process that is killed (TerminateProcess) while it saves leaves a store that the next one reads, writes and cleans:
// what it finds is a whole binding, and the lock is free.
func TestKilledWhileSaving(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 3
	}
	f := newFixture(t)
	alias := f.newAlias(uuid.NewString())
	for range kills {
		container := "azmtls-test-" + uuid.NewString()
		c := StartChild(t, "save", alias, container)
		require.Equal(t, "saving", c.Line())
		time.Sleep(rand.N(50 * time.Millisecond)) // the process is another one: there is no clock to inject
		c.Kill()
		if loaded, err := load(context.Background(), alias, time.Now()); err == nil {
			require.NotEmpty(t, loaded.Thumbprint())
			_ = loaded.Certificate.PrivateKey.(*key).Close()
		} else {
			require.ErrorIs(t, err, mtls.ErrNotFound)
		}
		b := f.bindingFor(9 * day)
		require.NoError(t, save(alias, b, time.Now()), "the lock is free")
		require.NoError(t, Store{}.DeleteAll(context.Background(), alias))
		left, err := storedUnder(alias)
		require.NoError(t, err)
		require.Empty(t, left)
		deleteCAPIKey(container, capiProvider, windows.PROV_RSA_AES)
	}
	if os.Getenv("AZMTLS_RELIABILITY") == "1" {
		t.Logf(`RELIABILITY {"name":"crash","kills":%d,"survived":%d,"system":"windows, while saving"}`, kills, kills)
	}
}
