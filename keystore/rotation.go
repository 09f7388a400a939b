package keystore

import (
	"context"
	"errors"
	"time"
)

// Issued is a new credential or rotation's outcome: the key's text is in it and
// nowhere else.
type Issued struct {
	Credential *Credential
	Key        KeyStatus
	// Text is the key's text. Whoever gets it shows it once and forgets it.
	Text string
	// Previous are the older keys that still worked before a rotation, oldest
	// first.
	Previous []KeyStatus
}

// KeyStatus is a key with its state at the moment it was read.
type KeyStatus struct {
	*Key
	State State
}

// Overlap says how long older keys go on working after a rotation.
type Overlap struct {
	// UntilFirstUse stops older keys when the new key is first accepted.
	UntilFirstUse bool
	// For is how long they go on otherwise; zero revokes them at once.
	For time.Duration
}

const (
	// UntilFirstUse is how that overlap is written.
	UntilFirstUse = "until_first_use"
	// UnusedLifetime is after how long a key that should be taken into use, but
	// is not, expires.
	UnusedLifetime = 24 * time.Hour
	// maxOverlap keeps sums of times in range.
	maxOverlap = 10 * 365 * 24 * time.Hour
)

// ParseOverlap reads an overlap: "0s", a duration such as "24h" (see
// [time.ParseDuration]), or "until_first_use".
func ParseOverlap(s string) (Overlap, error) {
	if s == UntilFirstUse {
		return Overlap{UntilFirstUse: true}, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxOverlap {
		return Overlap{}, invalid("overlap", `must be "0s", a duration such as "30m" or "24h" of at most 87600h, or "until_first_use"`)
	}
	return Overlap{For: d}, nil
}

// Issue makes a credential for an account, with its first key. The package's
// roles are added to those given. ErrNotFound says that there is no such
// account. Also runs last in the transaction.
func (kr *Keyring) Issue(ctx context.Context, actor Actor, c Credential, also ...Also[*Issued]) (*Issued, error) {
	p, err := kr.packageFor(actor, c.Package)
	if err != nil {
		return nil, err
	}
	now := kr.Now()
	c.ID, c.Active, c.DeletedAt = newID(), true, 0
	c.CreatedAt, c.UpdatedAt = now, now
	c.Roles = append(append([]string{}, p.Roles...), c.Roles...)
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.ExpiresAt.reached(now) {
		return nil, invalid("expires_at", "must be in the future")
	}
	k, text := kr.newKey(p, c.ID, now)
	out := &Issued{Credential: &c, Text: text}
	err = kr.vault.Update(ctx, func(tx Tx) error {
		if err := kr.mayObtainNow(tx, actor, &c); err != nil {
			return err
		}
		if err := kr.claimPepper(tx); err != nil {
			return err
		}
		// Of an account that is not there, this answers ErrNotFound.
		if err := tx.CreateCredentialWithKey(&c, k); err != nil {
			return err
		}
		out.Key = statusOf(k, &c, nil, now)
		return runAlso(tx, out, also)
	})
	if err != nil {
		return nil, err
	}
	kr.onChange(Change{ChangeIssued, c.AccountID, c.ID, k.ID})
	return out, nil
}

// newKey makes a key and its text.
func (kr *Keyring) newKey(p Package, credentialID string, now Instant) (*Key, string) {
	s := newSecret(p)
	k := &Key{
		ID:           s.id,
		CredentialID: credentialID,
		Digest:       kr.hasher.digest(s.text),
		DigestKind:   kr.hasher.kind(),
		Hint:         hintOf(s, p.Format),
		Format:       p.Format,
		Sealed:       kr.sealer.seal(s),
		CreatedAt:    now,
	}
	if p.ExpiresIn > 0 {
		k.ExpiresAt = now.Add(p.ExpiresIn)
	}
	return k, s.text
}

// storeKey stores a new key, and with the first one the pepper's fingerprint.
func (kr *Keyring) storeKey(tx Tx, k *Key) error {
	if err := kr.claimPepper(tx); err != nil {
		return err
	}
	return tx.CreateKey(k)
}

// Rotation says how to rotate a credential.
type Rotation struct {
	CredentialID string
	Overlap      Overlap
	// ActivatesAfter is how long the new key waits before it works.
	ActivatesAfter time.Duration
	// Format of the new key's text, if not that of the package.
	Format Format
}

// Rotate gives a credential a new key and bounds the older ones by the overlap,
// in one transaction. Stop times only ever move earlier. ErrKeyLimit says that
// the credential would have more live keys than it may. Also runs last in the
// transaction.
func (kr *Keyring) Rotate(ctx context.Context, actor Actor, r Rotation, also ...Also[*Issued]) (*Issued, error) {
	var c *Credential
	err := kr.View(ctx, func(read Reader) (err error) {
		c, err = read.Credential(r.CredentialID)
		return err
	})
	if err != nil {
		return nil, err
	}
	// The key is made before the transaction, which may run more than once. If
	// the credential's package changes in between, its format is the earlier one.
	now := kr.Now()
	p := kr.packages.named(c.Package)
	if r.Format != "" {
		p.Format = r.Format
	}
	made, text := kr.newKey(p, c.ID, now)
	if r.ActivatesAfter > 0 {
		made.ActivatesAt = now.Add(r.ActivatesAfter)
	}
	if r.Overlap.UntilFirstUse {
		made.UnusedExpiresAt = now.Add(UnusedLifetime)
	}
	out := &Issued{Text: text}
	err = kr.vault.Update(ctx, func(tx Tx) (err error) {
		k := *made
		if out.Credential, err = kr.rotatable(tx, actor, r.CredentialID, now); err != nil {
			return err
		}
		if err := kr.underCap(tx, r, p.MaxKeys, now); err != nil {
			return err
		}
		if err := kr.addKey(tx, out, &k, r.Overlap, now); err != nil {
			return err
		}
		return runAlso(tx, out, also)
	})
	if err != nil {
		return nil, err
	}
	kr.onChange(Change{ChangeRotated, out.Credential.AccountID, out.Credential.ID, out.Key.ID})
	return out, nil
}

// underCap refuses one live key more than the credential may have.
func (kr *Keyring) underCap(tx Reader, r Rotation, limit int, now Instant) error {
	live, err := liveKeys(tx, r.CredentialID, now)
	if err != nil || r.Overlap.revokes() {
		return err
	}
	n := 0
	for _, k := range live {
		if k.Counted() {
			n++
		}
	}
	if n >= limit {
		return conflict(ErrKeyLimit, "", "the credential has %d live keys, which is the limit: revoke one, or rotate with overlap 0s", n)
	}
	return nil
}

// addKey stores the next key of out.Credential, bounds the older ones that are
// live, and completes out.
func (kr *Keyring) addKey(tx Tx, out *Issued, k *Key, overlap Overlap, now Instant) error {
	older, err := liveKeys(tx, k.CredentialID, now)
	if err != nil {
		return err
	}
	if err := kr.storeKey(tx, k); err != nil {
		return err
	}
	for _, old := range older {
		overlap.bound(old, k, now)
		if err := tx.UpdateKey(old); err != nil {
			return err
		}
	}
	out.Key = statusOf(k, out.Credential, nil, now)
	out.Previous = statuses(older, out.Credential, append(older, k), now)
	return nil
}

// rotatable returns the credential if the actor may get a key of it.
func (kr *Keyring) rotatable(tx Reader, actor Actor, id string, now Instant) (*Credential, error) {
	c, err := tx.Credential(id)
	if err != nil {
		return nil, err
	}
	if err := kr.mayObtainNow(tx, actor, c); err != nil {
		return nil, err
	}
	if c.ExpiresAt.reached(now) {
		return nil, conflict(ErrConflict, "", "the credential has expired: change its expires_at first")
	}
	return c, nil
}

func (o Overlap) revokes() bool { return !o.UntilFirstUse && o.For == 0 }

// bound sets when the older key stops.
func (o Overlap) bound(old, by *Key, now Instant) {
	if o.UntilFirstUse {
		old.StopsOnUseOf = by.ID
		return
	}
	if old.SupersededBy == "" {
		old.SupersededBy, old.SupersededAt = by.ID, now
	}
	if o.revokes() {
		old.RevokedAt, old.RevokedReason = now, "rotated"
		return
	}
	old.ExpiresAt = earlier(old.ExpiresAt, now.Add(o.For))
}

// takeIntoUse records the first use of a key that stops older ones by it, and
// stops them. It is durable on return. A key that can't be used any more is
// left alone; the caller judges it again.
func (kr *Keyring) takeIntoUse(ctx context.Context, g *Grant) error {
	var stopped bool
	var siblings []Digest
	// Also where another request was first: its caller may not have come to it.
	defer func() { kr.vault.Invalidate(siblings...) }()
	// On other nodes it holds within their lease: the request does not wait for them.
	err := kr.vault.Update(unawaited(ctx), func(tx Tx) (err error) {
		stopped = false
		now := kr.Now()
		k, err := tx.Key(g.KeyID)
		if err != nil {
			return err
		}
		if siblings, err = tx.CredentialDigests(k.CredentialID); err != nil {
			return err
		}
		if c, err := usable(tx, k, now); k.FirstUsedAt != 0 || c == nil {
			return err
		}
		k.FirstUsedAt = now
		if err := tx.UpdateKey(k); err != nil {
			return err
		}
		stopped = true
		return stopOlder(tx, k, now)
	})
	if err == nil && stopped {
		kr.onChange(Change{ChangeFirstUsed, g.AccountID, g.CredentialID, g.KeyID})
	}
	return err
}

// usable returns the key's credential if that, the key and the account let the key
// be used at now, else nil.
func usable(r Reader, k *Key, now Instant) (*Credential, error) {
	if state := k.StateAt(now, nil); state == StatePending || !state.Live() {
		return nil, nil
	}
	c, err := r.Credential(k.CredentialID)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil || !c.Active || c.ExpiresAt.reached(now) {
		return nil, err
	}
	a, err := r.Account(c.AccountID)
	if err != nil || !a.Active {
		return nil, err
	}
	return c, nil
}

// stopOlder ends the keys that the first use of k stops.
func stopOlder(tx Tx, k *Key, now Instant) error {
	keys, err := tx.UnendedKeys(k.CredentialID, now)
	if err != nil {
		return err
	}
	for _, old := range keys {
		if !k.stopsOlder(old) {
			continue
		}
		if old.SupersededBy == "" {
			old.SupersededBy, old.SupersededAt = k.ID, now
		}
		old.ExpiresAt = earlier(old.ExpiresAt, now)
		if err := tx.UpdateKey(old); err != nil {
			return err
		}
	}
	return nil
}

// RevokeKey ends a key for ever. Revoking a revoked key changes nothing. Also
// runs last in the transaction, in any case.
func (kr *Keyring) RevokeKey(ctx context.Context, id, reason string, also ...Also[KeyStatus]) (KeyStatus, error) {
	if err := checkText("reason", reason, maxText); err != nil {
		return KeyStatus{}, err
	}
	return kr.updateKey(ctx, id, ChangeRevoked, func(_ Reader, k KeyStatus, now Instant) error {
		if k.RevokedAt != 0 {
			return errUnchanged
		}
		k.RevokedAt, k.RevokedReason = now, reason
		return nil
	}, also...)
}

// SetKeyExpiry moves the moment at which a live key stops; zero means never.
// Only an operator can move it later, and nobody that of a key which a rotation
// bounds: its stop time only ever moves earlier.
func (kr *Keyring) SetKeyExpiry(ctx context.Context, actor Actor, id string, at Instant) (KeyStatus, error) {
	return kr.updateKey(ctx, id, ChangeKeyUpdated, func(r Reader, k KeyStatus, now Instant) error {
		actor, err := kr.Current(r, actor)
		if err != nil {
			return err
		}
		switch later := k.ExpiresAt != 0 && (at == 0 || at > k.ExpiresAt); {
		case at.reached(now):
			return invalid("expires_at", "must be in the future; to stop a key now, revoke it")
		case !k.State.Live():
			return conflict(ErrConflict, "expires_at", "the key is %s, which is final", k.State)
		case later && k.SupersededBy != "":
			return conflict(ErrConflict, "expires_at", "the key was rotated: its stop time can only move earlier")
		case (later || at == 0) && !actor.operator:
			return forbidden("with this key, expires_at can only move earlier")
		}
		k.ExpiresAt = at
		return nil
	})
}

// errUnchanged is what an edit returns if there is nothing to change.
var errUnchanged = errors.New("unchanged")

// updateKey edits one key of a credential that exists.
func (kr *Keyring) updateKey(ctx context.Context, id string, kind ChangeKind, edit func(Reader, KeyStatus, Instant) error, also ...Also[KeyStatus]) (KeyStatus, error) {
	var status KeyStatus
	var c *Credential
	var changed bool
	err := kr.vault.Update(ctx, func(tx Tx) (err error) {
		now := kr.Now()
		var siblings []*Key
		if status, c, siblings, err = readKey(tx, id, now); err != nil {
			return err
		}
		err = edit(tx, status, now)
		if changed = err == nil; changed {
			err = tx.UpdateKey(status.Key)
			status = statusOf(status.Key, c, siblings, now)
		}
		if errors.Is(err, errUnchanged) {
			// Whoever made the change before may still be waiting for other nodes.
			_, err = tx.Announce(status.Digest)
		}
		if err != nil {
			return err
		}
		return runAlso(tx, status, also)
	})
	if err != nil {
		return KeyStatus{}, err
	}
	if changed {
		kr.onChange(Change{kind, c.AccountID, c.ID, id})
	}
	return status, nil
}

// Key returns a key and its credential. A key whose credential is deleted is
// not found.
func (kr *Keyring) Key(ctx context.Context, id string) (status KeyStatus, c *Credential, err error) {
	err = kr.View(ctx, func(r Reader) (err error) {
		status, c, _, err = readKey(r, id, kr.Now())
		return err
	})
	return status, c, err
}

// Keys lists a credential's keys, oldest first.
func (kr *Keyring) Keys(ctx context.Context, credentialID string, page Page) (out []KeyStatus, err error) {
	err = kr.View(ctx, func(r Reader) error {
		c, err := r.Credential(credentialID)
		if err != nil {
			return err
		}
		keys, err := r.Keys(credentialID, page)
		if err != nil {
			return err
		}
		now := kr.Now()
		siblings, err := r.UnendedKeys(credentialID, now)
		out = statuses(keys, c, siblings, now)
		return err
	})
	return out, err
}

// readKey returns a key, its credential, and what else of the credential decides on
// its state: the keys that have not ended, of which it may be one.
func readKey(r Reader, id string, now Instant) (KeyStatus, *Credential, []*Key, error) {
	k, err := r.Key(id)
	if err != nil {
		return KeyStatus{}, nil, nil, err
	}
	c, err := r.Credential(k.CredentialID)
	if err != nil {
		return KeyStatus{}, nil, nil, err
	}
	siblings, err := r.UnendedKeys(c.ID, now)
	return statusOf(k, c, siblings, now), c, siblings, err
}

// liveKeys returns the credential's keys that work now or will, oldest first.
func liveKeys(r Reader, credentialID string, now Instant) ([]*Key, error) {
	unended, err := r.UnendedKeys(credentialID, now)
	live := unended[:0]
	for _, k := range unended {
		if k.StateAt(now, nil).Live() {
			live = append(live, k)
		}
	}
	return live, err
}

// statusOf derives what a key is worth: the end of its credential is its own.
func statusOf(k *Key, c *Credential, siblings []*Key, now Instant) KeyStatus {
	state := k.StateAt(now, siblings)
	if state.Live() && c.ExpiresAt.reached(now) {
		state = StateExpired
	}
	return KeyStatus{k, state}
}

func statuses(keys []*Key, c *Credential, siblings []*Key, now Instant) []KeyStatus {
	out := make([]KeyStatus, len(keys))
	for i, k := range keys {
		out[i] = statusOf(k, c, siblings, now)
	}
	return out
}
