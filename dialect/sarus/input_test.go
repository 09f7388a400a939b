package sarus_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/sarus"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// aKey has the shape of a token key.
const aKey = "key_012345678901_01234567890123456789012345678901234567"

// badInput are requests that are refused with their own reason, and leave
// nothing behind.
var badInput = []struct {
	rule, target, body string
	status             int
	says               []string
}{
	{"no argument", "", "", 400, []string{"Email is missing", "/RequestAPIKey?Email="}},
	{"an empty query", "?", "", 400, []string{"Email is missing"}},
	{"an unknown argument alone", "?Mail=a@example.com", "", 400, []string{"[Mail] is unknown", "Email"}},
	{"an unknown argument beside", "?Email=a@example.com&Format=xml", "", 400, []string{"[Format] is unknown"}},
	{"an unknown argument without a name", "?Email=a@example.com&=x", "", 400, []string{"[] is unknown"}},
	{"a key as an argument", "?Email=a@example.com&" + aKey + "=x", "", 400, []string{"[REDACTED] is unknown"}},
	{"a long unknown argument", "?" + strings.Repeat("n", 5000) + "=x", "", 400, []string{"[" + strings.Repeat("n", 40) + "...] is unknown"}},
	{"an unknown argument of odd characters", "?%00%22%0d%0a%ff%c3%a9=x", "", 400, []string{"is unknown"}},
	{"an argument name that is no Email to an ASCII reader", "?Ema%C4%B1l=a@example.com", "", 400, []string{"is unknown"}},
	{"Email twice", "?Email=a@example.com&Email=b@example.com", "", 400, []string{"repeated", "once"}},
	{"the same Email twice", "?Email=a@example.com&Email=a@example.com", "", 400, []string{"repeated"}},
	{"Email and email", "?Email=a@example.com&email=a@example.com", "", 400, []string{"repeated"}},
	{"Email and an empty one", "?Email=a@example.com&EMAIL", "", 400, []string{"repeated"}},
	{"an empty address", "?Email=", "", 400, []string{"Email is empty"}},
	{"a name without a value", "?Email", "", 400, []string{"Email is empty"}},
	{"a broken escape", "?Email=a%4@example.com", "", 400, []string{"malformed", "percent-encode"}},
	{"a broken escape in another argument", "?Email=a@example.com&x=%zz", "", 400, []string{"malformed"}},
	{"a semicolon", "?Email=a@example.com;x=1", "", 400, []string{"malformed", "';'"}},
	{"a very long query", "?" + strings.Repeat("&", 10_000) + "x=1", "", 400, []string{""}},

	{"no address at all", "?Email=ada", "", 400, []string{"not a plain e-mail address", "myemail@mydomain.com"}},
	{"no domain", "?Email=ada@", "", 400, []string{"not a plain e-mail address"}},
	{"no local part", "?Email=@example.com", "", 400, []string{"not a plain e-mail address"}},
	{"two at signs", "?Email=a@b@example.com", "", 400, []string{"not a plain e-mail address"}},
	{"a dot too much", "?Email=a..b@example.com", "", 400, []string{"not a plain e-mail address"}},
	{"two addresses", "?Email=a@example.com,b@example.com", "", 400, []string{"not a plain e-mail address"}},
	{"a display name", "?Email=Ada<a@example.com>", "", 400, []string{"not a plain e-mail address", "without name"}},
	{"angle brackets", "?Email=<a@example.com>", "", 400, []string{"not a plain e-mail address", "brackets"}},
	{"a comment", "?Email=a(c)@example.com", "", 400, []string{"not a plain e-mail address", "comment"}},
	{"a quoted local part", "?Email=%22a%22@example.com", "", 400, []string{"not a plain e-mail address", "quotes"}},
	{"a quoted local part that needs quotes", "?Email=%22a%5C%22b%22@example.com", "", 400, []string{"not a plain e-mail address", "quotes"}},
	{"an address literal", "?Email=a@%5B192.0.2.1%5D", "", 400, []string{"not a plain e-mail address", "brackets"}},
	{"a placeholder", "?Email={env.HOME}@example.com", "", 400, []string{"not a plain e-mail address", "braces"}},
	{"a placeholder in the domain", "?Email=a@%7Bhttp.request.host%7D", "", 400, []string{"not a plain e-mail address", "braces"}},
	{"a template", "?Email={{.Key}}@example.com", "", 400, []string{"not a plain e-mail address", "braces"}},
	{"a plus sign that is not escaped", "?Email=a+b@example.com", "", 400, []string{"has a space", "%2B"}},
	{"a space before", "?Email=%20a@example.com", "", 400, []string{"has a space"}},
	{"CRLF", "?Email=a@example.com%0D%0ABcc:b@example.com", "", 400, []string{"control characters"}},
	{"a line feed at the end", "?Email=a@example.com%0A", "", 400, []string{"control characters"}},
	{"NUL", "?Email=a%00@example.com", "", 400, []string{"control characters"}},
	{"a tab", "?Email=a@example.com%09", "", 400, []string{"control characters"}},
	{"DEL", "?Email=a%7F@example.com", "", 400, []string{"control characters"}},
	{"a Unicode local part", "?Email=%C3%A9va@example.com", "", 400, []string{"outside of ASCII"}},
	{"a Unicode domain", "?Email=a@ex%C3%A4mple.com", "", 400, []string{"outside of ASCII"}},
	{"a Unicode control character", "?Email=a%C2%85@example.com", "", 400, []string{"outside of ASCII"}},
	{"no UTF-8", "?Email=a%FF@example.com", "", 400, []string{"outside of ASCII"}},
	{"300 characters", "?Email=a@" + strings.Repeat("b", 294) + ".com", "", 400, []string{"too long", "254"}},
	{"255 characters", "?Email=a@" + strings.Repeat("b", 249) + ".com", "", 400, []string{"too long", "254"}},
	{"a local part of 65", "?Email=" + strings.Repeat("a", 65) + "@example.com", "", 400, []string{"too long", "64"}},
	{"10,000 characters", "?Email=" + strings.Repeat("a", 10_000), "", 400, []string{"too long"}},

	{"a body of 1 MB", "?Email=a@example.com", strings.Repeat("x", 1<<20), 413, []string{"too large"}},
	{"a large body with a bad query", "?x", strings.Repeat(" ", dialect.MaxBody+1), 413, []string{"too large"}},
	{"a body that is no JSON", "?Email=a@example.com", "Email=a@example.com", 400, []string{"not a JSON object"}},
	{"a body that breaks off", "?Email=a@example.com", "{", 400, []string{"not a JSON object"}},
	{"a body that is a list", "?Email=a@example.com", "[]", 400, []string{"not a JSON object"}},
	{"a body that is null", "?Email=a@example.com", "null", 400, []string{"not a JSON object"}},
	{"two objects", "?Email=a@example.com", "{}{}", 400, []string{"not a JSON object"}},
	{"a body with members", "?Email=a@example.com", `{"Email":"a@example.com"}`, 400, []string{"has members", "query"}},
}

func TestBadInput(t *testing.T) {
	g := start(t, "client_limit 1")
	g.account("a@example.com")
	for _, version := range []int{1, 2} {
		for _, c := range badInput {
			t.Run(fmt.Sprintf("HTTP/%d: %s", version, c.rule), func(t *testing.T) {
				g := g.in(t)
				a := g.request(version, "GET", "/v1/RequestAPIKey"+c.target, c.body)
				g.want(a, c.status, c.says...)
				if len(a.Text) > 500 {
					t.Errorf("the answer has %d bytes", len(a.Text))
				}
				for _, value := range []string{"example.com", "env.HOME", "http.request", aKey, "\r", "\n", "\x00"} {
					if strings.Contains(a.detail, value) {
						t.Errorf("the answer repeats %q: %s", value, a.detail)
					}
				}
			})
		}
	}
	g.checkUntouched("a@example.com", "b@example.com", "{env.HOME}@example.com", "éva@example.com", "a b@example.com")
	if strings.Contains(g.Logged(), aKey) {
		t.Error("the log has the text of a key")
	}
	// Nothing of it counted against the client either.
	g.want(g.request(1, "GET", target("a@example.com"), ""), 200)
}

// TestPlainAddresses are all accepted, whether they are known or not.
func TestPlainAddresses(t *testing.T) {
	g := start(t, "client_limit 1000")
	for _, address := range []string{
		"a@b", "ada@example.com", "ADA@EXAMPLE.COM.AU", "ada.lovelace@example.com", "ada+tag@example.com",
		"o'brien@example.com", "!#$%&'*+-/=?^_`|~@example.com", "1@2.3", "a@xn--exmple-cua.com",
		strings.Repeat("a", 64) + "@example.com", "a@" + strings.Repeat("b", 248) + ".com",
	} {
		g.want(g.request(1, "GET", target(address), ""), 200)
		if g.throttled(address) == 0 {
			t.Errorf("%s is not throttled", address)
		}
	}
}

// TestRawCRLF is what a client that escapes nothing sends: the server refuses it
// before anything of it can be taken for a header.
func TestRawCRLF(t *testing.T) {
	g := start(t, "")
	g.account("a@example.com")
	answer := g.Raw("GET /v1/RequestAPIKey?Email=a@example.com\r\nBcc: b@example.com HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
		t.Errorf("%s", answer)
	}
	g.checkUntouched("a@example.com", "b@example.com")
}

// TestAMethodIsRepeatedSafely, also one that HTTP/1.1 would not let through.
func TestAMethodIsRepeatedSafely(t *testing.T) {
	var d sarus.Dialect
	if err := d.Mount(dialect.Gateway{Mails: true}); err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]string{
		"POST":                     "POST",
		`"]},<b>`:                  `\"]},<b>`,
		"a\\b":                     `a\\b`,
		"\xff\x00\r\né":            "?????",
		strings.Repeat("M", 41):    strings.Repeat("M", 40) + "...",
		aKey:                       "REDACTED",
		strings.Repeat("é", 1<<20): strings.Repeat("?", 20) + "...",
	} {
		r := httptest.NewRequest("GET", "/RequestAPIKey?Email=a@example.com", nil)
		r.Method = method
		w := httptest.NewRecorder()
		d.Route(r)(w, r)
		if w.Code != 405 || w.Header().Get("Allow") != "GET" ||
			!strings.HasSuffix(w.Body.String(), `"Errors":{"Status":405,"Detail":"Method [`+want+`] not allowed."}}`) {
			t.Errorf("%.50q: %d %s", method, w.Code, w.Body)
		}
	}
}

// FuzzQuery holds whatever is asked to the contract: an envelope, and a status
// of it. There is no store.
func FuzzQuery(f *testing.F) {
	for _, c := range badInput {
		f.Add(strings.TrimPrefix(c.target, "?"), c.body)
	}
	d := new(sarus.Dialect)
	noStore := func(context.Context) (*keystore.Keyring, error) { return nil, keystore.ErrUnavailable }
	if err := d.Mount(dialect.Gateway{Mails: true, Keyring: noStore, Logger: zap.NewNop()}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query, body string) {
		r := httptest.NewRequest("GET", "/RequestAPIKey", strings.NewReader(body))
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		d.Route(r)(w, r)
		if !envelope.Match(w.Body.Bytes()) {
			t.Fatalf("%q: %s", query, w.Body)
		}
		if !slices.Contains([]int{400, 413, 429, 500}, w.Code) {
			t.Errorf("%q is answered with %d", query, w.Code)
		}
	})
}
