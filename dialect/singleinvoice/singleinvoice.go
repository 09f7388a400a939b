// Package singleinvoice is a key-management API in which the holder of a key for
// account functions makes further keys, each of a package that opens other
// routes, with one call.
package singleinvoice

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func init() {
	caddy.RegisterModule(new(Dialect))
}

const name = "single_invoice"

// Dialect lets the holder of an account key make a key of any package.
//
// `POST account/key` below the base path takes a body such as
// `{"package":"Coverage"}` and the caller's key in the header `apikey` or the
// query parameter of that name; other places are not looked at there. It answers
// with the account and its live keys, oldest first. The new one is the last and in
// clear. Older ones are masked, unless the option recoverable of the app keeps
// their texts and the caller could make a key like them: alphanumeric keys of 40 characters or more to their first and last
// 6, token keys to their prefix and id, all others to their last 4.
//
// Each call makes a credential with the roles of its package. A package with a
// role that the caller's key lacks is refused, and so is one that is for
// management, other than the caller's own.
type Dialect struct {
	// The package whose keys open this API. It must be declared, and is one for
	// management from then on: its keys open nothing that does not name it.
	// Default: Account.
	AccountPackage string `json:"account_package,omitempty"`

	// How many live keys an account may have over all packages, from 1 to 1000.
	// Keys sent by e-mail that are not used yet do not count. Default: 50.
	MaxKeys int `json:"max_keys,omitempty"`

	gateway dialect.Gateway
	routes  *dialect.Routes
	finder  *dialect.Finder
	needs   *keystore.Requirement
}

const (
	defaultAccountPackage = "Account"
	defaultMaxKeys        = 50
	mostMaxKeys           = 1000
)

// CaddyModule returns the Caddy module information.
func (*Dialect) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  dialect.Namespace + "." + name,
		New: func() caddy.Module { return new(Dialect) },
	}
}

// UnmarshalCaddyfile reads
//
//	single_invoice [<base path>] {
//	    account_package <name>
//	    max_keys <n>
//	}
func (d *Dialect) UnmarshalCaddyfile(tokens *caddyfile.Dispenser) error {
	return dialect.ParseOptions(tokens, name, map[string]dialect.Option{
		"account_package": dialect.WordOption("<name>", &d.AccountPackage),
		"max_keys":        dialect.NumberOption(&d.MaxKeys),
	})
}

// Mount checks the options and makes the route.
func (d *Dialect) Mount(g dialect.Gateway) (err error) {
	d.gateway = g
	if err := d.resolveOptions(); err != nil {
		return fmt.Errorf("dialect %s: %w", name, err)
	}
	if d.finder, err = dialect.NewFinder(d.Locations()); err != nil || g.ErrorsOnly {
		return err
	}
	g.ReservePackage(d.AccountPackage)
	d.needs = &keystore.Requirement{Packages: [][]string{{d.AccountPackage}}, Management: true}
	d.routes = dialect.NewRoutes(g.Base, notAllowed)
	d.routes.Handle("POST /account/key", d.issue)
	return nil
}

// resolveOptions fills in the defaults and refuses what can't be meant. Without
// routes, the default package need not be declared.
func (d *Dialect) resolveOptions() error {
	needed := d.AccountPackage != "" || !d.gateway.ErrorsOnly
	if d.AccountPackage == "" {
		d.AccountPackage = defaultAccountPackage
	}
	if d.MaxKeys == 0 {
		d.MaxKeys = defaultMaxKeys
	}
	if d.MaxKeys < 1 || d.MaxKeys > mostMaxKeys {
		return fmt.Errorf("max_keys %d: use 1 to %d", d.MaxKeys, mostMaxKeys)
	}
	if !needed {
		return nil
	}
	if err := d.checkPackage(d.gateway.Packages); err != nil {
		return fmt.Errorf("account_package %q: %w", d.AccountPackage, err)
	}
	return nil
}

// checkPackage refuses an account package that is not declared.
func (d *Dialect) checkPackage(declared []keystore.Package) error {
	names := make([]string, len(declared))
	for i, p := range declared {
		names[i] = p.Name
	}
	switch {
	case slices.Contains(names, d.AccountPackage):
		return nil
	case len(names) == 0:
		return fmt.Errorf("it is not declared, and none is; declare it in the global option: api_keys { package %s }", d.AccountPackage)
	}
	return fmt.Errorf("it is not declared; declare it in the global option, or use one of: %s", strings.Join(names, ", "))
}

// Route returns what answers the request if it is on the API's route.
func (d *Dialect) Route(r *http.Request) http.HandlerFunc { return d.routes.Find(r) }

// Locations are the header and the query parameter apikey.
func (*Dialect) Locations() []dialect.Location {
	return []dialect.Location{{In: dialect.InHeader, Name: "apikey"}, {In: dialect.InQuery, Name: "apikey"}}
}

// Refuse answers with the API's message for the status. The API has no 403: what
// the key does not open is denied with 401, as a key that is none.
func (d *Dialect) Refuse(w http.ResponseWriter, _ *http.Request, f dialect.Refusal) {
	refuse(w, f, d.gateway.Site)
}

// Interface guards.
var (
	_ dialect.Dialect       = (*Dialect)(nil)
	_ caddyfile.Unmarshaler = (*Dialect)(nil)
)
