package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

const (
	base = "/keys-api"
	// passedOn is the status for requests that are on no route.
	passedOn = http.StatusTeapot
)

// gateway is the API in both places, over real sockets and one real store.
type gateway struct {
	*testing.T
	keyring *keystore.Keyring
	vault   *keystore.Vault
	site    *httptest.Server
	admin   *httptest.Server
	logs    *observer.ObservedLogs
	// broken, if set, is why there is no keyring.
	broken error
}

func newGateway(t *testing.T, packages ...keystore.Package) *gateway {
	return newGatewayOf(t, keystore.Config{Packages: packages})
}

func newGatewayOf(t *testing.T, config keystore.Config) *gateway {
	store, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "keys", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	return newGatewayOver(t, store, config)
}

// newSharedGateway is newGatewayOf over PostgreSQL.
func newSharedGateway(t *testing.T, config keystore.Config) *gateway {
	store, err := sqlstore.OpenPostgres(t.Context(), postgrestest.NewSchema(t))
	if err != nil {
		t.Fatal(err)
	}
	return newGatewayOver(t, store, config)
}

func newGatewayOver(t *testing.T, store keystore.Store, config keystore.Config) *gateway {
	vault, err := keystore.OpenVault(t.Context(), store, keystore.MinCacheSize, func(problem string, err error) {
		t.Errorf("in the background: %s: %v", problem, err)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vault.Close() })
	keyring, err := keystore.NewKeyring(t.Context(), vault, config)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{T: t, keyring: keyring, vault: vault}
	core, logs := observer.New(zapcore.DebugLevel)
	g.logs = logs
	g.serve(zap.New(core))
	return g
}

// in is the gateway in a subtest.
func (g *gateway) in(t *testing.T) *gateway {
	same := *g
	same.T = t
	return &same
}

func (g *gateway) serve(logger *zap.Logger) {
	open := func(context.Context) (*keystore.Keyring, error) { return g.keyring, g.broken }
	finder, err := dialect.NewFinder(append(dialect.DefaultLocations(), dialect.Location{In: dialect.InQuery, Name: "api_key"}))
	if err != nil {
		g.Fatal(err)
	}
	mounted := new(Dialect)
	if err := mounted.Mount(dialect.Gateway{Base: base, Site: finder, Keyring: open, Logger: logger}); err != nil {
		g.Fatal(err)
	}
	g.site = serveRoutes(g.T, mounted.Route)
	g.admin = serveRoutes(g.T, New(open, logger).OperatorRoutes(base, g.vault.Backup).Find)
}

func serveRoutes(t *testing.T, route func(*http.Request) http.HandlerFunc) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := route(r); h != nil {
			h(w, r)
			return
		}
		w.WriteHeader(passedOn)
	}))
	t.Cleanup(server.Close)
	return server
}

// client calls the API in one place, with or without a key.
type client struct {
	*gateway
	url string
	key string
}

// operator calls without a key where every caller is the operator.
func (g *gateway) operator() client { return client{g, g.admin.URL, ""} }

// holder calls with a key.
func (g *gateway) holder(key string) client { return client{g, g.site.URL, key} }

// answer is a response that was read and held against the document.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

// do sends a request below the base path, and checks that its answer is one
// that the document knows. Headers are given in pairs.
func (c client) do(method, path, body string, headers ...string) answer {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.url+base+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Del(headers[i])
		if headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	if resp.StatusCode != passedOn {
		checkDocumented(c.T, req, body, resp, got)
	}
	return answer{c.T, resp.StatusCode, resp.Header, string(got)}
}

// want fails the test unless the status is as given.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// wantProblem fails the test unless the answer is a problem with the code and
// the member.
func (a answer) wantProblem(status int, code, member string) answer {
	a.t.Helper()
	a.want(status)
	if a.header.Get("Content-Type") != "application/problem+json" || a.text("code") != code || a.text("member") != member {
		a.t.Fatalf("want code %q, member %q: %s", code, member, a.body)
	}
	return a
}

// get finds a value by the names of members.
func (a answer) get(path ...string) any {
	a.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		a.t.Fatalf("%v: %s", err, a.body)
	}
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

func (a answer) text(path ...string) string {
	a.t.Helper()
	s, _ := a.get(path...).(string)
	return s
}

// items are the ids of a list.
func (a answer) items() (ids []string) {
	a.t.Helper()
	list, _ := a.get("items").([]any)
	for _, item := range list {
		ids = append(ids, item.(map[string]any)["id"].(string))
	}
	return ids
}

// newAccount makes an account, newKey a credential with roles and its key.
func (g *gateway) newAccount(body string) string {
	g.Helper()
	return g.operator().do("POST", "/accounts", body).want(201).text("id")
}

type holding struct{ account, credential, key, secret string }

func (g *gateway) newKey(account string, roles ...string) holding {
	g.Helper()
	list, err := json.Marshal(roles)
	if err != nil {
		g.Fatal(err)
	}
	a := g.operator().do("POST", "/accounts/"+account+"/credentials", `{"roles":`+string(list)+`}`).want(201)
	return holding{account, a.text("credential", "id"), a.text("key", "id"), a.text("key", "secret")}
}

var errBroken = errors.New("disk on fire")
