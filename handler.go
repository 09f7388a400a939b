package apikeys

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler demands a valid API key of every request, tells the upstream who
// called, and answers the key-management routes of the dialects mounted in it.
//
// A request that is let through reaches the next handler without its key, with
// identity headers, and with these placeholders:
//
// Placeholder | Description
// ------------|-------------
// `{http.auth.user.id}` | The id of the account
// `{http.auth.user.account_id}` | The id of the account
// `{http.auth.user.credential_id}` | The id of the credential
// `{http.auth.user.key_id}` | The id of the key
// `{http.auth.user.package}` | The package of the credential
// `{http.auth.user.roles}` | The roles of the credential, joined with commas
// `{http.auth.user.email}` | The e-mail address of the account
// `{http.auth.user.number}` | The number of the account
//
// A request that is not let through is answered with a problem document
// (RFC 9457), or in the manner of the dialect named by errors.
type Handler struct {
	// The key-management APIs to answer on this route.
	Dialects []Mount `json:"dialects,omitempty"`

	// Where clients present their key. Default: bearer, and header X-API-Key.
	From []dialect.Location `json:"from,omitempty"`

	// What a key must be, beside valid. All entries must hold. Required once
	// packages are declared.
	Require []Require `json:"require,omitempty"`

	// Answer management routes only, and let all other requests through without
	// a key.
	EnforceOff bool `json:"enforce_off,omitempty"`

	// Let requests that present no key through, without identity.
	AnonymousAllow bool `json:"anonymous_allow,omitempty"`

	// Demand a key of CORS preflight requests too. Browsers never send one.
	PreflightEnforce bool `json:"preflight_enforce,omitempty"`

	// The names of the request headers that tell the upstream who called, by
	// what they hold: account_id, credential_id, key_id, package, roles.
	// Default: X-Account-Id, X-Credential-Id, X-Key-Id, X-Key-Package,
	// X-Key-Roles. Headers of these names that a client sends are deleted.
	IdentityHeaders map[string]string `json:"identity_headers,omitempty"`

	// Send no identity headers. Those a client sends are deleted all the same.
	IdentityHeadersOff bool `json:"identity_headers_off,omitempty"`

	// Leave the key in requests that are let through.
	ForwardKey bool `json:"forward_key,omitempty"`

	// The dialect in whose manner requests are refused. Default: rest, which
	// answers with problem documents.
	ErrorsRaw json.RawMessage `json:"errors,omitempty" caddy:"namespace=http.api_keys.dialects inline_key=name"`

	app         *App
	logger      *zap.Logger
	finder      *dialect.Finder
	dialects    []dialect.Dialect
	refuser     dialect.Dialect
	requirement keystore.Requirement
	identity    identity
}

// Mount is a dialect and the place of its routes.
type Mount struct {
	// The path below which the routes are, such as /keys-api. Default: the root
	// of the site.
	BasePath string `json:"base_path,omitempty"`

	// The dialect.
	DialectRaw json.RawMessage `json:"dialect,omitempty" caddy:"namespace=http.api_keys.dialects inline_key=name"`
}

// Require is one demand on a key. Exactly one of its fields is set.
type Require struct {
	// Nothing more than that the key is valid and of no management package.
	Any bool `json:"any,omitempty"`
	// The key must be of one of these packages.
	Packages []string `json:"packages,omitempty"`
	// The key must have one of these roles.
	Roles []string `json:"roles,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.api_keys",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision checks the configuration and mounts the dialects.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.App(appName)
	if err != nil {
		return err
	}
	h.app = app.(*App)
	h.logger = ctx.Logger()
	if len(h.From) == 0 {
		h.From = dialect.DefaultLocations()
	}
	if h.finder, err = dialect.NewFinder(h.From); err != nil {
		return fmt.Errorf("api_keys: from %w", err)
	}
	if h.identity, err = newIdentity(h.IdentityHeaders, h.IdentityHeadersOff, h.finder); err != nil {
		return fmt.Errorf("api_keys: %w", err)
	}
	if !h.ForwardKey {
		h.identity.keys = h.finder.FieldNames()
	}
	if h.requirement, err = h.resolveRequire(); err != nil {
		return fmt.Errorf("api_keys: %w", err)
	}
	redactLocations(h.From)
	return h.loadDialects(ctx)
}

// redactLocations keeps the locations out of logs, for as long as the process
// runs.
func redactLocations(locations []dialect.Location) {
	for _, l := range locations {
		switch l.In {
		case dialect.InHeader:
			redactHeader(l.Name)
		case dialect.InQuery:
			redactQuery(l.Name)
		case dialect.InCookie:
			redactCookie(l.Name)
		}
	}
}

// resolveRequire turns the demands into what the keyring judges by.
func (h *Handler) resolveRequire() (req keystore.Requirement, err error) {
	switch enforces := !h.EnforceOff; {
	case !enforces && (len(h.Require) > 0 || h.AnonymousAllow || h.PreflightEnforce):
		return req, fmt.Errorf("enforce off: remove it, or remove require, anonymous and preflight, which enforce")
	case enforces && len(h.Require) == 0 && len(h.app.Packages) > 0:
		return req, fmt.Errorf("require is missing: packages are declared, so say which of them open this route: "+
			"require package <name...> (declared: %s), require role <name...> or require any", h.app.declared())
	}
	for _, r := range h.Require {
		if err := r.check(); err != nil {
			return req, err
		}
		if err := h.checkRequire(r); err != nil {
			return req, err
		}
		if len(r.Packages) > 0 {
			req.Packages = append(req.Packages, r.Packages)
		}
		if len(r.Roles) > 0 {
			req.Roles = append(req.Roles, r.Roles)
		}
	}
	return req, nil
}

func (h *Handler) checkRequire(r Require) error {
	if r.Any && len(h.Require) > 1 {
		return fmt.Errorf("require any: it can't be combined with other require lines; remove it or them")
	}
	for _, name := range r.Packages {
		switch {
		case len(h.app.Packages) == 0:
			return fmt.Errorf("require package %q: it is not declared, and none is; declare it in the global option: api_keys { package %s }", name, name)
		case !h.app.declares(name):
			return fmt.Errorf("require package %q: it is not declared; declared: %s", name, h.app.declared())
		}
	}
	return nil
}

// check reports what is wrong with a demand, whatever is declared.
func (r Require) check() error {
	set := 0
	for _, is := range []bool{r.Any, len(r.Packages) > 0, len(r.Roles) > 0} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("require: one entry says one of any, package <name...> and role <name...>, but this one says %d; write one entry for each", set)
	}
	for _, role := range r.Roles {
		if err := keystore.ValidateRole(role); err != nil {
			return fmt.Errorf("require role %q: %w", role, err)
		}
	}
	return nil
}

// ServeHTTP answers a management route, or enforces.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	for _, d := range h.dialects {
		if serve := d.Route(r); serve != nil {
			serve(w, r)
			return nil
		}
	}
	return h.enforce(w, r, next)
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
