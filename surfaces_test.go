package apikeys

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func init() {
	caddy.RegisterModule(new(eventRecorder))
	caddy.RegisterModule(new(toyDialect))
}

// recorded are the events that eventRecorder saw.
var recorded struct {
	sync.Mutex
	events []map[string]any
}

// eventRecorder is an event handler, as an operator would configure one.
type eventRecorder struct{}

func (*eventRecorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.recorder", New: func() caddy.Module { return new(eventRecorder) }}
}

func (*eventRecorder) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (*eventRecorder) Handle(_ context.Context, e caddy.Event) error {
	recorded.Lock()
	defer recorded.Unlock()
	event := map[string]any{"name": e.Name()}
	for k, v := range e.Data {
		event[k] = v
	}
	recorded.events = append(recorded.events, event)
	return nil
}

func TestEventsCarryIdsOnly(t *testing.T) {
	names := "account_created account_updated account_deleted issued rotated revoked credential_updated credential_deleted key_updated first_used"
	var on strings.Builder
	for name := range strings.FieldsSeq(names) {
		on.WriteString("on api_keys." + name + " recorder\n")
	}
	g := start(t, strings.NewReplacer("persist_config off", "persist_config off\nevents {\n"+on.String()+"}",
		"{global}", "", "{block}", "").Replace(minimal))
	issued := g.issue(keystore.Credential{})
	g.editAccount(issued.Credential.AccountID, func(*keystore.Account) {})
	g.edit(issued.Credential.ID, func(*keystore.Credential) {})
	rotated := g.rotate(issued.Credential.ID, keystore.UntilFirstUse)
	g.get("/", "X-Api-Key", rotated.Text)
	if _, err := g.keyring().SetKeyExpiry(t.Context(), keystore.Operator(), rotated.Key.ID, rotated.Key.CreatedAt+1<<40); err != nil {
		t.Fatal(err)
	}
	g.revoke(rotated.Key.ID)
	if err := g.keyring().DeleteCredential(t.Context(), issued.Credential.ID); err != nil {
		t.Fatal(err)
	}
	if err := g.keyring().DeleteAccount(t.Context(), issued.Credential.AccountID); err != nil {
		t.Fatal(err)
	}
	recorded.Lock()
	defer recorded.Unlock()
	var got []string
	for _, e := range recorded.events {
		got = append(got, strings.TrimPrefix(e["name"].(string), "api_keys."))
		if e["account_id"] != issued.Credential.AccountID {
			t.Errorf("event %v names another account", e)
		}
		for member := range e {
			if !strings.HasSuffix(member, "_id") && member != "name" {
				t.Errorf("event %v has a member %s", e, member)
			}
		}
	}
	want := "account_created issued account_updated credential_updated rotated first_used key_updated revoked credential_deleted account_deleted"
	if strings.Join(got, " ") != want {
		t.Errorf("events %v", got)
	}
}

func TestTheAccessLogSaysWhoCalled(t *testing.T) {
	g := start(t, strings.ReplaceAll(leakyWithoutPepper(), "{format}", "api_keys"))
	issued := g.issue(keystore.Credential{})
	g.get("/x", "X-Api-Key", issued.Text)
	content, err := os.ReadFile(filepath.Join(g.dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	var entry map[string]any
	if err := json.Unmarshal(content, &entry); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{
		"user_id": issued.Credential.AccountID, "api_key_id": issued.Key.ID, "api_credential_id": issued.Credential.ID, "status": float64(200),
	} {
		if entry[field] != want {
			t.Errorf("%s: %v, want %v", field, entry[field], want)
		}
	}
}

func TestTheAccessLogSaysWhoManages(t *testing.T) {
	g := start(t, strings.ReplaceAll(leakyWithoutPepper(), "{format}", "api_keys"))
	issued := g.issue(keystore.Credential{Roles: []string{keystore.RoleOperator}})
	if a := g.get("/keys-api/accounts", "X-Api-Key", issued.Text); a.StatusCode != 200 {
		t.Fatalf("the call answered %d", a.StatusCode)
	}
	content, err := os.ReadFile(filepath.Join(g.dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"user_id": issued.Credential.AccountID, "api_key_id": issued.Key.ID, "api_credential_id": issued.Credential.ID,
	} {
		if !strings.Contains(string(content), `"`+field+`":"`+want+`"`) {
			t.Errorf("%s is not %s in %s", field, want, content)
		}
	}
}

func leakyWithoutPepper() string { return strings.Replace(leaky, "pepper {env.TEST_PEPPER}", "", 1) }

func TestTheStartWarnsOfLogsThatLeak(t *testing.T) {
	const warning = "would write API keys in clear"
	for format, want := range map[string][]string{"json": {`"log":"default"`, `"log":"log0"`}, "api_keys": nil} {
		g := start(t, strings.ReplaceAll(leakyWithoutPepper(), "{format}", format))
		content, err := os.ReadFile(filepath.Join(g.dir, "default.log"))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(content), warning); n != len(want) {
			t.Errorf("format %s: %d warnings, want %d", format, n, len(want))
		}
		for _, name := range want {
			if !strings.Contains(string(content), name) {
				t.Errorf("format %s: no warning names %s", format, name)
			}
		}
	}
}

func TestMetricsCountByOutcomeAcrossReloads(t *testing.T) {
	g := startWith(t, "", "dialect rest /keys-api")
	missing := g.metric(`caddy_api_keys_requests_total{outcome="missing_key"}`)
	ok, invalid := g.metric(`caddy_api_keys_requests_total{outcome="ok"}`), g.metric(`caddy_api_keys_requests_total{outcome="invalid_key"}`)
	issued := g.metric(`caddy_api_keys_changes_total{outcome="issued"}`)
	key := g.issue(keystore.Credential{}).Text
	g.get("/", "X-Api-Key", key)
	g.load(strings.NewReplacer("{global}", "cache_size 2MiB", "{block}", "").Replace(minimal))
	g.get("/", "X-Api-Key", key)
	g.get("/", "X-Api-Key", "x")
	g.get("/keys-api/self") // the callers of management routes count, too
	for name, want := range map[string]float64{
		`caddy_api_keys_requests_total{outcome="ok"}`: ok + 2, `caddy_api_keys_requests_total{outcome="invalid_key"}`: invalid + 1,
		`caddy_api_keys_requests_total{outcome="missing_key"}`: missing + 1,
		`caddy_api_keys_changes_total{outcome="issued"}`:       issued + 1, "caddy_api_keys_streams": 0,
	} {
		if got := g.metric(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if g.metric("caddy_api_keys_cache_misses_total") == 0 {
		t.Error("no verdict needed the store")
	}
}

// metric reads a value from the admin endpoint's metrics, zero if it is not there.
func (g *gateway) metric(name string) float64 {
	g.t.Helper()
	for line := range strings.SplitSeq(string(g.adminGet("/metrics")), "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			var f float64
			if err := json.Unmarshal([]byte(value), &f); err != nil {
				g.t.Fatal(err)
			}
			return f
		}
	}
	return 0
}

// toyDialect is a dialect that nothing else in the project knows, as a vendor's
// would be.
type toyDialect struct {
	Greeting string `json:"greeting,omitempty"`

	gateway dialect.Gateway
	routes  *dialect.Routes
}

func (*toyDialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: dialect.Namespace + ".toy", New: func() caddy.Module { return new(toyDialect) }}
}

func (d *toyDialect) UnmarshalCaddyfile(t *caddyfile.Dispenser) error {
	t.Next()    // the name
	t.NextArg() // the base path
	for t.NextBlock(0) {
		if t.Val() != "greeting" || !t.Args(&d.Greeting) {
			return t.Errf("toy: use greeting <text>")
		}
	}
	return nil
}

func (d *toyDialect) Mount(g dialect.Gateway) error {
	d.gateway = g
	d.routes = dialect.NewRoutes(g.Base, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) })
	d.routes.Handle("POST /greet/{name}", d.greet)
	return nil
}

func (d *toyDialect) greet(w http.ResponseWriter, r *http.Request) {
	grant, verdict := d.gateway.Authenticate(r, d.gateway.Site, &keystore.Requirement{})
	if verdict != keystore.OK {
		d.Refuse(w, r, dialect.RefusalOf(verdict, nil, d.gateway.Site))
		return
	}
	_, _ = w.Write([]byte(d.Greeting + " " + r.PathValue("name") + " " + grant.KeyID))
}

func (d *toyDialect) Route(r *http.Request) http.HandlerFunc { return d.routes.Find(r) }

func (*toyDialect) Refuse(w http.ResponseWriter, _ *http.Request, f dialect.Refusal) {
	f.WriteHeaders(w.Header())
	w.WriteHeader(f.Status)
	_, _ = w.Write([]byte("toy: " + f.Verdict.String()))
}

func (*toyDialect) Locations() []dialect.Location { return nil }

// TestADialectIsAGuest mounts a dialect that the gateway does not know, and has
// it refuse proxied requests in its manner.
func TestADialectIsAGuest(t *testing.T) {
	g := startWith(t, "", "dialect toy /toy {\n greeting hello\n }\n errors toy")
	issued := g.issue(keystore.Credential{})
	for _, c := range []struct {
		method, target, key string
		status              int
		body                string
	}{
		{"POST", "/toy/greet/a%2Fb", issued.Text, 200, "hello a/b " + issued.Key.ID},
		{"POST", "/toy/greet/x", "", 401, "toy: missing_key"},
		{"GET", "/toy/greet/x", "", 405, ""},
		{"OPTIONS", "/toy/greet/x", "", 405, ""},
		{"POST", "/toy/greet/x/", "", 401, "toy: missing_key"},
		{"POST", "/toy//greet/x", "", 401, "toy: missing_key"},
		{"GET", "/proxied", "wrong", 401, "toy: invalid_key"},
	} {
		headers := []string{"X-Api-Key", c.key}
		if c.key == "" {
			headers = nil
		}
		got := g.send(c.method, c.target, headers...)
		if got.StatusCode != c.status || string(got.body) != c.body {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.target, got.StatusCode, got.body, c.status, c.body)
		}
	}
	if n := len(g.upstream.taken()); n != 0 {
		t.Errorf("the upstream was reached %d times", n)
	}
}

var (
	_ caddyfile.Unmarshaler = (*toyDialect)(nil)
	_ dialect.Dialect       = (*toyDialect)(nil)
)
