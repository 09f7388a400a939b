//go:build reliability && linux

package reliability

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// ledger is what a store has promised: all that must be found in it, whatever
// happened to the process or the machine since. Each entry holds for ever, also
// where a later change that nobody was told of was made.
type ledger struct {
	accounts map[string]bool
	deleted  map[string]bool
	// texts are those of keys, by id.
	texts   map[string]string
	revoked map[string]bool
	used    map[string]bool
	// bounded is the overlap of a rotation that bounds a key.
	bounded map[string]string
	// mails are addresses of accounts for which a mail was asked.
	mails map[string]string
	// begun are the accounts of idempotent requests by their token, replies what
	// was answered.
	begun   map[string]string
	replies map[string]string
	entries int
}

func newLedger() *ledger {
	return &ledger{
		accounts: map[string]bool{}, deleted: map[string]bool{}, texts: map[string]string{}, revoked: map[string]bool{},
		used: map[string]bool{}, bounded: map[string]string{}, mails: map[string]string{}, begun: map[string]string{}, replies: map[string]string{},
	}
}

func (l *ledger) note(events ...event) {
	for _, e := range events {
		if e.Kind != eventOpened && e.Kind != eventBeginOnce {
			l.entries++
		}
		switch e.Kind {
		case eventAccount:
			l.accounts[e.Account] = true
		case eventDeleted:
			l.deleted[e.Account] = true
		case eventIssued:
			l.texts[e.Key] = e.Text
		case eventRotated:
			l.texts[e.Key] = e.Text
			l.noteRotation(e)
		case eventRevoked:
			l.revoked[e.Key] = true
		case eventUsed:
			l.used[e.Key] = true
		case eventMail:
			l.mails[e.Account] = e.Address
		case eventBeginOnce:
			l.begun[e.Token] = e.Account
		case eventOnce:
			l.texts[e.Key] = e.Text
			l.replies[e.Token] = e.Reply
		}
	}
}

func (l *ledger) noteRotation(e event) {
	for _, id := range e.Previous {
		if e.Overlap == "0s" {
			l.revoked[id] = true
		} else {
			l.bounded[id] = e.Overlap
		}
	}
}

// The kinds of what can be wrong with a store.
const (
	findMissing = "acknowledged and missing"
	findAlive   = "acknowledged as ended and alive"
	findHalf    = "half done"
	findUnsound = "not sound"
)

// findings are what is wrong with a store, by kind.
type findings map[string][]string

func (f findings) add(kind, format string, args ...any) {
	f[kind] = append(f[kind], fmt.Sprintf(format, args...))
}

// report fails the test with what was found, a few of each kind.
func (f findings) report(t *testing.T, when string) {
	t.Helper()
	for kind, all := range f {
		t.Errorf("%s: %d %s: %q", when, len(all), kind, all[:min(len(all), 5)])
	}
}

// check opens the store at that place as a restart does, holds it against the ledger,
// and closes it.
func (l *ledger) check(t *testing.T, place string) findings {
	t.Helper()
	f := findings{}
	store, err := openPlace(t.Context(), place)
	if err != nil {
		f.add(findUnsound, "%v", err)
		return f
	}
	vault, err := keystore.OpenVault(t.Context(), store, keystore.MinCacheSize, func(problem string, err error) { f.add(findUnsound, "%s: %v", problem, err) })
	if err != nil {
		f.add(findUnsound, "%v", errors.Join(err, store.Close()))
		return f
	}
	kr, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{})
	if err != nil {
		f.add(findUnsound, "%v", err)
	} else {
		l.checkVerdicts(t.Context(), kr, f)
		l.checkReplies(t.Context(), kr, f)
		l.checkRecords(t, place, f)
	}
	if err := vault.Close(); err != nil {
		f.add(findUnsound, "%v", err)
	}
	return f
}

// checkVerdicts asks what each key is worth.
func (l *ledger) checkVerdicts(ctx context.Context, kr *keystore.Keyring, f findings) {
	for id, text := range l.texts {
		switch _, verdict, err := kr.Verify(ctx, text); {
		case verdict == keystore.InvalidKey || verdict == keystore.StoreUnavailable:
			f.add(findMissing, "key %s is answered %v, %v", id, verdict, err)
		case l.revoked[id] && verdict != keystore.RevokedKey && verdict != keystore.ExpiredKey:
			f.add(findAlive, "key %s is answered %v", id, verdict)
		}
	}
}

// checkReplies begins each idempotent request again: it is answered if and only
// if the credential that it made is there.
func (l *ledger) checkReplies(ctx context.Context, kr *keystore.Keyring, f findings) {
	accounts, made, err := descriptions(ctx, kr)
	if err != nil {
		f.add(findUnsound, "%v", err)
	}
	for token, account := range l.begun {
		o, err := beginRequest(ctx, kr, token)
		if err != nil {
			f.add(findUnsound, "%s: %v", token, err)
			continue
		}
		reply := string(o.Reply())
		o.End()
		if accounts[account] && (reply != "") != made[token] {
			f.add(findHalf, "%s: answered %t, made %t", token, reply != "", made[token])
		}
		if want, ok := l.replies[token]; ok && reply != want {
			f.add(findMissing, "%s: the reply is gone or another", token)
		}
	}
}

// descriptions returns the accounts that are there, and the descriptions of
// their credentials.
func descriptions(ctx context.Context, kr *keystore.Keyring) (accounts, found map[string]bool, err error) {
	accounts, found = map[string]bool{}, map[string]bool{}
	err = kr.View(ctx, func(r keystore.Reader) error {
		all, err := r.Accounts(keystore.Page{})
		if err != nil {
			return err
		}
		for _, a := range all {
			accounts[a.ID] = true
			credentials, err := r.Credentials(a.ID, keystore.Page{})
			if err != nil {
				return err
			}
			for _, c := range credentials {
				found[c.Description] = true
			}
		}
		return nil
	})
	return accounts, found, err
}
