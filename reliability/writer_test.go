//go:build reliability && linux

package reliability

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// This file is the process that dies: it changes a store as fast as it can from
// several goroutines, and writes each acknowledgement to its standard output, so
// that the test knows what was promised at whatever moment the process ends.

func init() { children["writer"] = func() { reportTo(os.Stdout, runWriter) } }

const (
	// writerStore and writerVariant are the environment variables that name the
	// store and what is broken on purpose, see variants.
	writerStore   = "RELIABILITY_STORE"
	writerVariant = "RELIABILITY_VARIANT"

	writers = 8
	// byHand is the reason of revocations that no rotation made.
	byHand = "by hand"
)

// event is one line of a writer: something that it was promised.
type event struct {
	Kind       string
	Account    string   `json:",omitempty"`
	Address    string   `json:",omitempty"` // of the account
	Credential string   `json:",omitempty"`
	Key        string   `json:",omitempty"`
	Text       string   `json:",omitempty"` // of the key
	Overlap    string   `json:",omitempty"` // of the rotation
	Previous   []string `json:",omitempty"` // ids of the keys that it bounded
	Token      string   `json:",omitempty"` // of an idempotent request
	Reply      string   `json:",omitempty"`
}

// The kinds of events. What a process only begins is told too where both halves
// of it must be there, or none.
const (
	eventOpened    = "opened"
	eventAccount   = "account"
	eventDeleted   = "account deleted"
	eventIssued    = "issued"
	eventRotated   = "rotated"
	eventRevoked   = "revoked"
	eventUsed      = "used"
	eventMail      = "mail"
	eventBeginOnce = "begin once"
	eventOnce      = "once"
	eventFailed    = "failed"
)

// reportTo runs a child that writes events.
func reportTo(out *os.File, run func(context.Context, func(event)) error) {
	// A line is one write, so lines of several goroutines don't mix. A write that
	// fails means that the test is gone.
	report := func(e event) {
		line, err := json.Marshal(e)
		if err == nil {
			_, err = out.Write(append(line, '\n'))
		}
		if err != nil {
			os.Exit(1)
		}
	}
	if err := run(context.Background(), report); err != nil {
		report(event{Kind: eventFailed, Text: err.Error()})
	}
}

// openPlace opens a store by its path or its DSN.
func openPlace(ctx context.Context, place string) (keystore.Store, error) {
	if inPostgres(place) {
		return sqlstore.OpenPostgres(ctx, place)
	}
	return sqlstore.OpenSQLite(ctx, place)
}

func inPostgres(place string) bool { return strings.HasPrefix(place, "postgres://") }

// runWriter changes the store until the process ends.
func runWriter(ctx context.Context, report func(event)) error {
	place := os.Getenv(writerStore)
	store, err := openPlace(ctx, place)
	if err != nil {
		return err
	}
	vault, err := keystore.OpenVault(ctx, variants[os.Getenv(writerVariant)](store), keystore.MinCacheSize, func(string, error) {},
		keystore.WithLease(keystore.MinLease, 0))
	if err != nil {
		return err
	}
	kr, err := keystore.NewKeyring(ctx, vault, keystore.Config{})
	if err != nil {
		return err
	}
	report(event{Kind: eventOpened})
	var shared slots
	errs := make(chan error)
	for range writers {
		w := &changer{ctx: ctx, kr: kr, report: report, slots: &shared}
		go func() { errs <- persist(place, w.run) }()
	}
	go func() { errs <- persist(place, func() error { return sendMails(ctx, kr) }) }()
	return <-errs
}

// persist runs it again when a server was away.
func persist(place string, run func() error) error {
	for {
		err := run()
		if !inPostgres(place) || !errors.Is(err, keystore.ErrUnavailable) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// slots are credentials that all goroutines change, so that they meet.
type slots [24]atomic.Pointer[keystore.Issued]

// changer is one goroutine of a writer.
type changer struct {
	ctx     context.Context
	kr      *keystore.Keyring
	report  func(event)
	slots   *slots
	account *keystore.Account
	made    int
}

func (w *changer) run() error {
	for {
		if err := w.step(); err != nil && !isRefusal(err) {
			return err
		}
	}
}

// isRefusal reports whether a change was refused for a reason of the domain:
// another goroutine was faster.
func isRefusal(err error) bool {
	var refusal *keystore.Error
	return errors.As(err, &refusal) || errors.Is(err, keystore.ErrNotFound)
}

// step makes one change, by chance.
func (w *changer) step() error {
	if w.account == nil || w.made%20 == 0 {
		if err := w.newAccount(); err != nil {
			return err
		}
	}
	w.made++
	slot := &w.slots[rand.N(len(w.slots))]
	current := slot.Load()
	switch n := rand.N(20); {
	case current == nil || n < 3:
		return w.issue(slot)
	case n < 6:
		return w.onlyRotate(slot, current, "0s")
	case n < 9:
		return w.onlyRotate(slot, current, "1h")
	case n < 14:
		return w.rotateAndUse(slot, current)
	case n < 16:
		return w.revoke(slot, current)
	case n < 17:
		return w.askByMail()
	case n < 19:
		return w.issueOnce()
	}
	return w.onlyRotate(slot, current, keystore.UntilFirstUse)
}

// newAccount goes on to the next account. Some of the earlier ones are deleted.
func (w *changer) newAccount() error {
	earlier := w.account
	made, err := w.kr.CreateAccount(w.ctx, keystore.Account{Email: uuid.NewString() + "@example.org"})
	if err != nil {
		return err
	}
	w.account = made
	w.report(event{Kind: eventAccount, Account: made.ID, Address: made.Email})
	if earlier == nil || rand.N(3) > 0 {
		return nil
	}
	if err := w.kr.DeleteAccount(w.ctx, earlier.ID); err != nil {
		return err
	}
	w.report(event{Kind: eventDeleted, Account: earlier.ID})
	return nil
}

func (w *changer) issue(slot *atomic.Pointer[keystore.Issued]) error {
	made, err := w.kr.Issue(w.ctx, keystore.Operator(), keystore.Credential{AccountID: w.account.ID})
	if err != nil {
		return err
	}
	slot.Store(made)
	w.report(event{Kind: eventIssued, Account: w.account.ID, Credential: made.Credential.ID, Key: made.Key.ID, Text: made.Text})
	return nil
}

func (w *changer) onlyRotate(slot *atomic.Pointer[keystore.Issued], current *keystore.Issued, overlap string) error {
	_, err := w.rotate(slot, current, overlap)
	return err
}

func (w *changer) rotate(slot *atomic.Pointer[keystore.Issued], current *keystore.Issued, overlap string) (*keystore.Issued, error) {
	o, err := keystore.ParseOverlap(overlap)
	if err != nil {
		return nil, err
	}
	made, err := w.kr.Rotate(w.ctx, keystore.Operator(), keystore.Rotation{CredentialID: current.Credential.ID, Overlap: o})
	if err != nil {
		slot.Store(nil) // too many keys, or the account is deleted
		return nil, err
	}
	slot.Store(made)
	e := event{Kind: eventRotated, Credential: made.Credential.ID, Key: made.Key.ID, Text: made.Text, Overlap: overlap}
	for _, k := range made.Previous {
		e.Previous = append(e.Previous, k.ID)
	}
	w.report(e)
	return made, nil
}

// rotateAndUse takes the new key into use, which stops the older ones.
func (w *changer) rotateAndUse(slot *atomic.Pointer[keystore.Issued], current *keystore.Issued) error {
	made, err := w.rotate(slot, current, keystore.UntilFirstUse)
	if err != nil {
		return err
	}
	_, verdict, err := w.kr.Accept(w.ctx, made.Text, anyRequest)
	if verdict == keystore.OK {
		w.report(event{Kind: eventUsed, Credential: made.Credential.ID, Key: made.Key.ID})
	}
	return err
}

func (w *changer) revoke(slot *atomic.Pointer[keystore.Issued], current *keystore.Issued) error {
	slot.Store(nil)
	if _, err := w.kr.RevokeKey(w.ctx, current.Key.ID, byHand); err != nil {
		return err
	}
	w.report(event{Kind: eventRevoked, Key: current.Key.ID})
	return nil
}

func (w *changer) askByMail() error {
	asked, err := w.kr.RequestMail(w.ctx, keystore.MailRequest{Address: w.account.Email, Every: time.Hour})
	if err == nil && asked.ThrottledUntil == 0 {
		w.report(event{Kind: eventMail, Account: w.account.ID, Address: w.account.Email})
	}
	return err
}

// issueOnce issues a credential in a request with an Idempotency-Key, which is
// also the credential's description.
func (w *changer) issueOnce() error {
	token := "once " + uuid.NewString()
	w.report(event{Kind: eventBeginOnce, Token: token, Account: w.account.ID})
	o, err := beginRequest(w.ctx, w.kr, token)
	if err != nil {
		return err
	}
	defer o.End()
	var reply string
	made, err := w.kr.Issue(w.ctx, keystore.Operator(), keystore.Credential{AccountID: w.account.ID, Description: token},
		func(tx keystore.Tx, made *keystore.Issued) error {
			reply = made.Key.ID + " " + made.Text
			return o.Record(tx, []byte(reply))
		})
	if err != nil {
		return err
	}
	w.report(event{Kind: eventOnce, Token: token, Reply: reply, Account: w.account.ID, Credential: made.Credential.ID, Key: made.Key.ID, Text: made.Text})
	return nil
}

// beginRequest begins the request of that token, also again.
func beginRequest(ctx context.Context, kr *keystore.Keyring, token string) (*keystore.Once, error) {
	return kr.Once(ctx, "presented with "+token, token, sha256.Sum256([]byte(token)))
}

// sendMails empties the outbox, with outcomes of all kinds.
func sendMails(ctx context.Context, kr *keystore.Keyring) error {
	for {
		m, err := kr.BeginMail(ctx, time.Minute)
		switch {
		case errors.Is(err, keystore.ErrNotFound):
			<-kr.MailQueued()
			continue
		case err != nil:
			return fmt.Errorf("begin mail: %w", err)
		}
		outcome := keystore.MailOutcome(1 + rand.N(int(keystore.MailUnknown)))
		if _, err := kr.EndMail(ctx, m, outcome, kr.Now().Add(time.Second)); err != nil {
			return fmt.Errorf("end mail: %w", err)
		}
	}
}

// anyRequest demands nothing but a key.
var anyRequest = keystore.Request{Requirement: &keystore.Requirement{}, ClientIP: "127.0.0.1"}
