package exorde

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// versionHeader says which version of the API the client speaks.
const (
	versionHeader = "X-Exorde-Api-Version"
	version       = "v1"
)

// needs is what a key must be to be replaced: any that works, since the new one
// is of the same credential.
var needs = &keystore.Requirement{Management: true}

// replace answers PUT /user/api-key. Who calls is settled before anything else is
// read.
func (d *Dialect) replace(w http.ResponseWriter, r *http.Request) {
	grant, verdict := d.gateway.Authenticate(r, d.finder, needs)
	if verdict != keystore.OK {
		d.Refuse(w, r, dialect.RefusalOf(verdict, grant, d.finder))
		return
	}
	text, err := d.rotated(w, r, grant)
	if err != nil {
		d.fail(w, r, grant, err)
		return
	}
	write(w, http.StatusOK, replaced{text, d.status})
}

// rotated is the text of the new key.
func (d *Dialect) rotated(w http.ResponseWriter, r *http.Request, grant *keystore.Grant) (string, error) {
	if !speaks(r.Header[versionHeader]) {
		return "", errVersion
	}
	if _, err := dialect.ReadNoBody(w, r); err != nil {
		return "", err
	}
	grant, err := d.gateway.Recheck(r, d.finder, grant, needs)
	if err != nil {
		return "", err
	}
	if wait := d.limiter.Allow(grant.AccountID); wait > 0 {
		return "", &tooSoon{errTooOften, wait}
	}
	kr, err := d.gateway.Keyring(r.Context())
	if err != nil {
		return "", fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
	}
	made, err := kr.Rotate(r.Context(), keystore.Holder(grant), keystore.Rotation{
		CredentialID: grant.CredentialID, Overlap: d.overlap, Format: keystore.FormatUUID,
	})
	switch {
	case errors.Is(err, keystore.ErrKeyLimit):
		return "", &tooSoon{err, untilFree(r, kr, grant)}
	case err != nil:
		return "", d.gateway.Explain(r, d.finder, grant, needs, err)
	}
	return made.Text, nil
}

// speaks reports whether the values of the version header name the version that
// is spoken here.
func speaks(sent []string) bool {
	return len(sent) == 0 || len(sent) == 1 && (sent[0] == "" || sent[0] == version)
}

// untilFree is how long the credential has as many live keys as it may: until the
// first of them stops, a minute if none is known to.
func untilFree(r *http.Request, kr *keystore.Keyring, grant *keystore.Grant) time.Duration {
	keys, err := kr.Keys(r.Context(), grant.CredentialID, keystore.Page{})
	if err != nil {
		return time.Minute
	}
	var first keystore.Instant
	for _, k := range keys {
		if stop := k.StopsAt(); k.State.Live() && stop != 0 && (first == 0 || stop < first) {
			first = stop
		}
	}
	if first == 0 {
		return time.Minute
	}
	return first.Time().Sub(kr.Now().Time())
}
