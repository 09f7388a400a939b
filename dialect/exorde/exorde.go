// Package exorde is a key-management API with one call: the holder of a key
// replaces it, and gets a UUID.
package exorde

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func init() {
	caddy.RegisterModule(new(Dialect))
}

const name = "exorde"

// Dialect lets the holder of a key replace it.
//
// `PUT user/api-key` below the base path takes the caller's key as a bearer token
// and answers with a new one, a UUID whatever the package of the key says. The
// header X-Exorde-Api-Version may say v1, which is what it means if it is missing.
//
// A credential with as many live keys as it may have gets no further one until an
// older one stops: 429, as for too many calls.
type Dialect struct {
	// How long older keys go on working: 0s, a duration such as 10m, or
	// until_first_use. A client that loses the answer has nothing but its older
	// key, so leave it some time. Default: 0s, older keys stop at once.
	Overlap string `json:"overlap,omitempty"`

	// How often an account may replace its keys, as <n>/<duration>: 1 to 1000 times
	// in any span of 1s to 24h. The count is lost in a reload. Default: 10/1m.
	Rate string `json:"rate,omitempty"`

	// A notice in every answer that this API will be shut down. Default: none.
	Deprecation *Deprecation `json:"deprecation,omitempty"`

	gateway dialect.Gateway
	routes  *dialect.Routes
	finder  *dialect.Finder
	overlap keystore.Overlap
	limiter *dialect.Limiter
	status  status
}

// Deprecation is a notice that the API will be shut down.
type Deprecation struct {
	// When: an RFC 3339 date, such as 2030-02-02, which is its first moment in UTC,
	// or date and time, such as 2030-02-02T12:00:00Z.
	ShutdownDate string `json:"shutdown_date"`
	// What the clients should know, 1 to 1000 characters.
	Message string `json:"message"`
}

// CaddyModule returns the Caddy module information.
func (*Dialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  dialect.Namespace + "." + name,
		New: func() caddy.Module { return new(Dialect) },
	}
}

// Mount checks the options and makes the route.
func (d *Dialect) Mount(g dialect.Gateway) (err error) {
	d.gateway = g
	if err := d.readOptions(); err != nil {
		return fmt.Errorf("dialect %s: %w", name, err)
	}
	if d.finder, err = dialect.NewFinder(d.Locations()); err != nil {
		return err
	}
	d.routes = dialect.NewRoutes(g.Base, d.notAllowed)
	d.routes.Handle("PUT /user/api-key", d.replace)
	return nil
}

// Route returns what answers the request if it is on the API's route.
func (d *Dialect) Route(r *http.Request) http.HandlerFunc { return d.routes.Find(r) }

// Locations is the header Authorization.
func (*Dialect) Locations() []dialect.Location { return []dialect.Location{{In: dialect.InBearer}} }

// Refuse answers with the API's error object; without the store, with nothing.
func (d *Dialect) Refuse(w http.ResponseWriter, r *http.Request, f dialect.Refusal) {
	f.WriteHeaders(w.Header())
	if f.Status == http.StatusServiceUnavailable {
		w.WriteHeader(f.Status)
		return
	}
	d.writeError(w, r, f.Status, f.Detail, f.Grant)
}

// Interface guards.
var (
	_ dialect.Dialect       = (*Dialect)(nil)
	_ caddyfile.Unmarshaler = (*Dialect)(nil)
)
