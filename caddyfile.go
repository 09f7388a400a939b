package apikeys

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/internal/options"
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

// parseApp reads the global option. Syntax:
//
//	api_keys {
//	    store sqlite [<path>]
//	    store postgres <dsn> {
//	        lease <duration>
//	        stale_if_unavailable <duration>
//	    }
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
	if err := options.Parse(d, "", app.options()); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: appName, Value: caddyconfig.JSON(&app, nil)}, nil
}

func (app *App) options() []options.Option {
	return []options.Option{
		{Name: "store", Read: app.Store.parse},
		{Name: "cache_size", Read: app.parseCacheSize},
		{Name: "key_prefix", Read: app.parseKeyPrefix},
		{Name: "pepper", Read: options.Text("<secret>", &app.Pepper)},
		{Name: "recoverable", Read: options.Text("<file>", &app.Recoverable)},
		{Name: "package", Read: app.parsePackage, Repeatable: true},
		{Name: "mail", Read: app.parseMail},
	}
}

func (app *App) parseCacheSize(d *caddyfile.Dispenser) error {
	var text string
	if err := options.Word("<bytes>", &text)(d); err != nil {
		return err
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > 1<<50 {
		return d.Errf("cache_size %q: use a number of bytes, such as 64MiB", text)
	}
	app.CacheSize = int64(size)
	return at(d, checkCacheSize(app.CacheSize))
}

func (app *App) parseKeyPrefix(d *caddyfile.Dispenser) error {
	if err := options.Word("<prefix>", &app.KeyPrefix)(d); err != nil {
		return err
	}
	return at(d, keystore.Config{Prefix: app.KeyPrefix}.Validate())
}

func (app *App) parsePackage(d *caddyfile.Dispenser) error {
	var p Package
	if err := options.Word("<name>", &p.Name)(d); err != nil {
		return err
	}
	if app.declares(p.Name) {
		return d.Errf("package %s: it is declared twice; declare it once", p.Name)
	}
	if err := options.Parse(d, "package "+p.Name, p.options()); err != nil {
		return err
	}
	app.Packages = append(app.Packages, p)
	return at(d, p.domain().Validate())
}

func (p *Package) options() []options.Option {
	return []options.Option{
		{Name: "format", Read: p.parseFormat},
		{Name: "prefix", Read: options.Word("<prefix>", &p.Prefix)},
		{Name: "roles", Read: options.List("<role...>", &p.Roles)},
		{Name: "expires_in", Read: options.Duration(&p.ExpiresIn)},
		{Name: "max_keys", Read: options.Number(&p.MaxKeys)},
		{Name: "management", Read: options.Flag(&p.Management)},
	}
}

func (p *Package) parseFormat(d *caddyfile.Dispenser) error {
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

// parseDirective reads the directive. Syntax:
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
	return options.Parse(d, "", h.options())
}

func (h *Handler) options() []options.Option {
	return []options.Option{
		{Name: "dialect", Read: h.parseDialect, Repeatable: true},
		{Name: "from", Read: h.parseFrom, Repeatable: true},
		{Name: "require", Read: h.parseRequire, Repeatable: true},
		{Name: "enforce", Read: options.Only("off", &h.EnforceOff)},
		{Name: "anonymous", Read: options.Only("allow", &h.AnonymousAllow)},
		{Name: "preflight", Read: options.Only("enforce", &h.PreflightEnforce)},
		{Name: "identity_header", Read: h.parseIdentityHeader, Repeatable: true},
		{Name: "identity_headers", Read: options.Only("off", &h.IdentityHeadersOff)},
		{Name: "forward_key", Read: options.Flag(&h.ForwardKey)},
		{Name: "errors", Read: h.parseErrors},
	}
}

func (h *Handler) parseDialect(d *caddyfile.Dispenser) error {
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

func (h *Handler) parseErrors(d *caddyfile.Dispenser) error {
	var name string
	if err := options.Word("<dialect>", &name)(d); err != nil {
		return err
	}
	if err := knownDialect(name); err != nil {
		return d.Errf("errors %w", err)
	}
	h.ErrorsRaw = caddyconfig.JSON(map[string]string{"name": name}, nil)
	return nil
}

func (h *Handler) parseFrom(d *caddyfile.Dispenser) error {
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

func (h *Handler) parseRequire(d *caddyfile.Dispenser) error {
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

func (h *Handler) parseIdentityHeader(d *caddyfile.Dispenser) error {
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

var _ caddyfile.Unmarshaler = (*Handler)(nil)
