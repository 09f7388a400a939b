package keystore

import (
	"context"
	"errors"
	"slices"
)

// Verify judges the text of a key: is it one, and does it work now? The grant
// is that of a known key, whatever the verdict, else nil. The error is the cause
// of StoreUnavailable, for the log. Verify is no use of the key.
//
// A key in the cache costs no allocation.
func (kr *Keyring) Verify(ctx context.Context, text string) (*Grant, Verdict, error) {
	g, v, err := kr.find(ctx, text)
	if v != OK {
		return g, v, err
	}
	v = g.verdictAt(kr.Now())
	if !kr.vault.vouched(g) {
		if g, v, err = kr.prove(ctx, g); v == OK {
			v = g.verdictAt(kr.Now())
		}
	}
	return g, v, err
}

// find returns the grant of a text, with OK. What it is worth now is not judged.
func (kr *Keyring) find(ctx context.Context, text string) (*Grant, Verdict, error) {
	if len(text) > MaxText {
		return nil, InvalidKey, nil
	}
	text = canonical(text)
	digest := kr.hasher.digest(text)
	// A grant gets into memory by a plausible text, so that whose digest it has is
	// one. Most texts are not looked at any closer.
	if g := kr.vault.recent(&digest); g != nil && (!kr.hasher.peppered() || g.DigestKind == DigestHMACSHA256) {
		return g, OK, nil
	}
	if !plausible(text) {
		return nil, InvalidKey, nil
	}
	return found(kr.lookup(ctx, text, digest))
}

func found(g *Grant, err error) (*Grant, Verdict, error) {
	switch {
	case err == nil:
		return g, OK, nil
	case isNotFound(err):
		return nil, InvalidKey, nil
	}
	return nil, StoreUnavailable, err
}

// lookup finds the grant of a canonical text with that digest. Under a pepper, keys
// that were stored without it are found by their plain digest; the cache is asked for
// both before the store is, so that those are no slower.
func (kr *Keyring) lookup(ctx context.Context, text string, digest Digest) (*Grant, error) {
	if !kr.hasher.peppered() {
		return kr.vault.recall(ctx, digest)
	}
	plain := plainDigest(text)
	for _, d := range [...]*Digest{&digest, &plain} {
		if g, _ := kr.vault.cached(d); g != nil && g.DigestKind == kindOf(d == &plain) {
			return g, nil
		}
	}
	for _, d := range [...]*Digest{&digest, &plain} {
		g, err := kr.vault.recall(ctx, *d)
		if isNotFound(err) || (err == nil && g.DigestKind != kindOf(d == &plain)) {
			continue
		}
		return g, err
	}
	return nil, ErrNotFound
}

func kindOf(plain bool) DigestKind {
	if plain {
		return DigestSHA256
	}
	return DigestHMACSHA256
}

// Request is what a verdict needs to know beside the key.
type Request struct {
	// Requirement is what the route demands. It is not changed.
	Requirement *Requirement
	// ClientIP is the client's address, as text.
	ClientIP string
}

// Accept judges the text of a key that a request presents. OK is a use of the
// key: it is noted, and if it is the first of a key that stops older ones by
// it, it is durable before Accept returns. The grant and the error are as for
// [Keyring.Verify].
func (kr *Keyring) Accept(ctx context.Context, text string, r Request) (*Grant, Verdict, error) {
	g, v, now, err := kr.judge(ctx, text, &r)
	if v == OK && g.awaitsFirstUse() {
		if err := kr.takeIntoUse(ctx, g); err != nil {
			return g, StoreUnavailable, err
		}
		// Another key's first use may have stopped this one meanwhile.
		g, v, now, err = kr.judge(ctx, text, &r)
	}
	if v == OK {
		kr.vault.uses.note(g, now)
	}
	return g, v, err
}

// judge returns the time at which it judged, too.
func (kr *Keyring) judge(ctx context.Context, text string, r *Request) (*Grant, Verdict, Instant, error) {
	g, v, err := kr.find(ctx, text)
	if v != OK {
		return g, v, 0, err
	}
	v, now := kr.worth(g, r)
	if !kr.vault.vouched(g) {
		if g, v, err = kr.prove(ctx, g); v == OK {
			v, now = kr.worth(g, r)
		}
	}
	return g, v, now, err
}

// worth judges a grant, and returns the time at which it did.
func (kr *Keyring) worth(g *Grant, r *Request) (Verdict, Instant) {
	now := kr.Now()
	v := g.verdictAt(now)
	if v == OK {
		v = kr.meets(g, r)
	}
	return v, now
}

// prove has the store itself say what memory is not vouched for, with OK.
func (kr *Keyring) prove(ctx context.Context, g *Grant) (*Grant, Verdict, error) {
	return found(kr.vault.prove(ctx, g.Digest))
}

// Recheck judges a grant again, for a request that lasts. It returns the grant
// to recheck next time. While the store can't answer, the last verdict stands
// as far as the clock allows, unless the store is shared and others may have
// changed it; once it is closed, nothing is learned any more of a revocation, and
// none stands.
func (kr *Keyring) Recheck(ctx context.Context, g *Grant, r Request) (*Grant, Verdict) {
	if kr.vault.closed.Load() {
		return g, StoreUnavailable
	}
	if !kr.vault.vouches(g) {
		fresh, err := kr.vault.Lookup(ctx, g.Digest)
		switch {
		case err == nil:
			g = fresh
		case isNotFound(err):
			return g, InvalidKey
		case kr.vault.node != nil:
			return g, StoreUnavailable
		}
	}
	if v := g.verdictAt(kr.Now()); v != OK {
		return g, v
	}
	return g, kr.meets(g, &r)
}

// isManagement reports whether keys of the package open only what names it. A
// package that is no longer declared may have been of that kind.
func (kr *Keyring) isManagement(packageName string) bool {
	return packageName != "" && !slices.Contains(kr.packages.open, packageName)
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// taken turns the store's conflict into one that can be shown.
func taken(err error, member, detail string) error {
	if errors.Is(err, ErrConflict) {
		return conflict(ErrConflict, member, "%s", detail)
	}
	return err
}
