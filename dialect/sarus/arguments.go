package sarus

import (
	"fmt"
	"maps"
	"net/mail"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// argument is the one argument there is. Names are matched without regard to
// case.
const argument = "Email"

const (
	maxAddress = 254
	maxLocal   = 64
	// maxShown bounds what is repeated of the client's own words, in bytes.
	maxShown = 40
)

// readAddress returns the address in a query, or else what is wrong with it: a
// sentence for the client, which repeats no value.
func readAddress(query string) (address, wrong string) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", "The query is malformed. Separate arguments with '&', and percent-encode what has a meaning in a URL, ';' and '%' included."
	}
	var given []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !strings.EqualFold(name, argument) {
			return "", "Argument [" + shown(name) + "] is unknown. The only one is Email."
		}
		given = append(given, values[name]...)
	}
	switch len(given) {
	case 0:
		return "", "Argument Email is missing. Use " + path + "?Email=myemail@mydomain.com."
	case 1:
		return given[0], checkAddress(given[0])
	}
	return "", "Argument Email is repeated. Use it once."
}

// checkAddress says what is wrong with an address, nothing if it is one that any
// mail server takes: ASCII, and no character that would have to be quoted. Braces
// are those of Caddy's placeholders.
func checkAddress(address string) (wrong string) {
	local, _, _ := strings.Cut(address, "@")
	switch {
	case address == "":
		return "Argument Email is empty. Use the e-mail address of the account."
	case strings.ContainsFunc(address, isControl):
		return "Argument Email has control characters. Use one line of visible characters."
	case strings.ContainsFunc(address, isForeign):
		return "Argument Email has characters outside of ASCII. Only ASCII addresses can be mailed."
	case len(address) > maxAddress || len(local) > maxLocal:
		return fmt.Sprintf("Argument Email is too long. Use at most %d characters, %d of them before the '@'.", maxAddress, maxLocal)
	case strings.Contains(address, " "):
		return "Argument Email has a space. If there should be a '+', write it as %2B."
	case !isPlain(address):
		return "Argument Email is not a plain e-mail address. Use one such as myemail@mydomain.com, without name, comment, quotes, brackets or braces."
	}
	return ""
}

func isPlain(address string) bool {
	parsed, err := mail.ParseAddress(address)
	return err == nil && parsed.Address == address && !strings.ContainsAny(address, `{}[]"`)
}

func isForeign(c rune) bool { return c > 0x7f }

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// shown makes a word of the client's fit to be repeated: it is short, printable
// ASCII, and holds no key.
func shown(word string) string {
	word = dialect.Redact(word)
	cut := len(word) > maxShown
	word = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, word[:min(len(word), maxShown)])
	if cut {
		word += "..."
	}
	return word
}
