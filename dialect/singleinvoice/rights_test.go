package singleinvoice_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// A client can take as long as it likes to send a body.
func TestTheCallerIsJudgedAgainOnceTheBodyIsThere(t *testing.T) {
	const withRole = "package Admin {\nroles admin\n}\n"
	for _, c := range []struct {
		name   string
		roles  []string
		change func(*keystore.Credential)
		status int
	}{
		{"the role of the package is taken away", []string{"admin"}, func(c *keystore.Credential) { c.Roles = []string{"User"} }, 401},
		{"the role of the package is given", nil, func(c *keystore.Credential) { c.Roles = []string{"User", "admin"} }, 200},
		{"the package is another", []string{"admin"}, func(c *keystore.Credential) { c.Package = "Coverage" }, 401},
		{"the client's address is not allowed any more", []string{"admin"}, func(c *keystore.Credential) { c.AllowedIPs = prefixes("192.0.2.0/24") }, 401},
		{"the credential is deactivated", []string{"admin"}, func(c *keystore.Credential) { c.Active = false }, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, global+withRole, site)
			caller := g.Issue(keystore.Credential{AccountID: g.owner.ID, Package: "Account", Roles: c.roles})
			before := g.stored()
			a := g.Slowly("POST", "/account/key", `{"package":"Admin"}`, func() {
				g.Update(caller.Credential.ID, c.change)
			}, "apikey", caller.Text)
			if c.status == 200 {
				g.keysIn(a)
				return
			}
			wantDenied(t, a)
			if after := g.stored(); after != before {
				t.Errorf("%d keys are stored, and were %d", after, before)
			}
		})
	}
}

func TestARecoverableKeyIsInClearToWhoCouldGetOneLikeIt(t *testing.T) {
	master := writeMaster(t)
	g := start(t, global+"recoverable "+master, site)
	issue := func(packageName string, roles ...string) string {
		return g.Issue(keystore.Credential{AccountID: g.owner.ID, Package: packageName, Roles: roles}).Text
	}
	coverage := issue("Coverage")
	operators, stronger, ops := issue("Coverage", keystore.RoleOperator), issue("Coverage", "more"), issue("Ops")
	keys := g.keysIn(g.call(1, `{"package":"Coverage"}`, "apikey", g.key))
	want := []string{g.key, coverage, masked(operators), masked(stronger), keys[4], keys[5]}
	if !slices.Equal(keys, want) || keys[4] == ops || !strings.HasSuffix(keys[4], "…") {
		t.Errorf("keys are %q, want %q", keys, want)
	}

	// An operator's key could get each of them.
	operator := issue("Account", keystore.RoleOperator)
	keys = g.keysIn(g.call(1, `{"package":"Coverage"}`, "apikey", operator))
	if !slices.Contains(keys, operators) || !slices.Contains(keys, stronger) || !slices.Contains(keys, ops) {
		t.Errorf("to an operator, keys are %q", keys)
	}
}

func TestAnUnknownPackageIsAnsweredWithThoseThatTheCallerCouldGet(t *testing.T) {
	g := start(t, global, site)
	const want = `{"Message":"The request is invalid.","ModelState":{"package":["The package must be one of: Account, Claim, Coverage, ICE, Short."]}}`
	for _, version := range []int{1, 2} {
		if a := g.call(version, `{"package":"None"}`, "apikey", g.key); a.StatusCode != 400 || a.Text != want {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
	quoting := g.Issue(keystore.Credential{AccountID: g.owner.ID, Package: "Account", Roles: []string{"quote"}})
	if a := g.call(1, `{"package":"None"}`, "apikey", quoting.Text); !strings.Contains(a.Text, "ICE, Quote, Short.") {
		t.Errorf("with its role: %s", a.Text)
	}
}

// Many credentials cost no statement each: all are read in two.
func TestAnAccountOfManyCredentialsIsAnsweredInTime(t *testing.T) {
	g := start(t, global, "dialect single_invoice {\nmax_keys 1000\n}\nrequire package Coverage")
	for range 50 {
		g.Issue(keystore.Credential{AccountID: g.owner.ID, Package: "Coverage"})
	}
	counted := &counting{}
	err := g.Keyring().View(context.Background(), func(r keystore.Reader) error {
		counted.Reader = r
		live, err := g.Keyring().LiveKeys(counted, g.owner.ID)
		if len(live) != 51 {
			t.Errorf("%d keys", len(live))
		}
		return err
	})
	if err != nil || counted.perCredential != 0 {
		t.Errorf("%d reads of one credential's keys (%v)", counted.perCredential, err)
	}
}

// counting counts the reads of one credential's keys.
type counting struct {
	keystore.Reader
	perCredential int
}

func (c *counting) UnendedKeys(id string, now keystore.Instant) ([]*keystore.Key, error) {
	c.perCredential++
	return c.Reader.UnendedKeys(id, now)
}
