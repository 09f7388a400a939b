package exorde_test

import (
	"context"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestMain(m *testing.M) { os.Exit(livetest.Main(m)) }

// gateway is a running site with a user's key.
type gateway struct {
	*livetest.Gateway
	first *keystore.Issued
	key   string
	// status is the member of that name in every body.
	status string
}

const free = `"status":{"cost":0}`

func start(t *testing.T, block string) *gateway {
	t.Helper()
	g := startWith(t, "", block)
	g.first = g.Issue(keystore.Credential{})
	g.key = g.first.Text
	return g
}

// startWith runs a site with packages, and without a key.
func startWith(t *testing.T, global, block string) *gateway {
	t.Helper()
	return &gateway{Gateway: livetest.Start(t, global, block), status: free}
}

// put replaces a key.
func (g *gateway) put(version int, key string, headers ...string) livetest.Answer {
	g.T.Helper()
	return g.Do(version, "PUT", "/user/api-key", "", append([]string{"Authorization", "Bearer " + key}, headers...)...)
}

var success = regexp.MustCompile(`^\{"apikey":"([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})",(.*)\}$`)

// newKey is the key of an answer that holds one, byte for byte as it must be.
func (g *gateway) newKey(a livetest.Answer) string {
	g.T.Helper()
	m := success.FindStringSubmatch(a.Text)
	if a.StatusCode != 200 || m == nil || m[2] != g.status {
		g.T.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	wantHeaders(g.T, a)
	return m[1]
}

func (g *gateway) accepts(key string) bool {
	g.T.Helper()
	_, v, err := g.Keyring().Verify(context.Background(), key)
	if err != nil {
		g.T.Fatal(err)
	}
	return v == keystore.OK
}

func wantHeaders(t *testing.T, a livetest.Answer) {
	t.Helper()
	if got := a.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
}

var errorObject = regexp.MustCompile(`^\{"error":\{"message":"([^"]+)","code":(\d+)(?:,"userId":"([^"]+)")?,"requestId":"([^"]+)"\},(.*)\}$`)

// wantError checks an error object; user is the id in it, empty if there is none.
// It returns the message.
func (g *gateway) wantError(t *testing.T, a livetest.Answer, code int, user string) string {
	t.Helper()
	wantHeaders(t, a)
	m := errorObject.FindStringSubmatch(a.Text)
	if m == nil {
		t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	if a.StatusCode != code || m[2] != strings.Fields(a.Status)[0] || m[3] != user || m[5] != g.status {
		t.Errorf("%d %s, want code %d, user %q, %s", a.StatusCode, a.Text, code, user, g.status)
	}
	if _, err := uuid.Parse(m[4]); err != nil {
		t.Errorf("requestId %q: %v", m[4], err)
	}
	if got := a.Header.Get("WWW-Authenticate"); code == 401 && !strings.HasPrefix(got, `Bearer realm=`) {
		t.Errorf("WWW-Authenticate %q", got)
	}
	if got := a.Header.Get("Retry-After"); (got != "") != (code == 429) {
		t.Errorf("Retry-After %q", got)
	}
	return m[1]
}

func TestAKeyIsReplacedByAUUID(t *testing.T) {
	g := start(t, "dialect exorde")
	key := g.key
	for _, version := range []int{1, 2, 1} {
		next := g.newKey(g.put(version, key))
		if g.accepts(key) || !g.accepts(next) {
			t.Error("the old key works, or the new one does not")
		}
		if msg := g.wantError(t, g.put(version, key), 401, g.first.Credential.AccountID); msg != "The API key has been revoked." {
			t.Errorf("with the old key: %s", msg)
		}
		g.noKeyIsLogged(key, next)
		key = next
	}
}

// noKeyIsLogged fails the test if one of these texts is in a log.
func (g *gateway) noKeyIsLogged(texts ...string) {
	g.T.Helper()
	logged := g.Logged()
	if !strings.Contains(logged, "handled request") {
		g.T.Error("there is no access log")
	}
	for _, text := range texts {
		if strings.Contains(logged, text) {
			g.T.Error("a key is in a log")
		}
	}
}

func TestOverlap(t *testing.T) {
	t.Run("a duration lets both keys work", func(t *testing.T) {
		g := start(t, "dialect exorde {\noverlap 10m\n}")
		next := g.newKey(g.put(1, g.key))
		if !g.accepts(g.key) || !g.accepts(next) {
			t.Error("one of them does not work")
		}
		// A client that lost the answer asks again.
		again := g.newKey(g.put(2, g.key))
		if !g.accepts(g.key) || !g.accepts(next) || !g.accepts(again) {
			t.Error("one of the three does not work")
		}
	})
	t.Run("until_first_use stops the old key when the new one is used", func(t *testing.T) {
		g := start(t, "dialect exorde {\noverlap until_first_use\n}")
		next := g.newKey(g.put(1, g.key))
		if !g.accepts(g.key) {
			t.Error("the old key stopped too early")
		}
		if a := g.Do(2, "GET", "/", "", "Authorization", "Bearer "+next); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
		if g.accepts(g.key) {
			t.Error("the old key works on")
		}
	})
}

func TestTheNewKeyIsOfTheSameCredential(t *testing.T) {
	g := startWith(t, "package Users {\nprefix usr\nroles read\n}\npackage Ops {\nmanagement\n}", "dialect exorde /v1\nrequire any")
	for _, packageName := range []string{"Users", "Ops"} {
		issued := g.Issue(keystore.Credential{Package: packageName, Roles: []string{"write"}})
		a := g.Do(2, "PUT", "/v1/user/api-key", "", "Authorization", "Bearer "+issued.Text)
		grant, v, err := g.Keyring().Verify(context.Background(), g.newKey(a))
		if v != keystore.OK || err != nil {
			t.Fatal(v, err)
		}
		if grant.CredentialID != issued.Credential.ID || grant.Package != packageName || !grant.HasRole("write") {
			t.Errorf("the new key is of %+v", grant)
		}
	}
}

func TestAUUIDHasOneSpellingInTwoCases(t *testing.T) {
	g := start(t, "dialect exorde {\nrate 1000/1m\n}")
	key := g.newKey(g.put(1, g.key))
	for name, wrong := range map[string]string{
		"in braces":       "{" + key + "}",
		"as a URN":        "urn:uuid:" + key,
		"without hyphens": strings.ReplaceAll(key, "-", ""),
		"cut short":       key[:35],
	} {
		for _, version := range []int{1, 2} {
			if msg := g.wantError(t, g.put(version, wrong), 401, ""); msg != "The API key is not valid." {
				t.Errorf("%s: %s", name, msg)
			}
		}
	}
	if a := g.Do(2, "GET", "/", "", "Authorization", "Bearer "+strings.ToUpper(key)); a.StatusCode != 200 {
		t.Errorf("in upper case, on a proxied route: %d %s", a.StatusCode, a.Text)
	}
	next := g.newKey(g.put(2, strings.ToUpper(key)))
	if g.accepts(key) {
		t.Error("the old key works on")
	}
	g.noKeyIsLogged(key, strings.ToUpper(key), next)
}

const deprecated = `dialect exorde {
	deprecation 2022-02-02 "Use \"v2\" & <https://api.example/v2> – soon."
}
errors exorde`

func TestTheDeprecationNoticeIsInEveryBody(t *testing.T) {
	g := start(t, deprecated)
	g.status = `"status":{"cost":0,"apiDeprecationNotice":{"message":"Use \"v2\" & <https://api.example/v2> – soon.",` +
		`"shutdownDate":"2022-02-02T00:00:00.000Z"}}`
	g.newKey(g.put(1, g.key))
	g.wantError(t, g.put(2, g.key), 401, g.first.Credential.AccountID)
	g.wantError(t, g.Do(1, "GET", "/user/api-key", ""), 405, "")
	g.wantError(t, g.Do(1, "GET", "/elsewhere", ""), 401, "")
}

// A client can take as long as it likes to send a body.
func TestTheCallerIsJudgedAgainOnceTheBodyIsThere(t *testing.T) {
	edit := func(change func(*keystore.Credential)) func(*gateway) error {
		return func(g *gateway) error {
			g.Update(g.first.Credential.ID, change)
			return nil
		}
	}
	const inactive = "The account or the credential of this API key is deactivated."
	for _, c := range []struct {
		name      string
		meanwhile func(*gateway) error
		code      int
		message   string
	}{
		{"the key is revoked", func(g *gateway) error {
			_, err := g.Keyring().RevokeKey(t.Context(), g.first.Key.ID, "stolen")
			return err
		}, 401, "The API key has been revoked."},
		{"the credential is deactivated", edit(func(c *keystore.Credential) { c.Active = false }), 403, inactive},
		{"the account is deactivated", func(g *gateway) error {
			_, err := g.Keyring().UpdateAccount(t.Context(), g.first.Credential.AccountID, func(a *keystore.Account) error { a.Active = false; return nil })
			return err
		}, 403, inactive},
		{"the credential is deleted", func(g *gateway) error {
			return g.Keyring().DeleteCredential(t.Context(), g.first.Credential.ID)
		}, 401, "The API key has been revoked."},
		{"the client's address is not allowed any more", edit(func(c *keystore.Credential) {
			c.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}), 403, "The API key may not be used from this client address."},
		{"a role is added", edit(func(c *keystore.Credential) { c.Roles = []string{"more"} }), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, "dialect exorde")
			a := g.Slowly("PUT", "/user/api-key", "{}", func() {
				if err := c.meanwhile(g); err != nil {
					t.Fatal(err)
				}
			}, "Authorization", "Bearer "+g.key)
			if c.code == 200 {
				g.newKey(a)
				return
			}
			if got := g.wantError(t, a, c.code, g.first.Credential.AccountID); got != c.message {
				t.Errorf("the message is %q", got)
			}
			var keys []*keystore.Key
			if err := g.Keyring().View(t.Context(), func(r keystore.Reader) (err error) {
				keys, err = r.Keys(g.first.Credential.ID, keystore.Page{})
				return err
			}); err != nil || len(keys) != 1 {
				t.Errorf("there are %d keys: %v", len(keys), err)
			}
		})
	}
}

// closeStore takes the store away from the running site.
func (g *gateway) closeStore() {
	g.T.Helper()
	app, err := caddy.ActiveContext().App("api_keys")
	if err != nil {
		g.T.Fatal(err)
	}
	vault, err := app.(interface {
		Vault(context.Context) (*keystore.Vault, error)
	}).Vault(context.Background())
	if err != nil {
		g.T.Fatal(err)
	}
	if err := vault.Close(); err != nil {
		g.T.Fatal(err)
	}
}
