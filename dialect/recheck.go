package dialect

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file judges a caller again. A request lasts as long as its client takes to
// send the body: what [Gateway.Authenticate] found may not hold any more when there
// is something to be done.

// RefusedError says that a caller who was let in is not accepted any more.
type RefusedError struct{ Refusal }

// Error names the verdict.
func (e *RefusedError) Error() string {
	return "the presented key is not accepted any more: " + e.Verdict.String()
}

// Recheck judges the grant of [Gateway.Authenticate] again. It is called when the
// body was read, before anything is done for the caller, and returns the grant to
// do it with. It is no use of the key. The error is a *RefusedError, or
// keystore.ErrUnavailable without a keyring.
func (g Gateway) Recheck(r *http.Request, from *Finder, grant *keystore.Grant, needs *keystore.Requirement) (*keystore.Grant, error) {
	kr, err := g.Keyring(r.Context())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
	}
	fresh, verdict := kr.Recheck(r.Context(), grant, keystore.Request{Requirement: needs, ClientIP: ClientIP(r)})
	if verdict != keystore.OK {
		return nil, &RefusedError{RefusalOf(verdict, fresh, from)}
	}
	return fresh, nil
}

// Explain returns the error of a change that was made for the holder of a grant.
// Where the keyring says that the key has stopped, it is the *RefusedError that
// says how.
func (g Gateway) Explain(r *http.Request, from *Finder, grant *keystore.Grant, needs *keystore.Requirement, err error) error {
	if !errors.Is(err, keystore.ErrKeyStopped) {
		return err
	}
	if _, refused := g.Recheck(r, from, grant, needs); refused != nil {
		return refused
	}
	return err
}
