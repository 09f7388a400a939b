package adyen_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/adyen"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// frail is a store whose views and updates fail with these errors, if they are
// set. An update fails after its change was tried, and is undone.
type frail struct {
	keystore.Store
	mu                sync.Mutex
	viewing, updating error
	beforeUpdate      func()
}

// fail makes views and updates fail from now on.
func (s *frail) fail(viewing, updating error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewing, s.updating = viewing, updating
}

func (s *frail) View(ctx context.Context, read func(keystore.Reader) error) error {
	s.mu.Lock()
	broken := s.viewing
	s.mu.Unlock()
	if broken != nil {
		return broken
	}
	return s.Store.View(ctx, read)
}

func (s *frail) Update(ctx context.Context, change func(keystore.Tx) error) error {
	s.mu.Lock()
	before, broken := s.beforeUpdate, s.updating
	s.beforeUpdate = nil
	s.mu.Unlock()
	if before != nil {
		before()
	}
	if broken == nil {
		return s.Store.Update(ctx, change)
	}
	return s.Store.Update(ctx, func(tx keystore.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		return broken
	})
}

// outage is the dialect over a store that can fail, without the rest of the
// gateway.
type outage struct {
	*testing.T
	store   *frail
	keyring *keystore.Keyring
	// broken, if set, is why there is no keyring, beginning with the call of that
	// number.
	broken     error
	brokenFrom int
	calls      int
	logs       *observer.ObservedLogs
	url        string
}

func newOutage(t *testing.T) *outage {
	t.Helper()
	sqlite, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "keys", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	o := &outage{T: t, store: &frail{Store: sqlite}}
	vault, err := keystore.OpenVault(t.Context(), o.store, keystore.MinCacheSize, func(string, error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vault.Close() })
	if o.keyring, err = keystore.NewKeyring(t.Context(), vault, keystore.Config{}); err != nil {
		t.Fatal(err)
	}
	o.serve()
	return o
}

func (o *outage) serve() {
	core, logs := observer.New(zapcore.DebugLevel)
	o.logs = logs
	d := new(adyen.Dialect)
	if err := d.Mount(dialect.Gateway{Base: "/v3", Keyring: o.open, Logger: zap.New(core)}); err != nil {
		o.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.Route(r)(w, r) }))
	o.Cleanup(server.Close)
	o.url = server.URL
}

func (o *outage) open(context.Context) (*keystore.Keyring, error) {
	o.calls++
	if o.broken != nil && o.calls >= o.brokenFrom {
		return nil, o.broken
	}
	return o.keyring, nil
}

func (o *outage) holder(roles ...string) holder {
	o.Helper()
	a, err := o.keyring.CreateAccount(o.Context(), keystore.Account{})
	if err != nil {
		o.Fatal(err)
	}
	issued, err := o.keyring.Issue(o.Context(), keystore.Operator(), keystore.Credential{AccountID: a.ID, Roles: roles})
	if err != nil {
		o.Fatal(err)
	}
	return holderOf(issued)
}

// generate returns the status and the body of an answer, and its Retry-After.
func (o *outage) generate(key string, headers ...string) (status int, body, retryAfter string) {
	o.Helper()
	return o.post(me, key, headers...)
}

func (o *outage) post(target, key string, headers ...string) (status int, body, retryAfter string) {
	o.Helper()
	r, err := http.NewRequest("POST", o.url+target, nil)
	if err != nil {
		o.Fatal(err)
	}
	r.Header.Set("X-API-Key", key)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		o.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		o.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header.Get("Retry-After")
}

// wantFailure checks that an answer is the error object of a failure of the
// server, and that its cause is in the log under its id, and nowhere else.
func (o *outage) wantFailure(status int, detail, cause, key string, headers ...string) {
	o.Helper()
	got, body, retryAfter := o.generate(key, headers...)
	id := idOf(body)
	if got != status || id == "" || body != errorObject(status, http.StatusText(status), detail, id) {
		o.Errorf("answered %d %s", got, body)
	}
	if (retryAfter == "5") != (status == 503) {
		o.Errorf("Retry-After is %q", retryAfter)
	}
	logged := o.logs.TakeAll()
	if !slices.ContainsFunc(logged, func(e observer.LoggedEntry) bool {
		return e.Level == zap.ErrorLevel && e.ContextMap()["request_id"] == id
	}) {
		o.Errorf("the log has no error of this id: %v", logged)
	}
	if !slices.ContainsFunc(logged, func(e observer.LoggedEntry) bool { return strings.Contains(fmt.Sprint(e.ContextMap()), cause) }) {
		o.Errorf("the log does not say %q: %v", cause, logged)
	}
}

const (
	unavailable   = "The API keys can't be reached at the moment, and whether a key was generated is not known; try again, with the same Idempotency-Key if there was one."
	cantBeChecked = "The API key can't be checked at the moment; try again."
	unforeseen    = "Something went wrong. The log of the server says what, under this requestId."
)

func TestAFailureOfTheStoreIsNoFaultOfTheClients(t *testing.T) {
	o := newOutage(t)
	own := o.holder(role)

	o.broken = errors.New("open /var/lib/keys.db: permission denied")
	o.wantFailure(503, cantBeChecked, "permission denied", own.key)
	o.calls, o.brokenFrom = 0, 2
	o.wantFailure(503, unavailable, "permission denied", own.key)
	o.broken = nil

	for _, c := range []struct {
		status int
		detail string
		err    error
	}{
		{503, unavailable, fmt.Errorf("insert into keys: %w", keystore.ErrUnavailable)},
		{503, unavailable, fmt.Errorf("insert into keys: %w", keystore.ErrDamaged)},
		{503, unavailable, fmt.Errorf("insert into keys: %w", context.DeadlineExceeded)},
		{500, unforeseen, errors.New("insert into keys: disk I/O error")},
	} {
		o.store.fail(nil, c.err)
		o.wantFailure(c.status, c.detail, c.err.Error(), own.key)
		o.store.fail(nil, nil)
		if status, _, _ := o.generate(own.key); status != 200 {
			t.Fatalf("answered %d after the failure", status)
		}
		o.store.fail(c.err, nil)
		o.wantFailure(c.status, c.detail, c.err.Error(), own.key)
		o.store.fail(nil, nil)
	}
}

// TestWhatCanBeNoIDNeverReachesTheStore breaks the store, so that its being asked
// is seen.
func TestWhatCanBeNoIDNeverReachesTheStore(t *testing.T) {
	o := newOutage(t)
	own, operator := o.holder(role), o.holder(keystore.RoleOperator)
	o.store.fail(keystore.ErrUnavailable, nil)
	for target, asked := range map[string]bool{
		company(own.account, "none"):                    true,
		company(own.account, "-none"):                   false,
		company(own.account, "no%20ne"):                 false,
		company(own.account, "%27%20OR%201=1--"):        false,
		company(own.account, "%00"):                     false,
		company("-none", own.credential):                false,
		company("%2e%2e", own.credential):               false,
		merchant(own.account, strings.Repeat("a", 129)): false,
	} {
		want := map[bool]int{true: 503, false: 403}[asked]
		if status, body, _ := o.post(target, operator.key); status != want {
			t.Errorf("%s: answered %d %s, want %d", target, status, body, want)
		}
	}
	if status, _, _ := o.post(company(operator.account, operator.credential), own.key); status != 403 {
		t.Errorf("another's account: answered %d", status)
	}
}

func TestAChangeThatFailedLeavesNothing(t *testing.T) {
	o := newOutage(t)
	own := o.holder(role)
	o.store.fail(nil, fmt.Errorf("commit: %w", keystore.ErrUnavailable))
	o.wantFailure(503, unavailable, "commit", own.key, "Idempotency-Key", "once")
	o.store.fail(nil, nil)
	_, first, _ := o.generate(own.key, "Idempotency-Key", "once")
	_, again, _ := o.generate(own.key, "Idempotency-Key", "once")
	if !answered.MatchString(first) || first != again {
		t.Errorf("after a failure, the answers are %s and %s", first, again)
	}
	keys, err := o.keyring.Keys(t.Context(), own.credential, keystore.Page{})
	if err != nil || len(keys) != 2 {
		t.Errorf("there are %d keys (%v)", len(keys), err)
	}
}

// TestAKeyThatIsStoppedMeanwhileGetsNoOther revokes the presented key when the
// request has passed every check and is about to change the store.
func TestAKeyThatIsStoppedMeanwhileGetsNoOther(t *testing.T) {
	o := newOutage(t)
	own := o.holder(role)
	o.store.beforeUpdate = func() {
		if _, err := o.keyring.RevokeKey(t.Context(), own.keyID, "meanwhile"); err != nil {
			t.Error(err)
		}
	}
	status, body, _ := o.generate(own.key, "Idempotency-Key", "once")
	if want := errorObject(401, "Unauthorized", "The API key has been revoked.", idOf(body)); status != 401 || body != want {
		t.Errorf("answered %d %s", status, body)
	}
	keys, err := o.keyring.Keys(t.Context(), own.credential, keystore.Page{})
	if err != nil || len(keys) != 1 {
		t.Errorf("there are %d keys (%v)", len(keys), err)
	}
}
