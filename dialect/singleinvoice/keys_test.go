package singleinvoice_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestKeysOfOnePackageOpenNothingOfAnother(t *testing.T) {
	g := start(t, global, site+"\nfrom header apikey")
	coverage, claim := g.made("Coverage"), g.made("Claim")
	another := g.made("Account")
	for _, c := range []struct {
		name, key string
		route     int
		issue     int
	}{
		{"the Account key makes keys and opens no coverage route", g.key, 403, 200},
		{"so does the Account key that it made", another, 403, 200},
		{"a Coverage key opens its route and makes no key", coverage, 200, 401},
		{"a Claim key does neither", claim, 403, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				if a := g.Do(version, "GET", "/coverage/search", "", "apikey", c.key); a.StatusCode != c.route {
					t.Errorf("the coverage route answers %d %s", a.StatusCode, a.Text)
				}
				if a := g.call(version, `{"package":"Coverage"}`, "apikey", c.key); a.StatusCode != c.issue {
					t.Errorf("the call answers %d %s", a.StatusCode, a.Text)
				}
			}
		})
	}
}

func TestRequireAnyDoesNotCoverTheAccountPackage(t *testing.T) {
	g := start(t, global, "dialect single_invoice\nrequire any\nfrom header apikey")
	coverage := g.made("Coverage")
	if a := g.Do(1, "GET", "/", "", "apikey", g.key); a.StatusCode != 403 || !strings.Contains(a.Text, "wrong_package") {
		t.Errorf("an Account key: %d %s", a.StatusCode, a.Text)
	}
	if a := g.Do(1, "GET", "/", "", "apikey", coverage); a.StatusCode != 200 {
		t.Errorf("a Coverage key: %d %s", a.StatusCode, a.Text)
	}
}

func TestTheAccountPackageHasTheNameOfTheOperatorsChoice(t *testing.T) {
	g := start(t, global, "dialect single_invoice {\naccount_package Claim\n}\nrequire any\nfrom header apikey")
	claim := g.Issue(keystore.Credential{Package: "Claim"})
	if a := g.call(1, `{"package":"Coverage"}`, "apikey", claim.Text); a.StatusCode != 200 {
		t.Errorf("a key of it: %d %s", a.StatusCode, a.Text)
	}
	if a := g.Do(1, "GET", "/", "", "apikey", claim.Text); a.StatusCode != 403 {
		t.Errorf("on require any: %d %s", a.StatusCode, a.Text)
	}
	if a := g.call(1, `{"package":"Coverage"}`, "apikey", g.key); a.StatusCode != 401 {
		t.Errorf("an Account key: %d %s", a.StatusCode, a.Text)
	}
}

func TestNobodyMakesAKeyThatMayMore(t *testing.T) {
	g := start(t, global, site)
	before := g.stored()
	for packageName, rule := range map[string]string{
		"Quote": "has a role that the presented key lacks",
		"Ops":   "is of a package for management, and the presented key is not",
	} {
		a := g.call(1, fmt.Sprintf(`{"package":%q}`, packageName), "apikey", g.key)
		wantDenied(t, a)
		logged := g.Logged()
		if !strings.Contains(logged, rule) || !strings.Contains(logged, g.first.Credential.ID) {
			t.Errorf("%s: the log does not say who may not, and why", packageName)
		}
	}
	if got := g.stored(); got != before {
		t.Errorf("%d keys are stored, and were %d", got, before)
	}
	// The roles of the package are those of the key.
	if a := g.call(1, `{"package":"Account"}`, "apikey", g.key); a.StatusCode != 200 {
		t.Errorf("its own package: %d %s", a.StatusCode, a.Text)
	}
}

func TestOlderKeysAreMasked(t *testing.T) {
	g := start(t, global, site)
	coverage, claim, ice, short := g.made("Coverage"), g.made("Claim"), g.made("ICE"), g.made("Short")
	keys := g.keysIn(g.call(2, `{"package":"Coverage"}`, "apikey", g.key))
	want := []string{
		masked(g.key), masked(coverage), claim[:len("claim_")+12] + "…",
		"…" + ice[len(ice)-4:], "…" + short[len(short)-4:], keys[5],
	}
	if !slices.Equal(keys, want) {
		t.Errorf("keys are %q, want %q", keys, want)
	}
}

func TestNoOlderKeyIsTouchedAndOnlyLiveOnesAreListed(t *testing.T) {
	g := start(t, global, site)
	kr := g.Keyring()
	ctx := context.Background()
	revoked := g.Issue(keystore.Credential{AccountID: g.owner.ID, Package: "Coverage"})
	if _, err := kr.RevokeKey(ctx, revoked.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	rotated := g.Issue(keystore.Credential{AccountID: g.owner.ID, Package: "Coverage"})
	overlap, err := keystore.ParseOverlap("1h")
	if err != nil {
		t.Fatal(err)
	}
	next, err := kr.Rotate(ctx, keystore.Operator(), keystore.Rotation{CredentialID: rotated.Credential.ID, Overlap: overlap})
	if err != nil {
		t.Fatal(err)
	}
	g.Issue(keystore.Credential{Package: "Coverage"}) // another account's

	coverage := g.made("Coverage")
	keys := g.keysIn(g.call(1, `{"package":"Coverage"}`, "apikey", g.key))
	want := []string{masked(g.key), masked(rotated.Text), masked(next.Text), masked(coverage), keys[len(keys)-1]}
	if !slices.Equal(keys, want) {
		t.Errorf("keys are %q, want %q", keys, want)
	}
	for _, text := range []string{g.key, rotated.Text, next.Text, coverage, keys[4]} {
		if _, v, err := kr.Verify(ctx, text); v != keystore.OK {
			t.Errorf("an older key is %v: %v", v, err)
		}
	}
}

func TestRecoverableKeysAreListedInClear(t *testing.T) {
	master := writeMaster(t)
	g := start(t, global, site)
	if err := g.Reload(global+"recoverable "+master, site); err != nil {
		t.Fatal(err)
	}
	// The first key was made before, so nobody can show it.
	coverage, claim, ice := g.made("Coverage"), g.made("Claim"), g.made("ICE")
	keys := g.keysIn(g.call(1, `{"package":"Coverage"}`, "apikey", g.key))
	if want := []string{masked(g.key), coverage, claim, ice, keys[4]}; !slices.Equal(keys, want) {
		t.Errorf("keys are %q, want %q", keys, want)
	}
	g.noKeyIsLogged(g.key, coverage, claim, ice, keys[4])

	if err := g.Reload(global, site); err != nil {
		t.Fatal(err)
	}
	if keys := g.keysIn(g.call(1, `{"package":"Coverage"}`, "apikey", g.key)); keys[1] != masked(coverage) {
		t.Errorf("without the option, keys are %q", keys)
	}
}

const tooMany = `{"Message":"The request is invalid.","ModelState":{"package":["The account may have 3 live keys and has as many: one must be revoked first."]}}`

func TestTheLimitIsThatOfTheWholeAccount(t *testing.T) {
	g := start(t, global, "dialect single_invoice {\nmax_keys 3\n}\nrequire package Coverage")
	coverage := g.made("Coverage")
	g.made("Claim")
	before := g.stored()
	for _, version := range []int{1, 2} {
		a := g.call(version, `{"package":"ICE"}`, "apikey", g.key)
		wantHeaders(t, a)
		if a.StatusCode != 400 || a.Text != tooMany {
			t.Errorf("one key more: %d %s", a.StatusCode, a.Text)
		}
	}
	if got := g.stored(); got != before {
		t.Errorf("%d keys are stored, and were %d", got, before)
	}
	grant, _, err := g.Keyring().Verify(context.Background(), coverage)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Keyring().RevokeKey(context.Background(), grant.KeyID, ""); err != nil {
		t.Fatal(err)
	}
	g.made("ICE")
}

func TestParallelCallsKeepTheLimit(t *testing.T) {
	g := start(t, global, "dialect single_invoice {\nmax_keys 3\n}\nrequire package Coverage")
	var calls sync.WaitGroup
	statuses := make([]int, 12)
	for i := range statuses {
		calls.Go(func() {
			statuses[i] = g.call(1+i%2, `{"package":"Coverage"}`, "apikey", g.key).StatusCode
		})
	}
	calls.Wait()
	slices.Sort(statuses)
	if want := append([]int{200, 200}, slices.Repeat([]int{400}, 10)...); !slices.Equal(statuses, want) {
		t.Errorf("statuses are %v, want %v", statuses, want)
	}
	if got := g.stored(); got != 3 {
		t.Errorf("%d keys are stored", got)
	}
}

func TestAMailedKeyThatIsNotUsedIsListedButNotCounted(t *testing.T) {
	g := start(t, global, "dialect single_invoice {\nmax_keys 2\n}\nrequire package Coverage")
	ctx, kr := context.Background(), g.Keyring()
	if _, err := kr.RequestMail(ctx, keystore.MailRequest{Address: g.owner.Email, Package: "Coverage"}); err != nil {
		t.Fatal(err)
	}
	mailed, err := kr.BeginMail(ctx, keystore.MailLifetime)
	if err != nil {
		t.Fatal(err)
	}
	keys := g.keysIn(g.call(1, `{"package":"Coverage"}`, "apikey", g.key))
	if want := []string{masked(g.key), masked(mailed.Text), keys[2]}; !slices.Equal(keys, want) {
		t.Errorf("keys are %q, want %q", keys, want)
	}
	if a := g.call(1, `{"package":"Coverage"}`, "apikey", g.key); a.StatusCode != 400 {
		t.Errorf("one key more: %d %s", a.StatusCode, a.Text)
	}
}
