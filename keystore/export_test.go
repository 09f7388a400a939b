package keystore

import (
	"context"
	"time"
)

// BuildFilter builds the filter of known keys, beside the vault's own doing.
func (v *Vault) BuildFilter(ctx context.Context) error {
	return v.known.build(ctx, v.store.(Exclusive))
}

// Denies reports whether a text's key is known not to exist.
func (v *Vault) Denies(text string) bool {
	d := plainDigest(canonical(text))
	return v.known.lacks(&d)
}

// WithWall makes the wall clock of a vault's machine show that much more than it does.
func WithWall(ahead func() time.Duration) VaultOption {
	return func(o *vaultOptions) {
		read := o.read
		o.read = func() reading {
			r := read()
			r.wall += ahead()
			return r
		}
	}
}

// WriteClock has the vault write its time now.
func (v *Vault) WriteClock() { v.saveClock() }

// Decided waits until ristretto has taken in what it was handed.
func (v *Vault) Decided() { v.memory.Load().entries.Wait() }
