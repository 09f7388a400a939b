package keystore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// holder is the actor of a key as a request is accepted with it.
func (r *ring) holder(text string) keystore.Actor {
	r.t.Helper()
	grant, verdict, err := r.Verify(r.t.Context(), text)
	if verdict != keystore.OK || err != nil {
		r.t.Fatal(verdict, err)
	}
	return keystore.Holder(grant)
}

// update changes a credential as an operator does.
func (r *ring) update(id string, edit func(*keystore.Credential)) {
	r.t.Helper()
	_, err := r.UpdateCredential(r.t.Context(), keystore.Operator(), id, func(c *keystore.Credential) error {
		edit(c)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// A grant is from before the body of its request was read. What counts is what the
// caller may when the change is made.
func TestRightsAreThoseOfTheMomentOfTheChange(t *testing.T) {
	packages := []keystore.Package{{Name: "Open"}, {Name: "Read", Roles: []string{"read"}}, {Name: "Ops", Management: true}, {Name: "Other"}}
	roles := func(roles ...string) func(*keystore.Credential) {
		return func(c *keystore.Credential) { c.Roles = roles }
	}
	toPackage := func(name string) func(*keystore.Credential) {
		return func(c *keystore.Credential) { c.Package = name }
	}
	for _, rule := range []struct {
		name    string
		caller  keystore.Credential
		change  func(*keystore.Credential)
		wanted  keystore.Credential
		others  bool // wanted is of another account
		allowed bool
	}{
		{"nothing", keystore.Credential{Package: "Open", Roles: []string{"read"}}, roles("read"), keystore.Credential{Package: "Read"}, false, true},
		{"a role is taken away", keystore.Credential{Package: "Open", Roles: []string{"read"}}, roles(), keystore.Credential{Package: "Read"}, false, false},
		{"a role is given", keystore.Credential{Package: "Open"}, roles("read"), keystore.Credential{Package: "Read"}, false, true},
		{"the package for management is taken away", keystore.Credential{Package: "Ops"}, toPackage("Open"), keystore.Credential{Package: "Ops"}, false, false},
		{"the package for management is given", keystore.Credential{Package: "Open"}, toPackage("Ops"), keystore.Credential{Package: "Ops"}, false, true},
		{"an operator is none any more", keystore.Credential{Package: "Open", Roles: []string{keystore.RoleOperator}}, roles(), keystore.Credential{Package: "Open"}, true, false},
		{"an operator is one still", keystore.Credential{Package: "Open", Roles: []string{keystore.RoleOperator}}, toPackage("Other"), keystore.Credential{Package: "Ops"}, true, true},
	} {
		t.Run(rule.name, func(t *testing.T) {
			r := newRing(t, keystore.Config{Packages: packages})
			caller := r.issue(rule.caller)
			wanted := rule.wanted
			if wanted.AccountID = caller.Credential.AccountID; rule.others {
				wanted.AccountID = r.account(keystore.Account{}).ID
			}
			target := r.credential(wanted)
			actor := r.holder(caller.Text)
			r.update(caller.Credential.ID, rule.change)
			check := func(what string, err error) {
				t.Helper()
				if rule.allowed && err != nil || !rule.allowed && !errors.Is(err, keystore.ErrForbidden) {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, err := r.Issue(t.Context(), actor, wanted)
			check("issue", err)
			_, err = r.Rotate(t.Context(), actor, keystore.Rotation{CredentialID: target.Credential.ID, Overlap: keystore.Overlap{For: time.Hour}})
			check("rotation", err)
			_, err = r.UpdateCredential(t.Context(), actor, target.Credential.ID, func(c *keystore.Credential) error {
				c.Description = "changed"
				return nil
			})
			check("update", err)
		})
	}
}

func TestAnOperatorThatIsNoneAnyMoreCannotMoveAnExpiryLater(t *testing.T) {
	r := newRing(t, keystore.Config{})
	caller := r.issue(keystore.Credential{Roles: []string{keystore.RoleOperator}})
	actor := r.holder(caller.Text)
	r.update(caller.Credential.ID, func(c *keystore.Credential) { c.Roles = nil })
	soon := r.Now().Add(time.Hour)
	if _, err := r.SetKeyExpiry(t.Context(), actor, caller.Key.ID, soon); err != nil {
		t.Errorf("earlier: %v", err)
	}
	if _, err := r.SetKeyExpiry(t.Context(), actor, caller.Key.ID, soon.Add(time.Hour)); !errors.Is(err, keystore.ErrForbidden) {
		t.Errorf("later: %v", err)
	}
}

// A credential's own holder gains nothing by an edit either.
func TestAnUpdateBringsNoPackageThatTheActorLacks(t *testing.T) {
	r := newRing(t, keystore.Config{Packages: []keystore.Package{{Name: "Open"}, {Name: "Ops", Management: true}}})
	caller := r.issue(keystore.Credential{Package: "Open"})
	_, err := r.UpdateCredential(t.Context(), r.holder(caller.Text), caller.Credential.ID, func(c *keystore.Credential) error {
		c.Package = "Ops"
		return nil
	})
	if !errors.Is(err, keystore.ErrForbidden) {
		t.Error(err)
	}
}

func TestAnUnknownPackageIsAnsweredWithThoseThatTheActorCouldGet(t *testing.T) {
	r := newRing(t, keystore.Config{Packages: []keystore.Package{
		{Name: "Account", Management: true}, {Name: "Coverage"}, {Name: "Ops", Management: true}, {Name: "Read", Roles: []string{"read"}},
	}})
	for _, c := range []struct{ packageName, want string }{
		{"Account", "must be one of: Account, Coverage"},
		{"Coverage", "must be one of: Coverage"},
	} {
		caller := r.issue(keystore.Credential{Package: c.packageName})
		_, err := r.Issue(t.Context(), r.holder(caller.Text), keystore.Credential{AccountID: caller.Credential.AccountID, Package: "None"})
		if !errors.Is(err, keystore.ErrInvalid) || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("with %s: %v", c.packageName, err)
		}
	}
	_, err := r.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: r.account(keystore.Account{}).ID, Package: "None"})
	if err == nil || !strings.HasSuffix(err.Error(), "must be one of: Account, Coverage, Ops, Read") {
		t.Errorf("an operator: %v", err)
	}
}
