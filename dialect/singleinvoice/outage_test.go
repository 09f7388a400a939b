package singleinvoice_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/singleinvoice"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

func prefixes(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }

// failing is a store whose updates fail once an error is set.
type failing struct {
	keystore.Store
	err error
}

func (f *failing) Update(ctx context.Context, change func(keystore.Tx) error) error {
	if f.err != nil {
		return f.err
	}
	return f.Store.Update(ctx, change)
}

func TestWhatGoesWrongInTheStoreIsLoggedAndNotTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		status int
	}{
		{"unavailable", fmt.Errorf("disk: %w", keystore.ErrUnavailable), 503},
		{"damaged", fmt.Errorf("disk: %w", keystore.ErrDamaged), 503},
		{"the client left", fmt.Errorf("disk: %w", context.Canceled), 503},
		{"a conflict of the store's own", fmt.Errorf("disk: %w", keystore.ErrConflict), 500},
		{"unforeseen", errors.New("disk: constraint failed"), 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &failing{}
			issued, mounted, logs := mount(t, store)
			store.err = c.err
			w := httptest.NewRecorder()
			r := httptest.NewRequest("POST", "/account/key", strings.NewReader(`{"package":"Coverage"}`))
			r.Header.Set("apikey", issued.Text)
			mounted.Route(r)(w, r)
			store.err = nil
			if w.Code != c.status || w.Body.String() != `{"Message":"An error has occurred."}` {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if got := w.Header().Get("Retry-After"); (got != "") != (c.status == http.StatusServiceUnavailable) {
				t.Errorf("Retry-After %q", got)
			}
			if entries := logs.FilterMessage("a key could not be made").All(); len(entries) != 1 || !strings.Contains(fmt.Sprint(entries[0].ContextMap()), "disk") {
				t.Errorf("logged %v", logs.All())
			}
		})
	}
}

// mount mounts the dialect over a store that begins with one Account key.
func mount(t *testing.T, store *failing) (*keystore.Issued, *singleinvoice.Dialect, *observer.ObservedLogs) {
	t.Helper()
	var err error
	if store.Store, err = sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "store", "keys.db")); err != nil {
		t.Fatal(err)
	}
	vault, err := keystore.OpenVault(t.Context(), store, keystore.MinCacheSize, func(string, error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vault.Close() })
	packages := []keystore.Package{{Name: "Account"}, {Name: "Coverage"}}
	keyring, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{Packages: packages})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := keyring.CreateAccount(t.Context(), keystore.Account{})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := keyring.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: owner.ID, Package: "Account"})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	d := new(singleinvoice.Dialect)
	if err := d.Mount(dialect.Gateway{
		Packages: packages, ReservePackage: func(string) {}, Logger: zap.New(core),
		Keyring: func(context.Context) (*keystore.Keyring, error) { return keyring, nil },
	}); err != nil {
		t.Fatal(err)
	}
	return issued, d, logs
}
