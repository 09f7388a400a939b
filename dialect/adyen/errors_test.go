package adyen_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The sentences of the API's own errors.
const (
	notYours      = "The presented API key may not generate a key for this API credential, or there is no such API credential."
	noObject      = "The request body must be empty, or an empty JSON object."
	noParameters  = "The request takes no parameters in its body."
	noSuch        = "There is no such parameter; leave it out."
	badRepetition = "The header Idempotency-Key must be given once, with 1 to 64 characters of printable ASCII."
	twoKeys       = "More than one API key was presented; present exactly one, once."
	lacksRole     = "The API key lacks a role that this route requires."
	deactivated   = "The account or the credential of this API key is deactivated."
	tooLarge      = "The request body is larger than 64 KiB."
	tooMany       = "The API credential has as many API keys as it may; try again when an older one has stopped working."
	mayHaveEnded  = "The API credential can't get a new API key; it may have expired."
)

// row is one rule of the contract: a request, and the whole of its answer.
type row struct {
	name         string
	method, path string
	body         string
	headers      []string
	status       int
	detail       string
	fields       [][3]string
}

func TestEveryRefusalIsOneErrorObject(t *testing.T) {
	g := start(t, "", "")
	own, plain := g.holder("", role), g.holder("")
	dormant, revoked := g.holder("", role), g.holder("", role)
	g.update(dormant.credential, func(c *keystore.Credential) { c.Active = false })
	g.revoke(revoked.keyID)
	guarded := holderOf(g.Issue(keystore.Credential{AccountID: own.account, Roles: []string{role}}))
	g.update(guarded.credential, func(c *keystore.Credential) { c.AllowedIPs = prefixes("192.0.2.0/24") })
	key := []string{"X-API-Key", own.key}
	field := func(name, message string) [][3]string { return [][3]string{{name, "", message}} }
	with := func(headers ...string) []string { return append(headers, key...) }

	for _, c := range []row{
		{"another method", "GET", me, "", key, 405, "This path takes POST only.", nil},
		{"another method without a key", "DELETE", company("a", "b"), "", nil, 405, "This path takes POST only.", nil},
		{"a preflight", "OPTIONS", merchant("a", "b"), "", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}, 405, "This path takes POST only.", nil},

		{"no key", "POST", me, "", nil, 401, "No API key was presented.", nil},
		{"an empty key", "POST", me, "", []string{"X-API-Key", ""}, 401, "No API key was presented.", nil},
		{"a key as a bearer token only", "POST", me, "", []string{"Authorization", "Bearer " + own.key}, 401, "No API key was presented.", nil},
		{"an unknown key", "POST", me, "", []string{"X-API-Key", "unknown"}, 401, "The API key is not valid.", nil},
		{"a mistyped key", "POST", me, "", []string{"X-API-Key", own.key[:len(own.key)-1] + "_"}, 401, "The API key is not valid.", nil},
		{"a revoked key", "POST", me, "", []string{"X-API-Key", revoked.key}, 401, "The API key has been revoked.", nil},
		{"a key in two headers", "POST", me, "", with("X-API-Key", own.key), 400, twoKeys, field("X-API-Key", twoKeys)},

		{"a key without the role", "POST", me, "", []string{"X-API-Key", plain.key}, 403, lacksRole, nil},
		{"a deactivated credential", "POST", me, "", []string{"X-API-Key", dormant.key}, 403, deactivated, nil},
		{"a client address that is not allowed", "POST", me, "", []string{"X-API-Key", guarded.key}, 403, "The API key may not be used from this client address.", nil},
		{"another's account", "POST", company(plain.account, plain.credential), "", key, 403, notYours, nil},

		{"a body that is not JSON", "POST", me, "no", key, 400, noObject, field("body", noObject)},
		{"a body that is cut off", "POST", me, `{`, key, 400, noObject, field("body", noObject)},
		{"an array", "POST", me, `[]`, key, 400, noObject, field("body", noObject)},
		{"null", "POST", me, `null`, key, 400, noObject, field("body", noObject)},
		{"two objects", "POST", me, `{}{}`, key, 400, noObject, field("body", noObject)},
		{"a member twice", "POST", me, `{"a":1,"a":2}`, key, 400, noObject, field("body", noObject)},
		{"a member", "POST", me, `{"roles":["x"]}`, key, 422, noParameters, field("roles", noSuch)},
		{"members", "POST", me, `{"b":{"c":[1]},"a":""}`, key, 422, noParameters, [][3]string{{"b", "", noSuch}, {"a", "", noSuch}}},
		{"a member that is named like a key", "POST", me, `{"` + own.key + `":1}`, key, 422, noParameters, field("REDACTED", noSuch)},
		{"a member with a long name", "POST", me, `{"` + strings.Repeat("é", 60) + `":1}`, key, 422, noParameters, field(strings.Repeat("é", 32)+"…", noSuch)},
		{"a body that is too large", "POST", me, strings.Repeat(" ", 64<<10+1), key, 413, tooLarge, nil},
		{"a body of another's account that is too large", "POST", company(plain.account, plain.credential), strings.Repeat(" ", 64<<10+1), key, 413, tooLarge, nil},
		{"a wrong body without a key", "POST", me, "no", nil, 401, "No API key was presented.", nil},

		{"an empty Idempotency-Key", "POST", me, "", with("Idempotency-Key", ""), 400, badRepetition, field("Idempotency-Key", badRepetition)},
		{"an Idempotency-Key of 65 characters", "POST", me, "", with("Idempotency-Key", strings.Repeat("x", 65)), 400, badRepetition, field("Idempotency-Key", badRepetition)},
		{"two Idempotency-Keys", "POST", me, "", with("Idempotency-Key", "a", "Idempotency-Key", "a"), 400, badRepetition, field("Idempotency-Key", badRepetition)},
		{"an Idempotency-Key that is not ASCII", "POST", me, "", with("Idempotency-Key", "é"), 400, badRepetition, field("Idempotency-Key", badRepetition)},
		{"an Idempotency-Key with a tab", "POST", me, "", with("Idempotency-Key", "a\tb"), 400, badRepetition, field("Idempotency-Key", badRepetition)},
		{"a bad Idempotency-Key for another's account", "POST", company(plain.account, plain.credential), "", with("Idempotency-Key", ""), 403, notYours, nil},

		{"a proxied route without a key", "GET", "/x", "", nil, 401, "No API key was presented.", nil},
		{"a proxied route with two keys", "GET", "/x", "", with("Authorization", "Bearer "+own.key), 400, twoKeys, field("X-API-Key", twoKeys)},
		{"a proxied route with a revoked key", "GET", "/x", "", []string{"X-API-Key", revoked.key}, 401, "The API key has been revoked.", nil},
		{"a proxied route with a deactivated credential", "GET", "/x", "", []string{"X-API-Key", dormant.key}, 403, deactivated, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := g
			g.T = t
			for _, version := range versions {
				a := g.Do(version, c.method, c.path, c.body, c.headers...)
				g.wantError(a, c.status, c.detail, c.fields...)
				if allow := a.Header.Get("Allow"); (allow == "POST") != (c.status == 405) {
					t.Errorf("Allow is %q", allow)
				}
			}
		})
	}
	g.wantKeys(own.credential, 1)
	g.wantKeys(plain.credential, 1)
}

func TestNoMoreThanTenMembersAreNamed(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	body := `{"m0":0`
	var fields [][3]string
	for i := range 30 {
		name := string(rune('a' + i%26))
		body += `,"` + strings.Repeat(name, 2+i/26) + `":[{}]`
	}
	for _, name := range []string{"m0", "aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "ii"} {
		fields = append(fields, [3]string{name, "", noSuch})
	}
	g.wantError(g.Do(1, "POST", me, body+"}", "X-API-Key", own.key), 422, noParameters, fields...)
}

func TestACredentialThatCanHaveNoMoreKeysIsSaidToBeInvalid(t *testing.T) {
	g := start(t, "", "package Two {\n max_keys 2\n }")
	own := holderOf(g.Issue(keystore.Credential{Package: "Two", Roles: []string{role}}))
	other := holderOf(g.Issue(keystore.Credential{Package: "Two", AccountID: own.account}))
	g.wantKey(g.generate(1, me, own.key))
	for _, version := range versions {
		g.wantError(g.generate(version, me, own.key), 422, tooMany, [3]string{"apiCredentialId", own.credential, tooMany})
	}
	g.wantKeys(own.credential, 2)

	// The shortest way to a credential that has expired: it expires soon.
	soon := keystore.InstantOf(time.Now()).Add(500 * time.Millisecond)
	g.update(other.credential, func(c *keystore.Credential) { c.ExpiresAt = soon })
	for g.Keyring().Now() < soon {
		time.Sleep(time.Millisecond)
	}
	for _, version := range versions {
		g.wantError(g.generate(version, company(own.account, other.credential), own.key), 422, mayHaveEnded,
			[3]string{"apiCredentialId", other.credential, mayHaveEnded})
	}
	g.wantKeys(other.credential, 1)
}

// TestWhatIsNotYoursAndWhatIsNotThereAreOne is what keeps a caller from finding
// out what exists.
func TestWhatIsNotYoursAndWhatIsNotThereAreOne(t *testing.T) {
	g := start(t, "", "")
	own, stranger := g.holder("", role), g.holder("", role)
	stronger := g.holder(own.account, role, "more")
	operators := g.holder(own.account, keystore.RoleOperator)
	gone := g.holder(own.account)
	if err := g.Keyring().DeleteCredential(context.Background(), gone.credential); err != nil {
		t.Fatal(err)
	}
	const nobody = "01890000-0000-7000-8000-000000000000"
	targets := map[string]string{
		"another's credential":                                company(stranger.account, stranger.credential),
		"another's credential under the own account":          company(own.account, stranger.credential),
		"the own credential under another's account":          company(stranger.account, own.credential),
		"no credential":                                       company(own.account, nobody),
		"no account":                                          company(nobody, nobody),
		"a deleted credential":                                company(own.account, gone.credential),
		"a credential with a role that the caller lacks":      company(own.account, stronger.credential),
		"an operator's credential":                            company(own.account, operators.credential),
		"an account that can't be an id":                      company("-", own.credential),
		"a credential that can't be an id":                    company(own.account, "%00"),
		"a credential that is a path":                         company(own.account, "..%2F"+own.credential),
		"a credential of more than 128 characters":            company(own.account, strings.Repeat("a", 129)),
		"a credential that differs from the own in case only": company(own.account, strings.ToUpper(own.credential)),
	}
	for name, target := range targets {
		for _, version := range versions {
			for _, target := range []string{target, strings.Replace(target, "companies", "merchants", 1)} {
				t.Run(name, func(t *testing.T) {
					g := g
					g.T = t
					g.wantError(g.generate(version, target, own.key), 403, notYours)
				})
			}
		}
	}
	for _, h := range []holder{own, stranger, stronger, operators} {
		g.wantKeys(h.credential, 1)
	}
}

func TestAnOperatorGeneratesKeysForEveryone(t *testing.T) {
	g := start(t, "", "")
	operator, one, two := g.holder("", keystore.RoleOperator), g.holder("", "any"), g.holder("", keystore.RoleOperator)
	for _, version := range versions {
		g.wantKey(g.generate(version, company(one.account, one.credential), operator.key))
		g.wantKey(g.generate(version, merchant(two.account, two.credential), operator.key))
		g.wantKey(g.generate(version, me, operator.key))
		for _, target := range []string{company(one.account, two.credential), company(operator.account, one.credential), company("none", one.credential)} {
			g.wantError(g.generate(version, target, operator.key), 403, notYours)
		}
	}
}
