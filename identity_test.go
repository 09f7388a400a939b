package apikeys

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestTheUpstreamLearnsWhoCalled(t *testing.T) {
	g := startWith(t, "package Coverage", "require any")
	issued := g.issue(keystore.Credential{Package: "Coverage", Roles: []string{"read", "Management API—API credentials read and write"}})
	g.get("/", "Authorization", "Bearer "+issued.Text)
	h := g.upstream.taken()[0].Header
	for name, want := range map[string]string{
		"X-Account-Id": issued.Credential.AccountID, "X-Credential-Id": issued.Credential.ID, "X-Key-Id": issued.Key.ID,
		"X-Key-Package": "Coverage", "X-Key-Roles": "read,Management API%E2%80%94API credentials read and write",
	} {
		if got := h[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestIdentityHeadersCanBeNamedOrTurnedOff(t *testing.T) {
	names := func(g *gateway, headers ...string) (out []string) {
		g.get("/", append(headers, "X-Api-Key", g.issue(keystore.Credential{Roles: []string{"r"}}).Text)...)
		for name := range g.upstream.taken()[0].Header {
			if strings.Contains(name, "Key") || strings.Contains(name, "Account") || strings.Contains(name, "Credential") || strings.HasPrefix(name, "X-User") {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		return out
	}
	g := startWith(t, "", "identity_header account_id X-User\nidentity_header roles X-User-Roles")
	if got := strings.Join(names(g, "X-User", "forged"), " "); got != "X-Credential-Id X-Key-Id X-User X-User-Roles" {
		t.Errorf("named: %s", got)
	}
	g = startWith(t, "", "identity_headers off")
	if got := names(g, "X-Account-Id", "forged", "X-Key-Roles", "forged"); len(got) != 0 {
		t.Errorf("off: %s", got)
	}
}

func TestPlaceholdersTellWhoCalled(t *testing.T) {
	const names = "id account_id credential_id key_id package roles email number none"
	var lines strings.Builder
	for name := range strings.FieldsSeq(names) {
		lines.WriteString("header_up P-" + name + " \"[{http.auth.user." + name + "}]\"\n")
	}
	g := start(t, strings.NewReplacer("{global}", "", "{block}", "", "reverse_proxy {upstream}",
		"reverse_proxy {upstream} {\n"+lines.String()+"}").Replace(minimal))
	a, err := g.keyring().CreateAccount(t.Context(), keystore.Account{Email: "a@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	issued := g.issue(keystore.Credential{AccountID: a.ID, Roles: []string{"x", "y"}})
	g.get("/", "X-Api-Key", issued.Text)
	h := g.upstream.taken()[0].Header
	for name, want := range map[string]string{
		"id": a.ID, "account_id": a.ID, "credential_id": issued.Credential.ID, "key_id": issued.Key.ID,
		"package": "", "roles": "x,y", "email": "a@example.com", "number": "1",
	} {
		if got := h.Get("P-" + name); got != "["+want+"]" {
			t.Errorf("{http.auth.user.%s} is %s, want %s", name, got, want)
		}
	}
}

// forgeries are ways in which a client can claim an identity.
var forgeries = []struct{ name, headers string }{
	{"as it is", "X-Account-Id: forged\r\n"},
	{"lower case", "x-account-id: forged\r\n"},
	{"upper case", "X-ACCOUNT-ID: forged\r\n"},
	{"underscores", "X_Account_Id: forged\r\n"},
	{"dots", "X.Account.Id: forged\r\n"},
	{"mixed", "x-account_ID: forged\r\n"},
	{"twice", "X-Account-Id: forged\r\nX-Account-Id: forged\r\n"},
	{"all of them", "X-Credential-Id: forged\r\nX-Key-Id: forged\r\nX-Key-Package: forged\r\nX-Key-Roles: forged\r\n"},
	{"in a Connection list", "Connection: keep-alive, X-Account-Id, x-key-ID\r\nX-Account-Id: forged\r\n"},
	{"in two Connection headers", "Connection: X-Account-Id\r\nConnection: x_account_id\r\n"},
	{"folded", "X-Other: a\r\n X-Account-Id: forged\r\n"},
}

func checkIdentity(t *testing.T, g *gateway, forgery string, accepted bool, issued *keystore.Issued) {
	t.Helper()
	id, err := newIdentity(nil, false, &dialect.Finder{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range g.upstream.taken() {
		for name, values := range r.Header {
			if !id.guards(name) {
				continue
			}
			if !accepted || len(values) != 1 || values[0] == "forged" {
				t.Errorf("%s: the upstream got %s: %q", forgery, name, values)
			}
		}
		if accepted && r.Header.Get("X-Account-Id") != issued.Credential.AccountID {
			t.Errorf("%s: the upstream did not get our identity: %v", forgery, r.Header)
		}
	}
}

func TestIdentityInTrailersIsDropped(t *testing.T) {
	g := startWith(t, "", "")
	key := g.issue(keystore.Credential{}).Text
	for name, announced := range map[string]string{
		"announced": "X-Account-Id, X-Good", "not announced": "X-Good", "no announcement": "",
	} {
		trailer := ""
		if announced != "" {
			trailer = "Trailer: " + announced + "\r\n"
		}
		g.raw("POST / HTTP/1.1\r\nHost: " + g.addr + "\r\nX-API-Key: " + key + "\r\n" + trailer +
			"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\nX-Account-Id: forged\r\nx_key_roles: forged\r\nX-Good: kept\r\n\r\n")
		reached := g.upstream.taken()
		if len(reached) != 1 {
			t.Fatalf("%s: the upstream was reached %d times", name, len(reached))
		}
		trailers := reached[0].Trailer
		if trailers.Get("X-Account-Id") != "" || trailers.Get("X_key_roles") != "" {
			t.Errorf("%s: the upstream got trailers %v", name, trailers)
		}
		if announced != "" && trailers.Get("X-Good") != "kept" {
			t.Errorf("%s: an innocent trailer is lost: %v", name, trailers)
		}
	}
}

func TestKeysInTrailersAreDropped(t *testing.T) {
	for block, kept := range map[string]bool{"": false, "forward_key": true} {
		g := startWith(t, "", block)
		key := g.issue(keystore.Credential{}).Text
		g.raw("POST / HTTP/1.1\r\nHost: " + g.addr + "\r\nX-API-Key: " + key + "\r\nTrailer: X-API-Key, Authorization\r\n" +
			"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\nx-api-key: " + key + "\r\nAuthorization: Bearer " + key + "\r\n\r\n")
		reached := g.upstream.taken()
		if len(reached) != 1 {
			t.Fatalf("%q: the upstream was reached %d times", block, len(reached))
		}
		if got := len(reached[0].Trailer) > 0; got != kept {
			t.Errorf("%q: the upstream got trailers %v", block, reached[0].Trailer)
		}
	}
}

func FuzzGuardedSpellings(f *testing.F) {
	id, err := newIdentity(nil, false, &dialect.Finder{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("X-Account-Id")
	f.Add("x.key_roles")
	f.Fuzz(func(t *testing.T, name string) {
		plain := strings.NewReplacer("_", "-", ".", "-").Replace(name)
		want := slices.ContainsFunc(id.headers, func(h string) bool { return strings.EqualFold(h, plain) && len(h) == len(name) })
		if got := id.guards(name); got != want {
			t.Errorf("guards(%q) = %v", name, got)
		}
	})
}
