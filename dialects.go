package apikeys

// How a handler gets its dialects while it is provisioned: which modules, at which
// places, and which of them refuses.

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// loadDialects loads and mounts the dialects, and picks the one that refuses.
func (h *Handler) loadDialects(ctx caddy.Context) error {
	refuser, err := h.errorsName()
	if err != nil {
		return fmt.Errorf("api_keys: errors %w", err)
	}
	byName, err := h.mountAll(ctx)
	if err != nil {
		return err
	}
	// A mounted dialect refuses with the options it has there.
	if h.refuser = byName[refuser]; h.refuser != nil {
		if hasOptions(h.ErrorsRaw) {
			return fmt.Errorf("api_keys: errors %s: this dialect is mounted here; give it its options there only", refuser)
		}
		return nil
	}
	module, err := h.loadRefuser(ctx)
	if err != nil {
		return fmt.Errorf("api_keys: errors: %w", err)
	}
	h.refuser, err = h.connect(module, dialect.Gateway{ErrorsOnly: true})
	return err
}

// mountAll returns the mounted dialects by name, the first of each.
func (h *Handler) mountAll(ctx caddy.Context) (map[string]dialect.Dialect, error) {
	byName, places := map[string]dialect.Dialect{}, map[string]bool{}
	for i := range h.Dialects {
		m := &h.Dialects[i]
		name, base, err := m.place()
		if err != nil {
			return nil, fmt.Errorf("api_keys: %w", err)
		}
		place := name + " " + base + "/"
		if places[place] {
			return nil, fmt.Errorf("api_keys: dialect %s: it is mounted twice; write it once, or give it another base path", place)
		}
		places[place] = true
		d, err := h.mount(ctx, m, base)
		if err != nil {
			return nil, err
		}
		h.dialects = append(h.dialects, d)
		if byName[name] == nil {
			byName[name] = d
		}
	}
	return byName, nil
}

// hasOptions reports whether a dialect's configuration says more than its name.
func hasOptions(raw json.RawMessage) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(raw, &members) == nil && len(members) > 1
}

// defaultRefuser is the dialect in whose manner requests are refused.
const defaultRefuser = "rest"

func (h *Handler) errorsName() (string, error) {
	if h.ErrorsRaw == nil {
		return defaultRefuser, nil
	}
	return nameIn(h.ErrorsRaw)
}

// place is which dialect is mounted, and below which base path.
func (m *Mount) place() (name, base string, err error) {
	if name, err = nameIn(m.DialectRaw); err != nil {
		return "", "", fmt.Errorf("dialect %w", err)
	}
	base, err = cleanBase(m.BasePath)
	return name, base, err
}

// nameIn is the name of the dialect that a configuration configures.
func nameIn(raw json.RawMessage) (string, error) {
	var named struct {
		Name string `json:"name"`
	}
	if raw != nil {
		if err := json.Unmarshal(raw, &named); err != nil {
			return "", fmt.Errorf(`%s: use {"name": "<dialect>"}`, raw)
		}
	}
	return named.Name, knownDialect(named.Name)
}

func knownDialect(name string) error {
	if _, err := caddy.GetModule(dialect.Namespace + "." + name); err != nil {
		return fmt.Errorf("%q: there is no such dialect; use one of: %s", name, dialectNames())
	}
	return nil
}

func dialectNames() string {
	var names []string
	for _, m := range caddy.GetModules(dialect.Namespace) {
		names = append(names, m.ID.Name())
	}
	return strings.Join(names, ", ")
}

func (h *Handler) loadRefuser(ctx caddy.Context) (any, error) {
	if h.ErrorsRaw == nil {
		return ctx.LoadModuleByID(dialect.Namespace+"."+defaultRefuser, nil)
	}
	return ctx.LoadModule(h, "ErrorsRaw")
}

func (h *Handler) mount(ctx caddy.Context, m *Mount, base string) (dialect.Dialect, error) {
	val, err := ctx.LoadModule(m, "DialectRaw")
	if err != nil {
		return nil, fmt.Errorf("api_keys: loading dialect: %w", err)
	}
	return h.connect(val, dialect.Gateway{Base: base})
}

// connect gives a dialect what it works on, beside its place.
func (h *Handler) connect(module any, g dialect.Gateway) (dialect.Dialect, error) {
	d, ok := module.(dialect.Dialect)
	if !ok {
		return nil, fmt.Errorf("api_keys: module %T is no dialect", module)
	}
	redactLocations(d.Locations())
	g.Packages, g.ReservePackage, g.Mails = h.app.config.Packages, h.app.reservePackage, h.app.mails()
	g.Site, g.Keyring, g.Logger, g.Judged = h.finder, h.app.Keyring, h.logger, judged
	if err := d.Mount(g); err != nil {
		return nil, fmt.Errorf("api_keys: %w", err)
	}
	return d, nil
}

// cleanBase checks a base path and drops its trailing slash. A path that is not
// its own escaped form would never be met: routes are compared as they are sent.
func cleanBase(given string) (string, error) {
	if given == "" || given == "/" {
		return "", nil
	}
	base := strings.TrimSuffix(given, "/")
	escaped := (&url.URL{Path: base}).EscapedPath()
	if base == "" || base == "/" || base[0] != '/' || path.Clean(base) != base || escaped != base || strings.ContainsAny(base, "*;") {
		return "", fmt.Errorf("dialect base path %q: use a clean path that begins with '/', such as /keys-api, "+
			"of letters, digits and '-', '.', '_', '~' between single slashes", given)
	}
	return base, nil
}

// reservePackage makes a declared package one for management. It is called while
// handlers are provisioned, before the store is opened.
func (app *App) reservePackage(name string) {
	for i := range app.config.Packages {
		if app.config.Packages[i].Name == name {
			app.config.Packages[i].Management = true
		}
	}
}
