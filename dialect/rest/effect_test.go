package rest

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// otherLease is longer than changes wait, so that a node that is cut off is not waited
// for to the end.
const otherLease = patience + 2*time.Second

// other is another node of the gateway's cluster.
type other struct {
	*keystore.Keyring
	vault *keystore.Vault
	net   *badnet.Proxy
}

// newCluster is a gateway and another node over one schema.
func newCluster(t *testing.T) (*gateway, other) {
	t.Helper()
	dsn := postgrestest.NewSchema(t)
	g := newGatewayOver(t, openPostgres(t, dsn), keystore.Config{})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	o := other{net: badnet.Listen(t, u.Host)}
	u.Host = o.net.Addr()
	o.vault, err = keystore.OpenVault(t.Context(), openPostgres(t, u.String()), keystore.MinCacheSize,
		func(string, error) {}, keystore.WithLease(otherLease, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.net.Heal()
		_ = o.vault.Close()
	})
	if o.Keyring, err = keystore.NewKeyring(t.Context(), o.vault, keystore.Config{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both nodes know of each other", func() bool {
		a, _ := g.vault.Cluster()
		b, _ := o.vault.Cluster()
		return a.Nodes == 2 && b.Nodes == 2 && a.Leased && b.Leased
	})
	return g, o
}

func openPostgres(t *testing.T, dsn string) keystore.Store {
	t.Helper()
	store, err := sqlstore.OpenPostgres(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s it is not so that %s", what)
		}
	}
}

func (o other) verdict(t *testing.T, text string) keystore.Verdict {
	_, v, _ := o.Verify(t.Context(), text)
	return v
}

// endings are the calls by which a key stops working on every node.
var endings = []struct {
	name, method, path, body string
	status                   int
}{
	{"revocation", "POST", "/keys/{key}/revoke", `{"reason":"leaked"}`, 200},
	{"rotation", "POST", "/credentials/{credential}/rotate", ``, 200},
	{"deactivation of the credential", "PATCH", "/credentials/{credential}", `{"active":false}`, 200},
	{"deactivation of the account", "PATCH", "/accounts/{account}", `{"active":false}`, 200},
	{"deletion of the credential", "DELETE", "/credentials/{credential}", ``, 204},
	{"deletion of the account", "DELETE", "/accounts/{account}", ``, 204},
}

func (h holding) in(path string) string {
	return strings.NewReplacer("{key}", h.key, "{credential}", h.credential, "{account}", h.account).Replace(path)
}

func TestWhatEveryNodeConfirmsIsAnsweredAsOnOneNode(t *testing.T) {
	g, o := newCluster(t)
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			g := g.in(t)
			h := g.newKey(g.newAccount(``), "read")
			if v := o.verdict(t, h.secret); v != keystore.OK {
				t.Fatalf("the new key is %s on the other node", v)
			}
			a := g.operator().do(e.method, h.in(e.path), e.body).want(e.status)
			if v := o.verdict(t, h.secret); v == keystore.OK {
				t.Error("the other node accepts the key afterwards")
			}
			if want := map[string]string{"revocation": "cluster"}[e.name]; a.body != "" && a.text("effective") != want {
				t.Errorf("effective in %s, want %q", a.body, want)
			}
		})
	}
}

// TestACutOffNodeIsNotWaitedFor has all keys end at the same time, so that it takes no
// longer than one.
func TestACutOffNodeIsNotWaitedFor(t *testing.T) {
	g, o := newCluster(t)
	holdings := make([]holding, len(endings))
	for i := range endings {
		holdings[i] = g.newKey(g.newAccount(``), "read")
		if v := o.verdict(t, holdings[i].secret); v != keystore.OK {
			t.Fatalf("a new key is %s on the other node", v)
		}
	}
	o.net.BlackHole()
	var accepted atomic.Int32
	var all sync.WaitGroup
	for i, e := range endings {
		all.Go(func() {
			a := g.operator().do(e.method, holdings[i].in(e.path), e.body)
			wantNotYet(t, e.name, a)
			if o.verdict(t, holdings[i].secret) == keystore.OK {
				accepted.Add(1)
			}
			time.Sleep(time.Until(effectiveBy(t, a)))
			if v := o.verdict(t, holdings[i].secret); v != keystore.StoreUnavailable {
				t.Errorf("%s: at the answered time the cut-off node says %s", e.name, v)
			}
		})
	}
	all.Wait()
	if accepted.Load() == 0 {
		t.Error("the cut-off node goes by memory no more: nothing was tested")
	}
	o.net.Heal()
	for i, e := range endings {
		eventually(t, e.name+" is known to the node that is back", func() bool {
			v := o.verdict(t, holdings[i].secret)
			return v != keystore.StoreUnavailable && v != keystore.OK
		})
	}
}

// wantNotYet wants an answer that can't be taken for one to a change that holds.
func wantNotYet(t *testing.T, name string, a answer) {
	t.Helper()
	if a.status != http.StatusAccepted || a.header.Get("Content-Type") != "application/json" || a.get("effective") != nil {
		t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
	}
	if left := time.Until(effectiveBy(t, a)); left <= 0 || left > otherLease {
		t.Errorf("%s: it holds in %v", name, left)
	}
}

func effectiveBy(t *testing.T, a answer) time.Time {
	t.Helper()
	by, err := time.Parse(instantFormat, a.text("effective_by"))
	if err != nil {
		t.Errorf("%v: %s", err, a.body)
	}
	return by
}

func TestARepeatedAnswerSaysWhereTheChangeHoldsNow(t *testing.T) {
	g, o := newCluster(t)
	caller := g.holder(g.newKey(g.newAccount(``), keystore.RoleOperator).secret)
	h := g.newKey(g.newAccount(``), "read")
	revoke := func(key string) answer {
		return caller.do("POST", h.in("/keys/{key}/revoke"), ``, dialect.IdempotencyHeader, key)
	}
	create := func() answer {
		return caller.do("POST", "/accounts", `{"company":"Acme"}`, dialect.IdempotencyHeader, "create")
	}
	early := revoke("early").want(200)
	made := create().want(201)
	o.net.BlackHole()
	var all sync.WaitGroup
	var late, again, madeAgain answer
	all.Go(func() { late = revoke("late") })
	all.Go(func() { again = revoke("early") })
	all.Go(func() { madeAgain = create() })
	all.Wait()
	wantNotYet(t, "the first answer", late)
	wantNotYet(t, "a repeated answer", again)
	if madeAgain.want(201); madeAgain.body != made.body {
		t.Errorf("a repeated creation: %s\nfirst: %s", madeAgain.body, made.body)
	}
	time.Sleep(time.Until(effectiveBy(t, again)))
	for name, key := range map[string]string{"answered at once": "early", "answered with a time": "late"} {
		if now := revoke(key).want(200); now.body != early.body {
			t.Errorf("%s: once it holds: %s\nfirst: %s", name, now.body, early.body)
		}
	}
}

func TestASharedStoreThatCantBeReachedIsUnavailable(t *testing.T) {
	dsn := postgrestest.NewSchema(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	net := badnet.Listen(t, u.Host)
	u.Host = net.Addr()
	g := newGatewayOver(t, openPostgres(t, u.String()), keystore.Config{})
	h := g.newKey(g.newAccount(``), keystore.RoleOperator)
	for { // a lease that is lost before there was one is reported
		if info, _ := g.vault.Cluster(); info.Leased {
			break
		}
		time.Sleep(time.Millisecond)
	}
	net.Cut()
	for _, call := range everyCall(h) {
		if strings.HasPrefix(call[1], "/self") {
			continue
		}
		body := ``
		if call[1] == "/keys/verify" {
			body = `{"key":"` + strings.Repeat("x", 30) + `"}`
		}
		a := g.operator().do(call[0], call[1], body).wantProblem(503, "store_unavailable", "")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: no Retry-After", call[0], call[1])
		}
	}
	net.Heal()
}
