package keystore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"time"
)

// This file lets a request be sent twice and done once: the first answer is
// recorded in the transaction of the change that it reports, and given again.
// An answer can hold a key, so it is sealed under what only the client presents:
// the key it calls with and its Idempotency-Key. The store has a digest of both.

var (
	// ErrInProgress means that a request with the same Idempotency-Key is being
	// answered.
	ErrInProgress = errors.New("in progress")
	// ErrOtherRequest means that the Idempotency-Key was used for another request.
	ErrOtherRequest = errors.New("idempotency key used for another request")
)

// ReplyLifetime is how long an answer is given again.
const ReplyLifetime = 24 * time.Hour

// Once is a request with an Idempotency-Key. [Once.End] must be called when it
// is answered. The methods of a nil Once do nothing: it is a request without.
type Once struct {
	keyring *Keyring
	digest  Digest
	request Digest
	sealer  cipher.AEAD
	reply   []byte
}

// Once begins a request that the holder of the presented key text sends under an
// Idempotency-Key; request is the digest of everything that makes it the same
// request. Only what works as a key may be presented. The error is ErrInProgress,
// ErrOtherRequest or ErrUnavailable.
func (kr *Keyring) Once(ctx context.Context, presented, idempotencyKey string, request Digest) (*Once, error) {
	secret := derived(presented, idempotencyKey, "api_keys reply seal")
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, err
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	o := &Once{keyring: kr, digest: derived(presented, idempotencyKey, "api_keys reply name"), request: request, sealer: sealer}
	if _, running := kr.vault.answering.LoadOrStore(o.digest, true); running {
		return nil, ErrInProgress
	}
	if err := kr.View(ctx, o.find); err != nil {
		o.End()
		return nil, err
	}
	return o, nil
}

// find reads the recorded reply, if there is one.
func (o *Once) find(r Reader) error {
	recorded, err := r.Reply(o.digest)
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return err
	case recorded.ExpiresAt.reached(o.keyring.Now()):
		return nil
	case recorded.Request != o.request:
		return ErrOtherRequest
	}
	o.reply, err = o.sealer.Open(nil, nil, recorded.Sealed, o.bound())
	if err != nil {
		return fmt.Errorf("%w: a recorded reply does not open", ErrDamaged)
	}
	return nil
}

// bound is what a sealed reply is bound to.
func (o *Once) bound() []byte { return append(o.digest[:], o.request[:]...) }

// Reply is what was answered when the request came first, nil if it did not.
func (o *Once) Reply() []byte {
	if o == nil {
		return nil
	}
	return o.reply
}

// Record records the reply in the transaction of the change that it reports.
func (o *Once) Record(tx Tx, reply []byte) error {
	if o == nil {
		return nil
	}
	now := o.keyring.Now()
	switch other, err := tx.Reply(o.digest); {
	case err == nil && !other.ExpiresAt.reached(now):
		return ErrInProgress // another process was first
	case err != nil && !isNotFound(err):
		return err
	}
	return tx.PutReply(&Reply{
		Digest: o.digest, Request: o.request,
		Sealed:    o.sealer.Seal(nil, nil, reply, o.bound()),
		ExpiresAt: now.Add(ReplyLifetime),
	})
}

// RecordAlone records the reply to a request that changed nothing.
func (o *Once) RecordAlone(ctx context.Context, reply []byte) error {
	if o == nil {
		return nil
	}
	return o.keyring.vault.Update(ctx, func(tx Tx) error { return o.Record(tx, reply) })
}

// Settle returns when every change holds on every node that was committed before it
// was called, as a change does: see [WithEffect]. Then a reply that is given again is
// as true as when it was given first.
func (o *Once) Settle(ctx context.Context) error {
	if o == nil || o.keyring.vault.node == nil {
		return nil
	}
	return o.keyring.vault.Update(ctx, func(tx Tx) error {
		// Of no grant: it is waited for what was announced before.
		_, err := tx.Announce(o.digest)
		return err
	})
}

// End says that the request is answered.
func (o *Once) End() {
	if o != nil {
		o.keyring.vault.answering.Delete(o.digest)
	}
}
