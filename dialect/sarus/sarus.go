// Package sarus sends an account a new key by e-mail: one GET with the address
// of the account, no key and no session.
//
// The caller is a stranger. So a request breaks no key that works, and its
// answer does not tell whether the address is known; see keystore's outbox for
// what the mail does to the keys.
package sarus

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

func init() {
	caddy.RegisterModule(new(Dialect))
}

// path is the one route, below the base path.
const path = "/RequestAPIKey"

// Dialect sends an account a new key by e-mail. GET
// `RequestAPIKey?Email=<address>` below the base path needs no key. If the
// address is that of an account, the account gets a mail with a new key. Its
// older key goes on working until the new one is first used; a key that nobody
// uses expires after 24 hours, or when the next mail is sent. The answer is the
// same whether the address is known or not.
//
// The app `api_keys` must be told how to send mail.
type Dialect struct {
	// The package of the credential whose key is sent: the account's oldest one
	// that is active and has no role beginning with `api_keys:`. If the account
	// has none, one is created. Required once packages are declared.
	Package string `json:"package,omitempty"`

	// Answer for an account that is deactivated as for any address. Default: 403,
	// which tells that there is such an account.
	Uniform bool `json:"uniform,omitempty"`

	// How long an address waits from one request to the next, at least 1s.
	// Default: 3m.
	Throttle caddy.Duration `json:"throttle,omitempty"`

	// How many requests a client address may make in the time of throttle, for
	// any addresses, from 1 to 1000000. The addresses of an IPv6 network of 64
	// bits count as one. Default: 20.
	ClientLimit int `json:"client_limit,omitempty"`

	gateway dialect.Gateway
	routes  *dialect.Routes
	limiter *dialect.Limiter
}

// CaddyModule returns the Caddy module information.
func (*Dialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  dialect.Namespace + ".sarus",
		New: func() caddy.Module { return new(Dialect) },
	}
}

// UnmarshalCaddyfile reads
//
//	sarus [<base path>] {
//	    package <name>
//	    uniform
//	    throttle <duration>
//	    client_limit <n>
//	}
func (d *Dialect) UnmarshalCaddyfile(tokens *caddyfile.Dispenser) error {
	return dialect.ParseOptions(tokens, "sarus", map[string]dialect.Option{
		"package":      dialect.WordOption("<name>", &d.Package),
		"uniform":      dialect.FlagOption(&d.Uniform),
		"throttle":     dialect.DurationOption(&d.Throttle),
		"client_limit": dialect.NumberOption(&d.ClientLimit),
	})
}

// Mount checks the options and makes the route.
func (d *Dialect) Mount(g dialect.Gateway) error {
	d.gateway = g
	if err := d.check(); err != nil {
		return fmt.Errorf("dialect sarus: %w", err)
	}
	if g.ErrorsOnly {
		return nil
	}
	d.limiter = dialect.NewLimiter(d.ClientLimit, time.Duration(d.Throttle))
	d.routes = dialect.NewRoutes(g.Base, notAllowed)
	d.routes.HandleOnly(http.MethodGet+" "+path, d.requestKey)
	return nil
}

// Route returns what answers the request if it is for the route.
func (d *Dialect) Route(r *http.Request) http.HandlerFunc { return d.routes.Find(r) }

// Refuse answers with the status and the sentence of the refusal.
func (*Dialect) Refuse(w http.ResponseWriter, r *http.Request, f dialect.Refusal) {
	f.WriteHeaders(w.Header())
	fail(w, r, f.Status, f.Detail)
}

// Locations returns none: no key is presented here.
func (*Dialect) Locations() []dialect.Location { return nil }

// Interface guards.
var (
	_ dialect.Dialect       = (*Dialect)(nil)
	_ caddyfile.Unmarshaler = (*Dialect)(nil)
)
