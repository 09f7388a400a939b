package keystore_test

import (
	"errors"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestLiveKeysAreThoseOfTheWholeAccount(t *testing.T) {
	r := newRing(t, keystore.Config{})
	first := r.issue(keystore.Credential{})
	account := first.Credential.AccountID
	issue := func(c keystore.Credential) *keystore.Issued {
		t.Helper()
		c.AccountID = account
		issued, err := r.Issue(t.Context(), keystore.Operator(), c)
		if err != nil {
			t.Fatal(err)
		}
		return issued
	}
	revoked, deactivated := issue(keystore.Credential{}), issue(keystore.Credential{})
	second := r.rotate(first.Credential.ID, "1h")
	third := issue(keystore.Credential{})
	deleted := issue(keystore.Credential{})
	r.issue(keystore.Credential{}) // another account's

	if _, err := r.RevokeKey(t.Context(), revoked.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteCredential(t.Context(), deleted.Credential.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.UpdateCredential(t.Context(), keystore.Operator(), deactivated.Credential.ID, func(c *keystore.Credential) error {
		c.Active = false
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	var live []keystore.Holding
	if err := r.View(t.Context(), func(read keystore.Reader) (err error) {
		live, err = r.LiveKeys(read, account)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := []struct {
		made  *keystore.Issued
		state keystore.State
	}{
		{first, keystore.StateRetiring}, {deactivated, keystore.StateActive},
		{second, keystore.StateActive}, {third, keystore.StateActive},
	}
	if len(live) != len(want) {
		t.Fatalf("%d keys, want %d", len(live), len(want))
	}
	for i, w := range want {
		if live[i].ID != w.made.Key.ID || live[i].State != w.state || live[i].Credential.ID != w.made.Credential.ID {
			t.Errorf("key %d is %s, %s; want %s, %s", i, live[i].ID, live[i].State, w.made.Key.ID, w.state)
		}
	}
}

// The grant is what a request was accepted with; what happens to its key before
// the change begins must count.
func TestWhoseKeyStoppedMeanwhileObtainsNothing(t *testing.T) {
	r := newRing(t, keystore.Config{})
	for _, rule := range []struct {
		name string
		stop func(*keystore.Issued) error
	}{
		{"the key is revoked", func(i *keystore.Issued) error {
			_, err := r.RevokeKey(t.Context(), i.Key.ID, "")
			return err
		}},
		{"the key was rotated", func(i *keystore.Issued) error {
			r.rotate(i.Credential.ID, "0s")
			return nil
		}},
		{"the credential is deactivated", func(i *keystore.Issued) error {
			_, err := r.UpdateCredential(t.Context(), keystore.Operator(), i.Credential.ID, func(c *keystore.Credential) error {
				c.Active = false
				return nil
			})
			return err
		}},
		{"the account is deactivated", func(i *keystore.Issued) error {
			_, err := r.UpdateAccount(t.Context(), i.Credential.AccountID, func(a *keystore.Account) error {
				a.Active = false
				return nil
			})
			return err
		}},
	} {
		t.Run(rule.name, func(t *testing.T) {
			issued := r.issue(keystore.Credential{})
			grant, verdict, err := r.Verify(t.Context(), issued.Text)
			if verdict != keystore.OK || err != nil {
				t.Fatal(verdict, err)
			}
			if err := rule.stop(issued); err != nil {
				t.Fatal(err)
			}
			before := r.countKeys(issued.Credential)
			holder := keystore.Holder(grant)
			_, err = r.Rotate(t.Context(), holder, keystore.Rotation{CredentialID: grant.CredentialID})
			if !errors.Is(err, keystore.ErrKeyStopped) || !errors.Is(err, keystore.ErrForbidden) {
				t.Errorf("rotation: %v", err)
			}
			_, err = r.Issue(t.Context(), holder, keystore.Credential{AccountID: grant.AccountID})
			if !errors.Is(err, keystore.ErrKeyStopped) {
				t.Errorf("issue: %v", err)
			}
			if after := r.countKeys(issued.Credential); after != before {
				t.Errorf("there are %d keys, and were %d", after, before)
			}
		})
	}
}

// countKeys is how many keys the account of a credential has, dead ones included.
func (r *ring) countKeys(c *keystore.Credential) (n int) {
	r.t.Helper()
	if err := r.View(r.t.Context(), func(read keystore.Reader) error {
		credentials, err := read.Credentials(c.AccountID, keystore.Page{})
		for _, c := range credentials {
			keys, err := read.Keys(c.ID, keystore.Page{})
			if err != nil {
				return err
			}
			n += len(keys)
		}
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	return n
}
