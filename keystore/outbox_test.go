package keystore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const (
	throttle = 3 * time.Minute
	lease    = time.Minute
)

// ask asks for a key as a stranger does.
func (r *ring) ask(address, packageName string) keystore.MailRequested {
	r.t.Helper()
	got, err := r.RequestMail(r.t.Context(), keystore.MailRequest{Address: address, Package: packageName, Every: throttle})
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

// begin takes the mail that is due, which must be there.
func (r *ring) begin() *keystore.MailAttempt {
	r.t.Helper()
	a, err := r.BeginMail(r.t.Context(), lease)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// noneDue wants that no mail is due.
func (r *ring) noneDue() {
	r.t.Helper()
	if a, err := r.BeginMail(r.t.Context(), lease); !errors.Is(err, keystore.ErrNotFound) {
		r.t.Errorf("a mail is due: %+v, error %v", a, err)
	}
}

func (r *ring) end(a *keystore.MailAttempt, outcome keystore.MailOutcome) {
	r.t.Helper()
	if dropped, err := r.EndMail(r.t.Context(), a, outcome, r.Now()); dropped || err != nil {
		r.t.Fatalf("dropped %v, error %v", dropped, err)
	}
}

func (r *ring) waiting() (n int) {
	r.t.Helper()
	err := r.View(r.t.Context(), func(read keystore.Reader) (err error) {
		n, err = read.CountMails()
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// throttledUntil reads what the store has of an address.
func (r *ring) throttledUntil(address string) (until keystore.Instant) {
	r.t.Helper()
	err := r.View(r.t.Context(), func(read keystore.Reader) (err error) {
		until, err = read.Throttle(sha256.Sum256([]byte(address)))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return until
}

// ada has an account.
func (r *ring) ada() *keystore.Account {
	return r.account(keystore.Account{Email: "ada@example.com"})
}

// credential makes one for an account.
func (r *ring) credential(c keystore.Credential) *keystore.Issued {
	r.t.Helper()
	issued, err := r.Issue(r.t.Context(), keystore.Operator(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return issued
}

func TestAskingDoesTheSameForEveryAddress(t *testing.T) {
	r := newRing(t, keystore.Config{})
	r.ada()
	off := r.account(keystore.Account{Email: "off@example.com"})
	if _, err := r.UpdateAccount(t.Context(), off.ID, func(a *keystore.Account) error { a.Active = false; return nil }); err != nil {
		t.Fatal(err)
	}
	for i, address := range []string{"ada@example.com", "nobody@example.com", "off@example.com"} {
		before := r.Now()
		if got := r.ask(address, ""); got.ThrottledUntil != 0 || got.Inactive != (address == "off@example.com") {
			t.Errorf("%s: %+v", address, got)
		}
		if r.waiting() != i+1 || r.throttledUntil(address) < before.Add(throttle) {
			t.Errorf("%s: %d mails, throttled until %v", address, r.waiting(), r.throttledUntil(address).Time())
		}
	}
	if a := r.begin(); a.Account.Email != "ada@example.com" {
		t.Errorf("a mail to %q", a.Account.Email)
	}
	r.noneDue()
	if n := r.waiting(); n != 1 {
		t.Errorf("%d mails are left, want the one that is being sent", n)
	}
}

func TestAnAddressWaitsFromOneRequestToTheNext(t *testing.T) {
	for _, address := range []string{"ada@example.com", "nobody@example.com"} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store", "keys.db")
			r := openRing(t, path, keystore.Config{}, keystore.DefaultCacheSize)
			r.ada()
			until := r.Now().Add(throttle)
			r.ask(address, "")
			time.Sleep(throttle - time.Millisecond)
			for _, again := range []string{address, strings.ToUpper(address)} {
				if got := r.ask(again, ""); got.ThrottledUntil != until || got.Inactive {
					t.Errorf("%s: %+v, want until %v", again, got, until)
				}
			}
			if r.waiting() != 1 {
				t.Errorf("%d mails wait", r.waiting())
			}
			if got := r.ask("bob@example.com", ""); got.ThrottledUntil != 0 {
				t.Error("another address is throttled, too")
			}
			time.Sleep(time.Millisecond)
			if got := r.ask(address, ""); got.ThrottledUntil != 0 {
				t.Errorf("in time: %+v", got)
			}
		})
	}
}

func TestAThrottleSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	t.Run("ask", func(t *testing.T) {
		openRing(t, path, keystore.Config{}, keystore.DefaultCacheSize).ask("ada@example.com", "")
	})
	r := openRing(t, path, keystore.Config{}, keystore.DefaultCacheSize)
	if got := r.ask("ADA@example.com", ""); got.ThrottledUntil == 0 || r.waiting() != 1 {
		t.Errorf("%+v, %d mails wait", got, r.waiting())
	}
}

func TestTheOutboxIsBounded(t *testing.T) {
	const most = 10_000
	r := newRing(t, keystore.Config{})
	r.ada()
	err := r.vault.Update(t.Context(), func(tx keystore.Tx) error {
		for i := range most {
			id := fmt.Sprint(i)
			if err := tx.PutMail(&keystore.Mail{ID: id, AccountID: id, RequestedAt: r.Now(), DueAt: r.Now()}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.RequestMail(t.Context(), keystore.MailRequest{Address: "ada@example.com", Every: throttle})
	if !errors.Is(err, keystore.ErrOutboxFull) || r.throttledUntil("ada@example.com") != 0 || r.waiting() != most {
		t.Errorf("error %v, %d mails wait", err, r.waiting())
	}
	r.noneDue() // all are to nobody, and are swept out
	if r.waiting() != 0 {
		t.Errorf("%d mails are left", r.waiting())
	}
	r.ask("ada@example.com", "")
}

func TestOnlyDeclaredPackagesWithoutReservedRolesAreMailed(t *testing.T) {
	packages := []keystore.Package{{Name: "Plain"}, {Name: "Ops", Roles: []string{keystore.RoleOperator}}, {Name: "Self", Roles: []string{"a", keystore.RoleSelf}}}
	for _, c := range []struct {
		packages []keystore.Package
		name     string
		want     error
	}{
		{nil, "", nil}, {nil, "Plain", keystore.ErrInvalid},
		{packages, "Plain", nil}, {packages, "", keystore.ErrInvalid}, {packages, "plain", keystore.ErrInvalid},
		{packages, "Ops", keystore.ErrInvalid}, {packages, "Self", keystore.ErrInvalid},
	} {
		r := newRing(t, keystore.Config{Packages: c.packages})
		_, err := r.RequestMail(t.Context(), keystore.MailRequest{Address: "ada@example.com", Package: c.name})
		if !errors.Is(err, c.want) || !errors.Is(r.CheckMailPackage(c.name), c.want) {
			t.Errorf("package %q of %d: %v, want %v", c.name, len(c.packages), err, c.want)
		}
	}
}

// TestWhichCredentialIsMailed goes through what an account may have. The first
// credential of a row that may be mailed is the one; without any, one is made.
func TestWhichCredentialIsMailed(t *testing.T) {
	const p = "Coverage"
	type has struct {
		packageName string
		roles       []string
		change      func(r *ring, id string) error
	}
	update := func(edit func(*keystore.Credential)) func(*ring, string) error {
		return func(r *ring, id string) error {
			_, err := r.UpdateCredential(r.t.Context(), keystore.Operator(), id, func(c *keystore.Credential) error { edit(c); return nil })
			return err
		}
	}
	off := update(func(c *keystore.Credential) { c.Active = false })
	ends := update(func(c *keystore.Credential) { c.ExpiresAt = c.UpdatedAt.Add(time.Hour) })
	deleted := func(r *ring, id string) error { return r.DeleteCredential(r.t.Context(), id) }
	for _, c := range []struct {
		name string
		has  []has
		want int // -1: a new one
	}{
		{"none", nil, -1},
		{"the oldest", []has{{packageName: p}, {packageName: p}}, 0},
		{"not of another package", []has{{packageName: "Other"}, {packageName: p}}, 1},
		{"not a deactivated one", []has{{p, nil, off}, {packageName: p}}, 1},
		{"not a deleted one", []has{{p, nil, deleted}, {packageName: p}}, 1},
		{"not one that has expired", []has{{p, nil, ends}, {packageName: p}}, 1},
		{"never one of an operator", []has{{p, []string{"a", keystore.RoleOperator}, nil}, {packageName: p}}, 1},
		{"never one with a reserved role", []has{{p, []string{keystore.RoleSelf}, nil}}, -1},
		{"all of these at once", []has{{p, nil, off}, {p, nil, ends}, {p, nil, deleted}, {packageName: "Other"}, {p, []string{keystore.RoleOperator}, nil}}, -1},
		{"one with more roles than its package gives", []has{{p, []string{"more"}, nil}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRing(t, keystore.Config{Packages: []keystore.Package{
					{Name: p, Roles: []string{"search"}, Format: keystore.FormatAlphanumeric, Length: 30}, {Name: "Other"},
				}})
				ada := r.ada()
				var ids []string
				for _, h := range c.has {
					issued := r.credential(keystore.Credential{AccountID: ada.ID, Package: h.packageName, Roles: h.roles})
					if ids = append(ids, issued.Credential.ID); h.change != nil {
						if err := h.change(r, issued.Credential.ID); err != nil {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(time.Hour) // what ends has ended
				r.ask("ada@example.com", p)
				a := r.begin()
				if got := slices.Index(ids, a.Credential.ID); got != c.want {
					t.Errorf("credential %d, want %d", got, c.want)
				}
				if got := a.Credential; got.Package != p || got.AccountID != ada.ID || !got.Active || !slices.Contains(got.Roles, "search") || len(a.Text) != 30 {
					t.Errorf("%+v with the key %q", got, a.Text)
				}
				r.end(a, keystore.MailSent)
				r.want(a.Text, keystore.OK)
			})
		})
	}
}

func TestNothingIsSentToNobody(t *testing.T) {
	declared := keystore.Config{Packages: []keystore.Package{{Name: "A"}}}
	for name, change := range map[string]func(r *ring, id string) error{
		"the account was deleted": func(r *ring, id string) error { return r.DeleteAccount(r.t.Context(), id) },
		"the account was deactivated": func(r *ring, id string) error {
			_, err := r.UpdateAccount(r.t.Context(), id, func(a *keystore.Account) error { a.Active = false; return nil })
			return err
		},
		"the account has no address": func(r *ring, id string) error {
			_, err := r.UpdateAccount(r.t.Context(), id, func(a *keystore.Account) error { a.Email = ""; return nil })
			return err
		},
		"the package is not declared any more": func(r *ring, _ string) (err error) {
			r.Keyring, err = keystore.NewKeyring(r.t.Context(), r.vault, keystore.Config{Packages: []keystore.Package{{Name: "B"}}})
			return err
		},
		"the package gives a reserved role by now": func(r *ring, _ string) (err error) {
			r.Keyring, err = keystore.NewKeyring(r.t.Context(), r.vault, keystore.Config{Packages: []keystore.Package{{Name: "A", Roles: []string{keystore.RoleSelf}}}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, declared)
			ada := r.ada()
			r.ask("ada@example.com", "A")
			if err := change(r, ada.ID); err != nil {
				t.Fatal(err)
			}
			r.noneDue()
			if r.waiting() != 0 {
				t.Errorf("%d mails wait", r.waiting())
			}
			credentials := 0
			err := r.View(t.Context(), func(read keystore.Reader) error {
				all, err := read.Credentials(ada.ID, keystore.Page{})
				credentials = len(all)
				return err
			})
			if credentials != 0 || err != nil {
				t.Errorf("%d credentials were made, error %v", credentials, err)
			}
		})
	}
}

func TestAMailBelongsToWhoBeganItUntilItsLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, keystore.Config{})
		r.ada()
		r.ask("ada@example.com", "")
		first := r.begin()
		if due, err := r.NextMailDue(t.Context()); due != r.Now().Add(lease) || err != nil {
			t.Errorf("due at %v, error %v", due.Time(), err)
		}
		time.Sleep(lease - time.Millisecond)
		r.noneDue()
		time.Sleep(time.Millisecond)
		second := r.begin()
		if second.ID != first.ID || second.Attempts != 2 || second.Text == first.Text || second.Credential.ID != first.Credential.ID {
			t.Errorf("first %+v, second %+v", first, second)
		}
		// The first may have arrived, though nobody knows.
		r.want(first.Text, keystore.OK)
		r.end(second, keystore.MailSent)
		r.want(first.Text, keystore.RevokedKey)
		r.want(second.Text, keystore.OK)
	})
}

// TestWhatAnOutcomeDoesToKeys has one credential with a key of each kind, and ends
// the last mail in each way.
func TestWhatAnOutcomeDoesToKeys(t *testing.T) {
	for _, c := range []struct {
		name    string
		outcome keystore.MailOutcome
		unused  keystore.Verdict // of the unused key of an earlier mail
		own     keystore.Verdict
		waiting int
	}{
		{"sent", keystore.MailSent, keystore.RevokedKey, keystore.OK, 0},
		{"refused", keystore.MailRefused, keystore.OK, keystore.RevokedKey, 1},
		{"unknown", keystore.MailUnknown, keystore.OK, keystore.OK, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRing(t, keystore.Config{})
			issued := r.credential(keystore.Credential{AccountID: r.ada().ID})
			r.ask("ada@example.com", "")
			used := r.begin()
			r.end(used, keystore.MailUnknown)
			unused := r.begin()
			r.end(unused, keystore.MailUnknown)
			if v := r.accept(used.Text); v != keystore.OK {
				t.Fatalf("used: %v", v)
			}
			r.want(issued.Text, keystore.ExpiredKey)
			rotated := r.rotate(issued.Credential.ID, keystore.UntilFirstUse)
			last := r.begin()
			r.end(last, c.outcome)
			r.want(used.Text, keystore.OK)
			r.want(rotated.Text, keystore.OK)
			r.want(unused.Text, c.unused)
			r.want(last.Text, c.own)
			if r.waiting() != c.waiting {
				t.Errorf("%d mails wait, want %d", r.waiting(), c.waiting)
			}
			// Whatever was sent, what works stops no earlier than it should.
			if c.own == keystore.OK {
				if v := r.accept(last.Text); v != keystore.OK {
					t.Errorf("the last key: %v", v)
				}
				r.want(used.Text, keystore.ExpiredKey)
				r.want(rotated.Text, keystore.ExpiredKey)
			}
		})
	}
}

func TestAKeyThatIsInUseOutlivesItsRefusal(t *testing.T) {
	r := newRing(t, keystore.Config{})
	r.ada()
	r.ask("ada@example.com", "")
	a := r.begin()
	// The server took the mail for one address, and refused it all the same.
	if v := r.accept(a.Text); v != keystore.OK {
		t.Fatal(v)
	}
	r.end(a, keystore.MailRefused)
	r.want(a.Text, keystore.OK)
}

func TestANewerRequestTakesThePlaceOfOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, keystore.Config{})
		r.ada()
		r.ask("ada@example.com", "")
		time.Sleep(throttle)
		r.ask("ada@example.com", "")
		first := r.begin()
		r.noneDue()
		// And of one that is being sent.
		time.Sleep(throttle)
		r.ask("ada@example.com", "")
		second := r.begin()
		if second.ID == first.ID || second.Attempts != 1 || r.waiting() != 1 {
			t.Errorf("mail %s after %s, attempt %d, %d wait", second.ID, first.ID, second.Attempts, r.waiting())
		}
		r.end(first, keystore.MailSent)
		if r.waiting() != 1 {
			t.Error("the end of the first took the second out of the outbox")
		}
		r.want(second.Text, keystore.OK)
		r.end(second, keystore.MailSent)
		r.want(first.Text, keystore.RevokedKey)
		r.want(second.Text, keystore.OK)
	})
}

func TestSendingIsTriedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, keystore.Config{})
		ada := r.ada()
		r.ask("ada@example.com", "")
		end := r.Now().Add(keystore.MailLifetime)
		a := r.begin()
		if dropped, err := r.EndMail(t.Context(), a, keystore.MailRefused, end-1); dropped || err != nil {
			t.Fatalf("dropped %v before its end, error %v", dropped, err)
		}
		time.Sleep(keystore.MailLifetime - time.Millisecond)
		a = r.begin()
		if a.Dropped != nil {
			t.Fatal("expired before its end")
		}
		if dropped, err := r.EndMail(t.Context(), a, keystore.MailUnknown, end); !dropped || err != nil || r.waiting() != 0 {
			t.Errorf("dropped %v at its end, error %v, %d wait", dropped, err, r.waiting())
		}
		r.want(a.Text, keystore.OK)

		// Where nobody tried, as while the server is down, it ends as well.
		r.ask("ada@example.com", "")
		time.Sleep(keystore.MailLifetime)
		if a = r.begin(); !errors.Is(a.Dropped, keystore.ErrMailExpired) || a.Account != nil || a.Text != "" || a.AccountID != ada.ID || r.waiting() != 0 {
			t.Errorf("%+v, %d wait", a, r.waiting())
		}
		r.noneDue()
	})
}

func TestAMailedKeyExpiresUnusedAndTheOlderIsPlainActiveAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, keystore.Config{})
		older := r.credential(keystore.Credential{AccountID: r.ada().ID})
		r.ask("ada@example.com", "")
		a := r.begin()
		r.end(a, keystore.MailSent)
		if got := r.state(older.Key.ID); got != keystore.StateRetiring {
			t.Errorf("before, the older key is %s", got)
		}
		time.Sleep(keystore.UnusedLifetime)
		r.want(a.Text, keystore.ExpiredKey)
		r.want(older.Text, keystore.OK)
		if got := r.state(older.Key.ID); got != keystore.StateActive {
			t.Errorf("afterwards, the older key is %s", got)
		}
	})
}

// TestUnusedMailedKeysDoNotCount: a stranger who asks and asks can't keep the owner
// from rotating.
func TestUnusedMailedKeysDoNotCount(t *testing.T) {
	r := newRing(t, keystore.Config{Packages: []keystore.Package{{Name: "A", MaxKeys: 2}}})
	issued := r.credential(keystore.Credential{AccountID: r.ada().ID, Package: "A"})
	r.ask("ada@example.com", "A")
	var last *keystore.MailAttempt
	for range 5 {
		last = r.begin()
		r.end(last, keystore.MailUnknown)
	}
	r.rotate(issued.Credential.ID, "24h")
	r.rotate(issued.Credential.ID, "0s")
	// In use, one counts as any other.
	mailed := r.begin()
	if v := r.accept(mailed.Text); v != keystore.OK {
		t.Fatal(v)
	}
	r.rotate(issued.Credential.ID, "24h")
	_, err := r.Rotate(t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: issued.Credential.ID, Overlap: keystore.Overlap{For: time.Hour}})
	if !errors.Is(err, keystore.ErrKeyLimit) {
		t.Errorf("a third key: %v", err)
	}
	// The cap keeps nobody from their mail.
	r.end(mailed, keystore.MailUnknown)
	r.want(r.begin().Text, keystore.OK)
}

// TestThereIsAlwaysAKeyThatWorks races the first uses of two mailed keys with the
// end of the second mail.
func TestThereIsAlwaysAKeyThatWorks(t *testing.T) {
	r := newRing(t, keystore.Config{})
	for i := range 30 {
		address := fmt.Sprintf("ada%d@example.com", i)
		older := r.credential(keystore.Credential{AccountID: r.account(keystore.Account{Email: address}).ID})
		r.ask(address, "")
		first := r.begin()
		r.end(first, keystore.MailUnknown)
		second := r.begin()
		var race sync.WaitGroup
		for _, text := range []string{first.Text, second.Text} {
			race.Go(func() {
				if v := r.accept(text); v != keystore.OK && text == second.Text {
					t.Errorf("the key of the last mail: %v", v)
				}
			})
		}
		race.Go(func() {
			if _, err := r.EndMail(context.Background(), second, keystore.MailSent, r.Now()); err != nil {
				t.Error(err)
			}
		})
		race.Wait()
		r.want(second.Text, keystore.OK)
		r.want(older.Text, keystore.ExpiredKey)
		if v := r.verdict(first.Text); v == keystore.OK {
			t.Errorf("the key of the first mail is %v", v)
		}
	}
}

func TestTheWorkerIsTold(t *testing.T) {
	r := newRing(t, keystore.Config{})
	told := func() bool {
		select {
		case <-r.MailQueued():
			return true
		default:
			return false
		}
	}
	if told() {
		t.Error("told of nothing")
	}
	r.ask("ada@example.com", "")
	r.ask("bob@example.com", "")
	if !told() || told() {
		t.Error("not told once of two")
	}
	r.ask("bob@example.com", "")
	if told() {
		t.Error("told of a request that was throttled")
	}
	if _, err := r.RequestMail(t.Context(), keystore.MailRequest{Address: "eve@example.com", Package: "none"}); err == nil || told() {
		t.Errorf("told of a request that was refused with %v", err)
	}
	r.WakeMailer()
	if !told() {
		t.Error("not woken")
	}
}

func TestChangesByMailAreTold(t *testing.T) {
	var kinds []keystore.ChangeKind
	r := newRing(t, keystore.Config{OnChange: func(c keystore.Change) {
		if kinds = append(kinds, c.Kind); c.AccountID == "" || c.Kind != keystore.ChangeAccountCreated && (c.CredentialID == "" || c.KeyID == "") {
			t.Errorf("%+v", c)
		}
	}})
	r.ada()
	r.ask("ada@example.com", "")
	r.end(r.begin(), keystore.MailUnknown)
	r.end(r.begin(), keystore.MailRefused)
	r.end(r.begin(), keystore.MailSent)
	want := []keystore.ChangeKind{
		keystore.ChangeAccountCreated, keystore.ChangeIssued,
		keystore.ChangeRotated, keystore.ChangeRevoked,
		keystore.ChangeRotated, keystore.ChangeRevoked,
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("told %v, want %v", kinds, want)
	}
}

// A clock that was ahead once leaves throttles that end in a year.
func TestAThrottleOfAnotherTimeLastsNoLongerThanTheWait(t *testing.T) {
	r := newRing(t, keystore.Config{})
	for _, address := range []string{r.ada().Email, "nobody@example.com"} {
		err := r.vault.Update(t.Context(), func(tx keystore.Tx) error {
			return tx.SetThrottle(sha256.Sum256([]byte(address)), r.Now().Add(365*24*time.Hour))
		})
		if err != nil {
			t.Fatal(err)
		}
		first := r.ask(address, "")
		if latest := r.Now().Add(throttle); first.ThrottledUntil == 0 || first.ThrottledUntil > latest {
			t.Errorf("%s: throttled until %v, want %v at most", address, first.ThrottledUntil.Time(), latest.Time())
		}
		// The end does not move with the requests.
		if again := r.ask(address, ""); again != first || r.throttledUntil(address) != first.ThrottledUntil {
			t.Errorf("%s: then %+v, at first %+v", address, again, first)
		}
	}
	if n := r.waiting(); n != 0 {
		t.Errorf("%d mails wait", n)
	}
}
