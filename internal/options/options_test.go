package options

import (
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// block is what the tests read into.
type block struct {
	roles []string
	off   bool
	names []string
}

func (b *block) options() []Option {
	return []Option{
		{Name: "roles", Read: List("<role...>", &b.roles)},
		{Name: "enforce", Read: Only("off", &b.off)},
		{Name: "name", Read: b.readName, Repeatable: true},
	}
}

func (b *block) readName(d *caddyfile.Dispenser) error {
	var name string
	err := Word("<name>", &name)(d)
	b.names = append(b.names, name)
	return err
}

func read(of, lines string) (b block, err error) {
	d := caddyfile.NewTestDispenser("keys {\n" + lines + "\n}")
	d.Next()
	return b, Parse(d, of, b.options())
}

func TestABlockIsRead(t *testing.T) {
	d := caddyfile.NewTestDispenser("keys {\nname a\nroles r \"s t\"\nname b\nenforce off\n}")
	d.Next()
	var b block
	if err := Parse(d, "", b.options()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.names, []string{"a", "b"}) || !slices.Equal(b.roles, []string{"r", "s t"}) || !b.off {
		t.Errorf("it is read as %+v", b)
	}
}

func TestWrongBlocksAreNamed(t *testing.T) {
	for _, c := range []struct{ name, of, lines, says string }{
		{"what the options are of", "package A", "enforce on", `package A: enforce "on": the only value is "off"; leave enforce out otherwise, at `},
		{"nothing where Caddy says it", "", "enforce on", `enforce "on": the only value is "off"`},
		{"unknown, in the order given", "mail", "smpt a", `mail: unknown option "smpt"; use one of: roles, enforce, name, at `},
		{"twice", "mail", "enforce off\nenforce off", "mail: enforce is given twice; write it once, at "},
		{"a block", "mail", "enforce off {\n}", "mail: enforce takes no block; remove what stands between { and }, at "},
		{"an empty list", "mail", "roles", "mail: roles: the argument is missing; use: roles <role...>, at "},
		{"a word that is missing", "mail", "enforce", "mail: enforce: got 0 arguments; use: enforce off, at "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := read(c.of, c.lines); err == nil || !strings.HasPrefix(err.Error(), c.says) {
				t.Errorf("got  %v\nwant %s", err, c.says)
			}
		})
	}
}

// TestNoArgumentIsRepeatedThatMayBeSecret where there are too many of them.
func TestNoArgumentIsRepeatedThatMayBeSecret(t *testing.T) {
	d := caddyfile.NewTestDispenser("pepper paprika and chili")
	d.Next()
	var pepper string
	err := Text("<secret>", &pepper)(d)
	const want = "pepper: got 3 arguments; use: pepper <secret>; put a text with spaces in quotes, at "
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "paprika") || strings.Contains(err.Error(), "chili") {
		t.Errorf("it says %v", err)
	}
}
