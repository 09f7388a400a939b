package apikeys

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestVerdictTable holds every row of the verdict table to its status, code and
// headers, and to the upstream being reached or not.
func TestVerdictTable(t *testing.T) {
	g := start(t, `{
		admin {admin}
		persist_config off
		api_keys {
			store sqlite {store}
			package Coverage {
				roles search
			}
			package Account {
				management
			}
		}
	}
	http://{addr} {
		handle /coverage* {
			api_keys {
				require package Coverage
				require role search quote
			}
			reverse_proxy {upstream}
		}
		handle /quote {
			api_keys {
				require role quote
			}
			reverse_proxy {upstream}
		}
		handle /anonymous {
			api_keys {
				require any
				anonymous allow
			}
			reverse_proxy {upstream}
		}
		handle /strict {
			api_keys {
				require any
				preflight enforce
			}
			reverse_proxy {upstream}
		}
		handle /off {
			api_keys {
				enforce off
			}
			reverse_proxy {upstream}
		}
		handle {
			api_keys {
				require any
			}
			reverse_proxy {upstream}
		}
	}`)
	coverage := keystore.Credential{Package: "Coverage"}
	good := g.issue(coverage).Text
	account := g.issue(keystore.Credential{Package: "Account"}).Text
	revoked := g.issue(coverage)
	g.revoke(revoked.Key.ID)
	expired := g.issue(coverage)
	g.rotate(expired.Credential.ID, "1ms")
	inactive := g.issue(coverage)
	g.edit(inactive.Credential.ID, func(c *keystore.Credential) { c.Active = false })
	inactiveAccount := g.issue(coverage)
	g.editAccount(inactiveAccount.Credential.AccountID, func(a *keystore.Account) { a.Active = false })
	elsewhere := g.issue(keystore.Credential{Package: "Coverage", AllowedIPs: prefixes("192.0.2.0/24")}).Text
	pending, err := g.keyring().Rotate(context.Background(), keystore.Operator(),
		keystore.Rotation{CredentialID: g.issue(coverage).Credential.ID, Overlap: keystore.Overlap{For: time.Hour}, ActivatesAfter: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for g.get("/", "X-Api-Key", expired.Text).code() != "expired_key" { // the overlap of 1 ms ends by itself
		time.Sleep(time.Millisecond)
	}
	wrongCRC := good[:len(good)-1] + string(rune('0'+(good[len(good)-1]-'0'+1)%10))
	unknown := "key_" + strings.Repeat("a", 12) + "_" + strings.Repeat("b", 32) + "000000"
	preflight := []string{"Origin", "https://app.example", "Access-Control-Request-Method", "GET"}
	g.upstream.taken()

	const invalid = `Bearer realm="api_keys", error="invalid_token"`
	for _, c := range []struct {
		name         string
		method, path string
		headers      []string
		status       int
		code         string // empty: the upstream is reached
		challenge    string
	}{
		{"a preflight passes", "OPTIONS", "/", preflight, 200, "", ""},
		{"a preflight is enforced where asked", "OPTIONS", "/strict", preflight, 401, "missing_key", `Bearer realm="api_keys"`},
		{"OPTIONS without Origin is no preflight", "OPTIONS", "/", preflight[2:], 401, "missing_key", `Bearer realm="api_keys"`},
		{"GET is no preflight", "GET", "/", preflight, 401, "missing_key", `Bearer realm="api_keys"`},
		{"no key", "GET", "/", nil, 401, "missing_key", `Bearer realm="api_keys"`},
		{"no key where anonymous is allowed", "GET", "/anonymous", nil, 200, "", ""},
		{"a bad key where anonymous is allowed", "GET", "/anonymous", []string{"X-Api-Key", "x"}, 401, "invalid_key", invalid},
		{"no key where nothing is enforced", "GET", "/off", nil, 200, "", ""},
		{"a bad key where nothing is enforced", "GET", "/off", []string{"X-Api-Key", "x"}, 200, "", ""},
		{"another scheme", "GET", "/", []string{"Authorization", "Basic eDp5"}, 401, "missing_key", `Bearer realm="api_keys"`},
		{"two places", "GET", "/", []string{"X-Api-Key", good, "Authorization", "Bearer " + good}, 400, "ambiguous_key", `Bearer realm="api_keys", error="invalid_request"`},
		{"repeated", "GET", "/", []string{"X-Api-Key", good, "X-Api-Key", good}, 400, "ambiguous_key", `Bearer realm="api_keys", error="invalid_request"`},
		{"wrong checksum", "GET", "/", []string{"X-Api-Key", wrongCRC}, 401, "invalid_key", invalid},
		{"unknown", "GET", "/", []string{"X-Api-Key", unknown}, 401, "invalid_key", invalid},
		{"wrong shape", "GET", "/", []string{"X-Api-Key", "a b"}, 401, "invalid_key", invalid},
		{"wrong case", "GET", "/", []string{"X-Api-Key", strings.ToUpper(good)}, 401, "invalid_key", invalid},
		{"not ASCII", "GET", "/", []string{"X-Api-Key", "clé"}, 401, "invalid_key", invalid},
		{"10 kB long", "GET", "/", []string{"X-Api-Key", strings.Repeat("x", 10_000)}, 401, "invalid_key", invalid},
		{"pending", "GET", "/", []string{"X-Api-Key", pending.Text}, 401, "pending_key", invalid},
		{"expired", "GET", "/", []string{"X-Api-Key", expired.Text}, 401, "expired_key", invalid},
		{"revoked", "GET", "/", []string{"X-Api-Key", revoked.Text}, 401, "revoked_key", invalid},
		{"credential inactive", "GET", "/", []string{"X-Api-Key", inactive.Text}, 403, "inactive", ""},
		{"account inactive", "GET", "/", []string{"X-Api-Key", inactiveAccount.Text}, 403, "inactive", ""},
		{"wrong package", "GET", "/coverage", []string{"X-Api-Key", account}, 403, "wrong_package", `Bearer realm="api_keys", error="insufficient_scope"`},
		{"a management package is not any", "GET", "/", []string{"X-Api-Key", account}, 403, "wrong_package", `Bearer realm="api_keys", error="insufficient_scope"`},
		{"missing role", "GET", "/quote", []string{"X-Api-Key", good}, 403, "missing_role", `Bearer realm="api_keys", error="insufficient_scope"`},
		{"another address", "GET", "/", []string{"X-Api-Key", elsewhere}, 403, "ip_not_allowed", ""},
		{"accepted as header", "GET", "/", []string{"X-Api-Key", good}, 200, "", ""},
		{"accepted as bearer", "GET", "/coverage", []string{"Authorization", "Bearer " + good}, 200, "", ""},
		{"accepted with any method", "PURGE", "/", []string{"X-Api-Key", good}, 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := g.send(c.method, c.path, c.headers...)
			if got.StatusCode != c.status || got.code() != c.code {
				t.Errorf("answer %d %q, want %d %q", got.StatusCode, got.code(), c.status, c.code)
			}
			if challenge := got.Header.Get("WWW-Authenticate"); challenge != c.challenge {
				t.Errorf("WWW-Authenticate %q, want %q", challenge, c.challenge)
			}
			reached := g.upstream.taken()
			if (len(reached) == 1) != (c.code == "") {
				t.Errorf("the upstream was reached %d times", len(reached))
			}
			if c.code != "" {
				checkProblem(t, got)
			}
		})
	}
}

func checkProblem(t *testing.T, a answer) {
	t.Helper()
	var problem map[string]any
	if err := json.Unmarshal(a.body, &problem); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"type", "title", "status", "detail", "instance", "code"} {
		if problem[member] == nil || problem[member] == "" {
			t.Errorf("member %s is missing in %s", member, a.body)
		}
	}
	if problem["status"] != float64(a.StatusCode) || a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v, body %s", a.Header, a.body)
	}
}

func (g *gateway) edit(credentialID string, edit func(*keystore.Credential)) {
	g.t.Helper()
	_, err := g.keyring().UpdateCredential(context.Background(), keystore.Operator(), credentialID, func(c *keystore.Credential) error {
		edit(c)
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) editAccount(id string, edit func(*keystore.Account)) {
	g.t.Helper()
	_, err := g.keyring().UpdateAccount(context.Background(), id, func(a *keystore.Account) error {
		edit(a)
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

func TestUnknownMalformedAndNearMissKeysGetTheSameBytes(t *testing.T) {
	g := startWith(t, "", "")
	good := g.issue(keystore.Credential{}).Text
	want := g.get("/", "X-Api-Key", "x")
	for name, text := range map[string]string{
		"near miss": good[:len(good)-1] + "!", "malformed": "\"", "long": strings.Repeat("y", 600),
	} {
		got := g.get("/", "X-Api-Key", text)
		got.Header.Del("Date")
		want.Header.Del("Date")
		if string(got.body) != string(want.body) || !sameHeader(got.Header, want.Header) {
			t.Errorf("%s: %v %s, want %v %s", name, got.Header, got.body, want.Header, want.body)
		}
	}
}

func sameHeader(a, b http.Header) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func TestAStoreThatIsAwayIsNoRefusalOfTheKey(t *testing.T) {
	g := startWith(t, "", "")
	cached, cold := g.issue(keystore.Credential{}).Text, g.issue(keystore.Credential{}).Text
	for range 50 { // until the cache has admitted it
		g.get("/", "X-Api-Key", cached)
	}
	vaults.Range(func(_, v any) bool {
		_ = v.(pooledVault).Close()
		return true
	})
	got := g.get("/", "X-Api-Key", cold)
	if got.StatusCode != 503 || got.code() != "store_unavailable" || got.Header.Get("Retry-After") == "" {
		t.Errorf("answer %d %q, headers %v", got.StatusCode, got.code(), got.Header)
	}
}

func TestTheOwnerLearnsWhenAKeyStops(t *testing.T) {
	g := startWith(t, "package Short {\n expires_in 24h\n }\n package Long {\n expires_in 90d\n }", "require any")
	notice := func(text string) string { return g.get("/", "X-Api-Key", text).Header.Get("Api-Key-Expires") }
	short, long := g.issue(keystore.Credential{Package: "Short"}), g.issue(keystore.Credential{Package: "Long"})
	if want := short.Key.ExpiresAt.Time().Format(http.TimeFormat); notice(short.Text) != want {
		t.Errorf("expiring within 7 days: %q, want %q", notice(short.Text), want)
	}
	if got := notice(long.Text); got != "" {
		t.Errorf("expiring in 90 days: %q", got)
	}
	rotated := g.rotate(long.Credential.ID, "720h")
	if want := rotated.Previous[0].ExpiresAt.Time().Format(http.TimeFormat); notice(long.Text) != want {
		t.Errorf("retiring: %q, want %q", notice(long.Text), want)
	}
	if got := notice(rotated.Text); got != "" {
		t.Errorf("new key: %q", got)
	}
}

// TestKeysAreTakenOutOfWhatGoesOn looks at what the upstream gets, wherever the
// key was and for whatever reason the request went on.
func TestKeysAreTakenOutOfWhatGoesOn(t *testing.T) {
	const everywhere = "from bearer\nfrom header X-My-Key\nfrom query api_key\nfrom cookie key\n"
	for name, extra := range map[string]string{"accepted": "", "anonymous": "anonymous allow", "enforce off": "enforce off"} {
		t.Run(name, func(t *testing.T) {
			g := startWith(t, "", everywhere+extra)
			key := g.issue(keystore.Credential{}).Text
			for _, c := range []struct {
				place, target string
				headers       []string
			}{
				{"bearer", "/p?a=1", []string{"Authorization", "Bearer " + key}},
				{"header", "/p?a=1", []string{"X-My-Key", key}},
				{"query", "/p?a=1&api_key=" + key, nil},
				{"cookie", "/p?a=1", []string{"Cookie", "key=" + key}},
			} {
				if got := g.get(c.target, c.headers...); got.StatusCode != 200 {
					t.Fatalf("%s: %d %s", c.place, got.StatusCode, got.body)
				}
				r := g.upstream.taken()[0]
				dump, _ := json.Marshal(map[string]any{"header": r.Header, "uri": r.RequestURI})
				if strings.Contains(string(dump), key) || r.RequestURI != "/p?a=1" {
					t.Errorf("%s: the upstream got %s", c.place, dump)
				}
			}
		})
	}
	t.Run("forward_key keeps it", func(t *testing.T) {
		g := startWith(t, "", everywhere+"forward_key")
		key := g.issue(keystore.Credential{}).Text
		g.get("/?api_key=" + key)
		if r := g.upstream.taken()[0]; r.URL.Query().Get("api_key") != key {
			t.Errorf("the upstream got %s", r.RequestURI)
		}
	})
}

func TestTheOriginalURIHoldsNoKeyEither(t *testing.T) {
	g := start(t, strings.NewReplacer("{global}", "", "{block}", "from query api_key", "reverse_proxy {upstream}",
		"reverse_proxy {upstream} {\n header_up X-Uri {http.request.orig_uri}\n header_up X-Query {http.request.orig_uri.query}\n }").Replace(minimal))
	key := g.issue(keystore.Credential{}).Text
	g.get("/p?a=1&api_key=" + key)
	if h := g.upstream.taken()[0].Header; h.Get("X-Uri") != "/p?a=1" || h.Get("X-Query") != "a=1" {
		t.Errorf("the upstream got %v", h)
	}
}
