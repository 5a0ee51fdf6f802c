package winstore

import (
	"testing"

	"github.com/azmtls/azmtls/imdstest/storetest"
	"github.com/azmtls/azmtls/mtls"
)

// CurrentUser\My does all that is asked of a store.
func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Subject{
		Open: func(*testing.T) mtls.Store { return Store{} },
		Key:  func(t *testing.T) mtls.Key { return persistedKey(t) },
	})
}
