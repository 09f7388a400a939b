// Package dialect is the wire: what a key-management API needs in order to be
// spoken by the gateway, and what all of them share. Each API is a package
// below this one and a Caddy module in the namespace [Namespace]; it imports
// this package and keystore, and neither another dialect nor the gateway.
package dialect

import (
	"context"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Namespace is where dialects are registered as Caddy modules.
const Namespace = "http.api_keys.dialects"

// Dialect is one key-management API, spoken as its clients expect: paths,
// parameters, envelopes, status codes. Mount is called once, while the
// configuration is provisioned; the other methods concurrently, after it.
//
// To be named in a Caddyfile, a dialect is a caddyfile.Unmarshaler too. Its
// tokens begin with its name and, if there is one, the base path, which the
// gateway reads; its own options are the block that follows.
type Dialect interface {
	// Mount gives the dialect its place and what it works on. It does no I/O:
	// the store may not be open yet.
	Mount(Gateway) error

	// Route returns what answers the request if it is on one of the dialect's
	// routes, whatever its method, and nil if the path is not the dialect's. It
	// runs for every request of the site, and should not allocate.
	Route(*http.Request) http.HandlerFunc

	// Refuse answers a request that the gateway does not let through, on the
	// dialect's routes or, with the subdirective "errors", on proxied ones. It
	// sends the headers of the refusal; the body is the API's own.
	Refuse(http.ResponseWriter, *http.Request, Refusal)

	// Locations are where the API's clients present keys on its own routes,
	// beside those of the site. They are kept out of logs.
	Locations() []Location
}

// Gateway is what a mounted dialect works on.
type Gateway struct {
	// Base is the path below which the dialect's routes are: empty, or
	// beginning and not ending with a slash.
	Base string
	// ErrorsOnly says that the dialect is there to refuse only: Route is not
	// asked, ReservePackage is not called, and what only the routes need, such as
	// mail or a declared package, may be missing. Options that are given are
	// checked as if the dialect were mounted; none must be given.
	ErrorsOnly bool
	// Packages are the declared packages, empty if none are.
	Packages []keystore.Package
	// ReservePackage makes a declared package one for management: its keys open
	// only what names it. It is called in Mount, by a dialect with routes.
	ReservePackage func(name string)
	// Mails says that keys can be sent by e-mail.
	Mails bool
	// Site finds keys where the site's clients present them.
	Site *Finder
	// Keyring opens the store on first use. An error means that it is not to be
	// had now; it is for the log.
	Keyring func(context.Context) (*keystore.Keyring, error)
	// Logger is the handler's.
	Logger *zap.Logger
	// Judged, if set, is told of each verdict on a caller, for metrics and the
	// access log. The grant is nil unless the key is known.
	Judged func(*http.Request, *keystore.Grant, keystore.Verdict)
}

// Authenticate judges the key that a request to a management route presents,
// which is a use of the key. With any verdict but OK the caller refuses; the
// cause of a verdict that the store could not give is logged here.
func (g Gateway) Authenticate(r *http.Request, from *Finder, needs *keystore.Requirement) (*keystore.Grant, keystore.Verdict) {
	grant, verdict, err := g.judge(r, from, needs)
	if err != nil {
		g.Logger.Error("the store could not give a verdict", zap.Error(err))
		grant, verdict = nil, keystore.StoreUnavailable
	}
	if g.Judged != nil {
		g.Judged(r, grant, verdict)
	}
	return grant, verdict
}

func (g Gateway) judge(r *http.Request, from *Finder, needs *keystore.Requirement) (*keystore.Grant, keystore.Verdict, error) {
	text, verdict := from.Find(r)
	if verdict != keystore.OK {
		return nil, verdict, nil
	}
	kr, err := g.Keyring(r.Context())
	if err != nil {
		return nil, 0, err
	}
	return kr.Accept(r.Context(), text, keystore.Request{Requirement: needs, ClientIP: ClientIP(r)})
}

// ClientIP is the address of the client as Caddy determined it, with the
// trusted proxies of the server's configuration.
func ClientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}
