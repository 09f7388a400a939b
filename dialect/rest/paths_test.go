package rest

import (
	"net/http"
	"strings"
	"testing"
)

func TestOnlyTheExactSpellingOfAPathIsARoute(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""), "api_keys:operator")
	for _, c := range []client{g.operator(), g.holder(h.secret)} {
		for _, path := range []string{
			"", "/", "/unknown", "/accounts/", "//accounts", "/./accounts", "/x/../accounts", "/Accounts", "/ACCOUNTS",
			"/accounts;x=1", "/accounts%2F" + h.account, "/%61ccounts", "/accounts%20", "/accounts/" + h.account + "/",
			"/accounts/" + h.account + "//credentials", "/accounts//credentials", "/accounts/" + h.account + "/keys",
			"/credentials", "/keys", "/keys/" + h.key + "/revoke/", "/keys/" + h.key + "/Revoke", "/openapi.json", "/openapi.yaml/",
		} {
			if a := c.do("GET", path, ""); a.status != passedOn {
				t.Errorf("GET %s answers %d", path, a.status)
			}
		}
	}
}

func TestWhatDoesNotExistAnswersTheSameBytes(t *testing.T) {
	g := newGateway(t)
	mine, others := g.newKey(g.newAccount(""), "api_keys:self"), g.newKey(g.newAccount(""), "api_keys:self")
	deleted := g.newKey(g.newAccount(""))
	g.operator().do("DELETE", "/accounts/"+deleted.account, "").want(204)
	odd := []string{"nothing", "a%2Fb", "%2e%2e%2f", "..", "%00", "%FF", "a%20b", "'%20OR%201=1", "a;b", "x@y", "é",
		strings.Repeat("a", 128), strings.Repeat("a", 5000), "00000000-0000-0000-0000-000000000000", "%25", "-"}
	routes := []struct{ method, pattern, other, gone string }{
		{"GET", "/accounts/{}", others.account, deleted.account},
		{"GET", "/accounts/{}/credentials", others.account, deleted.account},
		{"GET", "/credentials/{}", others.credential, deleted.credential},
		{"GET", "/credentials/{}/keys", others.credential, deleted.credential},
		{"POST", "/credentials/{}/rotate", others.credential, deleted.credential},
		{"GET", "/keys/{}", others.key, deleted.key},
		{"PATCH", "/keys/{}", others.key, deleted.key},
		{"POST", "/keys/{}/revoke", others.key, deleted.key},
	}
	for _, rt := range routes {
		t.Run(rt.method+" "+rt.pattern, func(t *testing.T) {
			g := g.in(t)
			ids := append([]string{rt.other, rt.gone}, odd...)
			var first string
			for _, id := range ids {
				path := strings.Replace(rt.pattern, "{}", id, 1)
				for _, body := range bodiesFor(rt.method) {
					a := g.holder(mine.secret).do(rt.method, path, body).wantProblem(404, "not_found", "")
					same := strings.ReplaceAll(a.body, a.text("instance"), "")
					if first == "" {
						first = same
					}
					if same != first {
						t.Errorf("%s answers %s, others %s", id, same, first)
					}
				}
			}
		})
	}
}

// bodiesFor are good and bad bodies: neither shows whether something is there.
func bodiesFor(method string) []string {
	if method == http.MethodGet {
		return []string{""}
	}
	return []string{"", "{}", `{"expires_at":"x","overlap":"x","reason":5}`, "garbage"}
}

func TestWhatIsNotThereIsNotFoundByOperatorsEitherWhateverTheBody(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	for _, id := range []string{"nothing", "a%2Fb", "%00", "%FF", "é", strings.Repeat("a", 5000)} {
		for _, call := range [][2]string{
			{"GET", "/accounts/" + id}, {"PATCH", "/accounts/" + id}, {"DELETE", "/accounts/" + id},
			{"POST", "/accounts/" + id + "/credentials"}, {"GET", "/accounts/" + id + "/credentials"},
			{"PATCH", "/credentials/" + id}, {"DELETE", "/credentials/" + id},
			{"POST", "/credentials/" + id + "/rotate"}, {"GET", "/credentials/" + id + "/keys"},
			{"GET", "/keys/" + id}, {"PATCH", "/keys/" + id}, {"POST", "/keys/" + id + "/revoke"},
		} {
			for _, body := range bodiesFor(call[0]) {
				op.do(call[0], call[1], body).wantProblem(404, "not_found", "")
			}
		}
	}
}

func TestAnotherMethodIsRefusedBeforeAnythingElse(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""))
	for _, call := range everyCall(h) {
		for _, method := range []string{"OPTIONS", "PUT", "TRACE", "get"} {
			a := g.holder("").do(method, call[1], "", "Origin", "https://example.com", "Access-Control-Request-Method", "GET")
			a.wantProblem(405, "method_not_allowed", "")
		}
	}
	g.operator().do("GET", "/keys/verify", "").wantProblem(405, "method_not_allowed", "")
	g.operator().do("PUT", "/backup", "").wantProblem(405, "method_not_allowed", "")
}

func TestHEADIsGETWithoutABody(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""), "api_keys:self")
	for _, path := range []string{"/self", "/accounts/" + h.account, "/keys/" + h.key, "/openapi.yaml"} {
		get, head := g.holder(h.secret).do("GET", path, "").want(200), g.holder(h.secret).do("HEAD", path, "").want(200)
		for _, name := range []string{"Content-Type", "Cache-Control"} {
			if head.header.Get(name) != get.header.Get(name) {
				t.Errorf("%s: %s is %q, with GET %q", path, name, head.header.Get(name), get.header.Get(name))
			}
		}
	}
	g.operator().do("HEAD", "/backup", "").want(200)
	g.operator().do("HEAD", "/keys/nothing", "").want(404)
}

func TestABadParameterIsRefusedByName(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""))
	for query, member := range map[string]string{
		"/accounts?limit=0":                    "limit",
		"/accounts?limit=1001":                 "limit",
		"/accounts?limit=":                     "limit",
		"/accounts?limit=ten":                  "limit",
		"/accounts?limit=99999999999999999999": "limit",
		"/accounts?limit=1&limit=2":            "limit",
		"/accounts?Limit=1":                    "Limit",
		"/accounts?after=":                     "after",
		"/accounts?after=nothing":              "after",
		"/accounts?after=a%2Fb":                "after",
		"/accounts?after=%00":                  "after",
		"/accounts?before=x":                   "before",
		"/accounts?email=%00":                  "email",
		"/accounts?email=%FF":                  "email",
		"/accounts?email=a@b.c&after=x":        "after",
		"/accounts?a;b":                        "",
		"/accounts?%zz":                        "",
		"/accounts?%FF=1":                      "\uFFFD",
		"/accounts/" + h.account + "?x=1":      "x",
		"/accounts/" + h.account + "/credentials?after=" + h.account: "after",
		"/credentials/" + h.credential + "/keys?email=x":             "email",
		"/credentials/" + h.credential + "/keys?after=nothing":       "after",
		"/backup?x=1": "x",
	} {
		g.operator().do("GET", query, "").wantProblem(400, "invalid_parameter", member)
	}
	g.operator().do("POST", "/accounts?dry_run=1", "{}").wantProblem(400, "invalid_parameter", "dry_run")
	if a := g.operator().do("GET", "/accounts", "").want(200); len(a.items()) != 1 {
		t.Errorf("a refused call stored something: %s", a.body)
	}
}
