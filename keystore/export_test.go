package keystore

import "context"

// BuildFilter builds the filter of known keys, beside the vault's own doing.
func (v *Vault) BuildFilter(ctx context.Context) error {
	return v.known.build(ctx, v.store.(Exclusive))
}

// Denies reports whether a text's key is known not to exist.
func (v *Vault) Denies(text string) bool {
	d := plainDigest(canonical(text))
	return v.known.lacks(&d)
}
