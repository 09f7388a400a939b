package keystore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

const (
	presented = "key_0123456789ab_0123456789abcdefghijklmnopqrstuv000000"
	idemKey   = "order-17"
)

func requestDigest(text string) keystore.Digest { return sha256.Sum256([]byte(text)) }

// once begins a request that must be allowed to begin.
func (r *ring) once(presented, idempotencyKey, request string) *keystore.Once {
	r.t.Helper()
	o, err := r.Once(r.t.Context(), presented, idempotencyKey, requestDigest(request))
	if err != nil {
		r.t.Fatal(err)
	}
	return o
}

// answer begins a request, records an answer to it and ends it.
func (r *ring) answer(presented, idempotencyKey, request, reply string) {
	r.t.Helper()
	o := r.once(presented, idempotencyKey, request)
	defer o.End()
	if err := o.RecordAlone(r.t.Context(), []byte(reply)); err != nil {
		r.t.Fatal(err)
	}
}

// wantReply begins a request and checks what was answered to it before.
func (r *ring) wantReply(presented, idempotencyKey, request, want string) {
	r.t.Helper()
	o := r.once(presented, idempotencyKey, request)
	defer o.End()
	if got := string(o.Reply()); got != want || (o.Reply() == nil) != (want == "") {
		r.t.Errorf("the answer is %q, want %q", got, want)
	}
}

func TestAnAnswerIsGivenAgainToTheSameRequestOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	r := openRing(t, path, keystore.Config{}, keystore.MinCacheSize)
	r.wantReply(presented, idemKey, "request", "")
	r.answer(presented, idemKey, "request", "reply")
	r.wantReply(presented, idemKey, "request", "reply")
	r.wantReply(presented, idemKey, "request", "reply")

	r.wantReply("another key", idemKey, "request", "")
	r.wantReply(presented, "another", "request", "")
	r.wantReply(presented+idemKey[:1], idemKey[1:], "request", "")
	if _, err := r.Once(t.Context(), presented, idemKey, requestDigest("another")); !errors.Is(err, keystore.ErrOtherRequest) {
		t.Errorf("another request gets %v", err)
	}
	r.wantReply(presented, idemKey, "request", "reply")

	if err := r.vault.Close(); err != nil {
		t.Fatal(err)
	}
	r = openRing(t, path, keystore.Config{}, keystore.MinCacheSize)
	r.wantReply(presented, idemKey, "request", "reply")
	r.wantReply("another key", idemKey, "request", "")
}

func TestAUUIDIsTheSameKeyInEitherCase(t *testing.T) {
	const uuid = "123e4567-e89b-42d3-a456-426655440000"
	r := newRing(t, keystore.Config{})
	r.answer(uuid, idemKey, "request", "reply")
	r.wantReply(strings.ToUpper(uuid), idemKey, "request", "reply")
	r.answer("Text", idemKey, "request", "reply")
	r.wantReply("text", idemKey, "request", "")
}

func TestARequestIsAnsweredOnceAtATime(t *testing.T) {
	r := newRing(t, keystore.Config{})
	// What belongs to the configuration before a reload is no other gateway.
	before, err := keystore.NewKeyring(t.Context(), r.vault, keystore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	running := r.once(presented, idemKey, "request")
	for _, kr := range []*keystore.Keyring{r.Keyring, before} {
		for _, request := range []string{"request", "another"} {
			if _, err := kr.Once(t.Context(), presented, idemKey, requestDigest(request)); !errors.Is(err, keystore.ErrInProgress) {
				t.Errorf("while it is answered: %v", err)
			}
		}
	}
	r.wantReply(presented, "another", "request", "")
	r.wantReply("another key", idemKey, "request", "")
	running.End()
	r.wantReply(presented, idemKey, "request", "")
}

func TestOfManyAtOnceOneIsDone(t *testing.T) {
	r := newRing(t, keystore.Config{})
	var sent sync.WaitGroup
	var mu sync.Mutex
	done, given := 0, 0
	for range 100 {
		sent.Go(func() {
			o, err := r.Once(t.Context(), presented, idemKey, requestDigest("request"))
			if errors.Is(err, keystore.ErrInProgress) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer o.End()
			mu.Lock()
			defer mu.Unlock()
			if o.Reply() != nil {
				given++
				return
			}
			done++
			if err := o.RecordAlone(t.Context(), []byte("reply")); err != nil {
				t.Error(err)
			}
		})
	}
	sent.Wait()
	if done != 1 {
		t.Errorf("it was done %d times, and given again %d times", done, given)
	}
}

func TestAnAnswerIsRecordedWithItsChangeOrNotAtAll(t *testing.T) {
	r := newRing(t, keystore.Config{})
	owner := r.issue(keystore.Credential{})
	o := r.once(owner.Text, idemKey, "request")
	record := func(tx keystore.Tx, made *keystore.Issued) error { return o.Record(tx, []byte(made.Text)) }
	refused := errors.New("refused at last")
	rotation := keystore.Rotation{CredentialID: owner.Credential.ID, Overlap: keystore.Overlap{For: time.Hour}}
	_, err := r.Rotate(t.Context(), keystore.Operator(), rotation, record, func(keystore.Tx, *keystore.Issued) error { return refused })
	o.End()
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	r.wantReply(owner.Text, idemKey, "request", "")

	o = r.once(owner.Text, idemKey, "request")
	made, err := r.Rotate(t.Context(), keystore.Operator(), rotation, record)
	o.End()
	if err != nil {
		t.Fatal(err)
	}
	r.wantReply(owner.Text, idemKey, "request", made.Text)
}

// unclosed is a store that two vaults share, as two processes do.
type unclosed struct{ keystore.Store }

func (unclosed) Close() error { return nil }

func TestOfTwoProcessesOneIsFirst(t *testing.T) {
	store, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "store", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	process := func() *ring {
		vault, err := keystore.OpenVault(t.Context(), unclosed{store}, keystore.MinCacheSize, func(string, error) {})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = vault.Close() })
		kr, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return &ring{kr, t, vault}
	}
	one, other := process(), process()
	first, second := one.once(presented, idemKey, "request"), other.once(presented, idemKey, "request")
	if err := first.RecordAlone(t.Context(), []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := second.RecordAlone(t.Context(), []byte("second")); !errors.Is(err, keystore.ErrInProgress) {
		t.Errorf("the second gets %v", err)
	}
	first.End()
	second.End()
	one.wantReply(presented, idemKey, "request", "first")
	other.wantReply(presented, idemKey, "request", "first")
}

// noting is a transaction that notes the reply that is put, and may change it
// first.
type noting struct {
	keystore.Tx
	change func(*keystore.Reply)
	put    keystore.Reply
}

func (n *noting) PutReply(r *keystore.Reply) error {
	if n.change != nil {
		n.change(r)
	}
	n.put = *r
	return n.Tx.PutReply(r)
}

// record records an answer, and returns what was stored.
func (r *ring) record(o *keystore.Once, reply string, change func(*keystore.Reply)) keystore.Reply {
	r.t.Helper()
	n := noting{change: change}
	err := r.vault.Update(r.t.Context(), func(tx keystore.Tx) error {
		n.Tx = tx
		return o.Record(&n, []byte(reply))
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return n.put
}

// stored reports whether the store has a reply of that digest, expired or not.
func (r *ring) stored(digest keystore.Digest) (is bool) {
	r.t.Helper()
	err := r.View(r.t.Context(), func(read keystore.Reader) error {
		_, err := read.Reply(digest)
		is = err == nil
		if errors.Is(err, keystore.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return is
}

func TestAnAnswerIsKeptForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, keystore.Config{})
		o := r.once(presented, idemKey, "request")
		put := r.record(o, "reply", nil)
		o.End()
		time.Sleep(24*time.Hour - time.Millisecond)
		r.wantReply(presented, idemKey, "request", "reply")
		if _, err := r.Once(t.Context(), presented, idemKey, requestDigest("another")); !errors.Is(err, keystore.ErrOtherRequest) {
			t.Errorf("another request gets %v", err)
		}

		time.Sleep(time.Millisecond)
		r.wantReply(presented, idemKey, "request", "")
		r.wantReply(presented, idemKey, "another", "")
		time.Sleep(time.Minute + time.Millisecond)
		if r.stored(put.Digest) {
			t.Error("the record is still in the store")
		}
	})
}

func TestAnAnswerThatHasEndedGivesWayBeforeItIsSweptOut(t *testing.T) {
	r := newRing(t, keystore.Config{})
	o := r.once(presented, idemKey, "request")
	put := r.record(o, "old", func(stored *keystore.Reply) { stored.ExpiresAt = r.Now() })
	o.End()
	if !r.stored(put.Digest) {
		t.Fatal("the record is gone, so that it proves nothing")
	}
	r.wantReply(presented, idemKey, "another", "")
	r.answer(presented, idemKey, "another", "new")
	r.wantReply(presented, idemKey, "another", "new")
}

func TestWhatIsStoredOpensWithWhatTheClientPresentsOnly(t *testing.T) {
	r := newRing(t, keystore.Config{})
	var records []keystore.Reply
	for _, key := range []string{idemKey, "order-18"} {
		o := r.once(presented, key, "request")
		records = append(records, r.record(o, "the answer, with a key", nil))
		o.End()
	}
	for _, stored := range records {
		all := bytes.Join([][]byte{stored.Digest[:], stored.Request[:], stored.Sealed}, nil)
		for _, text := range []string{presented, presented[:16], idemKey, "order-18", "the answer"} {
			if bytes.Contains(all, []byte(text)) {
				t.Errorf("the record has %q", text)
			}
		}
		if stored.Digest == requestDigest(presented) || stored.Digest == requestDigest(idemKey) {
			t.Error("the digest is that of one of the texts alone, by which the other could be looked for")
		}
	}
	if a, b := records[0], records[1]; a.Digest == b.Digest || bytes.Equal(a.Sealed, b.Sealed) {
		t.Error("two records are alike")
	}
}

func TestARecordThatWasChangedIsDamaged(t *testing.T) {
	for name, change := range map[string]func(*keystore.Reply){
		"a bit of the answer":            func(stored *keystore.Reply) { stored.Sealed[len(stored.Sealed)-1] ^= 1 },
		"the end of the answer":          func(stored *keystore.Reply) { stored.Sealed = stored.Sealed[:len(stored.Sealed)-1] },
		"the request it is an answer to": func(stored *keystore.Reply) { stored.Request = requestDigest("another") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, keystore.Config{})
			o := r.once(presented, idemKey, "request")
			stored := r.record(o, "reply", change)
			o.End()
			asked := requestDigest("request")
			if stored.Request != asked {
				asked = stored.Request
			}
			for range 2 { // nor is it in progress after that
				if _, err := r.Once(t.Context(), presented, idemKey, asked); !errors.Is(err, keystore.ErrDamaged) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

func TestWithoutTheStoreNoRequestBegins(t *testing.T) {
	r := newRing(t, keystore.Config{})
	leaving, leave := context.WithCancel(t.Context())
	leave()
	if _, err := r.Once(leaving, presented, idemKey, requestDigest("request")); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left gets %v", err)
	}
	r.wantReply(presented, idemKey, "request", "")
	if err := r.vault.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Once(t.Context(), presented, idemKey, requestDigest("request")); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("without a store: %v", err)
		}
	}
}

func TestARequestWithoutAnIdempotencyKeyIsNoOnce(t *testing.T) {
	var o *keystore.Once
	if o.Reply() != nil || o.Record(nil, []byte("reply")) != nil || o.RecordAlone(t.Context(), []byte("reply")) != nil {
		t.Error("it does something")
	}
	o.End()
}

func TestAReplyIsGivenAgainWhenItsChangeHoldsOnEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newCluster(t).gateways(2)
		o, err := nodes[0].Once(t.Context(), presented, idemKey, requestDigest("rotate"))
		if err != nil {
			t.Fatal(err)
		}
		defer o.End()
		settle := func() time.Duration {
			began := time.Now()
			if err := o.Settle(t.Context()); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		if took := settle(); took > 100*time.Millisecond {
			t.Errorf("among healthy nodes it took %v", took)
		}
		nodes[1].becomes(hangs)
		if took := settle(); took < bound/2 || took > bound+10*time.Millisecond {
			t.Errorf("with a node that is cut off it took %v, want until its lease is over, %v at most", took, bound)
		}
		nodes[1].becomes(up)
	})
}
