package rest

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// everyCall is a request for each route, with the ids of one holding.
func everyCall(h holding) (calls [][2]string) {
	ids := strings.NewReplacer("{account}", h.account, "{credential}", h.credential, "{key}", h.key)
	for _, rt := range everywhere {
		method, path, _ := strings.Cut(rt.pattern, " ")
		calls = append(calls, [2]string{method, ids.Replace(path)})
	}
	return append(calls, [2]string{"GET", "/self"}, [2]string{"POST", "/self/rotate"})
}

func TestNoRouteAnswersWithoutAKey(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""), "api_keys:operator")
	for _, call := range everyCall(h) {
		a := g.holder("").do(call[0], call[1], "").wantProblem(401, "missing_key", "")
		if a.header.Get("WWW-Authenticate") != `Bearer realm="api_keys"` {
			t.Errorf("WWW-Authenticate is %q", a.header.Get("WWW-Authenticate"))
		}
		g.holder("nonsense").do(call[0], call[1], "").wantProblem(401, "invalid_key", "")
		g.holder(h.secret).do(call[0], call[1], "", "X-API-Key", h.secret).wantProblem(400, "ambiguous_key", "")
	}
}

func TestAKeyWithNeitherRoleMayNothing(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""), "read", "api_keys")
	for _, call := range everyCall(h) {
		g.holder(h.secret).do(call[0], call[1], "").wantProblem(403, "missing_role", "")
	}
}

func TestARevokedOrInactiveHolderIsRefused(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	h := g.newKey(g.newAccount(""), "api_keys:operator")
	op.do("PATCH", "/accounts/"+h.account, `{"active":false}`).want(200)
	g.holder(h.secret).do("GET", "/self", "").wantProblem(403, "inactive", "")
	op.do("PATCH", "/accounts/"+h.account, `{"active":true}`).want(200)
	g.holder(h.secret).do("GET", "/self", "").want(200)
	op.do("PATCH", "/credentials/"+h.credential, `{"allowed_ips":["192.0.2.0/24"]}`).want(200)
	g.holder(h.secret).do("GET", "/self", "").wantProblem(403, "ip_not_allowed", "")
}

func TestAnOperatorsKeyMayDoEverything(t *testing.T) {
	g := newGateway(t, keystore.Package{Name: "Admin", Management: true, Roles: []string{"api_keys:operator"}})
	other := g.newAccount("")
	key := g.operator().do("POST", "/accounts/"+g.newAccount("")+"/credentials", `{"package":"Admin"}`).want(201).text("key", "secret")
	c := g.holder(key)
	made := c.do("POST", "/accounts/"+other+"/credentials", `{"package":"Admin"}`).want(201)
	c.do("GET", "/accounts", "").want(200)
	c.do("PATCH", "/accounts/"+other, `{"company":"Acme"}`).want(200)
	c.do("POST", "/credentials/"+made.text("credential", "id")+"/rotate", "").want(200)
	c.do("POST", "/keys/verify", `{"key":"x"}`).want(200)
	c.do("DELETE", "/credentials/"+made.text("credential", "id"), "").want(204)
	c.do("DELETE", "/accounts/"+other, "").want(204)
	c.do("GET", "/self", "").want(200)
}

func TestASelfKeyReadsWhatIsItsOwnAndNothingElse(t *testing.T) {
	g := newGateway(t)
	mine, others := g.newAccount(""), g.newAccount("")
	h, sibling, other := g.newKey(mine, "api_keys:self"), g.newKey(mine, "read"), g.newKey(others, "api_keys:self")
	c := g.holder(h.secret)
	for _, own := range []holding{h, sibling} {
		for _, path := range []string{"/accounts/" + own.account, "/accounts/" + own.account + "/credentials",
			"/credentials/" + own.credential, "/credentials/" + own.credential + "/keys", "/keys/" + own.key} {
			c.do("GET", path, "").want(200)
		}
	}
	self := c.do("GET", "/self", "").want(200)
	if self.text("account", "id") != mine || self.text("credential", "id") != h.credential || self.text("key", "id") != h.key {
		t.Errorf("got %s", self.body)
	}
	for _, call := range everyCall(other) {
		if strings.HasPrefix(call[1], "/self") {
			continue
		}
		a := c.do(call[0], call[1], "")
		if a.status != 404 && a.status != 403 {
			t.Errorf("%s %s answers %d: %s", call[0], call[1], a.status, a.body)
		}
	}
}

func TestASelfKeyMayNotDecideWhatKeysAreAllowed(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(`{"company":"Acme"}`), "api_keys:self")
	c := g.holder(h.secret)
	for _, call := range [][3]string{
		{"POST", "/accounts", "{}"},
		{"GET", "/accounts", ""},
		{"GET", "/accounts?email=a@example.com", ""},
		{"PATCH", "/accounts/" + h.account, `{"company":"Other"}`},
		{"PATCH", "/accounts/" + h.account, ``},
		{"DELETE", "/accounts/" + h.account, ""},
		{"POST", "/accounts/" + h.account + "/credentials", `{"roles":["read"]}`},
		{"PATCH", "/credentials/" + h.credential, `{"roles":["api_keys:operator"]}`},
		{"PATCH", "/credentials/" + h.credential, `{"allowed_ips":[]}`},
		{"DELETE", "/credentials/" + h.credential, ""},
		{"POST", "/keys/verify", `{"key":"x"}`},
	} {
		c.do(call[0], call[1], call[2]).wantProblem(403, "forbidden", "")
	}
	a := g.operator().do("GET", "/accounts/"+h.account+"/credentials", "").want(200)
	if len(a.items()) != 1 || !strings.Contains(a.body, `["api_keys:self"]`) {
		t.Errorf("something changed: %s", a.body)
	}
}

func TestASelfKeyRotatesRevokesAndShortens(t *testing.T) {
	g := newGateway(t)
	account := g.newAccount("")
	h, sibling, stronger := g.newKey(account, "api_keys:self", "read"), g.newKey(account, "read"), g.newKey(account, "read", "write")
	c := g.holder(h.secret)
	c.do("POST", "/credentials/"+sibling.credential+"/rotate", "").want(200)
	c.do("POST", "/credentials/"+stronger.credential+"/rotate", "").wantProblem(403, "forbidden", "")
	if a := g.operator().do("GET", "/credentials/"+stronger.credential+"/keys", "").want(200); len(a.items()) != 1 {
		t.Errorf("the refused rotation made a key: %s", a.body)
	}
	early, late := in(time.Hour), in(48*time.Hour)
	c.do("PATCH", "/keys/"+stronger.key, `{"expires_at":"`+early+`"}`).want(200)
	c.do("PATCH", "/keys/"+stronger.key, `{"expires_at":"`+late+`"}`).wantProblem(403, "forbidden", "")
	c.do("PATCH", "/keys/"+stronger.key, `{"expires_at":null}`).wantProblem(403, "forbidden", "")
	c.do("POST", "/keys/"+stronger.key+"/revoke", `{"reason":"old"}`).want(200)

	next := c.do("POST", "/self/rotate", `{"overlap":"1h"}`).want(200)
	c.do("GET", "/self", "").want(200)
	n := g.holder(next.text("key", "secret"))
	n.do("POST", "/self/rotate", "").want(200)
	n.do("GET", "/self", "").wantProblem(401, "revoked_key", "")
	c.do("GET", "/self", "").wantProblem(401, "revoked_key", "")
}

func TestAKeyIsTakenWhereTheSiteTakesIt(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""), "api_keys:self")
	g.holder("").do("GET", "/self", "", "X-API-Key", h.secret).want(200)
	g.holder("").do("GET", "/self?api_key="+h.secret, "").want(200)
	list := "/accounts/" + h.account + "/credentials"
	g.holder("").do("GET", list+"?limit=1&api_key="+h.secret, "").want(200)
	g.holder("").do("GET", "/self?apikey="+h.secret, "").wantProblem(401, "missing_key", "")
	g.holder(h.secret).do("GET", "/self?apikey=x", "").wantProblem(400, "invalid_parameter", "apikey")
}

func TestOnlyTheAdminEndpointHasBackupAndOnlyTheSiteHasSelf(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""), "api_keys:operator")
	g.holder(h.secret).do("GET", "/backup", "").want(passedOn)
	g.operator().do("GET", "/self", "").want(passedOn)
	g.operator().do("POST", "/self/rotate", "").want(passedOn)
}
