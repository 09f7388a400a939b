package keystore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// sweep sweeps the outbox, and returns why mails of which accounts were dropped.
func (r *ring) sweep() map[string]error {
	r.t.Helper()
	dropped, err := r.SweepMails(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	why := map[string]error{}
	for _, m := range dropped {
		if m.ID == "" || why[m.AccountID] != nil {
			r.t.Errorf("dropped %+v", m)
		}
		why[m.AccountID] = m.Why
	}
	return why
}

func TestASweepLeavesWhatIsToBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, keystore.Config{})
		ada := r.ada()
		off := r.account(keystore.Account{Email: "off@example.com"})
		broken := r.account(keystore.Account{Email: "a\u2029@example.com"})
		for _, address := range []string{"ada@example.com", "nobody@example.com", "off@example.com", broken.Email} {
			r.ask(address, "")
		}
		if _, err := r.UpdateAccount(t.Context(), off.ID, func(a *keystore.Account) error { a.Active = false; return nil }); err != nil {
			t.Fatal(err)
		}
		if why := r.sweep(); len(why) != 1 || !errors.Is(why[broken.ID], keystore.ErrMailAddress) || r.waiting() != 1 {
			t.Errorf("dropped %v, %d wait", why, r.waiting())
		}
		// One that is being sent is not swept away, whatever its age.
		time.Sleep(keystore.MailLifetime - time.Millisecond)
		r.begin()
		time.Sleep(time.Millisecond)
		if why := r.sweep(); len(why) != 0 || r.waiting() != 1 {
			t.Errorf("dropped %v, %d wait", why, r.waiting())
		}
		time.Sleep(lease)
		if why := r.sweep(); len(why) != 1 || !errors.Is(why[ada.ID], keystore.ErrMailExpired) || r.waiting() != 0 {
			t.Errorf("dropped %v, %d wait", why, r.waiting())
		}
	})
}

// TestASweepSeesBeyondMailsThatWait puts what is to be deleted between and behind
// more mails than one transaction looks through.
func TestASweepSeesBeyondMailsThatWait(t *testing.T) {
	r := newRing(t, keystore.Config{})
	const known = 250
	var kept []string
	for i := range known {
		address := fmt.Sprintf("a%d@example.com", i)
		kept = append(kept, r.account(keystore.Account{Email: address}).ID)
		r.ask(address, "")
		r.ask(fmt.Sprintf("nobody%d@example.com", i), "")
	}
	if why := r.sweep(); len(why) != 0 || r.waiting() != known {
		t.Errorf("dropped %v, %d wait, want %d", why, r.waiting(), known)
	}
	for range known {
		if a := r.begin(); !slices.Contains(kept, a.AccountID) {
			t.Errorf("a mail to %s", a.AccountID)
		}
	}
}

func TestNoKeyIsMadeForAnAddressThatNoMailCanGoTo(t *testing.T) {
	r := newRing(t, keystore.Config{})
	broken := r.account(keystore.Account{Email: "a\u2028@example.com"})
	r.ask(broken.Email, "")
	a := r.begin()
	if !errors.Is(a.Dropped, keystore.ErrMailAddress) || a.AccountID != broken.ID || a.Text != "" || r.waiting() != 0 {
		t.Errorf("%+v, %d wait", a, r.waiting())
	}
}
