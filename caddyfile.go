package apikeys

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The Caddyfile only fills the exported fields of [App] and [Handler]. What the
// values must be is checked where they are provisioned, so that JSON is held to
// the same; here stands what only a grammar can get wrong.

func init() {
	httpcaddyfile.RegisterGlobalOption(appName, parseApp)
	httpcaddyfile.RegisterDirective("api_keys", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("api_keys", httpcaddyfile.Before, "basic_auth")
}

// subdirectives maps names to their parsers.
type subdirectives[T any] map[string]func(*caddyfile.Dispenser, *T) error

// parse reads a block of subdirectives. In are the words to name the block by;
// those in repeatable may stand more than once.
func (subs subdirectives[T]) parse(d *caddyfile.Dispenser, in, allowed, repeatable string, into *T) error {
	seen := map[string]bool{}
	last := ""
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := subs[name]
		switch {
		case ok:
		case name == "{":
			return d.Errf("%s: %s takes no block; remove what stands between { and }", in, last)
		default:
			return d.Errf("%s: unknown subdirective %q; use one of: %s", in, name, allowed)
		}
		if seen[name] && !strings.Contains(" "+repeatable+" ", " "+name+" ") {
			return d.Errf("%s: %s is given twice; write it once", in, name)
		}
		seen[name], last = true, name
		if err := parse(d, into); err != nil {
			return err
		}
	}
	return nil
}

// parseApp reads the global option. Syntax:
//
//	api_keys {
//	    store sqlite [<path>]
//	    cache_size <bytes>
//	    key_prefix <prefix>
//	    pepper <secret>
//	    recoverable <file>
//	    package <name> {
//	        format token|uuid|alphanumeric <n>
//	        prefix <prefix>
//	        roles <role...>
//	        expires_in <duration>
//	        max_keys <n>
//	        management
//	    }
//	    mail {
//	        smtp <host:port>
//	        tls starttls|implicit|off
//	        username <name>
//	        password <secret>
//	        from <address>
//	        subject <text>
//	        template <file>
//	    }
//	}
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // the option's name
	if existing != nil {
		return nil, d.Err("api_keys: the global option is given twice; write one block")
	}
	if d.NextArg() {
		return nil, d.Errf("api_keys: unexpected %q; the global option takes a block only", d.Val())
	}
	var app App
	err := appSubdirectives.parse(d, "api_keys", "store, cache_size, key_prefix, pepper, recoverable, package, mail", "package", &app)
	if err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: appName, Value: caddyconfig.JSON(&app, nil)}, nil
}

var appSubdirectives = subdirectives[App]{
	"store":       parseStore,
	"cache_size":  parseCacheSize,
	"key_prefix":  parseKeyPrefix,
	"pepper":      func(d *caddyfile.Dispenser, a *App) error { return oneArg(d, "pepper <secret>", &a.Pepper) },
	"recoverable": func(d *caddyfile.Dispenser, a *App) error { return oneArg(d, "recoverable <file>", &a.Recoverable) },
	"package":     parsePackage,
	"mail":        parseMail,
}

func parseStore(d *caddyfile.Dispenser, app *App) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 0 || len(args) > 2:
		return d.Errf("store: got %d arguments; use: store sqlite [<path>]", len(args))
	case args[0] != "sqlite":
		return d.Errf("store %q: this version stores in sqlite only; use: store sqlite [<path>]", args[0])
	}
	app.Store.Engine = args[0]
	if len(args) == 2 {
		app.Store.Path = args[1]
	}
	return nil
}

func parseCacheSize(d *caddyfile.Dispenser, app *App) error {
	var text string
	if err := oneArg(d, "cache_size <bytes>", &text); err != nil {
		return err
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > 1<<50 {
		return d.Errf("cache_size %q: use a number of bytes, such as 64MiB", text)
	}
	app.CacheSize = int64(size)
	return at(d, checkCacheSize(app.CacheSize))
}

func parseKeyPrefix(d *caddyfile.Dispenser, app *App) error {
	if err := oneArg(d, "key_prefix <prefix>", &app.KeyPrefix); err != nil {
		return err
	}
	return at(d, keystore.Config{Prefix: app.KeyPrefix}.Validate())
}

func parsePackage(d *caddyfile.Dispenser, app *App) error {
	var p Package
	if err := oneArg(d, "package <name>", &p.Name); err != nil {
		return err
	}
	if app.declares(p.Name) {
		return d.Errf("package %s: it is declared twice; declare it once", p.Name)
	}
	err := packageSubdirectives.parse(d, "package "+p.Name, "format, prefix, roles, expires_in, max_keys, management", "", &p)
	if err != nil {
		return err
	}
	app.Packages = append(app.Packages, p)
	return at(d, p.domain().Validate())
}

var packageSubdirectives = subdirectives[Package]{
	"format":     parseFormat,
	"prefix":     func(d *caddyfile.Dispenser, p *Package) error { return oneArg(d, "prefix <prefix>", &p.Prefix) },
	"roles":      func(d *caddyfile.Dispenser, p *Package) error { return someArgs(d, "roles <role...>", &p.Roles) },
	"expires_in": func(d *caddyfile.Dispenser, p *Package) error { return duration(d, "expires_in", &p.ExpiresIn) },
	"max_keys":   func(d *caddyfile.Dispenser, p *Package) error { return number(d, "max_keys", &p.MaxKeys) },
	"management": func(d *caddyfile.Dispenser, p *Package) error { return noArgs(d, "management", &p.Management) },
}

func parseFormat(d *caddyfile.Dispenser, p *Package) error {
	const syntax = "use: format token, format uuid or format alphanumeric <length>"
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 || (len(args) == 2) != (args[0] == "alphanumeric") {
		return d.Errf("format %s: %s", strings.Join(args, " "), syntax)
	}
	p.Format = args[0]
	if len(args) == 2 {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return d.Errf("format alphanumeric %q: %s", args[1], syntax)
		}
		p.Length = n
	}
	return nil
}

// parseHandler reads the directive. Syntax:
//
//	api_keys [<matcher>] {
//	    dialect <name> [<base path>] { ... }
//	    from bearer | header <name> | query <name> | cookie <name>
//	    require any | package <name...> | role <name...>
//	    enforce off
//	    anonymous allow
//	    preflight enforce
//	    identity_header <field> <name>
//	    identity_headers off
//	    forward_key
//	    errors <dialect>
//	}
//
// It makes a route of its own. Caddy merges neighbouring routes whose matchers
// are equal, and of a named route ("&(name)") whose directives became one route
// it keeps the first handler only: the check of keys would be lost without a
// word behind a header or rewrite directive. An empty list of matchers matches
// everything, as none does, but is not equal to it.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	matchers, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	values := h.NewRoute(matchers, handler)
	for i := range values {
		if route, ok := values[i].Value.(caddyhttp.Route); ok && route.MatcherSetsRaw == nil {
			route.MatcherSetsRaw = caddyhttp.RawMatcherSets{}
			values[i].Value = route
		}
	}
	return values, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens; see the
// documentation for the syntax.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("api_keys: unexpected %q; after the matcher there is a block only", d.Val())
	}
	return handlerSubdirectives.parse(d, "api_keys",
		"dialect, from, require, enforce, anonymous, preflight, identity_header, identity_headers, forward_key, errors",
		"dialect from require identity_header", h)
}

var handlerSubdirectives = subdirectives[Handler]{
	"dialect": parseDialect,
	"from":    parseFrom,
	"require": parseRequire,
	"enforce": func(d *caddyfile.Dispenser, h *Handler) error { return word(d, "enforce", "off", &h.EnforceOff) },
	"anonymous": func(d *caddyfile.Dispenser, h *Handler) error {
		return word(d, "anonymous", "allow", &h.AnonymousAllow)
	},
	"preflight": func(d *caddyfile.Dispenser, h *Handler) error {
		return word(d, "preflight", "enforce", &h.PreflightEnforce)
	},
	"identity_header": parseIdentityHeader,
	"identity_headers": func(d *caddyfile.Dispenser, h *Handler) error {
		return word(d, "identity_headers", "off", &h.IdentityHeadersOff)
	},
	"forward_key": func(d *caddyfile.Dispenser, h *Handler) error { return noArgs(d, "forward_key", &h.ForwardKey) },
	"errors":      parseErrors,
}

func parseDialect(d *caddyfile.Dispenser, h *Handler) error {
	if !d.NextArg() {
		return d.Errf("dialect: the name is missing; use: dialect <name> [<base path>], with one of: %s", dialectNames())
	}
	name := d.Val()
	if err := knownDialect(name); err != nil {
		return d.Errf("dialect %w", err)
	}
	var m Mount
	if d.NextArg() {
		m.BasePath = d.Val()
		if _, err := cleanBase(m.BasePath); err != nil {
			return d.WrapErr(err)
		}
		d.Prev() // a dialect reads its line from its name on
	}
	module, err := caddyfile.UnmarshalModule(d, dialect.Namespace+"."+name)
	if err != nil {
		return err
	}
	m.DialectRaw = caddyconfig.JSONModuleObject(module, "name", name, nil)
	h.Dialects = append(h.Dialects, m)
	return nil
}

func parseErrors(d *caddyfile.Dispenser, h *Handler) error {
	var name string
	if err := oneArg(d, "errors <dialect>", &name); err != nil {
		return err
	}
	if err := knownDialect(name); err != nil {
		return d.Errf("errors %w", err)
	}
	h.ErrorsRaw = caddyconfig.JSON(map[string]string{"name": name}, nil)
	return nil
}

func parseFrom(d *caddyfile.Dispenser, h *Handler) error {
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return d.Errf("from: got %d arguments; use bearer, header <name>, query <name> or cookie <name>", len(args))
	}
	l := dialect.Location{In: args[0]}
	if len(args) == 2 {
		l.Name = args[1]
	}
	h.From = append(h.From, l)
	if _, err := dialect.NewFinder(h.From); err != nil {
		return d.Errf("from %w", err)
	}
	return nil
}

func parseRequire(d *caddyfile.Dispenser, h *Handler) error {
	const syntax = "use: require any, require package <name...> or require role <name...>"
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("require: the argument is missing; %s", syntax)
	}
	var r Require
	switch names := args[1:]; {
	case args[0] == "any" && len(names) == 0:
		r.Any = true
	case args[0] == "package" && len(names) > 0:
		r.Packages = names
	case args[0] == "role" && len(names) > 0:
		r.Roles = names
	default:
		return d.Errf("require %s: %s", strings.Join(args, " "), syntax)
	}
	h.Require = append(h.Require, r)
	return at(d, r.check())
}

func parseIdentityHeader(d *caddyfile.Dispenser, h *Handler) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Errf("identity_header: got %d arguments; use: identity_header %s <name>", len(args), strings.Join(fieldNames(), "|"))
	}
	if _, ok := h.IdentityHeaders[args[0]]; ok {
		return d.Errf("identity_header %s: it is given twice; write it once", args[0])
	}
	if h.IdentityHeaders == nil {
		h.IdentityHeaders = map[string]string{}
	}
	h.IdentityHeaders[args[0]] = args[1]
	return at(d, checkIdentityHeader(args[0], args[1]))
}

// at adds the place in the Caddyfile to an error of a check that JSON passes
// too.
func at(d *caddyfile.Dispenser, err error) error {
	if err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// oneArg reads the single argument of a subdirective.
func oneArg(d *caddyfile.Dispenser, syntax string, into *string) error {
	name, _, _ := strings.Cut(syntax, " ")
	args := d.RemainingArgs()
	switch {
	case len(args) != 1:
		return d.Errf("%s: got %d arguments; use: %s", name, len(args), syntax)
	case args[0] == "":
		return d.Errf("%s: the argument is empty; use: %s", name, syntax)
	}
	*into = args[0]
	return nil
}

// someArgs reads the arguments of a subdirective that takes one or more.
func someArgs(d *caddyfile.Dispenser, syntax string, into *[]string) error {
	name, _, _ := strings.Cut(syntax, " ")
	if *into = d.RemainingArgs(); len(*into) == 0 {
		return d.Errf("%s: the argument is missing; use: %s", name, syntax)
	}
	return nil
}

// word reads a subdirective that can only say one thing.
func word(d *caddyfile.Dispenser, name, only string, into *bool) error {
	var got string
	if err := oneArg(d, name+" "+only, &got); err != nil {
		return err
	}
	if got != only {
		return d.Errf("%s %q: the only value is %q; leave %s out otherwise", name, got, only, name)
	}
	*into = true
	return nil
}

// noArgs reads a subdirective without arguments.
func noArgs(d *caddyfile.Dispenser, name string, into *bool) error {
	if d.NextArg() {
		return d.Errf("%s: unexpected %q; it takes no argument", name, d.Val())
	}
	*into = true
	return nil
}

func duration(d *caddyfile.Dispenser, name string, into *caddy.Duration) error {
	var text string
	if err := oneArg(d, name+" <duration>", &text); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return d.Errf("%s %q: use a positive duration, such as 12h or 90d", name, text)
	}
	*into = caddy.Duration(parsed)
	return nil
}

func number(d *caddyfile.Dispenser, name string, into *int) error {
	var text string
	if err := oneArg(d, name+" <n>", &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return d.Errf("%s %q: use a number of 1 or more", name, text)
	}
	*into = n
	return nil
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
