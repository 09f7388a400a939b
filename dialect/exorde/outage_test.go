package exorde_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/exorde"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// failing is a store whose updates fail once an error is set.
type failing struct {
	keystore.Store
	err error
	// before, if set, runs once before the next update.
	before  func()
	keyring *keystore.Keyring
}

func (f *failing) Update(ctx context.Context, change func(keystore.Tx) error) error {
	if before := f.before; before != nil {
		f.before = nil
		before()
	}
	if f.err != nil {
		return f.err
	}
	return f.Store.Update(ctx, change)
}

func TestWhatGoesWrongInTheStoreIsLoggedAndNotTold(t *testing.T) {
	const undone = `^{"requestId":"` + requestID + `"}$`
	for _, c := range []struct {
		name string
		err  error
		code int
		body string
	}{
		{"unavailable", fmt.Errorf("disk: %w", keystore.ErrUnavailable), 503, `^$`},
		{"damaged", fmt.Errorf("disk: %w", keystore.ErrDamaged), 503, `^$`},
		{"the client left", fmt.Errorf("disk: %w", context.Canceled), 503, `^$`},
		{"unforeseen", errors.New("disk: constraint failed"), 500, undone},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &failing{}
			issued, mounted, logs := mount(t, store)
			store.err = c.err
			w := httptest.NewRecorder()
			repl := caddy.NewReplacer()
			repl.Set("http.request.uuid", requestID)
			r := httptest.NewRequest("PUT", "/user/api-key", nil)
			r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl))
			r.Header.Set("Authorization", "Bearer "+issued.Text)
			mounted.Route(r)(w, r)
			store.err = nil
			if w.Code != c.code || !regexp.MustCompile(c.body).MatchString(w.Body.String()) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if got := w.Header().Get("Retry-After"); (got != "") != (c.code == 503) {
				t.Errorf("Retry-After %q", got)
			}
			entries := logs.FilterMessage("an API key could not be replaced").All()
			if len(entries) != 1 || entries[0].Level != zap.ErrorLevel || entries[0].ContextMap()["request_id"] != requestID ||
				entries[0].ContextMap()["error"] != c.err.Error() {
				t.Errorf("logged %v", logs.All())
			}
		})
	}
}

const requestID = "123e4567-e89b-42d3-a456-426655440000"

func TestWhatTheKeyringRefusesIsAnErrorObject(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
	}{
		"a role it lacks":            {keystore.ErrForbidden, 403},
		"a credential that expired":  {keystore.ErrConflict, 403},
		"a credential that is gone":  {keystore.ErrNotFound, 401},
		"a key that stopped working": {keystore.ErrKeyStopped, 401},
	} {
		t.Run(name, func(t *testing.T) {
			store := &failing{}
			issued, mounted, _ := mount(t, store)
			store.err = c.err
			w := httptest.NewRecorder()
			r := httptest.NewRequest("PUT", "/user/api-key", nil)
			r.Header.Set("Authorization", "Bearer "+issued.Text)
			mounted.Route(r)(w, r)
			store.err = nil
			if w.Code != c.code || !errorObject.MatchString(w.Body.String()) || (w.Header().Get("WWW-Authenticate") != "") != (c.code == 401) {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
		})
	}
}

// The last moment at which a key can stop is right before the change.
func TestAKeyThatStopsAtTheLastMomentIsRefusedWithItsVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*keystore.Credential)
		wait time.Duration
		code int
	}{
		"deactivated": {func(c *keystore.Credential) { c.Active = false }, 0, 403},
		"expired":     {func(c *keystore.Credential) { c.ExpiresAt = keystore.InstantOf(time.Now().Add(200 * time.Millisecond)) }, 250 * time.Millisecond, 401},
	} {
		t.Run(name, func(t *testing.T) {
			store := &failing{}
			issued, mounted, _ := mount(t, store)
			store.before = func() {
				_, err := store.keyring.UpdateCredential(t.Context(), keystore.Operator(), issued.Credential.ID, func(cr *keystore.Credential) error {
					c.edit(cr)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				time.Sleep(c.wait)
			}
			w := httptest.NewRecorder()
			r := httptest.NewRequest("PUT", "/user/api-key", nil)
			r.Header.Set("Authorization", "Bearer "+issued.Text)
			mounted.Route(r)(w, r)
			if w.Code != c.code || !errorObject.MatchString(w.Body.String()) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

// mount mounts the dialect over a store that begins with one key.
func mount(t *testing.T, store *failing) (*keystore.Issued, *exorde.Dialect, *observer.ObservedLogs) {
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
	keyring, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := keyring.CreateAccount(t.Context(), keystore.Account{})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := keyring.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: owner.ID})
	if err != nil {
		t.Fatal(err)
	}
	store.keyring = keyring
	core, logs := observer.New(zap.DebugLevel)
	d := new(exorde.Dialect)
	if err := d.Mount(dialect.Gateway{
		Logger:  zap.New(core),
		Keyring: func(context.Context) (*keystore.Keyring, error) { return keyring, nil },
	}); err != nil {
		t.Fatal(err)
	}
	return issued, d, logs
}
