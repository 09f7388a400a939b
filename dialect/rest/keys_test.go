package rest

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func in(d time.Duration) string { return time.Now().Add(d).UTC().Format(instantFormat) }

func TestACredentialShowsEveryMember(t *testing.T) {
	g := newGateway(t, keystore.Package{Name: "Coverage", Roles: []string{"read"}, ExpiresIn: time.Hour})
	op := g.operator()
	account := g.newAccount("")
	at := in(24 * time.Hour)
	made := op.do("POST", "/accounts/"+account+"/credentials", `{"package":"Coverage","roles":["write"],"description":"night",
		"allowed_ips":["192.0.2.7","192.0.2.9/24","2001:db8::7","::ffff:198.51.100.1"],"metadata":{"a":"b"},"expires_at":"`+at+`"}`).want(201)
	id := made.text("credential", "id")
	if got := made.header.Get("Location"); got != base+"/credentials/"+id {
		t.Errorf("Location is %q", got)
	}
	shown := op.do("GET", "/credentials/"+id, "").want(200)
	for _, want := range []string{`"account_id":"` + account + `"`, `"package":"Coverage"`, `"roles":["read","write"]`, `"active":true`,
		`"allowed_ips":["192.0.2.7/32","192.0.2.0/24","2001:db8::7/128","198.51.100.1/32"]`, `"metadata":{"a":"b"}`, `"expires_at":"` + at + `"`} {
		if !strings.Contains(shown.body, want) {
			t.Errorf("%s is not in %s", want, shown.body)
		}
	}
	bare := op.do("PATCH", "/credentials/"+id, `{"roles":[],"description":null,"allowed_ips":null,"metadata":null,"expires_at":null,"active":false}`).want(200)
	for _, want := range []string{`"package":"Coverage"`, `"roles":[]`, `"active":false`, `"description":null`, `"allowed_ips":[]`, `"metadata":{}`, `"expires_at":null`} {
		if !strings.Contains(bare.body, want) {
			t.Errorf("%s is not in %s", want, bare.body)
		}
	}
	if same := op.do("PATCH", "/credentials/"+id, "{}").want(200); same.body != bare.body {
		t.Errorf("an empty object changes %s to %s", bare.body, same.body)
	}
}

var keyText = regexp.MustCompile(`^key_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$`)

func TestAKeysTextIsShownOnce(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	h := g.newKey(g.newAccount(""), "api_keys:self")
	next := op.do("POST", "/credentials/"+h.credential+"/rotate", `{"overlap":"until_first_use"}`).want(200)
	secret := next.text("key", "secret")
	if !keyText.MatchString(h.secret) || !keyText.MatchString(secret) || secret == h.secret {
		t.Errorf("texts are %q and %q", h.secret, secret)
	}
	for _, path := range []string{"/credentials/" + h.credential, "/credentials/" + h.credential + "/keys", "/keys/" + h.key,
		"/keys/" + next.text("key", "id"), "/accounts/" + h.account + "/credentials"} {
		if a := op.do("GET", path, "").want(200); strings.Contains(a.body, secret) || strings.Contains(a.body, h.secret) ||
			strings.Contains(a.body, "secret") || strings.Contains(a.body, "digest") {
			t.Errorf("%s answers %s", path, a.body)
		}
	}
}

func TestARotationBoundsOlderKeys(t *testing.T) {
	rules := []struct {
		name, body string
		// old is the state of the older key, then that after a use of the new one.
		old, used string
	}{
		{"no body revokes at once", "", "revoked", "revoked"},
		{"no overlap revokes at once", "{}", "revoked", "revoked"},
		{"null is the default", `{"overlap":null}`, "revoked", "revoked"},
		{"0s revokes at once", `{"overlap":"0s"}`, "revoked", "revoked"},
		{"a duration retires", `{"overlap":"24h"}`, "retiring", "retiring"},
		{"until_first_use waits for the new key", `{"overlap":"until_first_use"}`, "retiring", "expired"},
	}
	g := newGateway(t)
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			g := g.in(t)
			op := g.operator()
			h := g.newKey(g.newAccount(""), "api_keys:self")
			a := op.do("POST", "/credentials/"+h.credential+"/rotate", rule.body).want(200)
			previous, _ := a.get("previous").([]any)
			if len(previous) != 1 || previous[0].(map[string]any)["state"] != rule.old {
				t.Errorf("previous is %v, want %s", previous, rule.old)
			}
			g.holder(a.text("key", "secret")).do("GET", "/self", "").want(200)
			if got := op.do("GET", "/keys/"+h.key, "").want(200).text("state"); got != rule.used {
				t.Errorf("after a use of the new key it is %s, want %s", got, rule.used)
			}
		})
	}
}

func TestOneRotationTooManyIsRefused(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	h := g.newKey(g.newAccount(""))
	for range 9 {
		op.do("POST", "/credentials/"+h.credential+"/rotate", `{"overlap":"1h"}`).want(200)
	}
	op.do("POST", "/credentials/"+h.credential+"/rotate", `{"overlap":"1h"}`).wantProblem(409, "key_limit", "")
	op.do("POST", "/credentials/"+h.credential+"/rotate", "").want(200)
}

func TestARevokedKeyStaysRevoked(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	h := g.newKey(g.newAccount(""), "api_keys:self")
	first := op.do("POST", "/keys/"+h.key+"/revoke", `{"reason":"leaked"}`).want(200)
	if first.text("effective") != "node" || first.text("key", "state") != "revoked" || first.text("key", "revoked_reason") != "leaked" {
		t.Errorf("got %s", first.body)
	}
	g.holder(h.secret).do("GET", "/self", "").wantProblem(401, "revoked_key", "")
	if again := op.do("POST", "/keys/"+h.key+"/revoke", "").want(200); again.body != first.body {
		t.Errorf("again: %s\nfirst: %s", again.body, first.body)
	}
	op.do("PATCH", "/keys/"+h.key, `{"expires_at":"`+in(time.Hour)+`"}`).wantProblem(409, "conflict", "expires_at")
}

func TestTheEndOfAKeyCanBeMoved(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	h := g.newKey(g.newAccount(""))
	at := in(time.Hour)
	if a := op.do("PATCH", "/keys/"+h.key, `{"expires_at":"`+at+`"}`).want(200); a.text("expires_at") != at {
		t.Errorf("got %s", a.body)
	}
	if a := op.do("PATCH", "/keys/"+h.key, ``).want(200); a.text("expires_at") != at {
		t.Errorf("got %s", a.body)
	}
	if a := op.do("PATCH", "/keys/"+h.key, `{"expires_at":null}`).want(200); a.get("expires_at") != nil {
		t.Errorf("got %s", a.body)
	}
}

func TestVerifySaysWhatAKeyIsWorth(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	account := g.newAccount("")
	good, revoked, inactive := g.newKey(account, "read"), g.newKey(account), g.newKey(account)
	op.do("POST", "/keys/"+revoked.key+"/revoke", "").want(200)
	op.do("PATCH", "/credentials/"+inactive.credential, `{"active":false}`).want(200)
	expiring := g.newKey(account)
	op.do("PATCH", "/keys/"+expiring.key, `{"expires_at":"`+in(time.Second)+`"}`).want(200)
	ended := func() bool {
		return strings.Contains(string(op.do("POST", "/keys/verify", `{"key":"`+expiring.secret+`"}`).body), "expired_key")
	}
	for deadline := time.Now().Add(10 * time.Second); !ended() && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond) // only time brings it
	}

	mistyped := good.secret[:len(good.secret)-1] + "~"
	for _, rule := range []struct {
		name, text, code string
		active, known    bool
	}{
		{"a good key", good.secret, "ok", true, true},
		{"a revoked key", revoked.secret, "revoked_key", false, true},
		{"an expired key", expiring.secret, "expired_key", false, true},
		{"a key of an inactive credential", inactive.secret, "inactive", false, true},
		{"a mistyped key", mistyped, "invalid_key", false, false},
		{"an unknown text", "hello", "invalid_key", false, false},
		{"an empty text", "", "invalid_key", false, false},
		{"a text with spaces", "a b", "invalid_key", false, false},
		{"a text that no key is as long as", strings.Repeat("x", 1000), "invalid_key", false, false},
	} {
		t.Run(rule.name, func(t *testing.T) {
			a := g.in(t).operator().do("POST", "/keys/verify", `{"key":"`+rule.text+`"}`).want(200)
			if a.get("active") != rule.active || a.text("code") != rule.code || (a.get("account_id") == account) != rule.known {
				t.Errorf("got %s", a.body)
			}
			if _, isList := a.get("roles").([]any); isList != rule.known {
				t.Errorf("roles in %s", a.body)
			}
			if rule.text != "" && strings.Contains(a.body, rule.text) {
				t.Errorf("the answer repeats the text: %s", a.body)
			}
		})
	}
	if k := op.do("GET", "/keys/"+good.key, "").want(200); k.get("first_used_at") != nil {
		t.Error("verify counts as a use")
	}
}
