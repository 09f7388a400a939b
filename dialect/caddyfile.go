package dialect

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Option reads one option of a dialect, from its name on.
type Option = func(*caddyfile.Dispenser) error

// ParseOptions reads what a Caddyfile says about a dialect:
//
//	<name> [<base path>] {
//	    <option> ...
//	}
//
// The base path is the gateway's business and passed over here. An option that
// the dialect does not have, or that is given twice, is refused. What is wrong
// with the values of options is told by Mount, so that JSON is held to the same.
func ParseOptions(d *caddyfile.Dispenser, name string, options map[string]Option) error {
	d.Next()
	d.NextArg()
	if d.NextArg() {
		return d.Errf("dialect %s: unexpected %q; after the name there is a base path only", name, d.Val())
	}
	seen := map[string]bool{}
	last := ""
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		given := d.Val()
		read, ok := options[given]
		switch {
		case !ok && given == "{":
			return d.Errf("dialect %s: %s takes no block; remove what stands between { and }", name, last)
		case !ok && len(options) == 0:
			return d.Errf("dialect %s: unknown option %q; it has no options, remove it", name, given)
		case !ok:
			return d.Errf("dialect %s: unknown option %q; use one of: %s", name, given, optionNames(options))
		case seen[given]:
			return d.Errf("dialect %s: %s is given twice; write it once", name, given)
		}
		seen[given], last = true, given
		if err := read(d); err != nil {
			return err
		}
	}
	return nil
}

func optionNames(options map[string]Option) string {
	return strings.Join(slices.Sorted(maps.Keys(options)), ", ")
}

// TextOption reads an option with one argument. Argument says what it is, such
// as "<name>".
func TextOption(argument string, into *string) Option {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		args := d.RemainingArgs()
		switch {
		case len(args) != 1:
			return d.Errf("%s: got %d arguments; use: %s %s", name, len(args), name, argument)
		case args[0] == "":
			return d.Errf("%s: the argument is empty; use: %s %s", name, name, argument)
		}
		*into = args[0]
		return nil
	}
}

// FlagOption reads an option without arguments.
func FlagOption(into *bool) Option {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if d.NextArg() {
			return d.Errf("%s: unexpected %q; it takes no argument", name, d.Val())
		}
		*into = true
		return nil
	}
}

// DurationOption reads an option that is a positive duration, such as 10m or
// 90d.
func DurationOption(into *caddy.Duration) Option {
	return func(d *caddyfile.Dispenser) error {
		name, text := d.Val(), ""
		if err := TextOption("<duration>", &text)(d); err != nil {
			return err
		}
		parsed, err := caddy.ParseDuration(text)
		if err != nil || parsed <= 0 {
			return d.Errf("%s %q: use a positive duration, such as 10m or 24h", name, text)
		}
		*into = caddy.Duration(parsed)
		return nil
	}
}

// NumberOption reads an option that is a number of 1 or more.
func NumberOption(into *int) Option {
	return func(d *caddyfile.Dispenser) error {
		name, text := d.Val(), ""
		if err := TextOption("<n>", &text)(d); err != nil {
			return err
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return d.Errf("%s %q: use a number of 1 or more", name, text)
		}
		*into = n
		return nil
	}
}
