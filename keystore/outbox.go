package keystore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file is keys by e-mail. Whoever asks is a stranger who typed an address,
// so asking changes no key, and does the same to the store whether or not the
// address is known: it throttles the address and puts a mail into the outbox,
// which holds no key. A worker takes the mails that are due, one by one:
//
//   - [Keyring.SweepMails] takes out what nobody is to get, which needs no mail
//     server.
//   - [Keyring.BeginMail] decides whether there is anything to send, makes the
//     key, and leases the mail: should the process die, it is due again when the
//     lease ends.
//   - [Keyring.EndMail] says what came of it. Only that a newer mail was sent
//     ends the unused keys of earlier ones, so the mail that arrives last never
//     holds a dead key.
//
// Neither waits for other nodes: nobody was promised that those keys have ended.

// ErrOutboxFull means that too many mails wait. Nothing was changed.
var ErrOutboxFull = errors.New("outbox full")

const (
	// MailLifetime is how long sending a mail is tried.
	MailLifetime = 24 * time.Hour
	// maxMails bounds the outbox.
	maxMails = 10_000
	// maxSkipped bounds how many mails one transaction deletes or looks through.
	maxSkipped = 100
)

// MailRequest asks for a key by e-mail.
type MailRequest struct {
	// Address is what the caller typed. The mail goes to the address that is
	// stored on the account.
	Address string
	// Package of the credential whose key is asked for.
	Package string
	// Every is how long an address waits from one request to the next.
	Every time.Duration
}

// MailRequested is what came of a [MailRequest].
type MailRequested struct {
	// ThrottledUntil is set if the address is to wait until then, and nothing was
	// done.
	ThrottledUntil Instant
	// Inactive says that the account is deactivated; nothing will be sent.
	Inactive bool
}

// RequestMail puts a request for a key into the outbox, and is durable on
// return. It answers alike, and writes alike, whether the address is that of an
// account or not. Until it was sent, a second request takes the place of the
// first. The error is ErrInvalid for a package that can't be mailed,
// ErrOutboxFull or ErrUnavailable.
func (kr *Keyring) RequestMail(ctx context.Context, r MailRequest) (MailRequested, error) {
	if err := kr.CheckMailPackage(r.Package); err != nil {
		return MailRequested{}, err
	}
	address := Digest(sha256.Sum256([]byte(EmailKey(r.Address))))
	var out MailRequested
	throttled := func(read Reader) error {
		until, err := read.Throttle(address)
		out = MailRequested{}
		if until > kr.Now() {
			out.ThrottledUntil = until
		}
		return err
	}
	// tooLong: it was stored by a clock that was ahead, and would outlast the wait.
	tooLong := func() bool { return out.ThrottledUntil > kr.Now().Add(r.Every) }
	// Most requests of a flood end here, without waiting for the writer.
	if err := kr.View(ctx, throttled); err != nil || out.ThrottledUntil != 0 && !tooLong() {
		return out, err
	}
	m := Mail{ID: newID(), Package: r.Package}
	nobody := newID()
	err := kr.vault.Update(ctx, func(tx Tx) error {
		if err := throttled(tx); err != nil || out.ThrottledUntil != 0 && !tooLong() {
			return err
		}
		now := kr.Now()
		if out.ThrottledUntil != 0 {
			out.ThrottledUntil = now.Add(r.Every)
			return tx.SetThrottle(address, out.ThrottledUntil)
		}
		m.RequestedAt, m.DueAt, m.AccountID = now, now, nobody
		switch a, err := tx.AccountByEmail(r.Address); {
		case err == nil && a.Active:
			m.AccountID = a.ID
		case err == nil:
			out.Inactive = true
		case !isNotFound(err):
			return err
		}
		if err := tx.SetThrottle(address, now.Add(r.Every)); err != nil {
			return err
		}
		return putMail(tx, &m)
	})
	if err == nil && out.ThrottledUntil == 0 {
		kr.vault.mailQueued()
	}
	return out, err
}

// CheckMailPackage reports, as ErrInvalid, why keys of a package can't be sent by
// e-mail: it is not declared, or gives a role that is reserved.
func (kr *Keyring) CheckMailPackage(name string) error {
	p, err := kr.packages.find(name)
	if err == nil && slices.ContainsFunc(p.Roles, IsReservedRole) {
		err = invalid("package", "%s gives a role beginning with %s, whose keys are not sent by e-mail", name, reservedRoles)
	}
	return err
}

// IsReservedRole reports whether only an operator gives the role.
func IsReservedRole(r string) bool { return strings.HasPrefix(r, reservedRoles) }

func putMail(tx Tx, m *Mail) error {
	n, err := tx.CountMails()
	if err != nil {
		return err
	}
	if n >= maxMails {
		return fmt.Errorf("%w: %d mails wait", ErrOutboxFull, n)
	}
	return tx.PutMail(m)
}

// MailQueued is told, at most once for several, that mails were put into the
// outbox.
func (kr *Keyring) MailQueued() <-chan struct{} { return kr.vault.mails }

// WakeMailer tells whoever waits for MailQueued that there may be mails. A worker
// that ends tells the next one, which may have missed what this one was told.
func (kr *Keyring) WakeMailer() { kr.vault.mailQueued() }

// NextMailDue is when the mail that is due first is due, ErrNotFound if none
// waits. It may be long past.
func (kr *Keyring) NextMailDue(ctx context.Context) (due Instant, err error) {
	err = kr.View(ctx, func(r Reader) error {
		m, err := r.NextMail()
		if err == nil {
			due = m.DueAt
		}
		return err
	})
	return due, err
}

// MailAttempt is a mail that is being sent.
type MailAttempt struct {
	Mail
	// Dropped is ErrMailExpired or ErrMailAddress if the mail was deleted instead;
	// nothing else is set.
	Dropped error
	Account *Account
	Issued
}

// BeginMail takes the mail that is due first: it makes its key, as a rotation
// with overlap until_first_use, and leases the mail. The key belongs to the
// account's oldest credential of the package that works and has no reserved role;
// one is created if there is none. Mails to nobody are deleted on the way.
// ErrNotFound says that none is due.
func (kr *Keyring) BeginMail(ctx context.Context, lease time.Duration) (*MailAttempt, error) {
	for {
		out, err := kr.tryBeginMail(ctx, lease)
		if out != nil || err != nil {
			return out, err
		}
	}
}

// tryBeginMail returns neither an attempt nor an error if there may be more to
// take.
func (kr *Keyring) tryBeginMail(ctx context.Context, lease time.Duration) (*MailAttempt, error) {
	// The key is made before the transaction, which may run more than once.
	var packageName string
	err := kr.View(ctx, func(r Reader) error {
		m, err := nextDue(r, kr.Now())
		if err == nil {
			packageName = m.Package
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	p := kr.packages.named(packageName)
	now := kr.Now()
	made, text := kr.newKey(p, "", now)
	made.Mailed, made.UnusedExpiresAt = true, now.Add(UnusedLifetime)
	fresh := Credential{ID: newID(), Package: packageName, Roles: p.Roles, Active: true, CreatedAt: now, UpdatedAt: now}

	var out *MailAttempt
	var created bool
	err = kr.vault.Update(unawaited(ctx), func(tx Tx) (err error) {
		out, created = nil, false
		m, a, err := kr.nextToSomebody(tx, packageName, now)
		if isDropped(err) {
			out = &MailAttempt{Mail: *m, Dropped: err}
			return tx.DeleteMail(m.ID)
		}
		if err != nil || m == nil {
			return err
		}
		m.DueAt, m.Attempts = now.Add(lease), m.Attempts+1
		out = &MailAttempt{Mail: *m, Account: a, Issued: Issued{Text: text}}
		if out.Credential, created, err = mailedCredential(tx, m, fresh, now); err != nil {
			return err
		}
		k := *made
		k.CredentialID = out.Credential.ID
		if err := kr.addKey(tx, &out.Issued, &k, Overlap{UntilFirstUse: true}, now); err != nil {
			return err
		}
		return tx.UpdateMail(m)
	})
	if err != nil || out == nil || out.Dropped != nil {
		return out, err
	}
	kind := ChangeRotated
	if created {
		kind = ChangeIssued
	}
	kr.onChange(Change{kind, out.Account.ID, out.Credential.ID, out.Key.ID})
	return out, nil
}

func nextDue(r Reader, now Instant) (*Mail, error) {
	m, err := r.NextMail()
	if err == nil && m.DueAt > now {
		err = fmt.Errorf("mail that is due: %w", ErrNotFound)
	}
	return m, err
}

// nextToSomebody returns the next mail that is due and its account. Those before
// it that nobody is to get, also because of their package, are deleted. Without an
// error the mail is nil if it is of another package, or if enough were deleted for
// one transaction. With the error of a mail that is to be dropped comes that mail.
func (kr *Keyring) nextToSomebody(tx Tx, packageName string, now Instant) (*Mail, *Account, error) {
	for range maxSkipped {
		m, err := nextDue(tx, now)
		if isNotFound(err) {
			return nil, nil, nil
		}
		if err != nil || m.Package != packageName {
			return nil, nil, err
		}
		a, err := kr.recipient(tx, m, now)
		if !errors.Is(err, errNobody) {
			return m, a, err
		}
		if err := tx.DeleteMail(m.ID); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, nil
}

// mailedCredential returns the credential whose key is sent, and whether it was
// created for it.
func mailedCredential(tx Tx, m *Mail, fresh Credential, now Instant) (*Credential, bool, error) {
	credentials, err := tx.Credentials(m.AccountID, Page{})
	if err != nil {
		return nil, false, err
	}
	for _, c := range credentials {
		if c.Package == m.Package && c.Active && !c.ExpiresAt.reached(now) && !slices.ContainsFunc(c.Roles, IsReservedRole) {
			return c, false, nil
		}
	}
	fresh.AccountID = m.AccountID
	return &fresh, true, tx.CreateCredential(&fresh)
}

// MailOutcome is what came of an attempt to send a mail.
type MailOutcome int

const (
	// MailSent: the server took the mail.
	MailSent MailOutcome = iota + 1
	// MailRefused: the server did not take it, for certain.
	MailRefused
	// MailUnknown: nobody knows; the connection was lost after the text was sent.
	MailUnknown
)

// EndMail records what came of an attempt. Sent: the mail leaves the outbox, and
// the unused keys of earlier mails of the credential are revoked. Refused: the
// attempt's key is revoked. Refused or unknown: the mail is due again at retryAt,
// or is dropped, which is reported, if its lifetime has ended by then.
func (kr *Keyring) EndMail(ctx context.Context, m *MailAttempt, outcome MailOutcome, retryAt Instant) (dropped bool, err error) {
	var revoked []*Key
	err = kr.vault.Update(unawaited(ctx), func(tx Tx) error {
		revoked, dropped = nil, false
		now := kr.Now()
		live, err := liveKeys(tx, m.Credential.ID, now)
		if err != nil {
			return err
		}
		for _, k := range live {
			if !endedBy(m, outcome, k) {
				continue
			}
			k.RevokedAt, k.RevokedReason = now, revokedByMail[outcome]
			if err := tx.UpdateKey(k); err != nil {
				return err
			}
			revoked = append(revoked, k)
		}
		if outcome == MailSent {
			return unlessReplaced(tx.DeleteMail(m.ID))
		}
		if m.RequestedAt.Add(MailLifetime).reached(retryAt) {
			dropped = true
			return unlessReplaced(tx.DeleteMail(m.ID))
		}
		again := m.Mail
		again.DueAt = retryAt
		return unlessReplaced(tx.UpdateMail(&again))
	})
	if err != nil {
		return false, err
	}
	for _, k := range revoked {
		kr.onChange(Change{ChangeRevoked, m.AccountID, k.CredentialID, k.ID})
	}
	return dropped, nil
}

var revokedByMail = map[MailOutcome]string{
	MailSent:    "a newer mail was sent",
	MailRefused: "the mail was refused",
}

// endedBy reports whether the outcome ends a key of the credential: only an
// unused one that was mailed.
func endedBy(m *MailAttempt, outcome MailOutcome, k *Key) bool {
	switch {
	case !k.Mailed || k.FirstUsedAt != 0:
		return false
	case outcome == MailSent:
		return k.Seq < m.Key.Seq
	}
	return outcome == MailRefused && k.ID == m.Key.ID
}

// unlessReplaced passes over that a newer request took the mail's place.
func unlessReplaced(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}
