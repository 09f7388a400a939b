package dialect

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// everywhere looks for keys in every kind of place.
func everywhere(t testing.TB) *Finder {
	t.Helper()
	f, err := NewFinder([]Location{
		{In: InBearer}, {InHeader, "x-api-key"}, {InQuery, "api_key"}, {InCookie, "key"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func request(target string, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestFind(t *testing.T) {
	const missing, ambiguous = keystore.MissingKey, keystore.AmbiguousKey
	for _, c := range []struct {
		name    string
		target  string
		headers []string
		want    string
		verdict keystore.Verdict
	}{
		{"nothing", "/", nil, "", missing},
		{"bearer", "/", []string{"Authorization", "Bearer K"}, "K", keystore.OK},
		{"bearer in any case, with more spaces", "/", []string{"Authorization", "bEaReR   K"}, "K", keystore.OK},
		{"bearer before a tab", "/", []string{"Authorization", "Bearer\tK"}, "K", keystore.OK},
		{"bearer without credentials", "/", []string{"Authorization", "Bearer"}, "", missing},
		{"bearer without credentials but a space", "/", []string{"Authorization", "Bearer "}, "", missing},
		{"basic", "/", []string{"Authorization", "Basic dXNlcjpwYXNz"}, "", missing},
		{"authorization without a scheme", "/", []string{"Authorization", "K"}, "", missing},
		{"another scheme that begins like bearer", "/", []string{"Authorization", "Bearers K"}, "", missing},
		{"bearer beside basic", "/", []string{"Authorization", "Basic x", "Authorization", "Bearer K"}, "K", keystore.OK},
		{"header", "/", []string{"X-Api-Key", "K"}, "K", keystore.OK},
		{"empty header", "/", []string{"X-Api-Key", ""}, "", missing},
		{"header with two keys in one value", "/", []string{"X-Api-Key", "K, L"}, "K, L", keystore.OK},
		{"query", "/?a=1&api_key=K", nil, "K", keystore.OK},
		{"query with an escaped name", "/?api%5Fkey=K", nil, "K", keystore.OK},
		{"query with an escaped value", "/?api_key=%4B", nil, "K", keystore.OK},
		{"query after a semicolon", "/?a=1;api_key=K", nil, "K", keystore.OK},
		{"query in another case", "/?API_KEY=K", nil, "", missing},
		{"empty query value", "/?api_key=", nil, "", missing},
		{"query name only", "/?api_key", nil, "", missing},
		{"cookie", "/", []string{"Cookie", "a=1; key=K; b=2"}, "K", keystore.OK},
		{"quoted cookie", "/", []string{"Cookie", `key="K"`}, "K", keystore.OK},
		{"two places", "/?api_key=K", []string{"X-Api-Key", "L"}, "", ambiguous},
		{"the same key in two places", "/?api_key=K", []string{"X-Api-Key", "K"}, "", ambiguous},
		{"repeated header", "/", []string{"X-Api-Key", "K", "X-Api-Key", "K"}, "", ambiguous},
		{"repeated query", "/?api_key=K&api_key=K", nil, "", ambiguous},
		{"repeated cookie", "/", []string{"Cookie", "key=K", "Cookie", "key=K"}, "", ambiguous},
		{"repeated bearer", "/", []string{"Authorization", "Bearer K", "Authorization", "Bearer K"}, "", ambiguous},
		{"an empty one beside a key", "/?api_key=", []string{"X-Api-Key", "K"}, "K", keystore.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, verdict := everywhere(t).Find(request(c.target, c.headers...))
			if text != c.want || verdict != c.verdict {
				t.Errorf("found %q, %v; want %q, %v", text, verdict, c.want, c.verdict)
			}
		})
	}
}

func TestStripLeavesTheRestAsItIs(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{"", ""},
		{"api_key=K", ""},
		{"a=1&api_key=K", "a=1"},
		{"api_key=K&a=1", "a=1"},
		{"a=1&api_key=K&b=2", "a=1&b=2"},
		{"a=1;api_key=K;b=2", "a=1;b=2"},
		{"a=1&&api_key=K&&b=2&", "a=1&&&b=2&"},
		{"a=%41&api%5Fkey=K&a=+", "a=%41&a=+"},
		{"api_key=K&api_key=L", ""},
		{"a=1&api_key=K&api_key=L", "a=1"},
		{"a=%zz&api_key=%zz", "a=%zz"},
		{"xapi_key=K&api_keyx=K", "xapi_key=K&api_keyx=K"},
		{"api_key", ""},
		{"&&", "&&"},
	} {
		r := request("/")
		r.URL.RawQuery = c.query
		everywhere(t).Strip(r)
		if got := r.URL.RawQuery; got != c.want {
			t.Errorf("%q becomes %q, want %q", c.query, got, c.want)
		}
	}
	r := request("/", "Cookie", "a=1; key=K", "Cookie", "key=L", "Cookie", "b=2;c=3",
		"Authorization", "Bearer K", "X-API-Key", "K", "X-Other", "v")
	everywhere(t).Strip(r)
	if got := r.Header["Cookie"]; !slices.Equal(got, []string{"a=1", "b=2; c=3"}) {
		t.Errorf("cookies %q", got)
	}
	if len(r.Header) != 2 {
		t.Errorf("headers %v", r.Header)
	}
	basic := request("/", "Authorization", "Basic x")
	everywhere(t).Strip(basic)
	if basic.Header.Get("Authorization") != "Basic x" {
		t.Error("another scheme's credentials are the backend's")
	}
}

func TestLocationsThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		l    Location
		want string
	}{
		{Location{In: "body", Name: "x"}, "use bearer, header"},
		{Location{In: InBearer, Name: "x"}, "bearer takes no name"},
		{Location{In: InHeader}, "letters, digits and '-'"},
		{Location{In: InHeader, Name: "X_API_Key"}, `header "X_API_Key"`},
		{Location{In: InHeader, Name: "X.Key"}, "letters, digits and '-'"},
		{Location{In: InHeader, Name: "authorization"}, "use bearer instead"},
		{Location{In: InHeader, Name: "cookie"}, "use cookie <name> instead"},
		{Location{In: InQuery, Name: "a&b"}, `query "a&b"`},
		{Location{In: InCookie, Name: "a b"}, `cookie "a b"`},
	} {
		if _, err := NewFinder([]Location{c.l}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.l, err)
		}
	}
}

// FuzzStrip holds stripping to what it promises: no key is found afterwards, and
// every other pair is there, in its order.
func FuzzStrip(f *testing.F) {
	for _, q := range []string{"a=1&api_key=K", "api%5fkey=%4b;;x", "&=&;api_key", "%zz=1&api_key=%", "api_key=K&"} {
		f.Add(q, "key=K; a=b")
	}
	f.Fuzz(func(t *testing.T, query, cookie string) {
		finder := everywhere(t)
		r := request("/", "Authorization", "Bearer K")
		r.URL.RawQuery = query
		r.Header["Cookie"] = []string{cookie}
		others := otherPairs(query)
		finder.Strip(r)
		if text, verdict := finder.Find(r); verdict != keystore.MissingKey {
			t.Errorf("%q, %q: found %q after stripping", query, cookie, text)
		}
		if got := otherPairs(r.URL.RawQuery); !slices.Equal(got, others) {
			t.Errorf("%q became %q", query, r.URL.RawQuery)
		}
	})
}

// otherPairs are the pairs that are not the key's, without empty ones.
func otherPairs(query string) (pairs []string) {
	for _, pair := range strings.FieldsFunc(query, func(c rune) bool { return c == '&' || c == ';' }) {
		rawName, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			name = rawName
		}
		if name != "api_key" {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}
