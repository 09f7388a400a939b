package exorde_test

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestABadCallIsRefusedAndReplacesNothing(t *testing.T) {
	g := start(t, "dialect exorde")
	user := g.first.Credential.AccountID
	const (
		wrongVersion = "The header X-Exorde-Api-Version must be v1, once, or missing."
		noBody       = "This call takes no body."
	)
	for _, c := range []struct {
		name, method, body string
		headers            []string
		code               int
		message            string
	}{
		{"version 2", "PUT", "", []string{"X-Exorde-Api-Version", "v2"}, 400, wrongVersion},
		{"version in another case", "PUT", "", []string{"X-Exorde-Api-Version", "V1"}, 400, wrongVersion},
		{"version without v", "PUT", "", []string{"X-Exorde-Api-Version", "1"}, 400, wrongVersion},
		{"two versions in one value", "PUT", "", []string{"X-Exorde-Api-Version", "v1, v1"}, 400, wrongVersion},
		{"the version twice", "PUT", "", []string{"X-Exorde-Api-Version", "v1", "X-Exorde-Api-Version", "v1"}, 400, wrongVersion},
		{"a body that is no JSON", "PUT", "key=x", nil, 400, noBody},
		{"a body that is an array", "PUT", "[]", nil, 400, noBody},
		{"null for a body", "PUT", "null", nil, 400, noBody},
		{"JSON that ends too early", "PUT", "{", nil, 400, noBody},
		{"a member", "PUT", `{"overlap":"1h"}`, nil, 400, "This call takes no body, or an empty object."},
		{"a body of 1 MB", "PUT", strings.Repeat(" ", 1<<20), nil, 413, "The body is larger than 65536 bytes; this call takes none."},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				headers := append([]string{"Authorization", "Bearer " + g.key}, c.headers...)
				a := g.Do(version, c.method, "/user/api-key", c.body, headers...)
				if got := g.wantError(t, a, c.code, user); got != c.message {
					t.Errorf("the message is %q, want %q", got, c.message)
				}
			}
			if !g.accepts(g.key) {
				t.Fatal("the key was replaced")
			}
		})
	}
	// Who calls is settled first.
	a := g.Do(1, "PUT", "/user/api-key", "[]", "X-Exorde-Api-Version", "v2")
	g.wantError(t, a, 401, "")
}

func TestWhatIsAllowedBesideNothing(t *testing.T) {
	g := start(t, "dialect exorde")
	key := g.key
	for _, headers := range [][]string{{}, {"X-Exorde-Api-Version", "v1"}, {"x-exorde-api-version", "v1"}, {"X-Exorde-Api-Version", ""}} {
		for _, body := range []string{"", "{}"} {
			a := g.Do(2, "PUT", "/user/api-key", body, append([]string{"Authorization", "bearer " + key}, headers...)...)
			key = g.newKey(a)
		}
	}
}

func TestOtherMethodsAreNotAllowed(t *testing.T) {
	g := start(t, "dialect exorde")
	for _, method := range []string{"GET", "POST", "PATCH", "DELETE", "OPTIONS", "QUERY", "put"} {
		for _, version := range []int{1, 2} {
			a := g.Do(version, method, "/user/api-key", "", "Authorization", "Bearer "+g.key)
			if got := g.wantError(t, a, 405, ""); got != "This path takes PUT only." || a.Header.Get("Allow") != "PUT" {
				t.Errorf("%s: %q, Allow %q", method, got, a.Header.Get("Allow"))
			}
		}
	}
	if a := g.Do(1, "HEAD", "/user/api-key", ""); a.StatusCode != 405 || a.Header.Get("Allow") != "PUT" || a.Text != "" {
		t.Errorf("HEAD: %d, Allow %q, %q", a.StatusCode, a.Header.Get("Allow"), a.Text)
	}
	if !g.accepts(g.key) {
		t.Error("the key was replaced")
	}
}

// stranger is a key that its verdict stops, what to expect, and who it is.
type stranger struct {
	name, key string
	code      int
	user      string
}

// strangers are keys that do not work.
func (g *gateway) strangers() []stranger {
	g.T.Helper()
	ctx, kr := context.Background(), g.Keyring()
	must := func(err error) {
		g.T.Helper()
		if err != nil {
			g.T.Fatal(err)
		}
	}
	untilUse := keystore.Overlap{UntilFirstUse: true}

	revoked := g.Issue(keystore.Credential{})
	_, err := kr.RevokeKey(ctx, revoked.Key.ID, "")
	must(err)
	rotated := g.Issue(keystore.Credential{})
	pending, err := kr.Rotate(ctx, keystore.Operator(), keystore.Rotation{CredentialID: rotated.Credential.ID, ActivatesAfter: keystore.UnusedLifetime, Overlap: untilUse})
	must(err)
	expired := g.Issue(keystore.Credential{})
	next, err := kr.Rotate(ctx, keystore.Operator(), keystore.Rotation{CredentialID: expired.Credential.ID, Overlap: untilUse})
	must(err)
	_, _, err = kr.Accept(ctx, next.Text, keystore.Request{Requirement: &keystore.Requirement{}})
	must(err)
	credential := g.Issue(keystore.Credential{})
	_, err = kr.UpdateCredential(ctx, keystore.Operator(), credential.Credential.ID, func(c *keystore.Credential) error { c.Active = false; return nil })
	must(err)
	account := g.Issue(keystore.Credential{AccountID: g.Account(keystore.Account{ID: "customer-7"}).ID})
	_, err = kr.UpdateAccount(ctx, account.Credential.AccountID, func(a *keystore.Account) error { a.Active = false; return nil })
	must(err)
	elsewhere := g.Issue(keystore.Credential{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	return []stranger{
		{"missing_key", "", 401, ""},
		{"invalid_key", "nobody's", 401, ""},
		{"revoked_key", revoked.Text, 401, revoked.Credential.AccountID},
		{"pending_key", pending.Text, 401, rotated.Credential.AccountID},
		{"expired_key", expired.Text, 401, expired.Credential.AccountID},
		{"inactive credential", credential.Text, 403, credential.Credential.AccountID},
		{"inactive account, whose id is no UUID", account.Text, 403, ""},
		{"ip_not_allowed", elsewhere.Text, 403, elsewhere.Credential.AccountID},
	}
}

func TestTheCallIsRefusedToKeysThatDoNotWork(t *testing.T) {
	g := start(t, "dialect exorde")
	for _, s := range g.strangers() {
		t.Run(s.name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				g.wantError(t, g.put(version, s.key), s.code, s.user)
			}
		})
	}
	for _, version := range []int{1, 2} {
		a := g.Do(version, "PUT", "/user/api-key", "", "Authorization", "Bearer "+g.key, "Authorization", "Bearer "+g.key)
		g.wantError(t, a, 400, "")
		a = g.Do(version, "PUT", "/user/api-key", "", "X-API-Key", g.key)
		g.wantError(t, a, 401, "")
	}
}

func TestRefusalsOnProxiedRoutesAreTheAPIs(t *testing.T) {
	for name, block := range map[string]string{"mounted": "dialect exorde\nerrors exorde\n", "errors only": "errors exorde\n"} {
		t.Run(name, func(t *testing.T) {
			g := startWith(t, "", block+"require role user")
			good := g.Issue(keystore.Credential{Roles: []string{"user"}})
			bad := g.Issue(keystore.Credential{})
			strangers := append(g.strangers(), stranger{"missing_role", bad.Text, 403, bad.Credential.AccountID})
			for _, version := range []int{1, 2} {
				for _, s := range strangers {
					g.wantError(t, g.Do(version, "GET", "/", "", "X-API-Key", s.key), s.code, s.user)
				}
				g.wantError(t, g.Do(version, "GET", "/", "", "X-API-Key", good.Text, "Authorization", "Bearer "+good.Text), 400, "")
				if a := g.Do(version, "GET", "/", "", "X-API-Key", good.Text); a.StatusCode != 200 {
					t.Errorf("the right key: %d %s", a.StatusCode, a.Text)
				}
			}
			if got := len(g.Upstream.Taken()); got != 2 {
				t.Errorf("%d requests reached the upstream", got)
			}
			if err := g.Reload("package Good {\nroles user\n}\npackage Bad\n", block+"require package Good"); err != nil {
				t.Fatal(err)
			}
			other := g.Issue(keystore.Credential{Package: "Bad"})
			g.wantError(t, g.Do(1, "GET", "/", "", "X-API-Key", other.Text), 403, other.Credential.AccountID)
			g.closeStore()
			for _, version := range []int{1, 2} {
				wantAway(t, g.Do(version, "GET", "/", "", "X-API-Key", good.Text))
			}
		})
	}
}

// wantAway checks the answer without a store.
func wantAway(t *testing.T, a livetest.Answer) {
	t.Helper()
	if a.StatusCode != 503 || a.Text != "" || a.Header.Get("Retry-After") == "" || a.Header.Get("Content-Type") != "" {
		t.Errorf("%d %v %q", a.StatusCode, a.Header, a.Text)
	}
}

func TestWithoutItsStoreTheCallIsUnavailable(t *testing.T) {
	g := start(t, "dialect exorde")
	g.closeStore()
	for _, version := range []int{1, 2} {
		wantAway(t, g.put(version, g.key))
	}
}

func TestAnAccountReplacesItsKeysSoOften(t *testing.T) {
	g := start(t, "dialect exorde {\nrate 2/1h\n}")
	other := g.Issue(keystore.Credential{AccountID: g.first.Credential.AccountID})
	key := g.newKey(g.put(1, g.key))
	g.newKey(g.put(2, other.Text)) // the account counts, not the key
	for _, version := range []int{1, 2} {
		a := g.put(version, key)
		g.wantError(t, a, 429, g.first.Credential.AccountID)
		if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || seconds < 3590 || seconds > 3600 {
			t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
		}
	}
	if !g.accepts(key) {
		t.Error("the key was replaced")
	}
	g.newKey(g.put(1, g.Issue(keystore.Credential{}).Text)) // another account
}

func TestTheRateIsTenAMinuteByDefault(t *testing.T) {
	g := start(t, "dialect exorde")
	key := g.key
	for range 10 {
		g.wantError(t, g.put(1, "nobody's"), 401, "") // whom nobody knows is not counted
		key = g.newKey(g.put(1, key))
	}
	a := g.put(1, key)
	g.wantError(t, a, 429, g.first.Credential.AccountID)
	if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60 {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
}

func TestTooManyWorkingKeysIsTooOftenToo(t *testing.T) {
	g := startWith(t, "package Users {\nmax_keys 2\n}", "dialect exorde {\noverlap 2h\n}\nrequire any")
	issued := g.Issue(keystore.Credential{Package: "Users"})
	g.newKey(g.put(1, issued.Text))
	for _, version := range []int{1, 2} {
		a := g.put(version, issued.Text)
		g.wantError(t, a, 429, issued.Credential.AccountID)
		if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || seconds < 7190 || seconds > 7200 {
			t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
		}
	}
	if !g.accepts(issued.Text) {
		t.Error("the key stopped")
	}
}
