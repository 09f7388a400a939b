package storetest

import (
	"context"
	"errors"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// errTest is the error of functions that fail.
var errTest = errors.New("error of the test")

// wants checks which error of the contract err is, and that it is no other.
func (s *suite) wants(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("got error %v, want %v", err, want)
	}
	for _, other := range []error{
		keystore.ErrNotFound, keystore.ErrConflict, keystore.ErrUnavailable, keystore.ErrDamaged,
	} {
		if other != want && errors.Is(err, other) {
			s.Errorf("error %v is %v as well as %v", err, other, want)
		}
	}
}

// wantsEnded checks the error of a read whose context has ended.
func (s *suite) wantsEnded(err, ctxErr error) {
	s.Helper()
	if !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, ctxErr) {
		s.Errorf("got error %v, want both %v and %v", err, keystore.ErrUnavailable, ctxErr)
	}
}

// call is a method of a Reader or Tx, or of the Store, with any arguments.
type call struct {
	name string
	do   func() error
}

// readerCalls are all methods of a Reader.
func readerCalls(r keystore.Reader) []call {
	return []call{
		{"Account", func() error { _, err := r.Account("a"); return err }},
		{"AccountByEmail", func() error { _, err := r.AccountByEmail("a@b.c"); return err }},
		{"Accounts", func() error { _, err := r.Accounts(keystore.Page{}); return err }},
		{"Credential", func() error { _, err := r.Credential("a/c"); return err }},
		{"Credentials", func() error { _, err := r.Credentials("a", keystore.Page{}); return err }},
		{"Key", func() error { _, err := r.Key("a/k"); return err }},
		{"Keys", func() error { _, err := r.Keys("a/c", keystore.Page{}); return err }},
		{"UnendedKeys", func() error { _, err := r.UnendedKeys("a/c", 1); return err }},
		{"UnendedKeysOfAccount", func() error { _, err := r.UnendedKeysOfAccount("a", 1); return err }},
		{"CredentialDigests", func() error { _, err := r.CredentialDigests("a/c"); return err }},
		{"AccountDigests", func() error { _, err := r.AccountDigests("a"); return err }},
		{"Setting", func() error { _, err := r.Setting("s"); return err }},
		{"EveryAccount", func() error { _, err := r.EveryAccount(0, 1); return err }},
		{"EveryCredential", func() error { _, err := r.EveryCredential(0, 1); return err }},
		{"EveryKey", func() error { _, err := r.EveryKey(0, 1); return err }},
		{"DueMails", func() error { _, err := r.DueMails(1, "", 1); return err }},
	}
}

// txCalls are all methods of a Tx.
func txCalls(tx keystore.Tx) []call {
	return append(readerCalls(tx),
		call{"CreateAccount", func() error { return tx.CreateAccount(newAccount("late")) }},
		call{"UpdateAccount", func() error { return tx.UpdateAccount(newAccount("a")) }},
		call{"CreateCredential", func() error { return tx.CreateCredential(newCredential("late/c", "a")) }},
		call{"UpdateCredential", func() error { return tx.UpdateCredential(newCredential("a/c", "a")) }},
		call{"CreateKey", func() error { return tx.CreateKey(newKey("late/k", "a/c")) }},
		call{"CreateCredentialWithKey", func() error {
			return tx.CreateCredentialWithKey(newCredential("late/c", "a"), newKey("late/k", "late/c"))
		}},
		call{"UpdateKey", func() error { return tx.UpdateKey(newKey("a/k", "a/c")) }},
		call{"LoadAccount", func() error { _, err := tx.LoadAccount(newAccount("late")); return err }},
		call{"LoadCredential", func() error { _, err := tx.LoadCredential(newCredential("late/c", "a")); return err }},
		call{"LoadKey", func() error { _, err := tx.LoadKey(newKey("late/k", "a/c")); return err }},
		call{"KeyOf", func() error { _, err := tx.KeyOf(digestOf("a/k")); return err }},
		call{"RecordUses", func() error { return tx.RecordUses([]keystore.Use{{KeyID: "a/k", First: 1, Last: 1}}) }},
		call{"SetSetting", func() error { return tx.SetSetting("late", []byte("x")) }},
	)
}

// storeCalls are the methods of the Store but Close, with functions that fail
// the test if they are run.
func (s *suite) storeCalls(ctx context.Context) []call {
	ran := func() error { s.Error("the function was run"); return nil }
	return []call{
		{"Lookup", func() error { _, err := s.Lookup(ctx, digestOf("a/k")); return err }},
		{"View", func() error { return s.View(ctx, func(keystore.Reader) error { return ran() }) }},
		{"Update", func() error { return s.Update(ctx, func(keystore.Tx) error { return ran() }) }},
		{"Backup", func() error { return s.Backup(ctx, writerFunc(func(p []byte) (int, error) { return len(p), ran() })) }},
	}
}

// writerFunc is a function as an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
