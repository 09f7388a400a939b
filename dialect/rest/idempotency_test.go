package rest

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// posts are the calls that can be repeated under an Idempotency-Key, with what
// they make one more of at each call that is not recognised as a repetition.
func posts(own holding) []struct{ path, body string } {
	return []struct{ path, body string }{
		{"/accounts", `{"company":"Example","attributes":{"b":"2","a":"1","c":"3"}}`},
		{"/accounts/" + own.account + "/credentials", `{"description":"once"}`},
		{"/credentials/" + own.credential + "/rotate", `{"overlap":"24h"}`},
		{"/self/rotate", `{"overlap":"24h"}`},
		{"/keys/" + own.key + "/revoke", `{"reason":"twice"}`},
		{"/keys/verify", `{"key":"` + own.secret + `"}`},
	}
}

func TestAPostIsDoneOnceHoweverOftenItIsSent(t *testing.T) {
	g := newGateway(t)
	own := g.newKey(g.newAccount(`{}`))
	operator := g.newKey(g.newAccount(`{}`), keystore.RoleOperator)
	caller := g.holder(operator.secret)
	for i, post := range posts(own) {
		key := "order-" + string(rune('a'+i))
		first := caller.do("POST", post.path, post.body, dialect.IdempotencyHeader, key)
		if first.status >= 300 || first.header.Get(dialect.IdempotencyHeader) != key {
			t.Errorf("%s: status %d, header %q: %s", post.path, first.status, first.header.Get(dialect.IdempotencyHeader), first.body)
			continue
		}
		before := g.everything(own, operator)
		again := caller.do("POST", post.path, post.body, dialect.IdempotencyHeader, key)
		if again.status != first.status || again.body != first.body || again.header.Get("Location") != first.header.Get("Location") ||
			again.header.Get(dialect.IdempotencyHeader) != key || again.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: the second answer is %d %v %s,\nthe first %d %v %s", post.path, again.status, again.header, again.body, first.status, first.header, first.body)
		}
		if after := g.everything(own, operator); after != before {
			t.Errorf("%s: the second request changed something:\n%s\n%s", post.path, before, after)
		}
		if other := caller.do("POST", post.path, post.body, dialect.IdempotencyHeader, key+"-other"); post.path == "/self/rotate" && other.body == first.body {
			t.Errorf("%s: another Idempotency-Key gets the same answer", post.path)
		}
	}
}

// everything is what the accounts of the holdings have.
func (g *gateway) everything(hs ...holding) string {
	g.Helper()
	op := g.operator()
	var all strings.Builder
	all.WriteString(op.do("GET", "/accounts", "").body)
	for _, h := range hs {
		all.WriteString(op.do("GET", "/accounts/"+h.account+"/credentials", "").body)
		all.WriteString(op.do("GET", "/credentials/"+h.credential+"/keys", "").body)
	}
	return all.String()
}

func TestAnIdempotencyKeyIsHeldToOneRequestOfOneCaller(t *testing.T) {
	g := newGateway(t)
	one := g.newKey(g.newAccount(`{}`), keystore.RoleOperator)
	two := g.newKey(g.newAccount(`{}`), keystore.RoleOperator)
	const key = "k"
	first := g.holder(one.secret).do("POST", "/accounts", `{"company":"A"}`, dialect.IdempotencyHeader, key).want(201)
	g.holder(one.secret).do("POST", "/accounts", `{"company":"B"}`, dialect.IdempotencyHeader, key).
		wantProblem(422, "idempotency_key_reused", "")
	g.holder(one.secret).do("POST", "/self/rotate", `{"company":"A"}`, dialect.IdempotencyHeader, key).
		wantProblem(422, "idempotency_key_reused", "")
	if other := g.holder(two.secret).do("POST", "/accounts", `{"company":"A"}`, dialect.IdempotencyHeader, key).want(201); other.text("id") == first.text("id") {
		t.Error("another caller gets the first one's answer")
	}
	// The right to ask is checked again.
	g.operator().do("PATCH", "/credentials/"+one.credential, `{"roles":["api_keys:self"]}`).want(200)
	g.holder(one.secret).do("POST", "/accounts", `{"company":"A"}`, dialect.IdempotencyHeader, key).wantProblem(403, "forbidden", "")
	g.operator().do("POST", "/keys/"+one.key+"/revoke", ``).want(200)
	g.holder(one.secret).do("POST", "/accounts", `{"company":"A"}`, dialect.IdempotencyHeader, key).wantProblem(401, "revoked_key", "")
}

func TestWhatFailedIsDoneAgain(t *testing.T) {
	g := newGateway(t)
	caller := g.holder(g.newKey(g.newAccount(`{}`), keystore.RoleOperator).secret)
	caller.do("POST", "/accounts", `{"email":"no address"}`, dialect.IdempotencyHeader, "k").want(422)
	caller.do("POST", "/accounts", `{"email":"ada@example.com"}`, dialect.IdempotencyHeader, "k").want(201)
}

func TestABadIdempotencyKeyIsRefused(t *testing.T) {
	g := newGateway(t)
	caller := g.holder(g.newKey(g.newAccount(`{}`), keystore.RoleOperator).secret)
	for name, key := range map[string]string{
		"65 characters": strings.Repeat("k", 65), "a tab": "a\tb", "not ASCII": "clé",
	} {
		t.Run(name, func(t *testing.T) {
			caller.do("POST", "/accounts", `{}`, dialect.IdempotencyHeader, key).wantProblem(400, "invalid_idempotency_key", "")
		})
	}
	for _, key := range []string{strings.Repeat("k", 64), "order 7"} {
		caller.do("POST", "/accounts", `{}`, dialect.IdempotencyHeader, key).want(201)
	}
}

func TestWhereNoKeyIsPresentedAnIdempotencyKeyIsRefused(t *testing.T) {
	g := newGateway(t)
	own := g.newKey(g.newAccount(`{}`))
	before := g.everything(own)
	for _, post := range posts(own) {
		if post.path == "/self/rotate" {
			continue // not there
		}
		g.operator().do("POST", post.path, post.body, dialect.IdempotencyHeader, "k").
			wantProblem(http.StatusBadRequest, "invalid_idempotency_key", dialect.IdempotencyHeader)
	}
	if after := g.everything(own); after != before {
		t.Errorf("something changed:\n%s\n%s", before, after)
	}
}

func TestRepetitionsThatRaceMakeOneThing(t *testing.T) {
	g := newGateway(t)
	caller := g.holder(g.newKey(g.newAccount(`{}`), keystore.RoleOperator).secret)
	answers := make([]answer, 16)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			answers[i] = caller.do("POST", "/accounts", `{"email":"ada@example.com"}`, dialect.IdempotencyHeader, "k")
		})
	}
	all.Wait()
	made := ""
	for _, a := range answers {
		switch {
		case a.status == 409 && a.text("code") == "request_in_progress":
		case a.status == 201 && (made == "" || made == a.body):
			made = a.body
		default:
			t.Errorf("status %d: %s", a.status, a.body)
		}
	}
	if made == "" {
		t.Error("nothing was made")
	}
}
