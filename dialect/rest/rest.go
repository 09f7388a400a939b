// Package rest is the gateway's own key-management API: accounts, their
// credentials and keys as plain JSON resources, errors as problem+json (RFC
// 9457). The document openapi.yaml describes all of it.
//
// It is served in two places by the same handlers, see [API]: as a dialect on
// a site, to the holders of keys, and on Caddy's admin endpoint, to the
// operator of the machine.
package rest

import (
	"context"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func init() {
	caddy.RegisterModule(new(Dialect))
}

// Dialect serves the gateway's own management API to the holders of keys. Keys
// are presented where the site's clients present theirs.
//
// A key whose credential has the role `api_keys:operator` may do everything. A
// key with the role `api_keys:self` may read its own account, credentials and
// keys, rotate the credentials that hold no role it lacks, revoke keys and move
// their expiry earlier. Any other key is refused. GET `openapi.yaml` below the
// base path describes the API and needs no key.
//
// A POST with the header `Idempotency-Key` is done once however often it is sent:
// for 24 hours the same presented key, path and body get the first answer again.
//
// The dialect has no options.
type Dialect struct {
	gateway dialect.Gateway
	routes  *dialect.Routes
}

// CaddyModule returns the Caddy module information.
func (*Dialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  dialect.Namespace + ".rest",
		New: func() caddy.Module { return new(Dialect) },
	}
}

// UnmarshalCaddyfile reads
//
//	rest [<base path>]
func (*Dialect) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return dialect.ParseOptions(d, "rest", nil)
}

// needs is what a key must be to call the API at all. What it may do there is
// decided call by call.
var needs = &keystore.Requirement{
	Roles:      [][]string{{keystore.RoleOperator, keystore.RoleSelf}},
	Management: true,
}

// Mount makes the routes.
func (d *Dialect) Mount(g dialect.Gateway) error {
	d.gateway = g
	d.routes = New(g.Keyring, g.Logger).holderRoutes(g.Base, d.identify)
	return nil
}

// identify lets the holders of keys in that the API is for, and answers the
// others. The key is taken out of the request, whose parameters are read later.
func (d *Dialect) identify(w http.ResponseWriter, r *http.Request) (caller, bool) {
	grant, verdict := d.gateway.Authenticate(r, d.gateway.Site, needs)
	if verdict != keystore.OK {
		d.Refuse(w, r, dialect.RefusalOf(verdict, grant, d.gateway.Site))
		return caller{}, false
	}
	out := caller{grant: grant, recheck: func(g *keystore.Grant) (*keystore.Grant, error) {
		return d.gateway.Recheck(r, d.gateway.Site, g, needs)
	}}
	if r.Method == http.MethodPost {
		asked := r.Clone(r.Context())
		out.once = func(ctx context.Context, body []byte) (*keystore.Once, error) {
			return d.gateway.Once(asked.WithContext(ctx), d.gateway.Site, body)
		}
	}
	d.gateway.Site.Strip(r)
	return out, true
}

// Route returns what answers the request if it is on one of the API's routes.
func (d *Dialect) Route(r *http.Request) http.HandlerFunc { return d.routes.Find(r) }

// Refuse answers with a problem whose code is that of the verdict.
func (*Dialect) Refuse(w http.ResponseWriter, r *http.Request, f dialect.Refusal) {
	writeRefusal(w, r, f)
}

func writeRefusal(w http.ResponseWriter, r *http.Request, f dialect.Refusal) {
	f.WriteHeaders(w.Header())
	dialect.NewProblem(f.Status, f.Verdict.String(), f.Detail, dialect.Instance(r)).Write(w)
}

// Locations returns none: the API's clients present keys where the site's do.
func (*Dialect) Locations() []dialect.Location { return nil }

// Interface guards.
var (
	_ dialect.Dialect       = (*Dialect)(nil)
	_ caddyfile.Unmarshaler = (*Dialect)(nil)
)
