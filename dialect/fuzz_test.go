package dialect

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// FuzzFindAndStrip holds both to each other and to the plainest reading of a
// request: what is found stands in it, nothing is found after stripping, and what
// is no key location stays byte for byte and in its order.
func FuzzFindAndStrip(f *testing.F) {
	for _, seed := range [][4]string{
		{"Bearer K", "K", "key=K; a=b", "api_key=K&a=b"}, {"bearer\tK", "", "a=b;key=\"K\";key", "a=1;api%5fkey=%4b;;x"}, {"Basic x", " ", "", "&=&;api_key"},
		{"Bearer", "K, L", "key==;=key", "%zz=1&api_key=%"}, {" Bearer  K ", "\xff", "\tkey\t=K", "api_key=a=b;api_key"}, {"BearerK", "", "key=K,key=L", "API_KEY=K&api+key=K"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, authorization, header, cookie, query string) {
		finder := everywhere(t)
		r := request("/")
		r.URL.RawQuery = query
		r.Header = http.Header{"Authorization": {authorization}, "X-Api-Key": {header}, "Cookie": {cookie}, "X-Other": {header}}
		if text, verdict := finder.Find(r); (verdict == keystore.OK) != (text != "") {
			t.Errorf("found %q, %v", text, verdict)
		}
		finder.Strip(r)
		if text, verdict := finder.Find(r); verdict != keystore.MissingKey {
			t.Errorf("found %q after stripping", text)
		}
		if got, want := r.URL.RawQuery, keptOf(query); got != want {
			t.Errorf("query %q became %q, want %q", query, got, want)
		}
		if got, want := cookiesOf(r.Header["Cookie"]), cookiesOf([]string{cookie}); !slices.Equal(got, want) {
			t.Errorf("cookies %q became %q", cookie, r.Header["Cookie"])
		}
		if fields := strings.Fields(authorization); (len(fields) == 0 || !strings.EqualFold(fields[0], "Bearer")) && r.Header["Authorization"] == nil {
			t.Errorf("Authorization %q is gone", authorization)
		}
		if r.Header["X-Api-Key"] != nil || r.Header.Get("X-Other") != header {
			t.Errorf("headers %v", r.Header)
		}
	})
}

// keptOf is a query without the pairs of the key, each of which goes with the
// separator behind it, and the last one with that before it.
func keptOf(query string) (kept string) {
	for rest, more := query, true; more; {
		pair, separator := rest, ""
		i := strings.IndexAny(rest, "&;")
		if more = i >= 0; more {
			pair, separator, rest = rest[:i], rest[i:i+1], rest[i+1:]
		}
		switch isKey := pair != "" && len(otherPairs(pair)) == 0; {
		case !isKey:
			kept += pair + separator
		case separator == "" && kept != "":
			kept = kept[:len(kept)-1]
		}
	}
	return kept
}

// cookiesOf are the cookies that are not the key's, in their order.
func cookiesOf(lines []string) (cookies []string) {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if pair = strings.TrimSpace(pair); pair != "" && strings.TrimSpace(name) != "key" {
				cookies = append(cookies, pair)
			}
		}
	}
	return cookies
}
