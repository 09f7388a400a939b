package apikeys

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// vaults are the open stores of the process by their place, so that
// configurations that overlap in a reload share the store, its cache and what
// makes revocation certain.
var vaults = caddy.NewUsagePool()

// pooledVault closes a vault when its last user releases it.
type pooledVault struct{ *keystore.Vault }

// Destruct closes the vault.
func (v pooledVault) Destruct() error { return v.Close() }

// acquireVault opens the app's store, or joins those who have it open. Whoever
// acquires it releases it once with vaults.Delete(app.place).
func (app *App) acquireVault() (*keystore.Vault, error) {
	v, loaded, err := vaults.LoadOrNew(app.place, func() (caddy.Destructor, error) {
		ctx := context.Background()
		store, err := app.place.open(ctx)
		if err != nil {
			return nil, err
		}
		vault, err := keystore.OpenVault(ctx, store, app.CacheSize, reportVault, keystore.WithLease(app.place.lease, app.place.stale))
		if err != nil {
			_ = store.Close()
			return nil, fmt.Errorf("store %v: %w", app.place, err)
		}
		return pooledVault{vault}, nil
	})
	if err != nil {
		return nil, err
	}
	vault := v.(pooledVault).Vault
	if loaded {
		vault.Resize(app.CacheSize)
	}
	return vault, nil
}

// reportVault logs what goes wrong in the background, and what is well again. A
// vault outlives the configuration that opened it, so it takes the logger of the
// moment.
func reportVault(what string, err error) {
	logger := caddy.Log().Named(appName)
	if err == nil {
		logger.Info(what)
		return
	}
	logger.Error(what, zap.Error(err))
}

// readMasterKey reads the 32 bytes of a master key, in hex or base64.
func readMasterKey(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("recoverable: %w", err)
	}
	text := strings.TrimSpace(string(content))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if key, err := decode(text); err == nil && len(key) == keystore.MasterKeySize {
			return key, nil
		}
	}
	return nil, fmt.Errorf("recoverable %s: the file must hold %d random bytes in hex or base64, such as `openssl rand -base64 %d` prints",
		path, keystore.MasterKeySize, keystore.MasterKeySize)
}
