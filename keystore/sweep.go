package keystore

import (
	"context"
	"errors"
)

// This file is what leaves the outbox unsent. It stands apart from sending,
// because it also happens while no mail server can be reached: strangers could
// fill the outbox meanwhile.

var (
	// ErrMailExpired means that sending was tried for [MailLifetime].
	ErrMailExpired = errors.New("it could not be sent for a day")
	// ErrMailAddress means that the account's e-mail address is none that a mail
	// can be sent to.
	ErrMailAddress = errors.New("the account's e-mail address can't stand in a mail: correct it")

	// errNobody is that a mail goes to nobody, which strangers cause at will and
	// which is told to nobody.
	errNobody = errors.New("mail to nobody")
)

// isDropped reports whether err says that a mail which somebody waits for is not
// to be sent.
func isDropped(err error) bool {
	return errors.Is(err, ErrMailExpired) || errors.Is(err, ErrMailAddress)
}

// DroppedMail is a mail that was deleted unsent, though somebody waits for it.
type DroppedMail struct {
	Mail
	// Why is ErrMailExpired or ErrMailAddress.
	Why error
}

// SweepMails deletes the mails that are due and can't be sent whatever the mail
// server says. It returns those of them that go to somebody, also with an error.
// It looks through some hundred at a time, and takes the writer only for those
// that it deletes.
func (kr *Keyring) SweepMails(ctx context.Context) (dropped []DroppedMail, err error) {
	now := kr.Now()
	for last := ""; ; {
		page, doomed, err := kr.doomedMails(ctx, now, last)
		if err != nil {
			return dropped, err
		}
		some, err := kr.deleteMails(ctx, now, doomed)
		dropped = append(dropped, some...)
		if err != nil || len(page) < maxSkipped {
			return dropped, err
		}
		last = page[len(page)-1].ID
	}
}

// doomedMails returns the mails that are due behind last, and those of them that
// are to be deleted.
func (kr *Keyring) doomedMails(ctx context.Context, now Instant, last string) (page, doomed []*Mail, err error) {
	err = kr.View(ctx, func(r Reader) (err error) {
		doomed = nil
		if page, err = r.DueMails(now, last, maxSkipped); err != nil {
			return err
		}
		for _, m := range page {
			_, err := kr.recipient(r, m, now)
			switch {
			case errors.Is(err, errNobody) || isDropped(err):
				doomed = append(doomed, m)
			case err != nil:
				return err
			}
		}
		return nil
	})
	return page, doomed, err
}

// deleteMails deletes the mails that are still to be deleted, and returns those
// that go to somebody.
func (kr *Keyring) deleteMails(ctx context.Context, now Instant, doomed []*Mail) (dropped []DroppedMail, err error) {
	if len(doomed) == 0 {
		return nil, nil
	}
	err = kr.vault.Update(ctx, func(tx Tx) error {
		dropped = nil
		for _, m := range doomed {
			_, why := kr.recipient(tx, m, now)
			if why == nil {
				continue
			}
			if !errors.Is(why, errNobody) && !isDropped(why) {
				return why
			}
			err := tx.DeleteMail(m.ID)
			switch {
			case isNotFound(err): // another worker was first
			case err != nil:
				return err
			case isDropped(why):
				dropped = append(dropped, DroppedMail{*m, why})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return dropped, nil
}

// recipient returns who is to get a mail that is due, or as an error why it is to
// be deleted.
func (kr *Keyring) recipient(r Reader, m *Mail, now Instant) (*Account, error) {
	a, err := r.Account(m.AccountID)
	switch {
	case isNotFound(err):
		return nil, errNobody
	case err != nil:
		return nil, err
	case !a.Active || a.Email == "" || kr.CheckMailPackage(m.Package) != nil:
		return nil, errNobody
	case m.RequestedAt.Add(MailLifetime).reached(now):
		return nil, ErrMailExpired
	case !Mailable(a.Email):
		return nil, ErrMailAddress
	}
	return a, nil
}
