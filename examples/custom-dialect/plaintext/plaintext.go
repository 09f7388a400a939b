// Package plaintext is a worked example of a dialect: a key-management API for
// shell scripts, in which every answer is one line of text.
//
//	GET  /whoami  the id of the account
//	POST /renew   a new key in the place of the presented one
//
// An error is the line "error: <code>", with its status. Whoever writes a
// dialect can begin with a copy of this file.
package plaintext

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Like every Caddy module, a dialect registers itself when it is linked in.
func init() {
	caddy.RegisterModule(new(Dialect))
}

// Dialect lets shell scripts renew their key.
type Dialect struct {
	// How long a key goes on working after it was renewed. Default: 5m.
	Overlap caddy.Duration `json:"overlap,omitempty"`

	gateway dialect.Gateway
	routes  *dialect.Routes
}

// CaddyModule returns the Caddy module information. The last part of the ID is
// the name in the Caddyfile.
func (*Dialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  dialect.Namespace + ".plain_text",
		New: func() caddy.Module { return new(Dialect) },
	}
}

// UnmarshalCaddyfile reads
//
//	plain_text [<base path>] {
//	    overlap <duration>
//	}
func (d *Dialect) UnmarshalCaddyfile(dispenser *caddyfile.Dispenser) error {
	return dialect.ParseOptions(dispenser, "plain_text", map[string]dialect.Option{
		"overlap": dialect.DurationOption(&d.Overlap),
	})
}

// Mount makes the routes. It checks what the configuration says, so that a
// Caddyfile and JSON are held to the same.
func (d *Dialect) Mount(g dialect.Gateway) error {
	if d.Overlap == 0 {
		d.Overlap = caddy.Duration(5 * time.Minute)
	}
	if d.Overlap < 0 {
		return fmt.Errorf("dialect plain_text: overlap %v: use a positive duration, such as 5m", time.Duration(d.Overlap))
	}
	d.gateway = g
	d.routes = dialect.NewRoutes(g.Base, d.methodNotAllowed)
	d.routes.Handle("GET /whoami", d.withKey(d.whoami))
	d.routes.Handle("POST /renew", d.withKey(d.renew))
	return nil
}

// Route tells the gateway which requests are the dialect's.
func (d *Dialect) Route(r *http.Request) http.HandlerFunc { return d.routes.Find(r) }

// Locations returns none: scripts present their key where the site's other
// clients do.
func (*Dialect) Locations() []dialect.Location { return nil }

// Refuse answers a request without a key that opens it, on the dialect's routes
// and, with "errors plain_text", on proxied ones.
func (*Dialect) Refuse(w http.ResponseWriter, _ *http.Request, f dialect.Refusal) {
	f.WriteHeaders(w.Header())
	fail(w, f.Status, f.Verdict.String())
}

// needs lets every key in that works, also one of a package for management: it
// can only renew itself.
var needs = &keystore.Requirement{Management: true}

// withKey makes a handler of one that needs to know who calls.
func (d *Dialect) withKey(handle func(http.ResponseWriter, *http.Request, *keystore.Grant)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		grant, verdict := d.gateway.Authenticate(r, d.gateway.Site, needs)
		if verdict != keystore.OK {
			d.Refuse(w, r, dialect.RefusalOf(verdict, grant, d.gateway.Site))
			return
		}
		handle(w, r, grant)
	}
}

func (d *Dialect) whoami(w http.ResponseWriter, _ *http.Request, g *keystore.Grant) {
	answer(w, http.StatusOK, g.AccountID)
}

// renew asks the domain. It knows the rules; a dialect knows how they look.
func (d *Dialect) renew(w http.ResponseWriter, r *http.Request, g *keystore.Grant) {
	keyring, err := d.gateway.Keyring(r.Context())
	if err != nil {
		d.unavailable(w, err)
		return
	}
	made, err := keyring.Rotate(r.Context(), keystore.Holder(g), keystore.Rotation{
		CredentialID: g.CredentialID,
		Overlap:      keystore.Overlap{For: time.Duration(d.Overlap)},
	})
	switch {
	case err == nil:
		answer(w, http.StatusOK, made.Text)
	case errors.Is(err, keystore.ErrConflict): // too many live keys, or it has ended
		fail(w, http.StatusConflict, "conflict")
	case errors.Is(err, keystore.ErrForbidden):
		fail(w, http.StatusForbidden, "forbidden")
	default:
		d.unavailable(w, err)
	}
}

// unavailable answers what can't be done now. The cause is for the log only.
func (d *Dialect) unavailable(w http.ResponseWriter, cause error) {
	d.gateway.Logger.Error("a key could not be renewed", zap.Error(cause))
	fail(w, http.StatusServiceUnavailable, keystore.StoreUnavailable.String())
}

// methodNotAllowed answers other methods on known paths; the header Allow is set.
func (*Dialect) methodNotAllowed(w http.ResponseWriter, _ *http.Request) {
	fail(w, http.StatusMethodNotAllowed, "method_not_allowed")
}

func fail(w http.ResponseWriter, status int, code string) { answer(w, status, "error: "+code) }

// answer sends one line. What can hold a key is never cached.
func answer(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, line)
}

// Interface guards.
var (
	_ dialect.Dialect       = (*Dialect)(nil)
	_ caddyfile.Unmarshaler = (*Dialect)(nil)
)
