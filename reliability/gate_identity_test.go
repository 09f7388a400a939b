//go:build reliability

package reliability

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/internal/attack"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestWhatReachesTheBackendIsOneRequestWithOurIdentity sends the same messages and
// frames with a valid key. Whatever reaches the backend must be read by every
// server as one request: without the key, with the identity of its holder exactly
// once and no other, and without the request that is hidden behind it.
//
// The controls ask the same of a gate that does what comes to mind first, and of
// none.
func TestWhatReachesTheBackendIsOneRequestWithOurIdentity(t *testing.T) {
	a := startAttacked(t)
	naiveHolder = a.issued
	for _, shape := range smuggledInto() {
		found, arrived := a.wrongs(t, shapeNamed(t, shape), realGate)
		for _, wrong := range found {
			t.Errorf("%s: %s", shape, wrong)
		}
		if arrived < 50 {
			t.Errorf("%s: only %d requests reached the backend", shape, arrived)
		}
		t.Logf("%s: %d requests reached the backend", shape, arrived)
	}
	open := shapeNamed(t, "headers with underscores are let through")
	for d, wants := range map[directive][]string{
		{"naive_gate", ""}: {"is not the holder's", "times", "in a trailer", "a tunnel"},
		noGate:             {"the key is in it", "has no key of its own"},
	} {
		found, _ := a.wrongs(t, open, d)
		for _, want := range wants {
			if !slices.ContainsFunc(found, func(wrong string) bool { return strings.Contains(wrong, want) }) {
				t.Errorf("control: behind %s no request is found of which to say: %s", d.name, want)
			}
		}
		t.Logf("control: behind %s %d things are wrong", d.name, len(found))
	}
}

// wrongs sends everything with a valid key, and returns what is wrong with what
// reached the backend, and how much that was.
func (a *attacked) wrongs(t *testing.T, shape attack.Caddyfile, d directive) (found []string, arrived int) {
	t.Helper()
	a.use(t, shape, d)
	locations := "X-API-Key: " + a.issued.Text + "\r\n"
	if shape.Servers == shapeNamed(t, "headers with underscores are let through").Servers {
		locations = "Authorization: Bearer " + a.issued.Text + "\r\n" // Caddy drops the other, whose name it lets through with underscores
	}
	a.askAll(attack.Messages(), locations)
	if shape.Name == "h2c" {
		for _, r := range attack.HTTP2Requests("x-api-key", a.issued.Text) {
			a.ask2(r)
		}
	}
	arrivals := a.backend.Taken()
	for _, arrival := range arrivals {
		if wrong := a.wrongWith(arrival); wrong != "" {
			found = append(found, fmt.Sprintf("%s: %.600q", wrong, arrival.Head))
		}
	}
	return found, len(arrivals)
}

// wrongWith says what is wrong with a request that arrived; nothing if nothing is.
func (a *attacked) wrongWith(arrival attack.Arrival) string {
	lines := strings.Split(arrival.Head, "\r\n")
	switch {
	case arrival.Broken:
		return "it can't be read"
	case strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00"):
		return "a line ends where servers differ"
	case strings.Contains(lines[0], attack.Second):
		return "it has no key of its own"
	case slices.ContainsFunc(lines, isKeyLine):
		return "the key is in it"
	}
	fields, wrong := fieldsOf(lines[1:])
	if wrong != "" {
		return wrong
	}
	if wrong := framing(fields); wrong != "" {
		return wrong
	}
	for _, upgrade := range fields["upgrade"] {
		if tunnelled.MatchString(upgrade) {
			return "a tunnel for more requests"
		}
	}
	if wrong := a.identityIn(fields); wrong != "" {
		return wrong
	}
	return a.trailersOf(arrival, fields)
}

// isKeyLine reports whether a line is one of the places where the gate takes keys.
// What a client writes elsewhere is the backend's.
func isKeyLine(line string) bool {
	line = strings.ToLower(line)
	return strings.HasPrefix(line, "x-api-key:") || strings.HasPrefix(line, "authorization: bearer ")
}

// tunnelled are protocols that carry HTTP requests.
var tunnelled = regexp.MustCompile(`(?i)\b(h2c?|http|tls)\b`)

// fieldsOf are the values of header fields under their names, folded as lenient
// servers do.
func fieldsOf(lines []string) (fields map[string][]string, wrong string) {
	fields = map[string][]string{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, "a line that servers read differently: " + line
		}
		name = strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
		fields[name] = append(fields[name], strings.TrimSpace(value))
	}
	return fields, ""
}

var digits = regexp.MustCompile(`^[0-9]+$`)

// framing says what is wrong with how the body is framed.
func framing(fields map[string][]string) string {
	length, encoding := fields["content-length"], fields["transfer-encoding"]
	switch {
	case len(length)+len(encoding) > 1:
		return "there are two framings"
	case len(length) == 1 && !digits.MatchString(length[0]):
		return "the length is " + length[0]
	case len(encoding) == 1 && encoding[0] != "chunked":
		return "the encoding is " + encoding[0]
	case len(fields["host"]) != 1:
		return fmt.Sprintf("a host comes %d times", len(fields["host"]))
	}
	return ""
}

// identityIn says what is wrong with the identity.
func (a *attacked) identityIn(fields map[string][]string) string {
	for name, want := range a.identity() {
		got := fields[strings.ToLower(name)]
		switch {
		case slices.ContainsFunc(got, func(value string) bool { return value != want }):
			return name + " is not the holder's"
		case len(got) != 1 && want != "", len(got) > 0 && want == "":
			return fmt.Sprintf("%s comes %d times", name, len(got))
		}
	}
	return ""
}

func (a *attacked) identity() map[string]string {
	return map[string]string{
		"X-Account-Id": a.issued.Credential.AccountID, "X-Credential-Id": a.issued.Credential.ID, "X-Key-Id": a.issued.Key.ID,
		"X-Key-Package": "", "X-Key-Roles": strings.Join(a.issued.Credential.Roles, ","),
	}
}

// trailersOf says what is wrong with what follows the last piece of a body.
func (a *attacked) trailersOf(arrival attack.Arrival, fields map[string][]string) string {
	if len(fields["transfer-encoding"]) == 0 {
		return ""
	}
	_, trailer, _ := strings.Cut("\r\n"+arrival.Body, "\r\n0\r\n")
	if slices.ContainsFunc(strings.Split(trailer, "\r\n"), isKeyLine) {
		return "the key is in a trailer"
	}
	names, _ := fieldsOf(strings.Split(strings.Trim(trailer, "\r\n"), "\r\n"))
	for name := range a.identity() {
		if len(names[strings.ToLower(name)]) > 0 {
			return name + " is in a trailer"
		}
	}
	return ""
}

func init() {
	caddy.RegisterModule(naiveGate{})
	httpcaddyfile.RegisterHandlerDirective("naive_gate", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return naiveGate{}, nil })
	httpcaddyfile.RegisterDirectiveOrder("naive_gate", httpcaddyfile.Before, "basic_auth")
}

// naiveHolder is whom naiveGate takes everybody for who presents anything.
var naiveHolder *keystore.Issued

// naiveGate is a gate that takes the key out, deletes the identity that a client
// claims, and sets its own: by the names of the headers, and with no other thought.
type naiveGate struct{}

func (naiveGate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.naive_gate", New: func() caddy.Module { return new(naiveGate) }}
}

func (naiveGate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Header.Get("Authorization") == "" && r.Header.Get("X-API-Key") == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return nil
	}
	r.Header.Del("Authorization")
	r.Header.Del("X-API-Key")
	for name, value := range (&attacked{issued: naiveHolder}).identity() {
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	return next.ServeHTTP(w, r)
}
