package singleinvoice_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestMain(m *testing.M) { os.Exit(livetest.Main(m)) }

// global declares packages of each format, one with a role and one for management.
const global = `package Account {
	format alphanumeric 62
	roles User
}
package Coverage {
	format alphanumeric 62
}
package Claim {
	prefix claim
}
package ICE {
	format uuid
}
package Short {
	format alphanumeric 22
}
package Quote {
	roles quote
}
package Ops {
	management
}
`

const site = `dialect single_invoice
require package Coverage`

// ada is the account of the vendor's sample.
var ada = keystore.Account{
	Email: "test@example.com", Roles: []string{"User", "Admin"},
	FirstName: "Test", LastName: "Example", Company: "Example.com <&>",
	Phone: "+44-7500-000-000", Address: "123 Test Street, London, UK", SIREN: "732829320",
}

// gateway is a running site with an account and its first key.
type gateway struct {
	*livetest.Gateway
	owner *keystore.Account
	first *keystore.Issued
	key   string
}

func start(t *testing.T, global, block string) *gateway {
	t.Helper()
	g := &gateway{Gateway: livetest.Start(t, global, block)}
	g.owner = g.Account(ada)
	g.first = g.Issue(keystore.Credential{AccountID: g.owner.ID, Package: "Account"})
	g.key = g.first.Text
	return g
}

// call asks for a key of a package.
func (g *gateway) call(version int, body string, headers ...string) livetest.Answer {
	g.T.Helper()
	return g.Do(version, "POST", "/account/key", body, headers...)
}

// made asks for a key with the first one, and returns the new one.
func (g *gateway) made(packageName string) string {
	g.T.Helper()
	keys := g.keysIn(g.call(1, fmt.Sprintf(`{"package":%q}`, packageName), "apikey", g.key))
	return keys[len(keys)-1]
}

func (g *gateway) keysIn(a livetest.Answer) []string {
	g.T.Helper()
	var account struct{ APIKeys []string }
	if err := json.Unmarshal([]byte(a.Text), &account); err != nil || a.StatusCode != 200 || len(account.APIKeys) == 0 {
		g.T.Fatalf("%d %s: %v", a.StatusCode, a.Text, err)
	}
	return account.APIKeys
}

// stored is how many keys there are, whatever their state.
func (g *gateway) stored() (n int) {
	g.T.Helper()
	err := g.Keyring().View(context.Background(), func(r keystore.Reader) error {
		accounts, err := r.Accounts(keystore.Page{})
		for _, a := range accounts {
			credentials, err := r.Credentials(a.ID, keystore.Page{})
			if err != nil {
				return err
			}
			for _, c := range credentials {
				keys, err := r.Keys(c.ID, keystore.Page{})
				if err != nil {
					return err
				}
				n += len(keys)
			}
		}
		return err
	})
	if err != nil {
		g.T.Fatal(err)
	}
	return n
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

// wantHeaders checks those that every answer has.
func wantHeaders(t *testing.T, a livetest.Answer) {
	t.Helper()
	if got := a.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	if got := a.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
}

func masked(text string) string { return text[:6] + "…" + text[len(text)-6:] }

func TestTheAnswerIsTheWholeAccount(t *testing.T) {
	g := start(t, global, site)
	for _, version := range []int{1, 2} {
		a := g.call(version, `{"package":"Coverage"}`, "apikey", g.key)
		wantHeaders(t, a)
		keys := g.keysIn(a)
		fresh := keys[len(keys)-1]
		if !regexp.MustCompile(`^[0-9A-Za-z]{62}$`).MatchString(fresh) {
			t.Errorf("the new key is of another format")
		}
		var older []string
		for _, k := range keys[:len(keys)-1] {
			older = append(older, `"`+k+`",`)
		}
		want := `{"Id":1,"Email":"test@example.com","ApiKeys":[` + strings.Join(older, "") + `"` + fresh + `"],` +
			`"FirstName":"Test","LastName":"Example","Company":"Example.com <&>","Phone":"+44-7500-000-000",` +
			`"Address":"123 Test Street, London, UK","SIREN":"732829320","Roles":"User, Admin","Active":true}`
		if a.Text != want {
			t.Errorf("the answer is\n%s, want\n%s", a.Text, want)
		}
		if keys[0] != masked(g.key) || len(keys) != version+1 {
			t.Errorf("older keys are %q", keys[:len(keys)-1])
		}
	}
}

func TestWhatAnAccountLacksIsNull(t *testing.T) {
	g := start(t, global, site)
	bare := g.Issue(keystore.Credential{Package: "Account"})
	a := g.call(1, `{"package":"ICE"}`, "apikey", bare.Text)
	keys := g.keysIn(a)
	want := `{"Id":2,"Email":null,"ApiKeys":["` + masked(bare.Text) + `","` + keys[1] + `"],"FirstName":null,"LastName":null,` +
		`"Company":null,"Phone":null,"Address":null,"SIREN":null,"Roles":"","Active":true}`
	if a.Text != want {
		t.Errorf("the answer is\n%s, want\n%s", a.Text, want)
	}
}

func TestTheKeyIsPresentedInTheHeaderOrTheQuery(t *testing.T) {
	g := start(t, global, site)
	for _, c := range []struct {
		name, query string
		headers     []string
		status      int
	}{
		{"header", "", []string{"apikey", g.key}, 200},
		{"header in another case", "", []string{"ApiKey", g.key}, 200},
		{"query", "?apikey=" + g.key, nil, 200},
		{"query beside another parameter", "?a=b&apikey=" + g.key, nil, 200},
		{"no Content-Type", "", []string{"apikey", g.key, "Content-Type", ""}, 200},
		{"another Content-Type", "", []string{"apikey", g.key, "Content-Type", "text/plain"}, 200},
		{"both", "?apikey=" + g.key, []string{"apikey", g.key}, 400},
		{"repeated header", "", []string{"apikey", g.key, "apikey", g.key}, 400},
		{"repeated query", "?apikey=" + g.key + "&apikey=" + g.key, nil, 400},
		{"none", "", nil, 401},
		{"empty header", "", []string{"apikey", ""}, 401},
		{"query in another case", "?ApiKey=" + g.key, nil, 401},
		{"where the site's clients present it", "", []string{"X-API-Key", g.key}, 401},
		{"bearer", "", []string{"Authorization", "Bearer " + g.key}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				a := g.Do(version, "POST", "/account/key"+c.query, `{"package":"Coverage"}`, c.headers...)
				wantHeaders(t, a)
				if a.StatusCode != c.status {
					t.Fatalf("%d %s, want %d", a.StatusCode, a.Text, c.status)
				}
				if c.status == 400 && a.Text != `{"Message":"The request is invalid."}` {
					t.Errorf("the answer is %s", a.Text)
				}
				if c.status == 200 {
					keys := g.keysIn(a)
					defer g.noKeyIsLogged(keys[len(keys)-1])
				}
			}
		})
	}
	g.noKeyIsLogged(g.key)
}

func TestTheRouteIsBelowItsBase(t *testing.T) {
	g := start(t, global, "dialect single_invoice /v1\nrequire package Coverage")
	if a := g.Do(1, "POST", "/v1/account/key", `{"package":"Coverage"}`, "apikey", g.key); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	for _, path := range []string{"/account/key", "/v1/account/key/", "/v1/account", "/v1/Account/key", "/v1//account/key"} {
		a := g.Do(1, "POST", path, `{"package":"Coverage"}`, "apikey", g.key)
		if a.StatusCode != 401 || !strings.Contains(a.Text, "missing_key") {
			t.Errorf("%s is not enforced: %d %s", path, a.StatusCode, a.Text)
		}
	}
	if got := g.stored(); got != 2 {
		t.Errorf("%d keys are stored", got)
	}
}

// writeMaster writes the file of the option recoverable.
func writeMaster(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(file, []byte(strings.Repeat("0a", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
