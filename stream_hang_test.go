package apikeys

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// hangingStore hangs in look-ups.
type hangingStore struct {
	keystore.Store
	hang    atomic.Bool
	release chan struct{}
}

func (s *hangingStore) Lookup(ctx context.Context, d keystore.Digest) (*keystore.Grant, error) {
	if s.hang.Load() {
		<-s.release
		return nil, keystore.ErrUnavailable
	}
	return s.Store.Lookup(ctx, d)
}

// TestAStoreThatHangsDelaysNoExpiry: many streams that wait for the store must not
// keep another from ending when the clock says so.
func TestAStoreThatHangsDelaysNoExpiry(t *testing.T) {
	ctx := context.Background()
	sql, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "k", "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	st := &hangingStore{Store: sql, release: make(chan struct{})}
	v, err := keystore.OpenVault(ctx, st, keystore.DefaultCacheSize, func(string, error) {})
	if err != nil {
		t.Fatal(err)
	}
	kr, err := keystore.NewKeyring(ctx, v, keystore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := kr.CreateAccount(ctx, keystore.Account{})
	var set streamSet
	req := keystore.Request{Requirement: &keystore.Requirement{}}
	open := func(g *keystore.Grant) context.Context {
		c, end := context.WithCancelCause(ctx)
		s := &stream{keyring: kr, grant: g, request: req, end: end}
		set.mu.Lock()
		defer set.mu.Unlock()
		if set.open == nil {
			set.open = map[*stream]struct{}{}
		}
		set.open[s] = struct{}{}
		if !set.running {
			set.running = true
			go set.run()
		}
		return c
	}
	var stale []*keystore.Grant
	for range 20 {
		i, _ := kr.Issue(ctx, keystore.Operator(), keystore.Credential{AccountID: a.ID})
		g, _, _ := kr.Accept(ctx, i.Text, req)
		stale = append(stale, g)
	}
	i, _ := kr.Issue(ctx, keystore.Operator(), keystore.Credential{AccountID: a.ID})
	stop := kr.Now().Add(1500 * time.Millisecond)
	if _, err := kr.SetKeyExpiry(ctx, keystore.Operator(), i.Key.ID, stop); err != nil {
		t.Fatal(err)
	}
	g, vd, _ := kr.Accept(ctx, i.Text, req)
	if vd != keystore.OK {
		t.Fatal(vd)
	}
	st.hang.Store(true)
	for _, old := range stale {
		v.Invalidate(old.Digest)
		open(old)
	}
	c := open(g)
	<-c.Done()
	late := time.Since(stop.Time())
	set.mu.Lock()
	close(st.release)
	clear(set.open) // which ends its goroutine
	set.mu.Unlock()
	if late > time.Second {
		t.Errorf("the stream ended %v after its key expired", late)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	for ended := false; !ended; time.Sleep(time.Millisecond) {
		set.mu.Lock()
		ended = !set.running
		set.mu.Unlock()
	}
}
