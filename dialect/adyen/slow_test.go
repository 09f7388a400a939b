package adyen_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestTheCallerIsJudgedAgainOnceTheBodyIsThere takes away, or gives, what the caller
// needs while the client is sending the body.
func TestTheCallerIsJudgedAgainOnceTheBodyIsThere(t *testing.T) {
	roles := func(roles ...string) func(*keystore.Credential) {
		return func(c *keystore.Credential) { c.Roles = roles }
	}
	for _, c := range []struct {
		name   string
		caller []string // its roles
		target func(own, sibling, stranger holder) string
		change func(*keystore.Credential)
		status int
		detail string
	}{
		{"the role", []string{role}, toOwn, roles(), 403, lacksRole},
		{"a role that the other credential has", []string{role, "more"}, toSibling, roles(role), 403, notYours},
		{"the operator's role, for another's account", []string{role, "more", keystore.RoleOperator}, toStranger, roles(role, "more"), 403, notYours},
		{"the client's address", []string{role}, toOwn, func(c *keystore.Credential) {
			c.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}, 403, "The API key may not be used from this client address."},
		{"a role is given, for itself", []string{role}, toOwn, roles(role, "more"), 200, ""},
		{"a role is given, for the other credential", []string{role}, toSibling, roles(role, "more"), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, "", "")
			own := g.holder("", c.caller...)
			sibling, stranger := g.holder(own.account, "more"), g.holder("", "more")
			for _, headers := range [][]string{nil, {"Idempotency-Key", "once"}} {
				g.update(own.credential, roles(c.caller...))
				a := g.Slowly("POST", c.target(own, sibling, stranger), "{}", func() { g.update(own.credential, c.change) },
					append(headers, "X-API-Key", own.key)...)
				if c.status == 200 {
					g.wantKey(a)
					continue
				}
				g.wantError(a, c.status, c.detail)
				for _, h := range []holder{own, sibling, stranger} {
					g.wantKeys(h.credential, 1)
				}
				g.update(own.credential, func(c *keystore.Credential) { c.AllowedIPs = nil })
			}
		})
	}
}

func toOwn(_, _, _ holder) string         { return me }
func toSibling(_, other, _ holder) string { return company(other.account, other.credential) }
func toStranger(_, _, other holder) string {
	return company(other.account, other.credential)
}

// TestErrorsOfTheAPIsRoutesAreInTheLog: a client quotes the requestId, and nobody
// logs at DEBUG. Of proxied routes the access log has the id.
func TestErrorsOfTheAPIsRoutesAreInTheLog(t *testing.T) {
	g := start(t, "", "")
	own, plain := g.holder("", role), g.holder("")
	for name, c := range map[string]struct {
		method, path, body, key string
		level                   string
	}{
		"no key":             {"POST", me, "", "", "info"},
		"no role":            {"POST", me, "", plain.key, "info"},
		"another's":          {"POST", company(plain.account, plain.credential), "", own.key, "info"},
		"a body":             {"POST", me, "[]", own.key, "info"},
		"another method":     {"GET", me, "", "", "info"},
		"on a proxied route": {"GET", "/x", "", "nobody's", "debug"},
	} {
		id := idOf(g.Do(1, c.method, c.path, c.body, "X-API-Key", c.key).Text)
		line := lineWith(g.Logged(), `"request_id":"`+id+`"`)
		if id == "" || !strings.Contains(line, `"level":"`+c.level+`"`) {
			t.Errorf("%s: logged %q", name, line)
		}
	}
}

// lineWith is the first line that has the text.
func lineWith(log, text string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}
