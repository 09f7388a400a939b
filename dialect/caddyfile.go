package dialect

import (
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/internal/options"
)

// Option reads one option of a dialect. The current token is its name.
type Option = options.Reader

// ParseOptions reads what a Caddyfile says about a dialect:
//
//	<name> [<base path>] {
//	    <option> ...
//	}
//
// The base path is the gateway's business and passed over here. An option that
// the dialect does not have, or that is given twice, is refused. Every error,
// those of options too, begins with "dialect <name>: ". What is wrong with the
// values of options is told by Mount, so that JSON is held to the same.
func ParseOptions(d *caddyfile.Dispenser, name string, readers map[string]Option) error {
	d.Next()
	d.NextArg()
	if d.NextArg() {
		return d.Errf("dialect %s: unexpected %q; after the name there is a base path only", name, d.Val())
	}
	var all []options.Option
	for _, option := range slices.Sorted(maps.Keys(readers)) {
		all = append(all, options.Option{Name: option, Read: readers[option]})
	}
	return options.Parse(d, "dialect "+name, all)
}

// TextOption reads an option with one argument, which may be any text. Argument
// says what it is, such as "<name>".
func TextOption(argument string, into *string) Option { return options.Text(argument, into) }

// WordOption is TextOption for what has no space in it.
func WordOption(argument string, into *string) Option { return options.Word(argument, into) }

// FlagOption reads an option without arguments.
func FlagOption(into *bool) Option { return options.Flag(into) }

// DurationOption reads an option that is a positive duration, such as 10m or
// 90d.
func DurationOption(into *caddy.Duration) Option { return options.Duration(into) }

// NumberOption reads an option that is a number of 1 or more.
func NumberOption(into *int) Option { return options.Number(into) }
