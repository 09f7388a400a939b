package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The writer commits in groups. A durable commit costs a sync of the disk,
// hundreds of microseconds, whatever it holds; so one goroutine takes the
// updates that are waiting, runs them in one transaction, those that come while it
// runs included, commits, and answers them all. It never waits for more: while it
// syncs, the next group gathers by itself.
//
// Most updates succeed, so a group is first run as it is. If one of it fails, the
// transaction is rolled back and the group is run again, with each update apart in
// a savepoint of its own, so that only the one that failed changes nothing.
//
// An update's function runs in its caller's goroutine, to which the writer
// lends the transaction. A panic or a runtime.Goexit in it therefore goes where
// it belongs by itself; the writer only sees that the function did not return.

const (
	// maxGroup bounds a group, and so the time for which the first update in it
	// waits for the last.
	maxGroup = 256
	// maxGathering is for how long a group grows while it runs: other processes that
	// share the store wait for it.
	maxGathering = 100 * time.Millisecond
	// tries is how often a group is run that the database gives up in favour of
	// other transactions.
	tries = 5
)

// errNotReturned stands for the error of a function that did not return.
var errNotReturned = errors.New("update did not return")

type writer struct {
	engine engine
	db     *database
	queue  chan *update
	ended  chan struct{}
	// broken is set once, by the error after which nothing is written.
	broken atomic.Pointer[error]
	// commit is (*sql.Tx).Commit; a test replaces it to make commits fail.
	commit func(*sql.Tx) error
	// commits counts the groups that were committed.
	commits atomic.Int64
}

// An update waits until either its caller abandons it or the writer takes it.
const (
	waiting int32 = iota
	abandoned
	begun
)

// update is one call of Update.
type update struct {
	state atomic.Int32
	// turn lends the transaction to the caller, ran gives it back with the
	// function's error, and answer is what Update returns. Each is used once in a
	// run of the group, and buffered, so that neither side waits to send.
	turn   chan *transaction
	ran    chan error
	answer chan error
	// gone says that the function did not return, and can't be run again.
	gone bool
}

func newWriter(e engine, db *database) *writer {
	return &writer{
		engine: e,
		db:     db,
		queue:  make(chan *update, maxGroup),
		ended:  make(chan struct{}),
		commit: (*sql.Tx).Commit,
	}
}

// update runs change in the next group and returns the outcome.
func (w *writer) update(ctx context.Context, change func(keystore.Tx) error) error {
	if err := w.fault(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return abandonedBy(ctx)
	}
	u := &update{turn: make(chan *transaction, 1), ran: make(chan error, 1), answer: make(chan error, 1)}
	select {
	case w.queue <- u:
	case <-ctx.Done():
		return abandonedBy(ctx)
	}
	for done := ctx.Done(); ; {
		select {
		case tx := <-u.turn:
			u.run(tx, change)
			done = nil // the answer is the outcome
		case err := <-u.answer:
			return err
		case <-done:
			if u.state.CompareAndSwap(waiting, abandoned) {
				return abandonedBy(ctx)
			}
			done = nil // the writer has taken it: its turn comes, or it was refused
		}
	}
}

func abandonedBy(ctx context.Context) error { return fmt.Errorf("update: %w", ctx.Err()) }

// run runs change with the lent transaction, and gives that back even if
// change does not return.
func (u *update) run(tx *transaction, change func(keystore.Tx) error) {
	err := errNotReturned
	defer func() {
		tx.end()
		u.ran <- err
	}()
	err = change(tx)
}

// stop ends the writer after the updates that are queued. No update may be
// sent any more.
func (w *writer) stop() {
	close(w.queue)
	<-w.ended
}

// fault is the answer to every update once the writer is broken.
func (w *writer) fault() error {
	if cause := w.broken.Load(); cause != nil {
		return unavailable("update", fmt.Errorf("writes stopped until a restart, after: %w", *cause))
	}
	return nil
}

func (w *writer) run() {
	defer close(w.ended)
	ctx := context.Background()
	for first := range w.queue {
		writes := 0
		for group := w.gather([]*update{first}); len(group) > 0; {
			var n int
			group, n = w.commitGroup(ctx, group)
			writes += n
		}
		if w.broken.Load() != nil {
			continue
		}
		w.note(w.engine.committed(ctx, w.db, writes))
	}
}

// gather adds what is waiting to a group.
func (w *writer) gather(group []*update) []*update {
	for len(group) < maxGroup {
		select {
		case u, ok := <-w.queue:
			if !ok {
				return group
			}
			group = append(group, u)
		default:
			return group
		}
	}
	return group
}

// commitGroup runs a group in one transaction and answers it. It returns the
// updates that were not begun because the transaction was lost before their
// turn, and the number of statements that wrote.
func (w *writer) commitGroup(ctx context.Context, group []*update) (rest []*update, writes int) {
	if err := w.fault(); err != nil {
		refuseAll(group, err)
		return nil, 0
	}
	for try, apart := 1, false; ; try++ {
		s := newSession(ctx, w.engine, w.db)
		if err := s.begin(w.begin); err != nil {
			_ = s.rollback() // Nothing was begun.
			w.note(err)
			refuseAll(group, unavailable("begin transaction", w.engine.explain(err)))
			return nil, 0
		}
		var outcomes []outcome
		outcomes, group, rest = w.runGroup(s, group, apart)
		switch {
		case !apart && oneFailed(s, outcomes, len(group)):
			apart = true
			_ = s.rollback() // So that it can be run again; its error is found again.
		case !w.settle(s, outcomes, try < tries):
			// It is run again.
		default:
			return rest, s.writes + s.loads/loadsPerWrite
		}
	}
}

// begin begins the transaction of a group.
func (w *writer) begin(ctx context.Context) (*sql.Tx, error) { return w.engine.begin(ctx, w.db) }

// oneFailed reports whether the updates of a group have to be told apart.
func oneFailed(s *session, outcomes []outcome, group int) bool {
	return s.fault == nil && group > 1 && len(outcomes) > 0 && outcomes[len(outcomes)-1].err != nil
}

// loadsPerWrite is how many statements of a bulk load count as one that writes:
// there are thousands to a commit, and a checkpoint after each commit would write
// most pages twice.
const loadsPerWrite = 4

// refuseAll answers the updates of a group that is not begun.
func refuseAll(group []*update, err error) {
	for _, u := range group {
		if u.begin() {
			u.answer <- err
		}
	}
}

// begin reports whether the update's caller waits for its outcome.
func (u *update) begin() bool {
	return u.state.Load() == begun || u.state.CompareAndSwap(waiting, begun)
}

// outcome is what an update's function returned.
type outcome struct {
	update *update
	err    error
}

// runGroup gives each update its turn, in order, and then those that came meanwhile,
// until the transaction is lost, or until one fails that is not apart from the others.
// It returns the group with those that came.
func (w *writer) runGroup(s *session, group []*update, apart bool) (outcomes []outcome, all, rest []*update) {
	began := time.Now()
	for i := 0; i < len(group); i++ {
		if u := group[i]; u.begin() {
			err := u.runIn(s, apart)
			outcomes = append(outcomes, outcome{u, err})
			if s.fault != nil || err != nil && !apart {
				return outcomes, group, group[i+1:]
			}
		}
		if i == len(group)-1 && time.Since(began) < maxGathering {
			// Those that the last group answered, and that are about to come again, do
			// so now, if there is nothing else to run: else each second group has one
			// update, and as many syncs.
			runtime.Gosched()
			group = w.gather(group)
		}
	}
	return outcomes, group, nil
}

// runIn gives u its turn. Apart from others it has a savepoint of its own, which
// is rolled back if its function fails.
func (u *update) runIn(s *session, apart bool) error {
	if u.gone {
		return errNotReturned
	}
	// Once begun, the caller waits for its turn: it gets one even if the
	// savepoint failed, with a session that answers every call with the fault.
	if apart {
		s.control(savepoint)
	}
	u.turn <- &transaction{reader: reader{session: s}}
	err := <-u.ran
	u.gone = err == errNotReturned
	if apart && err != nil {
		s.control(rollbackTo)
		clear(s.settings) // It may have written what it then read.
	}
	if apart {
		s.control(release)
	}
	return err
}

// control runs a statement about savepoints. Any error of it is a fault.
func (s *session) control(id statement) {
	if s.fault != nil {
		return
	}
	if _, err := s.exec(id); err != nil {
		s.fault = err
	}
}

// settle commits the group and answers it. An update that failed is answered
// after the commit too: what its function saw, and judged, are writes of this
// group. It reports whether the group is settled, and not to be run again.
func (w *writer) settle(s *session, outcomes []outcome, mayRetry bool) bool {
	err := s.fault
	switch {
	case err != nil:
		_ = s.rollback() // The fault is the answer.
	case len(outcomes) == 1 && outcomes[0].err != nil:
		_ = s.rollback() // Nothing is to be committed.
	default:
		if err = s.commit(w.commit); err == nil {
			w.commits.Add(1)
		}
	}
	if err != nil && mayRetry && w.engine.classify(err) == again {
		return false
	}
	w.note(err)
	for _, o := range outcomes {
		switch {
		case err != nil:
			o.update.answer <- unavailable("commit", w.engine.explain(err))
		default:
			o.update.answer <- o.err
		}
	}
	return true
}

// note stops all writes after an I/O error or corruption. The sync of a commit
// may have failed after the kernel dropped the pages that it could not write:
// a later sync would succeed, and confirm changes that are not on the disk.
// Only reading the files anew, at a restart, tells what they hold.
//
// A full disk is no such error. It is found when the commit is written, before
// its last frame; the engine rolled the transaction back, so that nothing of
// it is there, and the next update may find room.
func (w *writer) note(err error) {
	if err != nil && w.engine.classify(err) == broken {
		w.broken.CompareAndSwap(nil, &err)
	}
}
