//go:build reliability && linux

package reliability

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// countingStore counts look-ups.
type countingStore struct {
	keystore.Store
	lookups atomic.Int64
}

func (s *countingStore) Lookup(ctx context.Context, d keystore.Digest) (*keystore.Grant, error) {
	s.lookups.Add(1)
	return s.Store.Lookup(ctx, d)
}

// crowd is how many requests come at once.
const crowd = 2000

// readsOfOne is how often the store is read while a crowd asks for the same thing.
func readsOfOne(t *testing.T, store *countingStore, ask func() error) int64 {
	t.Helper()
	before := store.lookups.Load()
	begin := make(chan struct{})
	var all sync.WaitGroup
	for range crowd {
		all.Go(func() {
			<-begin
			if err := ask(); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	all.Wait()
	return store.lookups.Load() - before
}

// maxReads is how many reads one cold key may cost: one that all share, and one for
// those who come when that has been answered and is not in the cache yet.
const maxReads = 2

// TestACrowdOnAColdKeyReadsTheStoreOnce presents keys that are in no cache, each from
// 2,000 goroutines at once. The control is the store without the cache.
func TestACrowdOnAColdKeyReadsTheStoreOnce(t *testing.T) {
	store := &countingStore{Store: openStore(t)}
	g := newKeyringGate(t, store).(keyringGate)
	var reads []int64
	for range size(30, 300) {
		key := g.issue()
		n := readsOfOne(t, store, func() error {
			if v := g.judge(key.text); v != keystore.OK {
				t.Errorf("the key is %v", v)
			}
			return nil
		})
		if n < 1 || n > maxReads {
			t.Errorf("%d reads for one key", n)
		}
		reads = append(reads, n)
	}
	t.Logf("%d requests for one cold key read the store %s times", crowd, medians(reads))
	n := readsOfOne(t, store, func() error {
		_, err := store.Lookup(t.Context(), keystore.Digest{})
		if !errors.Is(err, keystore.ErrNotFound) {
			return err
		}
		return nil
	})
	if n <= maxReads {
		t.Errorf("without the cache %d reads are counted: the test counts wrong", n)
	}
}

// TestACrowdOnAColdKeyIsServed does the same over the network: all are let through.
func TestACrowdOnAColdKeyIsServed(t *testing.T) {
	s := startServed(t, strings.Replace(floodedSite, "{before}", "", 1)).ready()
	for range size(1, 5) {
		request := asking(s.addr, s.expiring("").text)
		conns := openIdle(t, s.addr, crowd)
		began := time.Now()
		if failed := askAll(conns, request, 200); failed != 0 {
			t.Errorf("%d of %d are not let through", failed, crowd)
		}
		t.Logf("%d requests at once for one cold key: all answered after %v", crowd, time.Since(began))
		if failed := askAll(conns[:10], asking(s.addr, "unknown"), 200); failed != 10 {
			t.Errorf("of 10 requests with a wrong key, %d fail: the test counts wrong", failed)
		}
		closeAll(conns)
	}
}

// askAll sends the request on all connections at once and counts those that are
// not answered as wanted.
func askAll(conns []net.Conn, request []byte, want int) int64 {
	var failed atomic.Int64
	var all sync.WaitGroup
	for _, conn := range conns {
		all.Go(func() {
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, err := conn.Write(request)
			if err != nil {
				failed.Add(1)
				return
			}
			if status, err := readStatus(bufio.NewReader(conn)); err != nil || status != want {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	return failed.Load()
}

// openIdle opens connections, which are closed at the end of the test at the latest.
func openIdle(t *testing.T, addr string, n int) (conns []net.Conn) {
	t.Helper()
	t.Cleanup(func() { closeAll(conns) })
	for range n {
		conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

func closeAll(conns []net.Conn) {
	for _, conn := range conns {
		_ = conn.Close()
	}
}
