package sqlstore

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// leaving is a context that ends while its update is refused: the second time
// that the update asks for Done is when it begins to wait for its turn.
type leaving struct {
	context.Context
	leave context.CancelFunc
	asked int
}

func (l *leaving) Done() <-chan struct{} {
	if l.asked++; l.asked == 2 {
		time.Sleep(2 * time.Millisecond) // the writer refuses meanwhile
		l.leave()
	}
	return l.Context.Done()
}

// TestACallerThatLeavesWhileItsUpdateIsRefusedGetsAnAnswer: a refused update
// gets no turn, so a caller that leaves at that moment must not wait for one.
func TestACallerThatLeavesWhileItsUpdateIsRefusedGetsAnAnswer(t *testing.T) {
	store, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "keys", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.writer.db.Close(); err != nil { // so that no transaction begins
		t.Fatal(err)
	}
	for range 50 { // of two that are ready, a select takes either
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- store.Update(&leaving{Context: ctx, leave: cancel}, set("x")) }()
		select {
		case err := <-done:
			if err == nil {
				t.Fatal("an update without a database")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("an update got no answer") // and Close would wait for it
		}
	}
	_ = store.Close() // it can't empty the log
}
