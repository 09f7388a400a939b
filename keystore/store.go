package keystore

import (
	"context"
	"errors"
	"io"
)

// Errors of a [Store]. They are compared with errors.Is; a store wraps them
// with what it was doing.
var (
	// ErrNotFound means that no such record exists.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that the change contradicts a record that exists, such
	// as a second account with the same e-mail address. Nothing was changed.
	ErrConflict = errors.New("conflict")
	// ErrUnavailable means that the store could not answer. After an Update the
	// caller can't know whether the change was made.
	ErrUnavailable = errors.New("store unavailable")
	// ErrDamaged means that the store holds what this program did not write, or
	// can't read: a truncated, foreign or newer file. It needs an operator.
	ErrDamaged = errors.New("store damaged")
)

// Store keeps records. It knows no rule: what may be written, and when, is
// decided in [Keyring]. All methods may be called concurrently, also after
// Close, and then answer ErrUnavailable.
//
// Reads see every Update that returned before they started. A read whose context
// ends answers ErrUnavailable that is the context's error too.
type Store interface {
	// Lookup returns the grant of the key whose digest is given, whatever its
	// state, tombstones included, with a fresh Grant at each call. The error
	// is ErrNotFound or ErrUnavailable. It never waits for a writer.
	Lookup(ctx context.Context, digest Digest) (*Grant, error)

	// View runs read with a consistent snapshot and returns its error.
	View(ctx context.Context, read func(Reader) error) error

	// Update runs change in a transaction, and returns nil only after the
	// change is durable. If change returns an error, that error is returned and
	// nothing was changed. The function may be run more than once, and in
	// another goroutine: it makes no ids, no secrets and no other effects. It
	// calls neither Update nor Close of the store, and returns every error of
	// its Tx but ErrNotFound, after which some engines can't go on.
	// A context that ends before the transaction started abandons it with
	// the context's error; later it is ignored, so that the answer is the
	// outcome.
	Update(ctx context.Context, change func(Tx) error) error

	// Backup writes a consistent snapshot of the whole store, in the store's
	// own format, while reads and updates go on.
	Backup(ctx context.Context, w io.Writer) error

	// Close releases the store. It waits for the update that is running, and
	// may be called again.
	Close() error
}

// Page selects a part of a list that is ordered by creation, oldest first.
type Page struct {
	// Limit is how many records to return at most. Zero means all.
	Limit int
	// After is the id of the record before the first to return. Empty starts
	// at the oldest. An id that is not in the list, also because its record was
	// deleted meanwhile, is ErrNotFound.
	After string
}

// Reader reads records in a transaction. Records that it returns are the
// caller's own. Accounts and credentials that were deleted, and the
// credentials of deleted accounts, are not found; keys are always found. The
// list of an owner that does not exist is empty. Empty lists and maps are read
// back as empty, whether they were nil or not. A Reader or Tx that is used after
// its function returned answers an error.
type Reader interface {
	Account(id string) (*Account, error)
	// AccountByEmail finds by [EmailKey].
	AccountByEmail(email string) (*Account, error)
	Accounts(Page) ([]*Account, error)

	Credential(id string) (*Credential, error)
	Credentials(accountID string, page Page) ([]*Credential, error)

	Key(id string) (*Key, error)
	Keys(credentialID string, page Page) ([]*Key, error)
	// UnendedKeys returns the credential's keys, oldest first, that are not
	// revoked and whose ExpiresAt is not reached at now.
	UnendedKeys(credentialID string, now Instant) ([]*Key, error)
	// UnendedKeysOfAccount returns those of all credentials that [Reader.Credentials]
	// lists, in its order, and of each oldest first.
	UnendedKeysOfAccount(accountID string, now Instant) ([]*Key, error)

	// CredentialDigests and AccountDigests return the digests of all keys that
	// are not revoked, of one credential or of all credentials of an account.
	CredentialDigests(credentialID string) ([]Digest, error)
	AccountDigests(accountID string) ([]Digest, error)

	// Setting returns a value that SetSetting stored, nil if there is none.
	Setting(name string) ([]byte, error)

	// NextMail returns the mail that is due first, ErrNotFound if none waits.
	NextMail() (*Mail, error)
	// DueMails returns the mails whose DueAt is at or before that time, in the
	// order of their ids, at most limit, and only those behind the id after, which
	// need not be there. Empty starts at the first.
	DueMails(at Instant, after string, limit int) ([]*Mail, error)
	// CountMails is how many wait, those being sent included. It may look at
	// each of them.
	CountMails() (int, error)

	// Throttle returns until when a digest is throttled, zero if it never was or
	// was pruned.
	Throttle(Digest) (Instant, error)

	// Reply returns the recorded reply of that digest, also one that has
	// expired, until it is pruned.
	Reply(Digest) (*Reply, error)

	// EveryAccount, EveryCredential and EveryKey return the records of all owners,
	// tombstones included, in the order of Number or Seq: at most limit, and only
	// those behind the one that is given. Zero starts at the first.
	EveryAccount(after int64, limit int) ([]*Account, error)
	EveryCredential(after int64, limit int) ([]*Credential, error)
	EveryKey(after int64, limit int) ([]*Key, error)
}

// Tx reads and writes records in a transaction. It sees its own writes.
//
// Create methods answer ErrConflict if the id, or what else is unique (an
// account's EmailKey, a key's Digest), is taken, also by a tombstone; a
// tombstone's e-mail address is free again. Update methods replace the whole
// record of that id, but for Number, Seq and CreatedAt, and answer ErrNotFound
// if there is none, or a tombstone. Nothing is created under a tombstone.
type Tx interface {
	Reader

	// CreateAccount stores an account and sets its Number to one more than the
	// highest ever given.
	CreateAccount(*Account) error
	UpdateAccount(*Account) error

	// CreateCredential stores a credential and sets its Seq. Its account must
	// exist, else ErrNotFound.
	CreateCredential(*Credential) error
	UpdateCredential(*Credential) error

	// CreateKey stores a key and sets its Seq. Its credential must exist, else
	// ErrNotFound.
	CreateKey(*Key) error
	// CreateCredentialWithKey stores a credential, which is no tombstone, and its first
	// key: it is CreateCredential and then CreateKey, in one step.
	CreateCredentialWithKey(*Credential, *Key) error
	// UpdateKey replaces all of a key but its Digest, DigestKind, LastUsedAt.
	UpdateKey(*Key) error

	// RecordUses moves the LastUsedAt of keys forward, never back, and sets
	// FirstUsedAt where it is not set. Unknown ids are passed over.
	RecordUses([]Use) error

	// Load methods store a record as it is elsewhere: with its Number, unless that
	// is zero, its digest kind, all its times, and as a tombstone if it is one. What
	// the store assigns, Seq and a Number that is zero, is to be read.
	//
	// If the id, or what else is unique, is taken, nothing is stored and the record
	// that has it is returned, also a tombstone; that of the same id goes before
	// others. ErrNotFound says that there is no owner, or only the tombstone of one:
	// under a tombstone nothing is stored but what has an end of its own, which is a
	// tombstone, or a key with a RevokedAt or ExpiresAt.
	LoadAccount(*Account) (there *Account, err error)
	LoadCredential(*Credential) (there *Credential, err error)
	LoadKey(*Key) (there *Key, err error)
	// KeyOf returns the key of a digest.
	KeyOf(Digest) (*Key, error)

	// SetSetting stores a small named value that is not a record.
	SetSetting(name string, value []byte) error

	// PutMail stores a mail, in the place of one of the same account and
	// package if there is one.
	PutMail(*Mail) error
	// UpdateMail replaces DueAt and Attempts of the mail of that id, and answers
	// ErrNotFound if there is none, also because another took its place.
	UpdateMail(*Mail) error
	// DeleteMail answers ErrNotFound as UpdateMail does.
	DeleteMail(id string) error

	// SetThrottle throttles a digest until then.
	SetThrottle(digest Digest, until Instant) error

	// PutReply stores a reply, in the place of one of the same digest.
	PutReply(*Reply) error

	// Prune deletes throttles and replies that have ended at now, and of a store that
	// is shared what every node knows of its feed.
	Prune(now Instant) error

	// Announce tells the nodes of a store that is shared which grants this
	// transaction changes, once it is committed. Any other store does nothing.
	Announce(...Digest) (Announcement, error)
}

// Mail is a key that was asked for by e-mail and is not sent yet. It holds no
// key: that is made when it is sent.
type Mail struct {
	// ID is a UUIDv7, of this request.
	ID string
	// AccountID is who is to get it. It may be nobody's: whether there is
	// anything to send is decided when it is sent.
	AccountID string
	// Package of the credential whose key is asked for, empty where none are
	// declared.
	Package     string
	RequestedAt Instant
	// DueAt is when to send it, or to try again. While it is being sent, this is
	// when that is given up for lost.
	DueAt Instant
	// Attempts is how often sending was begun.
	Attempts int
}

// Reply is what was answered to a request with an Idempotency-Key.
type Reply struct {
	// Digest names who asked, under which key.
	Digest Digest
	// Request is the digest of what was asked.
	Request Digest
	// Sealed is the answer, under a key that is not in the store.
	Sealed    []byte
	ExpiresAt Instant
}

// Use says when a key was used.
type Use struct {
	KeyID string
	// First and Last are the first and the last use in the batch.
	First, Last Instant
}
