package sarus_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestTheMailedKey works at once, and its first use stops the older one.
func TestTheMailedKey(t *testing.T) {
	for version := 1; version <= 2; version++ {
		g := start(t, "")
		account := g.account("Ada.Lovelace@Example.com")
		old := g.key(account)
		g.accepts(old)
		g.want(g.request(version, "GET", target("ada.LOVELACE@EXAMPLE.COM"), ""), 200)
		m, mailed := g.mail()
		if len(m.To) != 1 || m.To[0] != "Ada.Lovelace@Example.com" {
			t.Errorf("the mail went to %q, not to the address that is stored", m.To)
		}
		if strings.Contains(m.Body, "ada.LOVELACE") {
			t.Errorf("the mail repeats what a stranger typed:\n%s", m.Body)
		}
		g.accepts(old) // until the new one is used
		g.accepts(mailed)
		g.refuses(old, "expired_key")
		g.accepts(mailed)
		for _, key := range []string{old, mailed} {
			if strings.Contains(g.Logged(), key) {
				t.Error("a key is in the log")
			}
		}
	}
}

// TestAnUnusedMailedKeyIsReplaced by that of the next mail.
func TestAnUnusedMailedKeyIsReplaced(t *testing.T) {
	g := start(t, "throttle 1s\nclient_limit 1000")
	old := g.key(g.account("a@example.com"))
	g.want(g.request(1, "GET", target("a@example.com"), ""), 200)
	_, first := g.mail()
	g.askAgain("a@example.com")
	_, second := g.mail()
	g.until("the first mailed key is revoked", func() bool { return g.verdict(first) == keystore.RevokedKey })
	g.refuses(first, "revoked_key")
	g.accepts(old)
	g.accepts(second)
	g.refuses(old, "expired_key")
}

// askAgain asks until the throttle has ended. It asks once with success.
func (g *gateway) askAgain(address string) {
	g.Helper()
	g.until("the throttle ends", func() bool {
		a := g.request(1, "GET", target(address), "")
		if a.StatusCode != 200 {
			g.want(a, 429)
		}
		return a.StatusCode == 200
	})
}

// TestAStrangerCausesOneMailInAWindow and nothing else, however often they ask.
func TestAStrangerCausesOneMailInAWindow(t *testing.T) {
	g := start(t, "throttle 2s\nclient_limit 1000")
	g.account("other@example.com")
	old := g.key(g.account("victim@example.com"))
	var mailed []string
	for range 2 {
		for range g.attack(old) {
			_, key := g.mail()
			mailed = append(mailed, key)
		}
		g.until("the window ends", func() bool { return g.throttled("victim@example.com") <= g.Keyring().Now() })
	}
	// Mails are sent in the order of their requests.
	g.want(g.request(1, "GET", target("other@example.com"), ""), 200)
	if m, _ := g.mail(); m.To[0] != "other@example.com" {
		t.Errorf("a mail too much went to %s", m.To)
	}
	last := mailed[len(mailed)-1]
	for _, key := range mailed[:len(mailed)-1] {
		g.until("an earlier mailed key is revoked", func() bool { return g.verdict(key) == keystore.RevokedKey })
	}
	g.accepts(old)
	g.accepts(last)
}

// attack asks a hundred times, while the victim's key is in use, and returns how
// often it was taken: once in a window.
func (g *gateway) attack(old string) (taken int) {
	g.Helper()
	began := time.Now()
	for i := range 100 {
		spelling := []string{"victim@example.com", "Victim@Example.com", "VICTIM@EXAMPLE.COM"}[i%3]
		if a := g.request(1+i%2, "GET", target(spelling), ""); a.StatusCode == 200 {
			taken++
		} else {
			g.want(a, 429)
		}
		g.accepts(old)
	}
	// On a fast enough machine, one.
	if windows := 1 + int(time.Since(began)/(2*time.Second)); taken < 1 || taken > windows {
		g.Errorf("%d of a hundred requests in %d windows were taken", taken, windows)
	}
	return taken
}

// TestFirstUsesThatRace are all accepted; once one is, the older key is refused.
func TestFirstUsesThatRace(t *testing.T) {
	g := start(t, "")
	old := g.key(g.account("a@example.com"))
	g.accepts(old)
	g.want(g.request(1, "GET", target("a@example.com"), ""), 200)
	_, mailed := g.mail()
	g.accepts(old)
	var racers sync.WaitGroup
	for i := range 16 {
		racers.Go(func() {
			if a := g.use(1+i%2, mailed); a.StatusCode != 200 {
				t.Errorf("the mailed key: %d %s", a.StatusCode, a.Text)
			}
			if a := g.use(1+i%2, old); a.StatusCode != 401 || !strings.Contains(a.Text, `"expired_key"`) {
				t.Errorf("the older key after the mailed one: %d %s", a.StatusCode, a.Text)
			}
		})
	}
	racers.Wait()
}

// TestAnUnknownAddressGetsNoMail: mails are sent in the order of their requests,
// so one to the unknown address would have come first.
func TestAnUnknownAddressGetsNoMail(t *testing.T) {
	g := start(t, "")
	g.account("known@example.com")
	g.want(g.request(1, "GET", target("nobody@example.com"), ""), 200)
	g.want(g.request(1, "GET", target("known@example.com"), ""), 200)
	if m, _ := g.mail(); m.To[0] != "known@example.com" {
		t.Errorf("a mail went to %s", m.To)
	}
	g.until("the outbox is empty", func() bool { return g.waiting() == 0 })
	if more := g.mails.Taken(); len(more) != 0 {
		t.Errorf("%d more mails were sent", len(more))
	}
}

// TestWhichCredential gets the key: the oldest of the package that works and has
// no reserved role, or a new one.
func TestWhichCredential(t *testing.T) {
	g := start(t, "package Coverage", "package Coverage\npackage Account")
	account := g.account("a@example.com")
	issue := func(c keystore.Credential) *keystore.Issued {
		c.AccountID = account.ID
		return g.Issue(c)
	}
	issue(keystore.Credential{Package: "Account"})
	issue(keystore.Credential{Package: "Coverage", Roles: []string{keystore.RoleSelf}})
	want := issue(keystore.Credential{Package: "Coverage", Roles: []string{"read"}})
	later := issue(keystore.Credential{Package: "Coverage"})

	g.want(g.request(1, "GET", target("a@example.com"), ""), 200)
	_, mailed := g.mail()
	grant, _, err := g.Keyring().Verify(t.Context(), mailed)
	if err != nil || grant.CredentialID != want.Credential.ID {
		t.Errorf("the key is one of %s, want %s (%v)", grant.CredentialID, want.Credential.ID, err)
	}
	g.accepts(mailed)
	g.refuses(want.Text, "expired_key")
	g.accepts(later.Text)

	g.account("b@example.com") // has no credential yet
	g.want(g.request(1, "GET", target("b@example.com"), ""), 200)
	_, made := g.mail()
	g.accepts(made)
	grant, _, err = g.Keyring().Verify(t.Context(), made)
	if err != nil || grant.Package != "Coverage" || len(grant.Roles) != 0 {
		t.Errorf("the new credential is %+v (%v)", grant, err)
	}
}
