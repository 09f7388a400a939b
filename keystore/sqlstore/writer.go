package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The writer commits in groups. A durable commit costs a sync of the disk,
// hundreds of microseconds, whatever it holds; so one goroutine takes the
// updates that are waiting, runs each in a savepoint of one transaction,
// commits, and answers them all. It never waits for more: while it syncs, the
// next group gathers by itself.
//
// An update's function runs in its caller's goroutine, to which the writer
// lends the transaction. A panic or a runtime.Goexit in it therefore goes where
// it belongs by itself; the writer only sees that the function did not return,
// and rolls its savepoint back.

// maxGroup bounds a group, and so the time for which the first update in it
// waits for the last.
const maxGroup = 256

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
	// function's error, and answer is what Update returns. Each is used once,
	// and buffered, so that neither side waits to send.
	turn   chan *transaction
	ran    chan error
	answer chan error
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
			return <-u.answer
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
		for group := w.gather(first); len(group) > 0; {
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

// gather takes what is waiting behind first.
func (w *writer) gather(first *update) []*update {
	group := []*update{first}
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
	if w.broken.Load() != nil {
		for _, u := range group {
			u.refuse(w.fault())
		}
		return nil, 0
	}
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		w.note(err)
		for _, u := range group {
			u.refuse(unavailable("begin transaction", w.engine.explain(err)))
		}
		return nil, 0
	}
	s := &session{ctx: ctx, engine: w.engine, db: w.db, tx: tx}
	outcomes, rest := runGroup(s, group)
	w.settle(s, outcomes)
	return rest, s.writes + s.loads/loadsPerWrite
}

// loadsPerWrite is how many statements of a bulk load count as one that writes:
// there are thousands to a commit, and a checkpoint after each commit would write
// most pages twice.
const loadsPerWrite = 16

// refuse answers an update that is not begun.
func (u *update) refuse(err error) {
	if u.state.CompareAndSwap(waiting, begun) {
		u.answer <- err
	}
}

// outcome is what an update's function returned.
type outcome struct {
	update *update
	err    error
}

// runGroup gives each update its turn, in order, until the transaction is lost.
func runGroup(s *session, group []*update) (outcomes []outcome, rest []*update) {
	for i, u := range group {
		if !u.state.CompareAndSwap(waiting, begun) {
			continue
		}
		outcomes = append(outcomes, outcome{u, u.runIn(s)})
		if s.fault != nil {
			return outcomes, group[i+1:]
		}
	}
	return outcomes, nil
}

// runIn gives u its turn in a savepoint of its own, which is rolled back if
// its function fails.
func (u *update) runIn(s *session) error {
	// Once begun, the caller waits for its turn: it gets one even if the
	// savepoint failed, with a session that answers every call with the fault.
	s.control(savepoint)
	u.turn <- &transaction{reader: reader{session: s}}
	err := <-u.ran
	if s.fault != nil {
		return err
	}
	if err != nil {
		s.control(rollbackTo)
	}
	s.control(release)
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
// group.
func (w *writer) settle(s *session, outcomes []outcome) {
	err := s.fault
	if err != nil {
		_ = s.tx.Rollback() // The fault is the answer.
	} else if err = w.commit(s.tx); err == nil {
		w.commits.Add(1)
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
