package adyen

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// target is the credential for which a key is asked, and the account it is said
// to belong to. Both are the client's words until mayGenerate has passed them.
type target struct{ account, credential string }

// naming tells which target a request of a known caller names.
type naming func(*http.Request, *keystore.Grant) target

// ofAccount is the naming of a path that has the account in this segment.
func ofAccount(segment string) naming {
	return func(r *http.Request, _ *keystore.Grant) target {
		return target{r.PathValue(segment), r.PathValue(credentialField)}
	}
}

// ofCaller names the credential of the presented key.
func ofCaller(_ *http.Request, g *keystore.Grant) target {
	return target{g.AccountID, g.CredentialID}
}

// serve answers a route: first the caller is known, then the rest is looked at.
func (d *Dialect) serve(name naming) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		grant, verdict := d.gateway.Authenticate(r, d.finder, d.needs)
		if verdict != keystore.OK {
			d.refuse(w, r, dialect.RefusalOf(verdict, grant, d.finder), zap.InfoLevel)
			return
		}
		to := name(r, grant)
		w.Header().Set("Cache-Control", "no-store")
		if err := d.generate(w, r, grant, to); err != nil {
			d.fail(w, r, to, err)
		}
	}
}

// generate gives the target a new key, or gives the answer again that has one.
// Before either, the caller must be allowed to have it now. After an error
// nothing is sent.
func (d *Dialect) generate(w http.ResponseWriter, r *http.Request, grant *keystore.Grant, to target) error {
	body, err := dialect.ReadNoBody(w, r)
	if err != nil {
		return bodyError(body, err)
	}
	if grant, err = d.gateway.Recheck(r, d.finder, grant, d.needs); err != nil {
		return err
	}
	kr, err := d.gateway.Keyring(r.Context())
	if err != nil {
		return fmt.Errorf("%w: %w", keystore.ErrUnavailable, err)
	}
	if err := mayGenerate(r.Context(), kr, grant, to); err != nil {
		return err
	}
	once, err := d.gateway.Once(r, d.finder, body)
	if err != nil {
		return err
	}
	defer once.End()
	if first, ok := dialect.Recorded(once); ok {
		first.Write(w, r)
		return nil
	}
	issued, err := kr.Rotate(r.Context(), keystore.Holder(grant), d.rotation(to), dialect.Record(once, reply))
	if err != nil {
		return d.gateway.Explain(r, d.finder, grant, d.needs, err)
	}
	out, err := reply(issued)
	if err == nil {
		out.Write(w, r)
	}
	return err
}

// mayGenerate refuses with ErrForbidden or ErrNotFound, which are answered
// alike. An account that is not the caller's is refused before the store is
// asked.
func mayGenerate(ctx context.Context, kr *keystore.Keyring, grant *keystore.Grant, to target) error {
	caller := keystore.Holder(grant)
	// What can't be an id never reaches the store.
	if !keystore.ValidID(to.account) || !keystore.ValidID(to.credential) {
		return keystore.ErrNotFound
	}
	if to.account != grant.AccountID && !caller.IsOperator() {
		return keystore.ErrForbidden
	}
	return kr.View(ctx, func(read keystore.Reader) error {
		c, err := read.Credential(to.credential)
		switch {
		case err != nil:
			return err
		case c.AccountID != to.account:
			return keystore.ErrNotFound
		}
		return kr.MayObtain(caller, c)
	})
}

func (d *Dialect) rotation(to target) keystore.Rotation {
	return keystore.Rotation{
		CredentialID:   to.credential,
		Overlap:        d.overlap,
		ActivatesAfter: time.Duration(d.ActivationDelay),
	}
}

// reply is the answer that has the key.
func reply(issued *keystore.Issued) (dialect.Reply, error) {
	body, err := json.Marshal(struct {
		APIKey string `json:"apiKey"`
	}{issued.Text})
	return dialect.Reply{
		Status: http.StatusOK,
		Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}},
		Body:   body,
		Ends:   true,
	}, err
}
