package rest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// snapshotOf is all that the store shows, to see that nothing was stored.
func (g *gateway) snapshotOf(h holding) string {
	op := g.operator()
	var all strings.Builder
	for _, path := range []string{"/accounts", "/accounts/" + h.account + "/credentials", "/credentials/" + h.credential + "/keys"} {
		all.WriteString(op.do("GET", path, "").want(200).body)
	}
	return all.String()
}

func TestABadBodyIsRefusedByNameAndStoresNothing(t *testing.T) {
	rules := []struct {
		name, call, body string
		status           int
		code, member     string
	}{
		{"not JSON", "POST /accounts", "email=ada@example.com", 400, "malformed_body", ""},
		{"cut off", "POST /accounts", `{"email":"ada@exam`, 400, "malformed_body", ""},
		{"only space", "POST /accounts", "  \n", 400, "malformed_body", ""},
		{"trailing garbage", "POST /accounts", `{"company":"x"} garbage`, 400, "malformed_body", ""},
		{"two objects", "POST /accounts", `{"company":"x"}{"company":"y"}`, 400, "malformed_body", ""},
		{"an array", "POST /accounts", `[{"company":"x"}]`, 400, "malformed_body", ""},
		{"a string", "POST /accounts", `"company"`, 400, "malformed_body", ""},
		{"null", "POST /accounts", "null", 400, "malformed_body", ""},
		{"null for a rotation", "POST /credentials/{credential}/rotate", " null\n", 400, "malformed_body", ""},
		{"not UTF-8", "POST /accounts", "{\"company\":\"\xff\"}", 400, "malformed_body", ""},
		{"half a surrogate pair", "POST /accounts", `{"company":"\ud800"}`, 400, "malformed_body", ""},
		{"a comment", "POST /accounts", `{"company":"x"/* */}`, 400, "malformed_body", ""},
		{"deeply nested", "POST /accounts", strings.Repeat(`{"a":`, 10001), 400, "invalid_member", "a"},
		{"1 MB", "POST /accounts", `{"company":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "body_too_large", ""},
		{"one byte too large", "POST /accounts", `{"company":"` + strings.Repeat("x", dialect.MaxBody-13) + `"}`, 413, "body_too_large", ""},
		{"as large as can be", "POST /accounts", `{"company":"` + strings.Repeat("x", dialect.MaxBody-14) + `"}`, 422, "invalid_member", "company"},

		{"an unknown member", "POST /accounts", `{"e-mail":"ada@example.com"}`, 400, "invalid_member", "e-mail"},
		{"another letter case", "POST /accounts", `{"Email":"ada@example.com"}`, 400, "invalid_member", "Email"},
		{"a repeated member", "POST /accounts", `{"company":"a","company":"b"}`, 400, "invalid_member", "company"},
		{"a repeated member of a map", "POST /accounts", `{"attributes":{"a":"1","a":"2"}}`, 400, "invalid_member", "attributes.a"},
		{"a number for a string", "POST /accounts", `{"email":5}`, 400, "invalid_member", "email"},
		{"a string for a list", "POST /accounts", `{"roles":"admin"}`, 400, "invalid_member", "roles"},
		{"a list for a map", "POST /accounts", `{"attributes":[]}`, 400, "invalid_member", "attributes"},
		{"a number in a list", "POST /accounts", `{"roles":["a",5]}`, 400, "invalid_member", "roles.1"},
		{"null in a list", "POST /accounts", `{"roles":[null]}`, 400, "invalid_member", "roles.0"},
		{"null in a map", "POST /accounts", `{"attributes":{"a":null}}`, 400, "invalid_member", "attributes.a"},
		{"an object in a map", "POST /accounts", `{"attributes":{"a":{}}}`, 400, "invalid_member", "attributes.a"},
		{"a string for a boolean", "PATCH /accounts/{account}", `{"active":"no"}`, 400, "invalid_member", "active"},
		{"a bad e-mail address", "POST /accounts", `{"email":"ada"}`, 422, "invalid_member", "email"},
		{"a named e-mail address", "POST /accounts", `{"email":"Ada <ada@example.com>"}`, 422, "invalid_member", "email"},
		{"a bad id", "POST /accounts", `{"id":"a/b"}`, 422, "invalid_member", "id"},
		{"an empty id", "POST /accounts", `{"id":""}`, 422, "invalid_member", "id"},
		{"no id", "POST /accounts", `{"id":null}`, 422, "invalid_member", "id"},
		{"a control character", "POST /accounts", `{"company":"a\u0000b"}`, 422, "invalid_member", "company"},
		{"too long a text", "POST /accounts", `{"company":"` + strings.Repeat("é", 257) + `"}`, 422, "invalid_member", "company"},
		{"a role with a comma", "POST /accounts", `{"roles":["a,b"]}`, 422, "invalid_member", "roles"},
		{"inactive from the start", "POST /accounts", `{"active":false}`, 422, "invalid_member", "active"},

		{"an id on PATCH", "PATCH /accounts/{account}", `{"id":"other"}`, 400, "invalid_member", "id"},
		{"a number on PATCH", "PATCH /accounts/{account}", `{"number":7}`, 400, "invalid_member", "number"},
		{"a time on PATCH", "PATCH /accounts/{account}", `{"created_at":null}`, 400, "invalid_member", "created_at"},
		{"active can't be cleared", "PATCH /accounts/{account}", `{"active":null}`, 422, "invalid_member", "active"},
		{"a bad e-mail address on PATCH", "PATCH /accounts/{account}", `{"email":"@"}`, 422, "invalid_member", "email"},

		{"a bad CIDR range", "POST /accounts/{account}/credentials", `{"allowed_ips":["192.0.2.0/33"]}`, 422, "invalid_member", "allowed_ips"},
		{"no address", "POST /accounts/{account}/credentials", `{"allowed_ips":["localhost"]}`, 422, "invalid_member", "allowed_ips"},
		{"an address with a zone", "POST /accounts/{account}/credentials", `{"allowed_ips":["fe80::1%eth0"]}`, 422, "invalid_member", "allowed_ips"},
		{"half of a mapped range", "POST /accounts/{account}/credentials", `{"allowed_ips":["::ffff:192.0.2.0/80"]}`, 422, "invalid_member", "allowed_ips"},
		{"one address for a list", "POST /accounts/{account}/credentials", `{"allowed_ips":"192.0.2.1"}`, 400, "invalid_member", "allowed_ips"},
		{"an unknown package", "POST /accounts/{account}/credentials", `{"package":"Gold"}`, 422, "invalid_member", "package"},
		{"a reserved role", "POST /accounts/{account}/credentials", `{"roles":["api_keys:root"]}`, 422, "invalid_member", "roles"},
		{"too long a description", "POST /accounts/{account}/credentials", `{"description":"` + strings.Repeat("x", 257) + `"}`, 422, "invalid_member", "description"},
		{"an end in the past", "POST /accounts/{account}/credentials", `{"expires_at":"2020-01-01T00:00:00Z"}`, 422, "invalid_member", "expires_at"},
		{"the zero time", "POST /accounts/{account}/credentials", `{"expires_at":"0001-01-01T00:00:00Z"}`, 422, "invalid_member", "expires_at"},
		{"the zero of Unix", "POST /accounts/{account}/credentials", `{"expires_at":"1970-01-01T00:00:00Z"}`, 422, "invalid_member", "expires_at"},
		{"an empty time", "POST /accounts/{account}/credentials", `{"expires_at":""}`, 422, "invalid_member", "expires_at"},
		{"a date for a time", "POST /accounts/{account}/credentials", `{"expires_at":"2030-01-01"}`, 422, "invalid_member", "expires_at"},
		{"a number for a time", "POST /accounts/{account}/credentials", `{"expires_at":1893456000}`, 400, "invalid_member", "expires_at"},
		{"an account of choice", "POST /accounts/{account}/credentials", `{"account_id":"x"}`, 400, "invalid_member", "account_id"},
		{"an end in the past on PATCH", "PATCH /credentials/{credential}", `{"expires_at":"2020-01-01T00:00:00Z"}`, 422, "invalid_member", "expires_at"},
		{"a secret of choice", "PATCH /credentials/{credential}", `{"secret":"x"}`, 400, "invalid_member", "secret"},

		{"a negative overlap", "POST /credentials/{credential}/rotate", `{"overlap":"-1h"}`, 422, "invalid_member", "overlap"},
		{"no overlap at all", "POST /credentials/{credential}/rotate", `{"overlap":"abc"}`, 422, "invalid_member", "overlap"},
		{"an empty overlap", "POST /credentials/{credential}/rotate", `{"overlap":""}`, 422, "invalid_member", "overlap"},
		{"an overlap of years", "POST /credentials/{credential}/rotate", `{"overlap":"99999h"}`, 422, "invalid_member", "overlap"},
		{"a number for an overlap", "POST /credentials/{credential}/rotate", `{"overlap":3600}`, 400, "invalid_member", "overlap"},

		{"a state of choice", "PATCH /keys/{key}", `{"state":"active"}`, 400, "invalid_member", "state"},
		{"an end of a key in the past", "PATCH /keys/{key}", `{"expires_at":"2020-01-01T00:00:00Z"}`, 422, "invalid_member", "expires_at"},
		{"too long a reason", "POST /keys/{key}/revoke", `{"reason":"` + strings.Repeat("x", 257) + `"}`, 422, "invalid_member", "reason"},
		{"no key to verify", "POST /keys/verify", ``, 422, "invalid_member", "key"},
		{"null to verify", "POST /keys/verify", `{"key":null}`, 422, "invalid_member", "key"},
		{"a number to verify", "POST /keys/verify", `{"key":1}`, 400, "invalid_member", "key"},
	}
	g := newGateway(t)
	h := g.newKey(g.newAccount(`{"email":"first@example.com"}`))
	before := g.snapshotOf(h)
	ids := strings.NewReplacer("{account}", h.account, "{credential}", h.credential, "{key}", h.key)
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			g := g.in(t)
			method, path, _ := strings.Cut(rule.call, " ")
			g.operator().do(method, ids.Replace(path), rule.body).wantProblem(rule.status, rule.code, rule.member)
			if after := g.snapshotOf(h); after != before {
				t.Errorf("something was stored:\n%s\n%s", before, after)
			}
		})
	}
}

func TestABodyMustBeJSONByItsType(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	for _, allowed := range []string{"", "application/json", "application/json; charset=utf-8", "Application/JSON"} {
		op.do("POST", "/accounts", "{}", "Content-Type", allowed).want(201)
	}
	for _, other := range []string{"text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", "json", "multipart/form-data; boundary=x"} {
		op.do("POST", "/accounts", "{}", "Content-Type", other).wantProblem(415, "unsupported_media_type", "")
	}
	op.do("POST", "/accounts", "", "Content-Type", "application/x-www-form-urlencoded").want(201)
}

// A text that looks like a key is neither repeated nor logged, wherever a
// client puts it.
func TestAKeyIsNeverRepeated(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	h := g.newKey(g.newAccount(""), "api_keys:operator")
	escaped := strings.ReplaceAll(h.secret, "_", "%5F")
	hidden := strings.Replace(h.secret, "k", "%6B", 1)
	var answers []answer
	for _, path := range []string{"/accounts/" + h.secret, "/keys/" + escaped, "/credentials/" + hidden, "/keys/x" + h.secret + "x"} {
		answers = append(answers, op.do("GET", path, "").want(404))
	}
	answers = append(answers,
		op.do("POST", "/keys/verify", `{"key":"`+h.secret+`"`).want(400),
		op.do("POST", "/keys/verify", `{"key":["`+h.secret+`"]}`).want(400),
		op.do("POST", "/keys/verify", `{"`+h.secret+`":1}`).want(400),
		op.do("POST", "/accounts", `{"attributes":{"`+h.secret+`":1}}`).want(400),
		op.do("POST", "/accounts", `{"roles":["`+h.secret+`,"]}`).want(422),
		op.do("POST", "/accounts", `{"email":"`+h.secret+`"}`).want(422),
		op.do("GET", "/accounts?"+h.secret+"=1", "").want(400),
		op.do("GET", "/accounts?after="+h.secret, "").want(400),
		g.holder(h.secret).do("DELETE", "/self", "").want(405),
	)
	secret := h.secret[len(h.secret)-38:]
	for _, a := range answers {
		if strings.Contains(a.body, secret) {
			t.Errorf("repeated: %s", a.body)
		}
	}
	for _, entry := range g.logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), secret) {
			t.Errorf("logged: %v", entry)
		}
	}
}

func TestABodyThatEndsEarlyIsRefused(t *testing.T) {
	g := newGateway(t)
	conn, err := net.Dial("tcp", g.admin.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST "+base+"/accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, " 400 ") {
		t.Errorf("got %q, %v", line, err)
	}
	if a := g.operator().do("GET", "/accounts", "").want(200); len(a.items()) != 0 {
		t.Errorf("something was stored: %s", a.body)
	}
}

func FuzzDecodeBody(f *testing.F) {
	for _, seed := range []string{`{}`, `{"email":"a@b.c","roles":["x"],"attributes":{"a":"b"}}`, `{"active":null}`, `{"roles":[null]}`,
		`{"expires_at":"2030-01-01T00:00:00Z","allowed_ips":["10.0.0.0/8"]}`, `{"overlap":"24h"}`, `{"key":"x"}`, `[`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `nul`, ` `} {
		f.Add([]byte(seed))
	}
	bodies := []func() any{
		func() any { return new(accountCreation) }, func() any { return new(accountMembers) }, func() any { return new(credentialMembers) },
		func() any { return new(rotationMembers) }, func() any { return new(keyMembers) }, func() any { return new(revocationMembers) },
		func() any { return new(verification) },
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, make := range bodies {
			into := make()
			err := decodeJSON(body, into)
			if err == nil {
				applyAll(t, into)
				continue
			}
			if o := outcomeOf(err); o.status != 400 {
				t.Errorf("%T: status %d for %q", into, o.status, body)
			}
			shown, ok := err.(*keystore.Error)
			if !ok || shown.Detail == "" || presentable(shown.Error()) == "" {
				t.Errorf("%T: an error that can't be shown: %#v", into, err)
			}
			if p := presentable(shown.Error()); dialect.Redact(p) != p {
				t.Errorf("%T: repeats a key: %s", into, p)
			}
		}
	})
}

// applyAll sets what was decoded: each value is taken or refused as not allowed.
func applyAll(t *testing.T, into any) {
	var err error
	switch in := into.(type) {
	case *accountMembers:
		err = in.set(new(keystore.Account))
	case *credentialMembers:
		cr := new(keystore.Credential)
		err = in.set(cr)
		for _, p := range cr.AllowedIPs {
			if p != p.Masked() || !p.IsValid() {
				t.Errorf("range %v is not in its plain form", p)
			}
		}
		if in.ExpiresAt.present && !in.ExpiresAt.null && err == nil && cr.ExpiresAt <= 0 {
			t.Errorf("%q means never", in.ExpiresAt.value)
		}
	}
	if err != nil && outcomeOf(err).status != 422 {
		t.Errorf("%v: %v", reflect.TypeOf(into), err)
	}
}
