package dialect

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// soap is an option of each kind.
type soap struct {
	text     string
	word     string
	flag     bool
	duration caddy.Duration
	number   int
}

func parse(input string) (o soap, err error) {
	err = ParseOptions(caddyfile.NewTestDispenser(input), "soap", map[string]Option{
		"text":     TextOption("<name>", &o.text),
		"word":     WordOption("<id>", &o.word),
		"flag":     FlagOption(&o.flag),
		"duration": DurationOption(&o.duration),
		"number":   NumberOption(&o.number),
	})
	return o, err
}

func TestOptionsAreRead(t *testing.T) {
	all := soap{"a b", "c", true, caddy.Duration(36 * time.Hour), 7}
	for input, want := range map[string]soap{
		"soap":         {},
		"soap /base":   {},
		"soap {\n}":    {},
		"soap /b {\n}": {},
		"soap /b {\n\tnumber 7\n\tduration 1.5d\n\tflag\n\tword c\n\ttext \"a b\"\n}": all,
		"soap {\n\ttext \"a b\"\n\tword c\n\tflag\n\tduration 36h\n\tnumber 7\n}":     all,
	} {
		if got, err := parse(input); err != nil || got != want {
			t.Errorf("%q is read as %+v, %v", input, got, err)
		}
	}
}

// TestWrongOptionsAreNamed, with what is wrong and what to write.
func TestWrongOptionsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name, input string
		says        []string
	}{
		{"two base paths", "soap /a /b", []string{"dialect soap", `"/b"`, "base path only"}},
		{"unknown", "soap {\n\tsize 1\n}", []string{"dialect soap", `"size"`, "use one of: duration, flag, number, text, word"}},
		{"upper case", "soap {\n\tFLAG\n}", []string{`"FLAG"`, "use one of"}},
		{"twice", "soap {\n\tflag\n\tnumber 1\n\tflag\n}", []string{"dialect soap", "flag is given twice", "write it once"}},
		{"a block", "soap {\n\tflag {\n\t}\n}", []string{"dialect soap", "flag takes no block", "remove"}},
		{"text is missing", "soap {\n\ttext\n}", []string{"text", "got 0 arguments", "use: text <name>"}},
		{"two texts", "soap {\n\ttext a b\n}", []string{"text", "got 2 arguments", "use: text <name>; put a text with spaces in quotes"}},
		{"two words", "soap {\n\tword a b\n}", []string{"word: got 2 arguments; use: word <id>, at "}},
		{"an empty text", "soap {\n\ttext \"\"\n}", []string{"text", "is empty", "use: text <name>"}},
		{"a flag with a word", "soap {\n\tflag on\n}", []string{"flag", `"on"`, "no argument"}},
		{"duration is missing", "soap {\n\tduration\n}", []string{"duration", "use: duration <duration>"}},
		{"no duration", "soap {\n\tduration 5\n}", []string{`duration "5"`, "10m"}},
		{"a duration of nothing", "soap {\n\tduration 0s\n}", []string{`duration "0s"`, "positive"}},
		{"a duration below zero", "soap {\n\tduration -1m\n}", []string{`duration "-1m"`, "positive"}},
		{"number is missing", "soap {\n\tnumber\n}", []string{"number", "use: number <n>"}},
		{"no number", "soap {\n\tnumber 1.5\n}", []string{`number "1.5"`, "1 or more"}},
		{"number of nothing", "soap {\n\tnumber 0\n}", []string{`number "0"`, "1 or more"}},
		{"a number that is too large for any", "soap {\n\tnumber 99999999999999999999\n}", []string{"number", "1 or more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.input)
			if err == nil {
				t.Fatal("it is accepted")
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not say %q: %v", s, err)
				}
			}
			if !strings.HasPrefix(err.Error(), "dialect soap: ") || strings.Count(err.Error(), "soap") > 1 {
				t.Errorf("the error does not begin with the dialect, once: %v", err)
			}
		})
	}
	err := ParseOptions(caddyfile.NewTestDispenser("soap {\n\tflag\n}"), "soap", nil)
	if err == nil || !strings.Contains(err.Error(), "it has no options") {
		t.Errorf("a dialect without options: %v", err)
	}
}
