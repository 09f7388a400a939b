package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file is the feed by which processes that share a store learn what the others
// change: see keystore.Shared.
//
// The row of epochs is locked by every transaction that writes, so epochs become
// visible in order: who has read the changes up to an epoch has missed none. A
// sequence would not do, since of two transactions the one with the higher number
// can be committed first. Notifications are hints: the feed is the table.

// channel is where nodes are notified, and what of.
const (
	channel      = "api_keys"
	ofChange     = "changed"
	ofConfirming = "confirmed"
)

const (
	lockEpoch = `SELECT epoch FROM epochs FOR UPDATE`

	// The answer has the longest that any node trusts its memory. Nodes that join
	// later begin with what this transaction left. A server that took over from
	// another may have lost the latest epochs of that: its own begin far beyond, so
	// that none comes twice, and the gap tells every node that it lost the thread.
	announceChange = `WITH moved AS (UPDATE epochs SET timeline = $4,
				epoch = CASE WHEN timeline = $4 THEN epoch + $5
					ELSE greatest(epoch + 4294967296, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) END
				RETURNING epoch),
			told AS (INSERT INTO changes (epoch, digest) SELECT DISTINCT epoch, unnest($1::bytea[]) FROM moved)
		SELECT epoch, coalesce((SELECT max(bound) FROM nodes), 0), pg_notify($2, $3) FROM moved`

	// So many at a time that it takes a moment only; there is a next time.
	pruneChanges = `DELETE FROM changes WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM changes WHERE epoch <= (SELECT min(confirmed) FROM nodes) LIMIT 50000))`

	// The first statement of a beat is committed before the others begin, so that
	// whoever commits what the others do not see does see the node. A node that is not
	// there, or with another bound, waits for the lock: then no transaction has read
	// the bounds that is not committed.
	keepBeat = `WITH beaten AS (UPDATE nodes SET beat = greatest(beat, $2), confirmed = $3
			WHERE id = $1 AND bound = $4 RETURNING id)
		SELECT CASE WHEN $5::boolean THEN pg_notify($6, $7) END FROM beaten`
	firstBeat = `INSERT INTO nodes (id, beat, confirmed, bound)
		SELECT $1, $2, $3, $4 FROM (SELECT epoch FROM epochs FOR SHARE) AS locked
		ON CONFLICT (id) DO UPDATE SET beat = greatest(nodes.beat, excluded.beat), confirmed = excluded.confirmed, bound = excluded.bound`

	currentEpoch = `SELECT epoch FROM epochs`
	changesAfter = `SELECT epoch, digest FROM changes WHERE epoch > $1 AND epoch <= (SELECT epoch FROM epochs)
		ORDER BY epoch LIMIT $2`
	allNodes = `SELECT id, beat, confirmed, bound FROM nodes`

	removeNode = `DELETE FROM nodes WHERE id = $1 AND ($2::bigint = 0 OR beat = $2)`
)

// mostChanges is how many changes are told one by one. After more it is simpler to
// know nothing.
const mostChanges = 1 << 16

// announce implements engine.
func (e *postgres) announce(s *session, changed []keystore.Digest) (a keystore.Announcement, err error) {
	digests, step := make([][]byte, len(changed)), 1
	for i := range changed {
		digests[i] = changed[i][:]
	}
	if len(changed) > mostChanges {
		digests, step = [][]byte{}, 2 // the gap tells the nodes to forget everything
	}
	var bound int64
	err = s.await(func() error {
		return s.tx.QueryRowContext(s.ctx, announceChange, digests, channel, ofChange, e.timeline.Load(), step).
			Scan(&a.Epoch, &bound, new(any))
	})
	a.Bound = time.Duration(bound) * time.Millisecond
	return a, err
}

// prune implements engine.
func (e *postgres) prune(s *session) error {
	return s.await(func() error {
		_, err := s.tx.ExecContext(s.ctx, pruneChanges)
		return err
	})
}

// membership is a node's connection to the feed.
type membership struct {
	engine *postgres
	node   string
	conn   *pgx.Conn
	// confirmed is what the last beat reported.
	confirmed keystore.Epoch
	// timeline is that of the server's log.
	timeline string
	// changed and notified are set by the connection when it reads a notification, of
	// a change and of anything.
	changed, notified bool
}

// note notes a notification.
func (m *membership) note(payload string) {
	m.notified = true
	m.changed = m.changed || payload != ofConfirming
}

// join implements engine.
func (e *postgres) join(ctx context.Context, node string) (keystore.Membership, error) {
	m := &membership{engine: e, node: node}
	var err error
	if m.conn, err = e.listen(ctx, channel, m.note); err != nil {
		return nil, unavailable("join", e.explain(err))
	}
	if m.timeline, err = timelineOf(ctx, m.conn); err != nil {
		return nil, m.failed(ctx, "join", err)
	}
	return m, nil
}

// listen makes a connection that is notified. Whenever it reads a notification, it
// calls notified with its payload.
func (e *postgres) listen(ctx context.Context, channel string, notified func(string)) (*pgx.Conn, error) {
	config := e.config.Copy()
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { notified(n.Payload) }
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// One round trip, and nothing that a pooler would have to remember.
	_, err = conn.PgConn().Exec(ctx, setUpWriting+`; LISTEN `+pgx.Identifier{channel}.Sanitize()).ReadAll()
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// Beat implements keystore.Membership.
func (m *membership) Beat(ctx context.Context, report keystore.NodeReport) (state keystore.FeedState, err error) {
	const op = "beat"
	m.changed, m.notified = false, false // of what this reads
	if err := m.register(ctx, report); err != nil {
		return state, m.failed(ctx, op, err)
	}
	var reads pgx.Batch
	reads.Queue(currentEpoch).QueryRow(func(r pgx.Row) error { return r.Scan(&state.Epoch) })
	if report.Confirmed > 0 {
		reads.Queue(changesAfter, int64(report.Confirmed), mostChanges+1).Query(func(rows pgx.Rows) error {
			return readChanges(rows, report.Confirmed, &state)
		})
	}
	reads.Queue(allNodes).Query(func(rows pgx.Rows) (err error) {
		state.Nodes, err = pgx.CollectRows(rows, scanNode)
		return err
	})
	if err := m.conn.SendBatch(ctx, &reads).Close(); err != nil {
		return keystore.FeedState{}, m.failed(ctx, op, err)
	}
	m.confirmed = report.Confirmed
	// A server that took over may lack what the node knows, and have no change to tell.
	if last := m.engine.fed.Swap(m.timeline); last != nil && last != m.timeline {
		state.Lost = true
	}
	return state, nil
}

// register stores the report.
func (m *membership) register(ctx context.Context, r keystore.NodeReport) error {
	report := []any{m.node, r.Beat, int64(r.Confirmed), r.Bound.Milliseconds()}
	kept, err := m.conn.Exec(ctx, keepBeat, append(report, r.Confirmed > m.confirmed, channel, ofConfirming)...)
	if err != nil || kept.RowsAffected() > 0 {
		return err
	}
	_, err = m.conn.Exec(ctx, firstBeat, report...)
	return err
}

// readChanges reads what changed after an epoch. There is a change for every epoch:
// where one is missing, it was pruned.
func readChanges(rows pgx.Rows, after keystore.Epoch, state *keystore.FeedState) error {
	last := after
	for rows.Next() {
		var epoch keystore.Epoch
		var digest []byte
		if err := rows.Scan(&epoch, &digest); err != nil {
			return err
		}
		d, err := digestOf(digest)
		if err != nil {
			return err
		}
		state.Lost = state.Lost || epoch > last+1
		last = epoch
		state.Changed = append(state.Changed, d)
	}
	// A database that was restored from a backup may be at an earlier epoch.
	state.Lost = state.Lost || last < state.Epoch || state.Epoch < after || len(state.Changed) > mostChanges
	if !state.Lost {
		// Changes that were committed after the epoch was read are known as well.
		state.Epoch = last
	}
	return rows.Err()
}

func scanNode(r pgx.CollectableRow) (n keystore.NodeState, err error) {
	var bound int64
	err = r.Scan(&n.ID, &n.Beat, &n.Confirmed, &bound)
	n.Bound = time.Duration(bound) * time.Millisecond
	return n, err
}

// Wait implements keystore.Membership.
func (m *membership) Wait(ctx context.Context) (changed bool, err error) {
	if !m.notified {
		err = m.conn.PgConn().WaitForNotification(ctx)
	}
	changed = m.changed
	m.changed, m.notified = false, false
	switch {
	case err == nil:
		return changed, nil
	case ctx.Err() != nil && !m.conn.IsClosed():
		return false, ctx.Err()
	}
	return false, m.failed(ctx, "wait", err)
}

// Leave implements keystore.Membership.
func (m *membership) Leave(ctx context.Context) error { return m.remove(ctx, m.node, 0) }

// Forget implements keystore.Membership.
func (m *membership) Forget(ctx context.Context, node keystore.NodeState) error {
	return m.remove(ctx, node.ID, node.Beat)
}

func (m *membership) remove(ctx context.Context, id string, beat int64) error {
	if _, err := m.conn.Exec(ctx, removeNode, id, beat); err != nil {
		return m.failed(ctx, "remove node", err)
	}
	return nil
}

// failed closes the connection: what is under way on it is not known.
func (m *membership) failed(ctx context.Context, op string, err error) error {
	if cause := ctx.Err(); cause != nil {
		err = errors.Join(cause, err)
	}
	return errors.Join(unavailable(op, m.engine.explain(err)), m.Close())
}

// Close implements keystore.Membership.
func (m *membership) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := m.conn.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("close feed: %w", err)
	}
	return nil
}

// probeWithin is how long a notification may take from one connection to another.
const probeWithin = 3 * time.Second

// errNoSessions is what a pooler in transaction mode amounts to.
var errNoSessions = errors.New("notifications do not arrive: is there a pooler in between that does not keep sessions, such as PgBouncer with pool_mode=transaction? connect to the server itself, or set pool_mode=session")

// probe checks that connections are sessions: that what one of them listens to
// arrives when another one notifies it. It prepares nothing, because a pooler may
// fail at that without saying why.
func (e *postgres) probe(ctx context.Context) (err error) {
	name := "api_keys_probe_" + rand.Text()
	listening, err := e.listen(ctx, name, func(string) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, listening.Close(ctx)) }()
	if err := e.tooOld(listening.PgConn()); err != nil {
		return err
	}
	notifying, err := pgx.ConnectConfig(ctx, e.config.Copy())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, notifying.Close(ctx)) }()
	if _, err := notifying.PgConn().Exec(ctx, `NOTIFY `+pgx.Identifier{name}.Sanitize()).ReadAll(); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	if err := listening.PgConn().WaitForNotification(waiting); err != nil {
		if waiting.Err() != nil && ctx.Err() == nil {
			return errNoSessions
		}
		return err
	}
	return nil
}

// oldest is the first version of PostgreSQL that is supported.
const oldest = 14

func (e *postgres) tooOld(conn *pgconn.PgConn) error {
	version := conn.ParameterStatus("server_version")
	var major int
	if _, err := fmt.Sscanf(version, "%d", &major); err == nil && major < oldest {
		return fmt.Errorf("the server is PostgreSQL %s: use version %d or later", version, oldest)
	}
	return nil
}
