package keystore_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// ring is a keyring over a real SQLite store, with shortcuts that fail the test.
type ring struct {
	*keystore.Keyring
	t     *testing.T
	vault *keystore.Vault
}

func newRing(t *testing.T, config keystore.Config) *ring {
	t.Helper()
	return openRing(t, filepath.Join(t.TempDir(), "store", "keys.db"), config, keystore.DefaultCacheSize)
}

func openRing(t *testing.T, path string, config keystore.Config, cacheSize int64) *ring {
	t.Helper()
	vault := openVault(t, path, cacheSize)
	kr, err := keystore.NewKeyring(t.Context(), vault, config)
	if err != nil {
		t.Fatal(err)
	}
	return &ring{kr, t, vault}
}

func openVault(t *testing.T, path string, cacheSize int64) *keystore.Vault {
	t.Helper()
	store, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := keystore.OpenVault(t.Context(), twice{store}, cacheSize, func(problem string, err error) {
		t.Errorf("in the background: %s: %v", problem, err)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vault.Close(); err != nil {
			t.Error(err)
		}
	})
	return vault
}

// twice runs each update that succeeds two times, as a store may that has to give a
// transaction up: every rule is tested for making the same of it.
type twice struct{ *sqlstore.Store }

var errOnceMore = errors.New("given up by the test")

func (s twice) Update(ctx context.Context, change func(keystore.Tx) error) error {
	err := s.Store.Update(ctx, func(tx keystore.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		return errOnceMore
	})
	if !errors.Is(err, errOnceMore) {
		return err
	}
	return s.Store.Update(ctx, change)
}

func (r *ring) account(a keystore.Account) *keystore.Account {
	r.t.Helper()
	made, err := r.CreateAccount(r.t.Context(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	return made
}

// issue makes a credential in an account of its own.
func (r *ring) issue(c keystore.Credential) *keystore.Issued {
	r.t.Helper()
	c.AccountID = r.account(keystore.Account{}).ID
	issued, err := r.Issue(r.t.Context(), keystore.Operator(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return issued
}

func (r *ring) rotate(id, overlap string) *keystore.Issued {
	r.t.Helper()
	o, err := keystore.ParseOverlap(overlap)
	if err != nil {
		r.t.Fatal(err)
	}
	issued, err := r.Rotate(r.t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: id, Overlap: o})
	if err != nil {
		r.t.Fatal(err)
	}
	return issued
}

func (r *ring) verdict(text string) keystore.Verdict {
	r.t.Helper()
	_, v, err := r.Verify(r.t.Context(), text)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// accept presents the key as a request would.
func (r *ring) accept(text string) keystore.Verdict {
	r.t.Helper()
	_, v, err := r.Accept(r.t.Context(), text, keystore.Request{Requirement: &keystore.Requirement{}})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *ring) want(text string, want keystore.Verdict) {
	r.t.Helper()
	if got := r.verdict(text); got != want {
		r.t.Errorf("verdict %v, want %v", got, want)
	}
}

func (r *ring) state(keyID string) keystore.State {
	r.t.Helper()
	status, _, err := r.Key(r.t.Context(), keyID)
	if err != nil {
		r.t.Fatal(err)
	}
	return status.State
}

func TestRotationBoundsOlderKeys(t *testing.T) {
	r := newRing(t, keystore.Config{})
	first := r.issue(keystore.Credential{})
	r.want(first.Text, keystore.OK)

	second := r.rotate(first.Credential.ID, "24h")
	r.want(first.Text, keystore.OK)
	r.want(second.Text, keystore.OK)
	if got := r.state(first.Key.ID); got != keystore.StateRetiring {
		t.Errorf("the older key is %s", got)
	}
	stop := second.Previous[0].ExpiresAt

	third := r.rotate(first.Credential.ID, "48h")
	if got := third.Previous[0].ExpiresAt; got != stop {
		t.Errorf("a second rotation moved the stop time from %v to %v", stop.Time(), got.Time())
	}

	last := r.rotate(first.Credential.ID, "0s")
	for _, text := range []string{first.Text, second.Text, third.Text} {
		r.want(text, keystore.RevokedKey)
	}
	r.want(last.Text, keystore.OK)
	if len(last.Previous) != 3 || last.Previous[0].State != keystore.StateRevoked || last.Previous[0].SupersededBy != second.Key.ID {
		t.Errorf("previous keys: %+v", last.Previous)
	}
}

func TestOverlapEndsByItself(t *testing.T) {
	r := newRing(t, keystore.Config{})
	first := r.issue(keystore.Credential{})
	r.rotate(first.Credential.ID, "60ms")
	r.want(first.Text, keystore.OK)
	eventually(t, func() bool { return r.verdict(first.Text) == keystore.ExpiredKey })
}

// eventually waits for a condition that time alone brings.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatal("it did not come to pass within 10 s")
}

func TestFirstUseStopsOlderKeys(t *testing.T) {
	r := newRing(t, keystore.Config{})
	first := r.issue(keystore.Credential{})
	second := r.rotate(first.Credential.ID, keystore.UntilFirstUse)
	if first := r.state(first.Key.ID); first != keystore.StateRetiring {
		t.Errorf("the older key is %s", first)
	}
	r.want(second.Text, keystore.OK) // verify is no use
	if got := r.accept(first.Text); got != keystore.OK {
		t.Errorf("before the new key's first use the older one is %v", got)
	}
	if got := r.accept(second.Text); got != keystore.OK {
		t.Errorf("the new key is %v", got)
	}
	if got := r.accept(first.Text); got != keystore.ExpiredKey {
		t.Errorf("after the new key's first use the older one is %v", got)
	}
	if used, _, _ := r.Key(t.Context(), second.Key.ID); used.FirstUsedAt == 0 || used.StopsAt() != 0 {
		t.Errorf("the used key: %+v", used.Key)
	}
}

func TestFirstUseOfAnyLaterKeyStopsOlderOnes(t *testing.T) {
	r := newRing(t, keystore.Config{})
	first := r.issue(keystore.Credential{})
	second := r.rotate(first.Credential.ID, keystore.UntilFirstUse)
	third := r.rotate(first.Credential.ID, keystore.UntilFirstUse)
	if got := r.accept(second.Text); got != keystore.OK {
		t.Fatalf("the second key is %v", got)
	}
	r.want(first.Text, keystore.ExpiredKey)
	r.want(third.Text, keystore.OK)
	if got := r.accept(third.Text); got != keystore.OK {
		t.Fatalf("the third key is %v", got)
	}
	r.want(second.Text, keystore.ExpiredKey)
}

func TestOlderKeyIsActiveAgainIfTheNewOneGoesUnused(t *testing.T) {
	r := newRing(t, keystore.Config{})
	first := r.issue(keystore.Credential{})
	second := r.rotate(first.Credential.ID, keystore.UntilFirstUse)
	if _, err := r.RevokeKey(t.Context(), second.Key.ID, "lost"); err != nil {
		t.Fatal(err)
	}
	if got := r.state(first.Key.ID); got != keystore.StateActive {
		t.Errorf("the older key is %s", got)
	}
}

func TestRefusedRequestsAreNoFirstUse(t *testing.T) {
	r := newRing(t, keystore.Config{})
	first := r.issue(keystore.Credential{})
	second := r.rotate(first.Credential.ID, keystore.UntilFirstUse)
	needs := &keystore.Requirement{Roles: [][]string{{"other"}}}
	if _, v, _ := r.Accept(t.Context(), second.Text, keystore.Request{Requirement: needs}); v != keystore.MissingRole {
		t.Fatalf("verdict %v", v)
	}
	r.want(first.Text, keystore.OK)
}

func TestRacingFirstUsesStopTheOlderKeyOnce(t *testing.T) {
	r := newRing(t, keystore.Config{})
	for range 20 {
		first := r.issue(keystore.Credential{})
		second := r.rotate(first.Credential.ID, keystore.UntilFirstUse)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if got := r.accept(second.Text); got != keystore.OK {
					t.Errorf("the new key is %v", got)
				}
				if got := r.accept(first.Text); got != keystore.ExpiredKey {
					t.Errorf("after an accepted first use the older key is %v", got)
				}
			})
		}
		wg.Wait()
	}
}

func TestKeyLimit(t *testing.T) {
	r := newRing(t, keystore.Config{})
	c := r.issue(keystore.Credential{}).Credential
	for range keystore.DefaultMaxKeys - 1 {
		r.rotate(c.ID, "24h")
	}
	_, err := r.Rotate(t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: c.ID, Overlap: keystore.Overlap{For: time.Hour}})
	if !errors.Is(err, keystore.ErrKeyLimit) || !errors.Is(err, keystore.ErrConflict) {
		t.Fatalf("rotation past the limit: %v", err)
	}
	keys, err := r.Keys(t.Context(), c.ID, keystore.Page{})
	if err != nil || len(keys) != keystore.DefaultMaxKeys {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	r.rotate(c.ID, "0s") // leaves one live key, so it is allowed
	r.rotate(c.ID, "24h")
}

func TestRevocationIsFinal(t *testing.T) {
	r := newRing(t, keystore.Config{})
	issued := r.issue(keystore.Credential{})
	at, err := r.RevokeKey(t.Context(), issued.Key.ID, "leaked")
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.RevokeKey(t.Context(), issued.Key.ID, "other")
	if err != nil || again.RevokedAt != at.RevokedAt || again.RevokedReason != "leaked" {
		t.Errorf("a second revocation changed the first: %+v, %v", again.Key, err)
	}
	if _, err := r.SetKeyExpiry(t.Context(), keystore.Operator(), issued.Key.ID, 0); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("a revoked key's expiry could be changed: %v", err)
	}
	r.want(issued.Text, keystore.RevokedKey)
}

func TestDeactivationIsReversible(t *testing.T) {
	r := newRing(t, keystore.Config{})
	issued := r.issue(keystore.Credential{})
	credential := func(active bool) {
		_, err := r.UpdateCredential(t.Context(), keystore.Operator(), issued.Credential.ID, func(c *keystore.Credential) error {
			c.Active = active
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	account := func(active bool) {
		_, err := r.UpdateAccount(t.Context(), issued.Credential.AccountID, func(a *keystore.Account) error {
			a.Active = active
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, set := range []func(bool){credential, account} {
		set(false)
		r.want(issued.Text, keystore.Inactive)
		set(true)
		r.want(issued.Text, keystore.OK)
	}
}

func TestDeletionRevokesForEver(t *testing.T) {
	r := newRing(t, keystore.Config{})
	byCredential, byAccount := r.issue(keystore.Credential{}), r.issue(keystore.Credential{})
	older := byAccount
	newer := r.rotate(byAccount.Credential.ID, "24h")
	if err := r.DeleteCredential(t.Context(), byCredential.Credential.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteAccount(t.Context(), byAccount.Credential.AccountID); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{byCredential.Text, older.Text, newer.Text} {
		r.want(text, keystore.RevokedKey)
	}
	if _, _, err := r.Key(t.Context(), newer.Key.ID); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a key of a deleted account is found: %v", err)
	}
	if err := r.DeleteAccount(t.Context(), byAccount.Credential.AccountID); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("an account can be deleted twice: %v", err)
	}
	_, err := r.CreateAccount(t.Context(), keystore.Account{ID: byAccount.Credential.AccountID})
	if !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("the id of a deleted account is given again: %v", err)
	}
}

func TestExpiryMovesEarlierOnly(t *testing.T) {
	r := newRing(t, keystore.Config{})
	issued := r.issue(keystore.Credential{})
	now := r.Now()
	holder := keystore.Holder(&keystore.Grant{Roles: []string{keystore.RoleSelf}})
	for _, step := range []struct {
		name  string
		actor keystore.Actor
		at    keystore.Instant
		want  error
	}{
		{"the holder sets one", holder, now.Add(2 * time.Hour), nil},
		{"the holder moves it earlier", holder, now.Add(time.Hour), nil},
		{"the holder can't move it later", holder, now.Add(2 * time.Hour), keystore.ErrForbidden},
		{"the holder can't remove it", holder, 0, keystore.ErrForbidden},
		{"the operator moves it later", keystore.Operator(), now.Add(9 * time.Hour), nil},
		{"nobody sets a past one", keystore.Operator(), now - 1, keystore.ErrInvalid},
		{"the operator removes it", keystore.Operator(), 0, nil},
	} {
		if _, err := r.SetKeyExpiry(t.Context(), step.actor, issued.Key.ID, step.at); !errors.Is(err, step.want) {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	r.rotate(issued.Credential.ID, "1h")
	if _, err := r.SetKeyExpiry(t.Context(), keystore.Operator(), issued.Key.ID, now.Add(9*time.Hour)); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("the stop time of a rotated key moved later: %v", err)
	}
}

func TestNobodyObtainsWhatTheyLack(t *testing.T) {
	r := newRing(t, keystore.Config{})
	admin := r.issue(keystore.Credential{Roles: []string{"admin"}})
	operator := r.issue(keystore.Credential{Roles: []string{keystore.RoleOperator}})
	reader := keystore.Holder(&keystore.Grant{Roles: []string{"reader", keystore.RoleSelf}})
	for _, id := range []string{admin.Credential.ID, operator.Credential.ID} {
		if _, err := r.Rotate(t.Context(), reader, keystore.Rotation{CredentialID: id}); !errors.Is(err, keystore.ErrForbidden) {
			t.Errorf("rotation: %v", err)
		}
	}
	for _, role := range []string{"admin", keystore.RoleOperator} {
		_, err := r.Issue(t.Context(), reader, keystore.Credential{AccountID: admin.Credential.AccountID, Roles: []string{role}})
		if !errors.Is(err, keystore.ErrForbidden) {
			t.Errorf("issue with role %s: %v", role, err)
		}
	}
	r.want(admin.Text, keystore.OK)
	holder := keystore.Holder(&keystore.Grant{Roles: []string{keystore.RoleOperator}})
	if _, err := r.Rotate(t.Context(), holder, keystore.Rotation{CredentialID: admin.Credential.ID}); err != nil {
		t.Errorf("an operator's key may do everything: %v", err)
	}
}

func TestAKeyOfAManagementPackageIsObtainedWithOneOnly(t *testing.T) {
	r := newRing(t, keystore.Config{Packages: []keystore.Package{{Name: "Coverage"}, {Name: "Account", Management: true}}})
	account := r.issue(keystore.Credential{Package: "Account"})
	coverage := keystore.Holder(&keystore.Grant{Package: "Coverage", Roles: []string{keystore.RoleSelf}})
	manager := keystore.Holder(&keystore.Grant{Package: "Account"})
	for name, actor := range map[string]struct {
		keystore.Actor
		allowed bool
	}{
		"a key of another package": {coverage, false}, "a key of that package": {manager, true}, "the operator": {keystore.Operator(), true},
	} {
		t.Run(name, func(t *testing.T) {
			_, rotated := r.Rotate(t.Context(), actor.Actor, keystore.Rotation{CredentialID: account.Credential.ID, Overlap: keystore.Overlap{For: time.Hour}})
			_, issued := r.Issue(t.Context(), actor.Actor, keystore.Credential{AccountID: account.Credential.AccountID, Package: "Account"})
			for what, err := range map[string]error{"rotation": rotated, "issue": issued} {
				if allowed := err == nil; allowed != actor.allowed || (!allowed && !errors.Is(err, keystore.ErrForbidden)) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	if _, err := r.Issue(t.Context(), manager, keystore.Credential{AccountID: account.Credential.AccountID, Package: "Coverage"}); err != nil {
		t.Errorf("a key for management makes others: %v", err)
	}
}

func TestPackagesDecideWhatAKeyIs(t *testing.T) {
	r := newRing(t, keystore.Config{Packages: []keystore.Package{
		{Name: "Coverage", Prefix: "cov", Roles: []string{"search"}, ExpiresIn: time.Hour, MaxKeys: 1},
		{Name: "Account", Format: keystore.FormatUUID, Management: true},
	}})
	coverage := r.issue(keystore.Credential{Package: "Coverage", Roles: []string{"quote"}})
	if !strings.HasPrefix(coverage.Text, "cov_") || coverage.Key.ExpiresAt != coverage.Key.CreatedAt.Add(time.Hour) {
		t.Errorf("key %+v", coverage.Key.Key)
	}
	if got := strings.Join(coverage.Credential.Roles, " "); got != "search quote" {
		t.Errorf("roles %q", got)
	}
	if _, err := r.Rotate(t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: coverage.Credential.ID, Overlap: keystore.Overlap{For: 1}}); !errors.Is(err, keystore.ErrKeyLimit) {
		t.Errorf("max_keys is not held: %v", err)
	}
	account := r.issue(keystore.Credential{Package: "Account"})
	for _, c := range []struct {
		name, text string
		needs      keystore.Requirement
		want       keystore.Verdict
	}{
		{"any", coverage.Text, keystore.Requirement{}, keystore.OK},
		{"any does not cover a management package", account.Text, keystore.Requirement{}, keystore.WrongPackage},
		{"nor does a role", account.Text, keystore.Requirement{Roles: [][]string{{"x"}}}, keystore.WrongPackage},
		{"its name does", account.Text, keystore.Requirement{Packages: [][]string{{"Account"}}}, keystore.OK},
		{"one of several names", account.Text, keystore.Requirement{Packages: [][]string{{"Coverage", "Account"}}}, keystore.OK},
		{"another name", account.Text, keystore.Requirement{Packages: [][]string{{"Coverage"}}}, keystore.WrongPackage},
		{"all lines must hold", coverage.Text, keystore.Requirement{Roles: [][]string{{"search"}, {"admin"}}}, keystore.MissingRole},
		{"one name of a line is enough", coverage.Text, keystore.Requirement{Roles: [][]string{{"admin", "quote"}}}, keystore.OK},
	} {
		if _, got, _ := r.Accept(t.Context(), c.text, keystore.Request{Requirement: &c.needs}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for _, name := range []string{"", "coverage", "Nope"} {
		_, err := r.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: account.Credential.AccountID, Package: name})
		if !errors.Is(err, keystore.ErrInvalid) || !strings.Contains(err.Error(), "Account, Coverage") {
			t.Errorf("package %q: %v", name, err)
		}
	}
}

func TestAPackageThatIsNoLongerDeclaredOpensNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	vault := openVault(t, path, keystore.DefaultCacheSize)
	verdict := func(text string, declared ...keystore.Package) keystore.Verdict {
		kr, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{Packages: declared})
		if err != nil {
			t.Fatal(err)
		}
		return (&ring{kr, t, vault}).accept(text)
	}
	admin, coverage := keystore.Package{Name: "Admin", Management: true}, keystore.Package{Name: "Coverage"}
	kr, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{Packages: []keystore.Package{admin, coverage}})
	if err != nil {
		t.Fatal(err)
	}
	text := (&ring{kr, t, vault}).issue(keystore.Credential{Package: "Admin"}).Text
	for name, declared := range map[string][]keystore.Package{
		"declared": {admin, coverage}, "only others are declared": {coverage}, "none is declared": nil,
	} {
		if got := verdict(text, declared...); got != keystore.WrongPackage {
			t.Errorf("%s: a management key opens a route that requires any: %v", name, got)
		}
	}
}

func TestValuesAreChecked(t *testing.T) {
	r := newRing(t, keystore.Config{})
	long := strings.Repeat("x", 300)
	for member, a := range map[string]keystore.Account{
		"id":                    {ID: "-x"},
		"email":                 {Email: "Test <test@example.com>"},
		"roles":                 {Roles: []string{"a,b"}},
		"company":               {Company: long},
		"attributes":            {Attributes: map[string]string{"": "x"}},
		"attributes.a":          {Attributes: map[string]string{"a": "line\nbreak"}},
		"roles: \"api_keys:x\"": {Roles: []string{"api_keys:x"}},
	} {
		_, err := r.CreateAccount(t.Context(), a)
		if !errors.Is(err, keystore.ErrInvalid) || !strings.HasPrefix(err.Error(), member) {
			t.Errorf("%s: %v", member, err)
		}
	}
	for _, email := range []string{"x", "a@b\r\nBcc: c@d", "@b", "a@", "a b@c.d", strings.Repeat("a", 250) + "@b.cd", " a@b.cd"} {
		if _, err := r.CreateAccount(t.Context(), keystore.Account{Email: email}); !errors.Is(err, keystore.ErrInvalid) {
			t.Errorf("email %q: %v", email, err)
		}
	}
	err := r.View(t.Context(), func(read keystore.Reader) error {
		all, err := read.Accounts(keystore.Page{})
		if len(all) != 0 {
			t.Errorf("%d accounts were stored all the same", len(all))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEmailIsUniqueWithoutRegardToCase(t *testing.T) {
	r := newRing(t, keystore.Config{})
	a := r.account(keystore.Account{Email: "Test@Example.com"})
	_, err := r.CreateAccount(t.Context(), keystore.Account{Email: "test@example.COM"})
	var refusal *keystore.Error
	if !errors.As(err, &refusal) || refusal.Member != "email" || !errors.Is(err, keystore.ErrConflict) {
		t.Fatalf("a second account with the address: %v", err)
	}
	if a.Email != "Test@Example.com" {
		t.Errorf("stored as %q", a.Email)
	}
	if err := r.DeleteAccount(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	r.account(keystore.Account{Email: "test@example.com"})
}

func TestPepperIsHeldTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	vault := openVault(t, path, keystore.DefaultCacheSize)
	keyring := func(pepper string) (*keystore.Keyring, error) {
		return keystore.NewKeyring(t.Context(), vault, keystore.Config{Pepper: []byte(pepper)})
	}
	plain, err := keyring("")
	if err != nil {
		t.Fatal(err)
	}
	r := &ring{plain, t, vault}
	old := r.issue(keystore.Credential{})
	peppered, err := keyring("a pepper of good length")
	if err != nil {
		t.Fatal(err)
	}
	r.Keyring = peppered
	r.want(old.Text, keystore.OK) // keys from before the pepper stay valid
	fresh := r.issue(keystore.Credential{})
	if fresh.Key.DigestKind != keystore.DigestHMACSHA256 {
		t.Errorf("the new key's digest is %s", fresh.Key.DigestKind)
	}
	r.want(fresh.Text, keystore.OK)
	r.want(fresh.Text+"x", keystore.InvalidKey)
	for _, other := range []string{"", "another pepper, as long"} {
		if _, err := keyring(other); !errors.Is(err, keystore.ErrPepper) {
			t.Errorf("pepper %q: %v", other, err)
		}
	}
}

func TestRecoverableKeysCanBeShownAgain(t *testing.T) {
	master := []byte(strings.Repeat("m", keystore.MasterKeySize))
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	r := openRing(t, path, keystore.Config{MasterKey: master}, keystore.DefaultCacheSize)
	issued := r.issue(keystore.Credential{})
	stored, _, err := r.Key(t.Context(), issued.Key.ID)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := r.Reveal(stored.Key); err != nil || text != issued.Text {
		t.Errorf("revealed %v, %v", text == issued.Text, err)
	}
	moved := *stored.Key
	moved.ID = "000000000000"
	if _, err := r.Reveal(&moved); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a sealed text opens under another key's id: %v", err)
	}
	other, err := keystore.NewKeyring(t.Context(), r.vault, keystore.Config{MasterKey: []byte(strings.Repeat("o", 32))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Reveal(stored.Key); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a sealed text opens under another master key: %v", err)
	}
	if _, err := keystore.NewKeyring(t.Context(), r.vault, keystore.Config{MasterKey: []byte("short")}); err == nil {
		t.Error("a short master key is accepted")
	}
}

func TestEverythingIsThereAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	var texts []string
	var revoked string
	t.Run("before", func(t *testing.T) {
		r := openRing(t, path, keystore.Config{}, keystore.DefaultCacheSize)
		first := r.issue(keystore.Credential{})
		second := r.rotate(first.Credential.ID, "1h")
		third := r.issue(keystore.Credential{})
		if _, err := r.RevokeKey(t.Context(), third.Key.ID, ""); err != nil {
			t.Fatal(err)
		}
		if got := r.accept(second.Text); got != keystore.OK {
			t.Fatal(got)
		}
		texts, revoked = []string{first.Text, second.Text}, third.Text
	})
	r := openRing(t, path, keystore.Config{}, keystore.DefaultCacheSize)
	for _, text := range texts {
		r.want(text, keystore.OK)
	}
	r.want(revoked, keystore.RevokedKey)
	g, _, _ := r.Verify(t.Context(), texts[1])
	used, _, err := r.Key(t.Context(), g.KeyID)
	if err != nil || used.LastUsedAt == 0 || used.FirstUsedAt == 0 {
		t.Errorf("the last use is not there: %+v, %v", used.Key, err)
	}
}

func TestAClosedVaultAnswersUnavailable(t *testing.T) {
	r := newRing(t, keystore.Config{})
	issued := r.issue(keystore.Credential{})
	if err := r.vault.Close(); err != nil {
		t.Fatal(err)
	}
	if _, v, err := r.Verify(t.Context(), issued.Text); v != keystore.StoreUnavailable || !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("verdict %v, %v", v, err)
	}
	if _, err := r.RevokeKey(t.Context(), issued.Key.ID, ""); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("revocation: %v", err)
	}
}

func TestAllowedIPs(t *testing.T) {
	r := newRing(t, keystore.Config{})
	issued := r.issue(keystore.Credential{AllowedIPs: prefixes("192.0.2.0/24", "2001:db8::/32")})
	for ip, want := range map[string]keystore.Verdict{
		"192.0.2.7": keystore.OK, "::ffff:192.0.2.7": keystore.OK, "2001:db8::1%eth0": keystore.OK,
		"198.51.100.1": keystore.IPNotAllowed, "": keystore.IPNotAllowed, "junk": keystore.IPNotAllowed,
	} {
		_, got, _ := r.Accept(t.Context(), issued.Text, keystore.Request{Requirement: &keystore.Requirement{}, ClientIP: ip})
		if got != want {
			t.Errorf("%q: %v, want %v", ip, got, want)
		}
	}
}

func TestVerifyingACachedKeyAllocatesNothing(t *testing.T) {
	for name, pepper := range map[string]string{"sha256": "", "hmac": "a pepper of good length"} {
		t.Run(name, func(t *testing.T) {
			if pepper != "" && raceDetector {
				t.Skip("the race detector makes sync.Pool allocate; the same test without -race counts")
			}
			r := newRing(t, keystore.Config{Pepper: []byte(pepper)})
			issued := r.issue(keystore.Credential{Roles: []string{"a", "b"}})
			ctx := context.Background()
			request := keystore.Request{Requirement: &keystore.Requirement{Roles: [][]string{{"a"}}}}
			eventually(t, func() bool {
				before := r.vault.Misses()
				_, v, _ := r.Accept(ctx, issued.Text, request)
				return v == keystore.OK && r.vault.Misses() == before
			})
			if n := testing.AllocsPerRun(1000, func() {
				if _, v, _ := r.Accept(ctx, issued.Text, request); v != keystore.OK {
					t.Fatal(v)
				}
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
