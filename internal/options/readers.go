package options

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Text reads an option with one argument, which may be any text. Argument says
// what it is, such as "<name>".
func Text(argument string, into *string) Reader {
	return one(argument, "; put a text with spaces in quotes", into)
}

// Word reads an option with one argument, in which a space could not be meant.
func Word(argument string, into *string) Reader { return one(argument, "", into) }

// one reads the single argument. If there are more, the error ends with advice.
// It repeats no argument, which may be a secret.
func one(argument, advice string, into *string) Reader {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		args := d.RemainingArgs()
		switch {
		case len(args) > 1:
			return d.Errf("%s: got %d arguments; use: %s %s%s", name, len(args), name, argument, advice)
		case len(args) == 0:
			return d.Errf("%s: got 0 arguments; use: %s %s", name, name, argument)
		case args[0] == "":
			return d.Errf("%s: the argument is empty; use: %s %s", name, name, argument)
		}
		*into = args[0]
		return nil
	}
}

// List reads an option with one argument or more.
func List(arguments string, into *[]string) Reader {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if *into = d.RemainingArgs(); len(*into) == 0 {
			return d.Errf("%s: the argument is missing; use: %s %s", name, name, arguments)
		}
		return nil
	}
}

// Only reads an option that can say one thing.
func Only(word string, into *bool) Reader {
	return func(d *caddyfile.Dispenser) error {
		name, got := d.Val(), ""
		if err := Word(word, &got)(d); err != nil {
			return err
		}
		if got != word {
			return d.Errf("%s %q: the only value is %q; leave %s out otherwise", name, got, word, name)
		}
		*into = true
		return nil
	}
}

// Flag reads an option without arguments.
func Flag(into *bool) Reader {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if d.NextArg() {
			return d.Errf("%s: unexpected %q; it takes no argument", name, d.Val())
		}
		*into = true
		return nil
	}
}

// Duration reads an option that is a positive duration, such as 10m or 90d.
func Duration(into *caddy.Duration) Reader {
	return func(d *caddyfile.Dispenser) error {
		name, text := d.Val(), ""
		if err := Word("<duration>", &text)(d); err != nil {
			return err
		}
		parsed, err := caddy.ParseDuration(text)
		if err != nil || parsed <= 0 {
			return d.Errf("%s %q: use a positive duration, such as 10m, 12h or 90d", name, text)
		}
		*into = caddy.Duration(parsed)
		return nil
	}
}

// Number reads an option that is a number of 1 or more.
func Number(into *int) Reader {
	return func(d *caddyfile.Dispenser) error {
		name, text := d.Val(), ""
		if err := Word("<n>", &text)(d); err != nil {
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
