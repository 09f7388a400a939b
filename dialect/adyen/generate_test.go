package adyen_test

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestANewKeyIsGeneratedAndTheOldOneWorksForADay(t *testing.T) {
	g := start(t, "", "")
	for _, version := range versions {
		own := g.holder("", role)
		other := g.holder(own.account)
		for name, c := range map[string]struct {
			target string
			of     holder
		}{
			"company":           {company(own.account, other.credential), other},
			"merchant":          {merchant(own.account, other.credential), other},
			"me":                {me, own},
			"own by company":    {company(own.account, own.credential), own},
			"escaped in a path": {merchant(own.account, strings.ReplaceAll(own.credential, "-", "%2D")), own},
		} {
			before := time.Now()
			key := g.wantKey(g.generate(version, c.target, own.key))
			if !g.opens(key) || !g.opens(c.of.key) || !g.opens(own.key) {
				t.Errorf("%s: not every key opens the route", name)
			}
			keys := g.keys(c.of.credential)
			newest := keys[len(keys)-1]
			if !strings.Contains(key, newest.ID) || newest.State != keystore.StateActive || newest.ExpiresAt != 0 {
				t.Errorf("%s: the new key is %s until %v", name, newest.State, newest.ExpiresAt.Time())
			}
			older := keys[len(keys)-2]
			if left := older.ExpiresAt.Time().Sub(before); left < 24*time.Hour-time.Minute || left > 24*time.Hour+time.Minute {
				t.Errorf("%s: the older key works for %v", name, left)
			}
		}
	}
}

func TestABodyMayBeEmptyOrAnEmptyObject(t *testing.T) {
	g := start(t, "", "")
	for _, version := range versions {
		own := g.holder("", role)
		for _, body := range []string{"", "{}", " { }\n"} {
			g.wantKey(g.Do(version, "POST", me, body, "X-API-Key", own.key))
		}
		g.wantKey(g.Do(version, "POST", me, "{}", "X-API-Key", own.key, "Content-Type", "text/plain"))
	}
}

func TestASecondRotationMovesNoStopTime(t *testing.T) {
	g := start(t, "", "package Short {\n expires_in 1h\n }\n package Long")
	for _, name := range []string{"Short", "Long"} {
		own := holderOf(g.Issue(keystore.Credential{Package: name, Roles: []string{role}}))
		texts := []string{own.key}
		var stops []keystore.Instant
		for range 3 {
			texts = append(texts, g.wantKey(g.generate(1, me, own.key)))
			keys := g.keys(own.credential)
			for i, stop := range stops {
				if keys[i].ExpiresAt != stop {
					t.Errorf("%s: key %d stopped at %v, and now at %v", name, i, stop.Time(), keys[i].ExpiresAt.Time())
				}
			}
			stops = append(stops, keys[len(keys)-2].ExpiresAt)
			if name == "Short" && stops[len(stops)-1] != keys[len(keys)-2].CreatedAt.Add(time.Hour) {
				t.Errorf("the rotation moved the expiry of the package to %v", stops[len(stops)-1].Time())
			}
		}
		for i, text := range texts {
			if !g.opens(text) {
				t.Errorf("%s: key %d does not work inside the window", name, i)
			}
		}
	}
}

func TestOverlapSaysWhenOlderKeysStop(t *testing.T) {
	g := start(t, "overlap 0s", "")
	own := g.holder("", role)
	key := g.wantKey(g.generate(1, me, own.key))
	if g.opens(own.key) || !g.opens(key) {
		t.Error("with 0s, the older key works on or the new one does not")
	}
	g.wantError(g.generate(2, me, own.key), 401, "The API key has been revoked.")

	if err := g.Reload("", block("overlap until_first_use", "")); err != nil {
		t.Fatal(err)
	}
	unused := g.wantKey(g.generate(1, me, key))
	if !g.opens(key) {
		t.Error("with until_first_use, the older key stopped before the new one was used")
	}
	if !g.opens(unused) || g.opens(key) {
		t.Error("with until_first_use, the first use did not stop the older key")
	}
}

func TestANewKeyWaitsForItsActivation(t *testing.T) {
	g := start(t, "activation_delay 1h", "")
	own := g.holder("", role)
	pending := g.wantKey(g.generate(1, me, own.key))
	for _, version := range versions {
		for _, target := range []string{me, "/anything"} {
			g.wantError(g.Do(version, "POST", target, "", "X-API-Key", pending), 401, "The API key is not active yet.")
		}
	}
	if newest := g.keys(own.credential)[1]; newest.ActivatesAt != newest.CreatedAt.Add(time.Hour) {
		t.Errorf("made at %v, it works from %v", newest.CreatedAt.Time(), newest.ActivatesAt.Time())
	}

	if err := g.Reload("", block("activation_delay 50ms", "")); err != nil {
		t.Fatal(err)
	}
	soon := g.wantKey(g.generate(1, me, own.key))
	for deadline := time.Now().Add(20 * time.Second); !g.opens(soon); {
		if time.Now().After(deadline) {
			t.Fatal("the key never works")
		}
	}
	if newest := g.keys(own.credential)[2]; newest.ActivatesAt > keystore.InstantOf(time.Now()) {
		t.Error("the key worked before its time")
	}
}

func TestTheRoleIsTheOperatorsChoice(t *testing.T) {
	g := start(t, `role "rotates keys"`, "")
	own, usual := g.holder("", "rotates keys"), g.holder("", role)
	g.wantKey(g.generate(1, me, own.key))
	g.wantError(g.generate(1, me, usual.key), 403, "The API key lacks a role that this route requires.")
}

func TestAKeyOfAManagementPackageGeneratesKeys(t *testing.T) {
	g := start(t, "", "package Admin {\n management\n }\n package Shop")
	admin := holderOf(g.Issue(keystore.Credential{Package: "Admin", Roles: []string{role}}))
	g.wantKey(g.generate(1, me, admin.key))
	shop := holderOf(g.Issue(keystore.Credential{AccountID: admin.account, Package: "Shop", Roles: []string{role}}))
	g.wantKey(g.generate(1, company(admin.account, shop.credential), admin.key))
	g.wantError(g.generate(1, company(admin.account, admin.credential), shop.key), 403, notYours)
	g.wantKeys(admin.credential, 2)
}

func TestPathsThatAreNotTheDialectsAreEnforcedAndProxied(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	for _, target := range []string{
		"/me/generateApiKey", me + "/", "/v3//me/generateApiKey", "/v3/me", "/V3/me/generateApiKey", "/v3/me/generateapikey",
		company(own.account, ""), company("", own.credential), "/v3/users/a/apiCredentials/b/generateApiKey",
		company(own.account, own.credential) + "/more", "/v3/companies/a/b/apiCredentials/c/generateApiKey",
	} {
		if a := g.Do(1, "POST", target, "", "X-API-Key", own.key); a.Header.Get("X-Upstream") != "reached" {
			t.Errorf("%s is not proxied: %d %s", target, a.StatusCode, a.Text)
		}
		g.wantError(g.Do(1, "POST", target, ""), 401, "No API key was presented.")
	}
	g.wantKeys(own.credential, 1)
}

func TestNoKeyIsLogged(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	key := g.wantKey(g.generate(1, me, own.key, "Idempotency-Key", "once"))
	g.generate(2, me, key, "Idempotency-Key", "once")
	g.generate(2, me, own.key, "X-Api-Key", key)
	g.generate(1, company(own.account, key), own.key)
	g.Do(1, "GET", me+"?key="+key, "", "X-API-Key", key)
	logged := g.Logged()
	if !strings.Contains(logged, "/v3/me/generateApiKey") {
		t.Fatal("there is no access log")
	}
	for _, secret := range []string{own.key, key} {
		if strings.Contains(logged, secret) {
			t.Error("a key is in the log")
		}
	}
}
