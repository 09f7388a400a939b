// Package storetest is the conformance suite of keystore.Store. A store that
// passes it can be put under a keystore.Keyring:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Harness{Open: func(t *testing.T) keystore.Store { ... }})
//	}
//
// The names of the subtests are the rules, in the words of the contract.
package storetest

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Harness makes the stores that the suite tests. Only Open is required.
type Harness struct {
	// Open returns a new, empty store. The suite closes it.
	Open func(t *testing.T) keystore.Store
	// Reopen opens again what s, which is closed, had stored.
	Reopen func(t *testing.T, s keystore.Store) keystore.Store
	// Restore opens a backup as a store.
	Restore func(t *testing.T, backup []byte) keystore.Store
}

// rule is one subtest.
type rule struct {
	name  string
	check func(*suite)
}

// suite is what the check of a rule works with: a store of its own.
type suite struct {
	*testing.T
	Harness
	keystore.Store
	ctx context.Context
}

// Run tests the stores of h against every rule of the contract.
func Run(t *testing.T, h Harness) {
	parts := []struct {
		name  string
		rules []rule
	}{
		{"records", recordRules},
		{"lookup", lookupRules},
		{"lists", listRules},
		{"uses and settings", useRules},
		{"mails, throttles and replies", mailRules},
		{"loads", loadRules},
		{"every record", everyRules},
		{"transactions", transactionRules},
		{"digests", digestRules},
		{"contexts", contextRules},
		{"lifecycle", lifecycleRules},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			for _, r := range part.rules {
				t.Run(r.name, func(t *testing.T) { run(t, h, r) })
			}
		})
	}
}

func run(t *testing.T, h Harness, r rule) {
	s := &suite{T: t, Harness: h, Store: h.Open(t), ctx: t.Context()}
	s.closeAtEnd(s.Store)
	r.check(s)
}

func (s *suite) closeAtEnd(store keystore.Store) {
	s.Cleanup(func() {
		if err := store.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	})
}

// must runs an update that has to succeed.
func (s *suite) must(change func(keystore.Tx) error) {
	s.Helper()
	if err := s.Update(s.ctx, change); err != nil {
		s.Fatalf("Update: %v", err)
	}
}

// try is must for goroutines other than the test's, which can't end it.
func (s *suite) try(change func(keystore.Tx) error) {
	s.Helper()
	if err := s.Update(s.ctx, change); err != nil {
		s.Errorf("Update: %v", err)
	}
}

// refuses runs an update that has to answer want.
func (s *suite) refuses(want error, change func(keystore.Tx) error) {
	s.Helper()
	s.wants(s.Update(s.ctx, change), want)
}

// view runs a read that has to succeed.
func (s *suite) view(read func(keystore.Reader) error) {
	s.Helper()
	if err := s.View(s.ctx, read); err != nil {
		s.Fatalf("View: %v", err)
	}
}

// account reads an account that has to be there.
func (s *suite) account(id string) (a *keystore.Account) {
	s.Helper()
	s.view(func(r keystore.Reader) (err error) { a, err = r.Account(id); return err })
	return a
}

// credential reads a credential that has to be there.
func (s *suite) credential(id string) (c *keystore.Credential) {
	s.Helper()
	s.view(func(r keystore.Reader) (err error) { c, err = r.Credential(id); return err })
	return c
}

// key reads a key that has to be there.
func (s *suite) key(id string) (k *keystore.Key) {
	s.Helper()
	s.view(func(r keystore.Reader) (err error) { k, err = r.Key(id); return err })
	return k
}

// setting reads a setting.
func (s *suite) setting(name string) (value []byte) {
	s.Helper()
	s.view(func(r keystore.Reader) (err error) { value, err = r.Setting(name); return err })
	return value
}

// family creates accounts, each with a credential and a key, named by
// suffixing the id: "a" has credential "a/c" with key "a/k".
func (s *suite) family(ids ...string) {
	s.Helper()
	s.must(func(tx keystore.Tx) error {
		for _, id := range ids {
			if err := createFamily(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

func createFamily(tx keystore.Tx, id string) error {
	if err := tx.CreateAccount(newAccount(id)); err != nil {
		return err
	}
	if err := tx.CreateCredential(newCredential(id+"/c", id)); err != nil {
		return err
	}
	return tx.CreateKey(newKey(id+"/k", id+"/c"))
}

// buryAccount leaves the tombstone of an account.
func (s *suite) buryAccount(id string) {
	s.Helper()
	s.must(func(tx keystore.Tx) error {
		a, err := tx.Account(id)
		if err != nil {
			return err
		}
		a.DeletedAt = 99
		return tx.UpdateAccount(a)
	})
}

// buryCredential leaves the tombstone of a credential.
func (s *suite) buryCredential(id string) {
	s.Helper()
	s.must(func(tx keystore.Tx) error {
		c, err := tx.Credential(id)
		if err != nil {
			return err
		}
		c.DeletedAt = 99
		return tx.UpdateCredential(c)
	})
}

func newAccount(id string) *keystore.Account {
	return &keystore.Account{ID: id, Active: true, CreatedAt: 1, UpdatedAt: 1}
}

func newCredential(id, account string) *keystore.Credential {
	return &keystore.Credential{ID: id, AccountID: account, Active: true, CreatedAt: 1, UpdatedAt: 1}
}

// newKey makes a key whose digest is of its id.
func newKey(id, credential string) *keystore.Key {
	return &keystore.Key{
		ID: id, CredentialID: credential, Digest: digestOf(id), DigestKind: keystore.DigestSHA256,
		Format: keystore.FormatToken, CreatedAt: 1,
	}
}

// digestOf is a digest that is of this name only. A store knows no digests of
// texts, so any 32 bytes do.
func digestOf(name string) (d keystore.Digest) {
	if len(name) > len(d) {
		panic("name too long for a digest: " + name)
	}
	copy(d[:], name)
	return d
}

// fullAccount has a value in every field.
func fullAccount(id string) *keystore.Account {
	return &keystore.Account{
		ID: id, Email: "Ada.Łovelace@Example.COM", Active: true, Roles: []string{"admin", "käufer", `a"b\c<d>`},
		FirstName: "Ada", LastName: "O'Łovelace", Company: "Analytical; Engines -- \"Ltd\"", Phone: "+33 1 23 45 67 89",
		Address: "1, rue de l'Été\n75001 Paris\t🇫🇷", SIREN: "732829320",
		Attributes: map[string]string{"plan": "gold", "": "empty key", "日本": "語", "none": ""},
		CreatedAt:  1_700_000_000_001, UpdatedAt: 1_700_000_000_002,
	}
}

func fullCredential(id, account string) *keystore.Credential {
	return &keystore.Credential{
		ID: id, AccountID: account, Package: "Coverage", Roles: []string{"read:all", "ロール"}, Active: true,
		Description: "Description with 'quotes' and ünïcödé 🔑",
		AllowedIPs: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("0.0.0.0/0"),
		},
		Metadata:  map[string]string{"k": "v", "ключ": "значение"},
		ExpiresAt: 1_900_000_000_003, CreatedAt: 1_700_000_000_004, UpdatedAt: 1_700_000_000_005,
	}
}

func fullKey(id, credential string) *keystore.Key {
	k := &keystore.Key{
		ID: id, CredentialID: credential, DigestKind: keystore.DigestHMACSHA256, Hint: "key_" + id,
		Format: keystore.FormatAlphanumeric, Sealed: []byte{0, 1, 2, 0xff, 0},
		CreatedAt: 1_700_000_000_006, ActivatesAt: 1_700_000_000_007, ExpiresAt: 1_900_000_000_008,
		UnusedExpiresAt: 1_800_000_000_009, Mailed: true, RevokedAt: 1_750_000_000_010, RevokedReason: "leaked, «sorry»",
		SupersededBy: "other1", SupersededAt: 1_740_000_000_011, StopsOnUseOf: "other2",
		FirstUsedAt: 1_710_000_000_012, LastUsedAt: 1_720_000_000_013,
	}
	// Every value that a byte can have, in the places where text would break.
	for i := range k.Digest {
		k.Digest[i] = byte(i * 8)
	}
	return k
}

// ids are the ids of records, in order.
func ids[T any](records []*T) []string {
	list := make([]string, len(records))
	for i, r := range records {
		list[i] = reflect.ValueOf(r).Elem().FieldByName("ID").String()
	}
	return list
}

// same compares records, taking an empty list or map for none.
func (s *suite) same(got, want any) {
	s.Helper()
	if !reflect.DeepEqual(normal(got), normal(want)) {
		s.Errorf("got  %s\nwant %s", show(got), show(want))
	}
}

// normal is a copy of the record that v points to, with nil for empty.
func normal(v any) any {
	value := reflect.Indirect(reflect.ValueOf(v))
	if value.Kind() != reflect.Struct {
		return v
	}
	fields := make(map[string]any)
	for i := range value.NumField() {
		name, field := value.Type().Field(i), value.Field(i)
		if !name.IsExported() {
			continue
		}
		if k := field.Kind(); (k == reflect.Slice || k == reflect.Map) && field.Len() == 0 {
			fields[name.Name] = nil
			continue
		}
		fields[name.Name] = field.Interface()
	}
	return fields
}

func show(v any) string { return fmt.Sprintf("%+v", normal(v)) }

// listed compares ids in order.
func (s *suite) listed(got []string, want ...string) {
	s.Helper()
	if !slices.Equal(got, want) {
		s.Errorf("got %q, want %q", got, want)
	}
}
