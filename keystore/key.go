package keystore

// Key is one secret of a credential. Its text is returned once, by the call
// that made it; the record holds a digest.
type Key struct {
	// ID is public: 12 base62 characters, for the token format those in the
	// text itself.
	ID           string
	CredentialID string
	// Seq orders keys by their making. The store assigns it.
	Seq int64
	// Digest identifies the text; DigestKind says how it was computed.
	Digest     Digest
	DigestKind DigestKind
	// Hint is what can be shown of the text without giving it away.
	Hint   string
	Format Format
	// Sealed is the text under the operator's master key, where the store is
	// configured to be recoverable. Otherwise nil.
	Sealed []byte

	CreatedAt Instant
	// ActivatesAt is when the key starts to work. Zero means at once.
	ActivatesAt Instant
	// ExpiresAt is when the key stops working. Zero means never.
	ExpiresAt Instant
	// UnusedExpiresAt is when the key stops working unless it was used before.
	// It is set on the keys made by a rotation with overlap until_first_use,
	// and only on those: the first use of such a key stops all older ones.
	UnusedExpiresAt Instant
	// Mailed is set on keys that were made to be sent by e-mail. As long as one
	// is unused it does not count against the cap of its credential.
	Mailed bool

	RevokedAt     Instant
	RevokedReason string

	// SupersededBy is the id of the key whose issue, or whose first use,
	// bounded this one.
	SupersededBy string
	SupersededAt Instant
	// StopsOnUseOf is the id of the latest key whose first use stops this one.
	StopsOnUseOf string

	FirstUsedAt Instant
	// LastUsedAt is accurate to a minute: uses are written in batches.
	LastUsedAt Instant
}

// State is what a key's record amounts to at one moment. It is derived, never
// stored.
type State string

// The states of a key, in the order in which it passes through them. Revoked
// can follow any, and is final.
const (
	StatePending  State = "pending"
	StateActive   State = "active"
	StateRetiring State = "retiring"
	StateExpired  State = "expired"
	StateRevoked  State = "revoked"
)

// Live reports whether a key in this state works now or will.
func (s State) Live() bool { return s != StateExpired && s != StateRevoked }

// StopsAt is the moment at which the key stops on its own, zero if none is
// known. The credential's own expiry is not part of it.
func (k *Key) StopsAt() Instant {
	if k.FirstUsedAt == 0 {
		return earlier(k.ExpiresAt, k.UnusedExpiresAt)
	}
	return k.ExpiresAt
}

// Counted reports whether the key counts against a cap while it is live. A mailed
// key that is not used yet does not: a stranger can have it made.
func (k *Key) Counted() bool { return !k.Mailed || k.FirstUsedAt != 0 }

// StateAt derives the key's state at now. Siblings are the credential's keys;
// they decide whether a key that stops on the first use of another is still
// retiring, or plain active again because none is left that could stop it.
func (k *Key) StateAt(now Instant, siblings []*Key) State {
	switch {
	case k.RevokedAt != 0:
		return StateRevoked
	case k.StopsAt().reached(now):
		return StateExpired
	case now < k.ActivatesAt:
		return StatePending
	case k.SupersededBy != "" || k.awaitsUse(now, siblings):
		return StateRetiring
	}
	return StateActive
}

// awaitsUse reports whether a later key is live and unused whose first use
// stops k.
func (k *Key) awaitsUse(now Instant, siblings []*Key) bool {
	if k.StopsOnUseOf == "" {
		return false
	}
	for _, s := range siblings {
		if s.stopsOlder(k) && s.FirstUsedAt == 0 && s.RevokedAt == 0 && !s.StopsAt().reached(now) {
			return true
		}
	}
	return false
}

// stopsOlder reports whether the first use of k stops the key older.
func (k *Key) stopsOlder(older *Key) bool {
	return k.UnusedExpiresAt != 0 && older.Seq < k.Seq
}
