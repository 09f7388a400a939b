package keystore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func digestOfText(text string) []byte {
	d := sha256.Sum256([]byte(text))
	return d[:]
}

// grants makes a record of a key that is in use elsewhere.
func grantOf(t *testing.T, kr *keystore.Keyring, account keystore.Account, c keystore.Credential, m keystore.Material) keystore.Record {
	t.Helper()
	r, err := kr.GrantRecord(account, c, keystore.Key{}, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func imports(t *testing.T, kr *keystore.Keyring, want keystore.Imported, records ...keystore.Record) {
	t.Helper()
	got, done, err := kr.Import(t.Context(), records)
	if err != nil || done != len(records) || got != want {
		t.Fatalf("imported %+v of %d, want %+v of %d: %v", got, done, want, len(records), err)
	}
}

// refusesImport wants the last record refused, and all others stored.
func refusesImport(t *testing.T, kr *keystore.Keyring, member string, records ...keystore.Record) {
	t.Helper()
	_, done, err := kr.Import(t.Context(), records)
	refused, ok := errors.AsType[*keystore.Error](err)
	if !ok || refused.Member != member || done != len(records)-1 {
		t.Errorf("after %d of %d: %v, want one about %s", done, len(records), err, member)
	}
}

func TestAnImportedKeyWorksAtOnceAlsoWhereItWasRefused(t *testing.T) {
	for _, pepper := range []string{"", "a pepper of the test"} {
		for _, text := range []string{"a", "sk_live_51H8", "3f2b8c1e-0000-4000-8000-00000000000A", strings.Repeat("!", keystore.MaxText), "~"} {
			for _, byText := range []bool{true, false} {
				kr := newRing(t, keystore.Config{Pepper: []byte(pepper)}).Keyring
				if v := verdict(t, kr, text); v != keystore.InvalidKey {
					t.Fatalf("before: %v", v)
				}
				m := keystore.Material{Text: text}
				if !byText {
					m = keystore.Material{Digest: digestOfText(canonical(text))}
				}
				r := grantOf(t, kr, keystore.Account{Email: "Ops@acme.example"}, keystore.Credential{Roles: []string{"api_keys:self"}}, m)
				imports(t, kr, keystore.Imported{Accounts: 1, Credentials: 1, Keys: 1}, r)
				if v := verdict(t, kr, text); v != keystore.OK {
					t.Errorf("%q, pepper %q, by its text %t: %v", text, pepper, byText, v)
				}
				imports(t, kr, keystore.Imported{}, r)
			}
		}
	}
}

// canonical is the text whose digest counts: that of a UUID is in lower case.
func canonical(text string) string {
	if len(text) == 36 {
		return strings.ToLower(text)
	}
	return text
}

func verdict(t *testing.T, kr *keystore.Keyring, text string) keystore.Verdict {
	t.Helper()
	_, v, err := kr.Verify(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestATokenThatIsImportedKeepsItsID(t *testing.T) {
	elsewhere := newRing(t, keystore.Config{Prefix: "old"}).Keyring
	issued := issueAKey(t, elsewhere)
	kr := newRing(t, keystore.Config{MasterKey: bytes.Repeat([]byte{1}, 32)}).Keyring
	imports(t, kr, keystore.Imported{Accounts: 1, Credentials: 1, Keys: 1},
		grantOf(t, kr, keystore.Account{ID: "acme"}, keystore.Credential{}, keystore.Material{Text: issued.Text}))
	k, _, err := kr.Key(t.Context(), issued.Key.ID)
	if err != nil || k.Format != keystore.FormatToken || k.Hint != issued.Key.Hint {
		t.Fatalf("%+v, %v", k, err)
	}
	if text, err := kr.Reveal(k.Key); err != nil || text != issued.Text {
		t.Errorf("revealed %v", err)
	}
	wrong := []byte(issued.Text)
	wrong[len(wrong)-1] = map[bool]byte{true: '1', false: '0'}[wrong[len(wrong)-1] == '0']
	if _, err := kr.GrantRecord(keystore.Account{ID: "acme"}, keystore.Credential{}, keystore.Key{}, keystore.Material{Text: string(wrong)}); !errors.Is(err, keystore.ErrInvalid) {
		t.Errorf("a token with a wrong checksum would never be accepted: %v", err)
	}
}

// TestATextThatIsNoneIsRefusedAlsoWithADigestThatIsStored, again and again: such a
// digest never gets into memory, from where texts are not looked at.
func TestATextThatIsNoneIsRefusedAlsoWithADigestThatIsStored(t *testing.T) {
	kr := newRing(t, keystore.Config{}).Keyring
	token := "key_012345678901_" + strings.Repeat("s", 32)
	texts := []string{token + "000000", "with a space", "é", strings.Repeat("x", keystore.MaxText+1)}
	var records []keystore.Record
	for i, text := range texts {
		records = append(records, grantOf(t, kr, keystore.Account{ID: "acme"},
			keystore.Credential{ID: fmt.Sprintf("019a0000-0000-7000-8000-%012d", i)}, keystore.Material{Digest: digestOfText(text)}))
	}
	records = append(records, grantOf(t, kr, keystore.Account{ID: "acme"},
		keystore.Credential{ID: "019a0000-0000-7000-8000-000000000009"}, keystore.Material{Digest: digestOfText(token + crcOf(token))}))
	if _, _, err := kr.Import(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, text := range texts {
			if v := verdict(t, kr, text); v != keystore.InvalidKey {
				t.Errorf("%q is %v", text, v)
			}
		}
		if v := verdict(t, kr, token+crcOf(token)); v != keystore.OK {
			t.Errorf("the text that is one is %v", v)
		}
	}
}

func issueAKey(t *testing.T, kr *keystore.Keyring) *keystore.Issued {
	t.Helper()
	a, err := kr.CreateAccount(t.Context(), keystore.Account{})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := kr.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: a.ID})
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func TestWhatCanBeKnownOfAnImportedRecordIsChecked(t *testing.T) {
	kr := newRing(t, keystore.Config{Packages: []keystore.Package{{Name: "Coverage"}}}).Keyring
	id := "019a0000-0000-7000-8000-000000000001"
	digest := keystore.Material{Digest: digestOfText("x")}
	grant := func(a keystore.Account, c keystore.Credential, m keystore.Material) error {
		_, err := kr.GrantRecord(a, c, keystore.Key{}, m)
		return err
	}
	key := func(k keystore.Key, m keystore.Material) error {
		_, err := kr.KeyRecord(k, m)
		return err
	}
	of := func(_ keystore.Record, err error) error { return err }
	acme, coverage := keystore.Account{ID: "acme"}, keystore.Credential{Package: "Coverage"}
	for member, err := range map[string]error{
		"account_id":     grant(keystore.Account{}, coverage, digest),
		"account_id ":    grant(keystore.Account{ID: "-"}, coverage, digest),
		"email":          grant(keystore.Account{Email: "nobody"}, coverage, digest),
		"package":        grant(acme, keystore.Credential{}, digest),
		"package ":       grant(acme, keystore.Credential{Package: "Other"}, digest),
		"roles":          grant(acme, keystore.Credential{Package: "Coverage", Roles: []string{"a,b"}}, digest),
		"roles ":         grant(acme, keystore.Credential{Package: "Coverage", Roles: []string{"api_keys:none"}}, digest),
		"credential_id":  grant(acme, keystore.Credential{ID: "x", Package: "Coverage"}, digest),
		"digest":         grant(acme, coverage, keystore.Material{}),
		"digest ":        grant(acme, coverage, keystore.Material{Digest: []byte{1}}),
		"secret":         grant(acme, coverage, keystore.Material{Text: "with space"}),
		"secret ":        grant(acme, coverage, keystore.Material{Text: strings.Repeat("x", 513)}),
		"secret  ":       grant(acme, coverage, keystore.Material{Text: "x", Digest: digest.Digest}),
		"digest_kind":    grant(acme, coverage, keystore.Material{Digest: digest.Digest, Kind: "md5"}),
		"digest_kind ":   grant(acme, coverage, keystore.Material{Digest: digest.Digest, Kind: keystore.DigestHMACSHA256}),
		"id":             key(keystore.Key{CredentialID: id, ID: "short"}, digest),
		"credential_id ": key(keystore.Key{CredentialID: strings.ToUpper("019a0000-0000-7000-8000-00000000000a")}, digest),
		"superseded_by":  key(keystore.Key{CredentialID: id, SupersededBy: "a key's text?"}, digest),
		"hint":           key(keystore.Key{CredentialID: id, Hint: "x"}, digest),
		"format":         key(keystore.Key{CredentialID: id, Format: "jwt"}, digest),
		"revoked_reason": key(keystore.Key{CredentialID: id, RevokedReason: "a\x00"}, digest),
		"id ":            of(kr.AccountRecord(keystore.Account{})),
		"number":         of(kr.AccountRecord(keystore.Account{ID: "a", Number: -1})),
		"account_id  ":   of(kr.CredentialRecord(keystore.Credential{ID: id, Package: "Coverage"})),
		"description":    of(kr.CredentialRecord(keystore.Credential{ID: id, AccountID: "a", Package: "Coverage", Description: strings.Repeat("x", 300)})),
		"package  ":      of(kr.CredentialRecord(keystore.Credential{ID: id, AccountID: "a"})),
	} {
		refused, ok := errors.AsType[*keystore.Error](err)
		if want := strings.TrimSpace(member); !ok || refused.Member != want {
			t.Errorf("want an error about %s, got %v", want, err)
		}
	}
	// The control: none of these is refused without what is wrong with it.
	for _, err := range []error{
		grant(acme, coverage, digest), key(keystore.Key{CredentialID: id, ID: "0123456789ab", Hint: "…", Format: "token"}, digest),
		of(kr.AccountRecord(keystore.Account{ID: "a", Number: 1})),
		of(kr.CredentialRecord(keystore.Credential{ID: id, AccountID: "a", Package: "Coverage", Roles: []string{"api_keys:operator"}})),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestADifferentRecordInTheWayIsAnError(t *testing.T) {
	kr := newRing(t, keystore.Config{}).Keyring
	id, other := "019a0000-0000-7000-8000-000000000001", "019a0000-0000-7000-8000-000000000002"
	record := func(r keystore.Record, err error) keystore.Record {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	now := kr.Now()
	account := keystore.Account{ID: "acme", Number: 3, Email: "ops@acme.example", Active: true, CreatedAt: 5}
	credential := keystore.Credential{ID: id, AccountID: "acme", Active: true, Roles: []string{"read"}, CreatedAt: 6}
	key := keystore.Key{ID: "0123456789ab", CredentialID: id, CreatedAt: 7, ExpiresAt: now.Add(time.Hour)}
	m := keystore.Material{Digest: digestOfText("x")}
	all := []keystore.Record{record(kr.AccountRecord(account)), record(kr.CredentialRecord(credential)), record(kr.KeyRecord(key, m))}
	imports(t, kr, keystore.Imported{Accounts: 1, Credentials: 1, Keys: 1}, all...)
	imports(t, kr, keystore.Imported{}, all...)

	changed := func(change func(*keystore.Account, *keystore.Credential, *keystore.Key, *keystore.Material)) (a, c, k keystore.Record) {
		account, credential, key, m := account, credential, key, m
		change(&account, &credential, &key, &m)
		return record(kr.AccountRecord(account)), record(kr.CredentialRecord(credential)), record(kr.KeyRecord(key, m))
	}
	type parts = func(*keystore.Account, *keystore.Credential, *keystore.Key, *keystore.Material)
	for member, change := range map[string]parts{
		"email": func(a *keystore.Account, _ *keystore.Credential, _ *keystore.Key, _ *keystore.Material) { a.ID = "b" },
		"number": func(a *keystore.Account, _ *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			a.ID, a.Email = "b", ""
		},
		"company": func(a *keystore.Account, _ *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			a.Company = "x"
		},
		"active": func(a *keystore.Account, _ *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			a.Active = false
		},
		"deleted_at": func(a *keystore.Account, _ *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			a.DeletedAt = 9
		},
	} {
		a, _, _ := changed(change)
		refusesImport(t, kr, member, all[0], a)
	}
	for member, change := range map[string]parts{
		"roles": func(_ *keystore.Account, c *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			c.Roles = []string{"write"}
		},
		"expires_at": func(_ *keystore.Account, c *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			c.ExpiresAt = 9
		},
		"account_id": func(_ *keystore.Account, c *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			c.AccountID = "b"
		},
		"account_id ": func(_ *keystore.Account, c *keystore.Credential, _ *keystore.Key, _ *keystore.Material) {
			c.ID, c.AccountID = other, "b"
		},
	} {
		_, c, _ := changed(change)
		refusesImport(t, kr, strings.TrimSpace(member), c)
	}
	for member, change := range map[string]parts{
		"id": func(_ *keystore.Account, _ *keystore.Credential, _ *keystore.Key, m *keystore.Material) {
			m.Digest = digestOfText("y")
		},
		"id ": func(_ *keystore.Account, _ *keystore.Credential, k *keystore.Key, _ *keystore.Material) {
			k.ID = "ba9876543210"
		},
		"credential_id": func(_ *keystore.Account, _ *keystore.Credential, k *keystore.Key, _ *keystore.Material) {
			k.CredentialID = other
		},
		"revoked_at": func(_ *keystore.Account, _ *keystore.Credential, k *keystore.Key, _ *keystore.Material) {
			k.RevokedAt = 9
		},
		"expires_at": func(_ *keystore.Account, _ *keystore.Credential, k *keystore.Key, _ *keystore.Material) {
			k.ExpiresAt = now
		},
		"credential_id ": func(_ *keystore.Account, _ *keystore.Credential, k *keystore.Key, m *keystore.Material) {
			k.ID, k.CredentialID, m.Digest = "", other, digestOfText("z")
		},
	} {
		_, _, k := changed(change)
		refusesImport(t, kr, strings.TrimSpace(member), k)
	}

	// What became of it since is no difference, and is not undone.
	if _, err := kr.RevokeKey(t.Context(), key.ID, "leaked"); err != nil {
		t.Fatal(err)
	}
	imports(t, kr, keystore.Imported{}, all...)
	if v := verdict(t, kr, "x"); v != keystore.RevokedKey {
		t.Errorf("the revoked key is %v after the import was repeated", v)
	}
}

func TestARefusedRecordLeavesNothingHalfDone(t *testing.T) {
	kr := newRing(t, keystore.Config{}).Keyring
	issued := issueAKey(t, kr)
	// The id in the text of a token can belong to another key.
	text := strings.Replace(issued.Text, "key_", "old_", 1)
	head := text[:len(text)-6]
	_, err := kr.GrantRecord(keystore.Account{ID: "new"}, keystore.Credential{}, keystore.Key{}, keystore.Material{Text: head + crcOf(head)})
	if err != nil {
		t.Fatal(err)
	}
	good := grantOf(t, kr, keystore.Account{ID: "good"}, keystore.Credential{}, keystore.Material{Text: "good"})
	bad := grantOf(t, kr, keystore.Account{ID: "bad"}, keystore.Credential{}, keystore.Material{Text: head + crcOf(head)})
	behind := grantOf(t, kr, keystore.Account{ID: "behind"}, keystore.Credential{}, keystore.Material{Text: "behind"})
	stored, done, err := kr.Import(t.Context(), []keystore.Record{good, bad, behind})
	if !errors.Is(err, keystore.ErrConflict) || done != 1 || stored != (keystore.Imported{Accounts: 1, Credentials: 1, Keys: 1}) {
		t.Fatalf("%+v, %d, %v", stored, done, err)
	}
	_ = kr.View(t.Context(), func(r keystore.Reader) error {
		for id, want := range map[string]bool{"good": true, "bad": false, "behind": false} {
			if _, err := r.Account(id); (err == nil) != want {
				t.Errorf("account %s: %v", id, err)
			}
		}
		return nil
	})
	if v := verdict(t, kr, "good"); v != keystore.OK {
		t.Errorf("the good key is %v", v)
	}
	if strings.Contains(err.Error(), text) {
		t.Errorf("the error has the key: %v", err)
	}
}

// crcOf is the checksum that makes a text with the shape of a token one.
func crcOf(head string) string {
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum, out := crc32.ChecksumIEEE([]byte(head)), make([]byte, 6)
	for i := range out {
		out[len(out)-1-i] = base62[sum%62]
		sum /= 62
	}
	return string(out)
}

// TestGrantsAreHeldToTheCap: what a store had is taken as it is.
func TestGrantsAreHeldToTheCap(t *testing.T) {
	kr := newRing(t, keystore.Config{}).Keyring
	id := "019a0000-0000-7000-8000-000000000001"
	var grants, keys []keystore.Record
	for i := range keystore.DefaultMaxKeys + 1 {
		grants = append(grants, grantOf(t, kr, keystore.Account{ID: "acme"}, keystore.Credential{ID: id}, keystore.Material{Text: fmt.Sprint("key", i)}))
		r, err := kr.KeyRecord(keystore.Key{CredentialID: id}, keystore.Material{Text: fmt.Sprint("more", i)})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, r)
	}
	_, done, err := kr.Import(t.Context(), grants)
	if !errors.Is(err, keystore.ErrKeyLimit) || done != keystore.DefaultMaxKeys {
		t.Errorf("after %d: %v", done, err)
	}
	imports(t, kr, keystore.Imported{Keys: len(keys)}, keys...)
}

func TestDigestsUnderAPepperMoveOnlyWithIt(t *testing.T) {
	pepper := []byte("a pepper of the test")
	from := newRing(t, keystore.Config{Pepper: pepper}).Keyring
	issued := issueAKey(t, from)
	m := keystore.Material{Digest: issued.Key.Digest[:], Kind: issued.Key.DigestKind, Pepper: from.PepperFingerprint()}
	for name, c := range map[string]struct {
		pepper []byte
		works  bool
	}{"the same": {pepper, true}, "another": {[]byte("another one of the test"), false}, "none": {nil, false}} {
		kr := newRing(t, keystore.Config{Pepper: c.pepper}).Keyring
		r, err := kr.GrantRecord(keystore.Account{ID: "acme"}, keystore.Credential{}, keystore.Key{}, m)
		if (err == nil) != c.works {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			imports(t, kr, keystore.Imported{Accounts: 1, Credentials: 1, Keys: 1}, r)
			if v := verdict(t, kr, issued.Text); v != keystore.OK {
				t.Errorf("the key is %v", v)
			}
		}
	}
}

// TestAnUnavailableStoreIsNoRefusal: nothing is said of records that may be good.
func TestAnUnavailableStoreIsNoRefusal(t *testing.T) {
	kr := newRing(t, keystore.Config{}).Keyring
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, done, err := kr.Import(ctx, []keystore.Record{grantOf(t, kr, keystore.Account{ID: "a"}, keystore.Credential{}, keystore.Material{Text: "x"})})
	if _, refused := errors.AsType[*keystore.Error](err); err == nil || refused || done != 0 {
		t.Errorf("%d, %v", done, err)
	}
}
