package sarus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/sarus"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const sent = "If the address belongs to an account, a new API key has been requested and will be sent to it."

// TestEveryAnswer has a row for each status of the contract. The envelope of each
// answer is checked member by member.
func TestEveryAnswer(t *testing.T) {
	g := start(t, "client_limit 1000")
	for _, version := range []int{1, 2} {
		known := fmt.Sprintf("known%d@example.com", version)
		idle := fmt.Sprintf("idle%d@example.com", version)
		g.account(known)
		g.deactivate(g.account(idle))
		for _, c := range []struct {
			rule, method, target, body string
			status                     int
			member, detail             string
			header, value              string
		}{
			{"the address of an account", "GET", target(known), "", 200, "Result", sent, "Retry-After", ""},
			{"an address that nobody has", "GET", target("nobody" + known), "", 200, "Result", sent, "Retry-After", ""},
			{"the argument in lower case", "GET", "/v1/RequestAPIKey?email=lower" + known, "", 200, "Result", sent, "", ""},
			{"the argument in upper case", "GET", "/v1/RequestAPIKey?EMAIL=upper" + known, "", 200, "Result", sent, "", ""},
			{"the argument escaped", "GET", "/v1/RequestAPIKey?%45mail=escaped" + known, "", 200, "Result", sent, "", ""},
			{"an empty object for a body", "GET", target("object" + known), " {} ", 200, "Result", sent, "", ""},
			{"a second request within the window", "GET", target(known), "", 429, "Errors", "Requested too many times. You may retry in 3 minutes.", "Retry-After", "180"},
			{"a second request for nobody's address", "GET", target("nobody" + known), "", 429, "Errors", "Requested too many times. You may retry in 3 minutes.", "Retry-After", "180"},
			{"an account that is deactivated", "GET", target(idle), "", 403, "Errors", "The account is not active.", "", ""},
			{"a second request for a deactivated account", "GET", target(idle), "", 429, "Errors", "Requested too many times. You may retry in 3 minutes.", "Retry-After", "180"},
			{"no address", "GET", "/v1/RequestAPIKey", "", 400, "Errors", "Argument Email is missing. Use /RequestAPIKey?Email=myemail@mydomain.com.", "", ""},
			{"another method", "POST", target(known), "", 405, "Errors", "Method [POST] not allowed.", "Allow", "GET"},
			{"a body that is too large", "GET", target(known), strings.Repeat(" ", dialect.MaxBody+1), 413, "Errors", "The body is too large. Send none.", "", ""},
		} {
			t.Run(fmt.Sprintf("HTTP/%d: %s", version, c.rule), func(t *testing.T) {
				a := g.in(t).request(version, c.method, c.target, c.body)
				g.in(t).want(a, c.status)
				if a.member != c.member || a.detail != c.detail {
					t.Errorf("%s %q, want %s %q", a.member, a.detail, c.member, c.detail)
				}
				if got := a.Header.Get(c.header); !near(got, c.value) {
					t.Errorf("%s is %q, want %q", c.header, got, c.value)
				}
			})
		}
	}
}

// near compares texts, and seconds up to the few that a test may take.
func near(got, want string) bool {
	var a, b int
	if n, _ := fmt.Sscan(got+" "+want, &a, &b); n == 2 {
		return a <= b && a > b-30
	}
	return got == want
}

// TestOtherMethods are refused by their own name, HEAD and OPTIONS like all.
func TestOtherMethods(t *testing.T) {
	g := start(t, "")
	for _, version := range []int{1, 2} {
		for _, method := range []string{"HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "get", "BREW"} {
			a := g.request(version, method, target("a@example.com"), "")
			g.want(a, 405)
			if a.Header.Get("Allow") != "GET" {
				t.Errorf("%s: Allow is %q", method, a.Header.Get("Allow"))
			}
			if want := "Method [" + method + "] not allowed."; method != "HEAD" && a.detail != want {
				t.Errorf("%s: %q, want %q", method, a.detail, want)
			}
			if method == "HEAD" && a.Text != "" {
				t.Errorf("HEAD with a body: %s", a.Text)
			}
		}
	}
	long := strings.Repeat("M", 32) // Caddy itself answers to longer ones
	if a := g.request(1, long, target("a@example.com"), ""); a.detail != "Method ["+long+"] not allowed." {
		t.Errorf("a long method: %s", a.Text)
	}
	odd := "!#$%&'*+-.^_`|~"
	if a := g.request(1, odd, target("a@example.com"), ""); a.detail != "Method ["+odd+"] not allowed." {
		t.Errorf("an odd method: %s", a.Text)
	}
	g.checkUntouched("a@example.com")
}

// TestPathsBesideTheRoute are not the dialect's: they need a key like all others.
func TestPathsBesideTheRoute(t *testing.T) {
	g := start(t, "")
	for _, path := range []string{
		"/RequestAPIKey", "/v1/requestapikey", "/v1/RequestAPIKey/", "/v1//RequestAPIKey", "/v1/RequestAPIKe%79", "/v1/RequestAPIKey.json", "/v1",
	} {
		if a := g.Do(1, "GET", path+"?Email=a@example.com", ""); a.StatusCode != 401 || !strings.Contains(a.Text, "missing_key") {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
		}
	}
	g.checkUntouched("a@example.com")
}

// checkUntouched fails the test if a request left something behind.
func (g *gateway) checkUntouched(addresses ...string) {
	g.Helper()
	if n := g.waiting(); n != 0 {
		g.Errorf("%d mails wait", n)
	}
	for _, address := range addresses {
		if g.throttled(address) != 0 {
			g.Errorf("%q is throttled", address)
		}
	}
	if n := len(g.mails.Taken()); n != 0 {
		g.Errorf("%d mails were sent", n)
	}
}

var varying = regexp.MustCompile(`("ServerDateTime":")[^"]*("|$)|("(?:TimeStamp|ExecutionTime)":)[0-9.]+`)

// blank takes out of an answer what is another each time: the three times in the
// body, and with them its length, and the date.
func blank(a said) string {
	var lines []string
	for name, values := range a.Header {
		if name != "Date" && name != "Content-Length" {
			lines = append(lines, name+": "+strings.Join(values, "|"))
		}
	}
	slices.Sort(lines)
	return a.Status + "\n" + strings.Join(lines, "\n") + "\n" + varying.ReplaceAllString(a.Text, "$1$2$3")
}

// TestAnAnswerDoesNotTellWhetherTheAddressIsKnown compares byte by byte.
func TestAnAnswerDoesNotTellWhetherTheAddressIsKnown(t *testing.T) {
	for _, c := range []struct {
		name, options string
		addresses     []string // one of each kind, whose answers must be alike
	}{
		{"by default", "", []string{"known@example.com", "nobody@example.com", "KNOWN2@EXAMPLE.COM"}},
		{"uniform", "uniform", []string{"known@example.com", "nobody@example.com", "KNOWN2@EXAMPLE.COM", "idle@example.com"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, c.options)
			g.key(g.account("known@example.com"))
			g.account("known2@example.com") // without a credential
			g.deactivate(g.account("idle@example.com"))
			for _, status := range []int{200, 429} {
				first := ""
				for _, address := range c.addresses {
					a := g.request(2, "GET", target(address), "")
					g.want(a, status)
					a.Header.Del("Retry-After") // counts down; compared by TestEveryAnswer
					if got := blank(a); first == "" {
						first = got
					} else if got != first {
						t.Errorf("%s:\n%s\nwant what others get:\n%s", address, got, first)
					}
				}
			}
		})
	}
}

// TestAnAnswerWaitsForItsBeat, so that its time does not tell either how long the
// store took. What follows is the network's.
func TestAnAnswerWaitsForItsBeat(t *testing.T) {
	g := start(t, "uniform\nclient_limit 1000")
	g.account("known@example.com")
	g.deactivate(g.account("idle@example.com"))
	for _, address := range []string{"known@example.com", "nobody@example.com", "idle@example.com"} {
		a := g.request(1, "GET", target(address), "")
		g.want(a, 200)
		if a.milliseconds < 20 {
			t.Errorf("%s: answered after %v ms, before the first beat", address, a.milliseconds)
		}
	}
}

func TestADeactivatedAccountGetsNoMail(t *testing.T) {
	for _, options := range []string{"", "uniform"} {
		g := start(t, options)
		g.deactivate(g.account("idle@example.com"))
		g.account("known@example.com")
		status := map[string]int{"": 403, "uniform": 200}[options]
		g.want(g.request(1, "GET", target("idle@example.com"), ""), status)
		g.want(g.request(1, "GET", target("known@example.com"), ""), 200)
		// Mails are sent in the order of their requests.
		if m, _ := g.mail(); m.To[0] != "known@example.com" {
			t.Errorf("%q: a mail went to %s", options, m.To)
		}
	}
}

// TestErrorsOfProxiedRoutes are in the envelope with "errors sarus", which needs
// neither mail nor a package.
func TestErrorsOfProxiedRoutes(t *testing.T) {
	g := start(t, "")
	key := g.key(g.account("a@example.com"))
	if err := g.Reload("", "errors sarus"); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{1, 2} {
		a := g.checkEnvelope(g.Do(version, "GET", "/things", ""))
		g.want(a, 401, "No API key was presented.")
		if a.Header.Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
		g.want(g.checkEnvelope(g.Do(version, "GET", "/things", "", "X-API-Key", "wrong")), 401, "The API key is not valid.")
		g.want(g.checkEnvelope(g.Do(version, "GET", "/things", "", "X-API-Key", key, "Authorization", "Bearer "+key)), 400, "More than one API key")
		g.accepts(key)
	}
	if err := g.Reload("package P", "errors sarus\nrequire package P"); err != nil {
		t.Fatal(err)
	}
	g.want(g.checkEnvelope(g.Do(1, "GET", "/things", "", "X-API-Key", key)), 403, "of a package that does not open this route")
	if a := g.Do(1, "GET", "/RequestAPIKey?Email=a@example.com", ""); a.StatusCode != 401 {
		t.Errorf("a dialect that only refuses has a route: %d %s", a.StatusCode, a.Text)
	}
	if err := g.vault().Close(); err != nil {
		t.Fatal(err)
	}
	a := g.checkEnvelope(g.Do(1, "GET", "/things", "", "X-API-Key", strings.Repeat("x", 40)))
	g.want(a, 503)
	if a.detail != "Server may be down for maintenance." || a.Header.Get("Retry-After") != "5" {
		t.Errorf("%s, Retry-After %s", a.Text, a.Header.Get("Retry-After"))
	}
}

// TestEveryVerdictHasItsAnswer keeps status, challenge and sentence of each.
func TestEveryVerdictHasItsAnswer(t *testing.T) {
	finder, err := dialect.NewFinder(dialect.DefaultLocations())
	if err != nil {
		t.Fatal(err)
	}
	for v := keystore.MissingKey; v < keystore.Verdicts; v++ {
		f := dialect.RefusalOf(v, nil, finder)
		w := httptest.NewRecorder()
		new(sarus.Dialect).Refuse(w, httptest.NewRequest("GET", "/x", nil), f)
		want := f.Detail
		if f.Status == http.StatusServiceUnavailable {
			want = "Server may be down for maintenance."
		}
		if w.Code != f.Status || w.Header().Get("WWW-Authenticate") != f.Challenge || !strings.HasSuffix(w.Body.String(),
			fmt.Sprintf(`,"Errors":{"Status":%d,"Detail":%q}}`, f.Status, want)) {
			t.Errorf("%s: %d %s", v, w.Code, w.Body)
		}
	}
}
