// Package adyen gives a credential a new key, as clients of the vendor's
// Management API ask for it: the older key goes on working for a day.
package adyen

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func init() {
	caddy.RegisterModule(new(Dialect))
}

// Dialect generates a new key for a credential, in the manner of Adyen's
// Management API. Keys are presented in the header `X-API-Key`:
//
//	POST /companies/{companyId}/apiCredentials/{apiCredentialId}/generateApiKey
//	POST /merchants/{merchantId}/apiCredentials/{apiCredentialId}/generateApiKey
//	POST /me/generateApiKey
//
// The company or merchant is the account to which the credential belongs; the
// last route is for the credential of the presented key. The answer is
// `{"apiKey":"..."}`.
//
// The presented key must have the role of the option role, be of the same
// account, and hold every role of the credential; or it has the role
// `api_keys:operator`. Everything else is one and the same 403, whether or not
// what the path names exists.
//
// A request with an `Idempotency-Key` can be sent again within 24 hours, and is
// answered with the same key.
type Dialect struct {
	// The role that a key needs to generate keys. Default: Management API—API
	// credentials read and write.
	Role string `json:"role,omitempty"`

	// How long older keys go on working: 0s, a duration such as 30m, or
	// until_first_use of the new key. Default: 24h.
	Overlap string `json:"overlap,omitempty"`

	// How long a new key waits before it works, at most 24h and at most the
	// overlap. Default: 0, it works at once.
	ActivationDelay caddy.Duration `json:"activation_delay,omitempty"`

	gateway dialect.Gateway
	finder  *dialect.Finder
	needs   *keystore.Requirement
	overlap keystore.Overlap
	routes  *dialect.Routes
}

const (
	defaultRole    = "Management API—API credentials read and write"
	defaultOverlap = "24h"
	// maxActivationDelay is the longest time that a new key waits.
	maxActivationDelay = 24 * time.Hour
	// keyHeader is where the API's clients present their key.
	keyHeader = "X-API-Key"
)

// CaddyModule returns the Caddy module information.
func (*Dialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  dialect.Namespace + ".adyen",
		New: func() caddy.Module { return new(Dialect) },
	}
}

// UnmarshalCaddyfile reads
//
//	adyen [<base path>] {
//	    role <name>
//	    overlap <duration>|until_first_use
//	    activation_delay <duration>
//	}
func (d *Dialect) UnmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	return dialect.ParseOptions(disp, "adyen", map[string]dialect.Option{
		"role":             dialect.TextOption("<name>", &d.Role),
		"overlap":          dialect.WordOption("<duration>|until_first_use", &d.Overlap),
		"activation_delay": d.parseActivationDelay,
	})
}

// parseActivationDelay takes 0s, too, which says the default out loud.
func (d *Dialect) parseActivationDelay(disp *caddyfile.Dispenser) error {
	var text string
	if err := dialect.WordOption("<duration>", &text)(disp); err != nil {
		return err
	}
	delay, err := caddy.ParseDuration(text)
	if err != nil {
		return disp.Errf("activation_delay %q: use a duration from 0s to 24h, such as 5m", text)
	}
	d.ActivationDelay = caddy.Duration(delay)
	return nil
}

// Mount checks the options and makes the routes.
func (d *Dialect) Mount(g dialect.Gateway) (err error) {
	d.gateway = g
	if err := d.resolveOptions(); err != nil {
		return fmt.Errorf("dialect adyen: %w", err)
	}
	if d.finder, err = dialect.NewFinder(d.Locations()); err != nil {
		return err
	}
	d.routes = dialect.NewRoutes(g.Base, d.notAllowed)
	d.routes.Handle("POST /companies/{companyId}/apiCredentials/{apiCredentialId}/generateApiKey", d.serve(ofAccount("companyId")))
	d.routes.Handle("POST /merchants/{merchantId}/apiCredentials/{apiCredentialId}/generateApiKey", d.serve(ofAccount("merchantId")))
	d.routes.Handle("POST /me/generateApiKey", d.serve(ofCaller))
	return nil
}

// resolveOptions fills in the defaults and refuses what can't be meant.
func (d *Dialect) resolveOptions() (err error) {
	if d.Role == "" {
		d.Role = defaultRole
	}
	if err := keystore.ValidateRole(d.Role); err != nil {
		return fmt.Errorf("role %q: %w", d.Role, err)
	}
	if d.Overlap == "" {
		d.Overlap = defaultOverlap
	}
	if d.overlap, err = dialect.ParseOverlap(d.Overlap); err != nil {
		return err
	}
	d.needs = &keystore.Requirement{Roles: [][]string{{d.Role, keystore.RoleOperator}}, Management: true}
	return d.checkActivationDelay()
}

// checkActivationDelay refuses a delay under which a credential would be without
// a key that works: the older one has stopped before the new one works, or the
// new one ends before it does.
func (d *Dialect) checkActivationDelay() error {
	delay := time.Duration(d.ActivationDelay)
	switch {
	case delay < 0 || delay > maxActivationDelay:
		return fmt.Errorf("activation_delay %s: use a duration from 0s to 24h", delay)
	case d.overlap.UntilFirstUse && delay >= keystore.UnusedLifetime:
		return fmt.Errorf("activation_delay %s: with overlap until_first_use, a new key that is unused after %s expires; "+
			"use a shorter delay", delay, keystore.UnusedLifetime)
	case !d.overlap.UntilFirstUse && delay > d.overlap.For:
		return fmt.Errorf("activation_delay %s: the older key stops after the overlap, which is %s, and no key would work "+
			"until the new one does; use a delay of at most the overlap", delay, d.Overlap)
	}
	for _, p := range d.gateway.Packages {
		if p.ExpiresIn > 0 && p.ExpiresIn <= delay {
			return fmt.Errorf("activation_delay %s: keys of package %s expire after %s, before they would work; "+
				"use a shorter delay", delay, p.Name, p.ExpiresIn)
		}
	}
	return nil
}

// Route returns what answers the request if it is on one of the API's routes.
func (d *Dialect) Route(r *http.Request) http.HandlerFunc { return d.routes.Find(r) }

// Locations returns the one header in which the API's clients present keys.
func (*Dialect) Locations() []dialect.Location {
	return []dialect.Location{{In: dialect.InHeader, Name: keyHeader}}
}

// Interface guards.
var (
	_ dialect.Dialect       = (*Dialect)(nil)
	_ caddyfile.Unmarshaler = (*Dialect)(nil)
)
