package singleinvoice_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const denied = `{"Message":"Authorization has been denied for this request."}`

func wantDenied(t *testing.T, a livetest.Answer) {
	t.Helper()
	wantHeaders(t, a)
	if a.StatusCode != 401 || a.Text != denied {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if got := a.Header.Get("WWW-Authenticate"); !strings.Contains(got, `realm="api_keys"`) {
		t.Errorf("WWW-Authenticate %q", got)
	}
}

func TestABadBodyIsRefusedAndStoresNothing(t *testing.T) {
	g := start(t, global, site)
	const (
		notObject = `"package":["The body must be a JSON object with the member \"package\", such as {\"package\":\"Coverage\"}."]`
		required  = `"package":["The name of a package is required, such as {\"package\":\"Coverage\"}."]`
		notText   = `"package":["The name of a package must be a string."]`
		unknown   = `["There is no such member; the body has \"package\" only."]`
		repeated  = `["The member is there more than once."]`
		declared  = `"package":["The package must be one of: Account, Claim, Coverage, ICE, Short."]`
	)
	token := "key_" + strings.Repeat("a", 12) + "_" + strings.Repeat("b", 38)
	for _, c := range []struct{ name, body, state string }{
		{"no body", ``, notObject},
		{"space", "  ", notObject},
		{"no JSON", `package=Coverage`, notObject},
		{"JSON that ends too early", `{"package":"Coverage"`, notObject},
		{"two objects", `{"package":"Coverage"}{}`, notObject},
		{"null", `null`, notObject},
		{"an array", `["Coverage"]`, notObject},
		{"a string", `"Coverage"`, notObject},
		{"text that is not UTF-8", "{\"package\":\"\xff\"}", notObject},
		{"an empty object", `{}`, required},
		{"an empty name", `{"package":""}`, required},
		{"null for a name", `{"package":null}`, notText},
		{"a number for a name", `{"package":1}`, notText},
		{"an array for a name", `{"package":["Coverage"]}`, notText},
		{"a package that is not declared", `{"package":"Coverages"}`, declared},
		{"a package in another case", `{"package":"coverage"}`, declared},
		{"a package with a space", `{"package":"Coverage "}`, declared},
		{"an unknown member", `{"package":"Coverage","max":1}`, `"max":` + unknown},
		{"two unknown members", `{"package":"Coverage","b":1,"a":{}}`, `"a":` + unknown + `,"b":` + unknown},
		{"the member in another case", `{"Package":"Coverage"}`, `"Package":` + unknown + `,` + required},
		{"a repeated member", `{"package":"Coverage","package":"Coverage"}`, `"package":` + repeated},
		{"a repeated unknown member", `{"package":"Coverage","a":1,"a":2}`, `"a":` + repeated},
		{"a repeated member further in", `{"package":{"a":1,"a":2}}`, `"package":` + repeated},
		{"a long unknown member", `{"package":"Coverage","` + strings.Repeat("x", 1000) + `":1}`, `"` + strings.Repeat("x", 100) + `…":` + unknown},
		{"a key as a member", `{"package":"Coverage","` + token + `":1}`, `"REDACTED":` + unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := g.stored()
			for _, version := range []int{1, 2} {
				a := g.call(version, c.body, "apikey", g.key)
				wantHeaders(t, a)
				if want := `{"Message":"The request is invalid.","ModelState":{` + c.state + `}}`; a.StatusCode != 400 || a.Text != want {
					t.Errorf("%d\n%s, want\n%s", a.StatusCode, a.Text, want)
				}
			}
			if got := g.stored(); got != before {
				t.Errorf("%d keys are stored, and were %d", got, before)
			}
		})
	}
	g.noKeyIsLogged(g.key, token)
}

func TestManyUnknownMembersAreNotAllNamed(t *testing.T) {
	g := start(t, global, site)
	var members strings.Builder
	for i := range 200 {
		fmt.Fprintf(&members, `"member %d":1,`, i)
	}
	a := g.call(1, `{`+members.String()+`"package":"Coverage"}`, "apikey", g.key)
	if a.StatusCode != 400 || strings.Count(a.Text, "member ") != 10 {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
}

func TestABodyThatIsTooLargeIsRefused(t *testing.T) {
	g := start(t, global, site)
	before := g.stored()
	for _, version := range []int{1, 2} {
		a := g.call(version, `{"package":"`+strings.Repeat("x", 1<<20)+`"}`, "apikey", g.key)
		wantHeaders(t, a)
		if a.StatusCode != 413 || a.Text != `{"Message":"The request entity is too large."}` {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
	if got := g.stored(); got != before {
		t.Errorf("%d keys are stored, and were %d", got, before)
	}
}

func TestABodyThatBreaksOffIsRefused(t *testing.T) {
	g := start(t, global, site)
	before := g.stored()
	got := g.Raw("POST /account/key HTTP/1.1\r\nHost: " + g.Addr + "\r\napikey: " + g.key +
		"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nno length\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("the answer is %q", got)
	}
	if after := g.stored(); after != before {
		t.Errorf("%d keys are stored, and were %d", after, before)
	}
}

func TestOtherMethodsAreNotSupported(t *testing.T) {
	g := start(t, global, site)
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "post"} {
		for _, version := range []int{1, 2} {
			// Which method there is is no secret: nobody has to present a key.
			a := g.Do(version, method, "/account/key", "")
			wantHeaders(t, a)
			want := `{"Message":"The requested resource does not support http method '` + method + `'."}`
			if method == "HEAD" {
				want = ""
			}
			if a.StatusCode != 405 || a.Header.Get("Allow") != "POST" || a.Text != want {
				t.Errorf("%s: %d, Allow %q, %s", method, a.StatusCode, a.Header.Get("Allow"), a.Text)
			}
		}
	}
}

// stranger is a key that its verdict stops, and what to present of it.
type stranger struct{ name, key string }

// strangers are keys of the account package that don't open the call.
func (g *gateway) strangers() []stranger {
	g.T.Helper()
	ctx, kr := context.Background(), g.Keyring()
	must := func(err error) {
		g.T.Helper()
		if err != nil {
			g.T.Fatal(err)
		}
	}
	issue := func() *keystore.Issued { return g.Issue(keystore.Credential{Package: "Account"}) }

	revoked := issue()
	_, err := kr.RevokeKey(ctx, revoked.Key.ID, "")
	must(err)
	rotated := issue()
	pending, err := kr.Rotate(ctx, keystore.Operator(), keystore.Rotation{CredentialID: rotated.Credential.ID, ActivatesAfter: keystore.UnusedLifetime, Overlap: keystore.Overlap{UntilFirstUse: true}})
	must(err)
	expired := issue()
	next, err := kr.Rotate(ctx, keystore.Operator(), keystore.Rotation{CredentialID: expired.Credential.ID, Overlap: keystore.Overlap{UntilFirstUse: true}})
	must(err)
	_, _, err = kr.Accept(ctx, next.Text, keystore.Request{Requirement: &keystore.Requirement{Management: true}})
	must(err)
	credential := issue()
	_, err = kr.UpdateCredential(ctx, keystore.Operator(), credential.Credential.ID, func(c *keystore.Credential) error { c.Active = false; return nil })
	must(err)
	account := issue()
	_, err = kr.UpdateAccount(ctx, account.Credential.AccountID, func(a *keystore.Account) error { a.Active = false; return nil })
	must(err)
	elsewhere := g.Issue(keystore.Credential{Package: "Account", AllowedIPs: prefixes("192.0.2.0/24")})
	return []stranger{
		{"missing_key", ""}, {"invalid_key", "nobody's"}, {"revoked_key", revoked.Text}, {"pending_key", pending.Text},
		{"expired_key", expired.Text}, {"inactive", credential.Text}, {"inactive account", account.Text}, {"ip_not_allowed", elsewhere.Text},
		{"wrong_package", g.Issue(keystore.Credential{Package: "Claim"}).Text},
	}
}

func TestTheCallIsDeniedToOtherKeys(t *testing.T) {
	g := start(t, global, site)
	strangers := g.strangers()
	before := g.stored()
	for _, s := range strangers {
		t.Run(s.name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				// The body is bad too: who may not call learns nothing of that.
				wantDenied(t, g.call(version, `{`, "apikey", s.key))
				wantDenied(t, g.call(version, `{"package":"Coverage"}`, "apikey", s.key))
			}
		})
	}
	if got := g.stored(); got != before {
		t.Errorf("%d keys are stored, and were %d", got, before)
	}
}

func TestRefusalsOnProxiedRoutesAreTheAPIs(t *testing.T) {
	for name, block := range map[string]string{
		"mounted":     "dialect single_invoice\nerrors single_invoice\n",
		"errors only": "errors single_invoice\n",
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, global, block+"from bearer\nfrom header X-API-Key\nrequire package Account Coverage\nrequire role User")
			strangers := append(g.strangers(), stranger{"missing_role", g.Issue(keystore.Credential{Package: "Coverage"}).Text})
			for _, version := range []int{1, 2} {
				for _, s := range strangers {
					a := g.Do(version, "GET", "/coverage", "", "X-API-Key", s.key)
					wantDenied(t, a)
					if got := a.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer ") {
						t.Errorf("%s: WWW-Authenticate %q", s.name, got)
					}
				}
				a := g.Do(version, "GET", "/coverage", "", "X-API-Key", g.key, "Authorization", "Bearer "+g.key)
				wantHeaders(t, a)
				if a.StatusCode != 400 || a.Text != `{"Message":"The request is invalid."}` {
					t.Errorf("ambiguous: %d %s", a.StatusCode, a.Text)
				}
				if a := g.Do(version, "GET", "/coverage", "", "X-API-Key", g.key); a.StatusCode != 200 {
					t.Errorf("the owner: %d %s", a.StatusCode, a.Text)
				}
			}
			if got := len(g.Upstream.Taken()); got != 2 {
				t.Errorf("%d requests reached the upstream", got)
			}
			g.closeStore()
			for _, version := range []int{1, 2} {
				wantUndone(t, g.Do(version, "GET", "/coverage", "", "X-API-Key", g.key), 503)
			}
		})
	}
}

func wantUndone(t *testing.T, a livetest.Answer, status int) {
	t.Helper()
	wantHeaders(t, a)
	if a.StatusCode != status || a.Text != `{"Message":"An error has occurred."}` {
		t.Errorf("%d %s, want %d", a.StatusCode, a.Text, status)
	}
	if got := a.Header.Get("Retry-After"); (got != "") != (status == 503) {
		t.Errorf("Retry-After %q", got)
	}
}

func TestWithoutItsStoreTheCallIsUnavailable(t *testing.T) {
	g := start(t, global, site)
	g.closeStore()
	for _, version := range []int{1, 2} {
		wantUndone(t, g.call(version, `{"package":"Coverage"}`, "apikey", g.key), 503)
	}
}
