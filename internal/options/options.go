// Package options reads options in Caddyfiles: of the directive, of the global
// option, and of every dialect. It is the one place that knows how a block of
// them looks.
//
// It refuses what only a grammar can get wrong. What the values must be is
// checked where they are provisioned, so that JSON is held to the same.
package options

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Reader reads one option. The current token is its name.
type Reader = func(*caddyfile.Dispenser) error

// Option is what a block may say.
type Option struct {
	Name string
	Read Reader
	// Repeatable says that the option may be given more than once.
	Repeatable bool
}

// Parse reads a block of options; without one it reads nothing. Every error
// begins with what the options are of, such as "package Coverage", unless that is
// empty: Caddy itself names a directive and a global option. An error lists the
// options in the order given.
func Parse(d *caddyfile.Dispenser, of string, options []Option) error {
	err := parse(d, options)
	if err != nil && of != "" {
		return fmt.Errorf("%s: %w", of, err)
	}
	return err
}

func parse(d *caddyfile.Dispenser, options []Option) error {
	seen := map[string]bool{}
	last := ""
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		option, ok := find(options, name)
		switch {
		case !ok && name == "{":
			return d.Errf("%s takes no block; remove what stands between { and }", last)
		case !ok && len(options) == 0:
			return d.Errf("unknown option %q; it has no options, remove it", name)
		case !ok:
			return d.Errf("unknown option %q; use one of: %s", name, list(options))
		case seen[name] && !option.Repeatable:
			return d.Errf("%s is given twice; write it once", name)
		}
		seen[name], last = true, name
		if err := option.Read(d); err != nil {
			return err
		}
	}
	return nil
}

func find(options []Option, name string) (Option, bool) {
	for _, o := range options {
		if o.Name == name {
			return o, true
		}
	}
	return Option{}, false
}

func list(options []Option) string {
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = o.Name
	}
	return strings.Join(names, ", ")
}
