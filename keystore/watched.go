package keystore

import (
	"bytes"
	"slices"
)

// watchedTx is a transaction that tells the digest of every grant it touches,
// before it does, so that no rule can forget to. A transaction that runs more than
// once tells more than it must, which costs a read of the store and nothing else.
type watchedTx struct {
	Tx
	touches func(...Digest)
	// changed are the digests whose grants were there before.
	changed []Digest
}

func (tx *watchedTx) CreateKey(k *Key) error {
	tx.touches(k.Digest)
	return tx.Tx.CreateKey(k)
}

func (tx *watchedTx) CreateCredentialWithKey(c *Credential, k *Key) error {
	tx.touches(k.Digest)
	return tx.Tx.CreateCredentialWithKey(c, k)
}

func (tx *watchedTx) LoadKey(k *Key) (*Key, error) {
	tx.touches(k.Digest)
	return tx.Tx.LoadKey(k)
}

func (tx *watchedTx) UpdateKey(k *Key) error {
	tx.changes(k.Digest)
	return tx.Tx.UpdateKey(k)
}

func (tx *watchedTx) UpdateCredential(c *Credential) error {
	return tx.touch(tx.CredentialDigests, c.ID, func() error { return tx.Tx.UpdateCredential(c) })
}

func (tx *watchedTx) UpdateAccount(a *Account) error {
	return tx.touch(tx.AccountDigests, a.ID, func() error { return tx.Tx.UpdateAccount(a) })
}

func (tx *watchedTx) touch(digests func(string) ([]Digest, error), id string, write func() error) error {
	ds, err := digests(id)
	if err != nil {
		return err
	}
	tx.changes(ds...)
	return write()
}

func (tx *watchedTx) changes(digests ...Digest) {
	tx.touches(digests...)
	tx.changed = append(tx.changed, digests...)
}

// Announce has the grants announced with those that the transaction changes. What it
// returns is of no use.
func (tx *watchedTx) Announce(digests ...Digest) (Announcement, error) {
	tx.changed = append(tx.changed, digests...)
	return Announcement{}, nil
}

// announce is the last thing in the transaction: the nodes of a shared store are told
// in the order in which this is done. Nobody holds anything of a grant that is new.
func (tx *watchedTx) announce() (Announcement, error) {
	if len(tx.changed) == 0 {
		return Announcement{}, nil
	}
	slices.SortFunc(tx.changed, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	return tx.Tx.Announce(slices.Compact(tx.changed)...)
}
