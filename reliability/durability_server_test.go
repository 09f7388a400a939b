//go:build reliability && linux

package reliability

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
)

// serverKills is how often a server is killed, and killsOfOneDatabase how many of
// these one database sees.
var serverKills, killsOfOneDatabase = size(4, 100), 10

// TestNothingAcknowledgedIsLostByAKilledServer kills PostgreSQL, all its processes at
// once, under writers that go on when it is back, and holds what is there against
// everything that was acknowledged.
func TestNothingAcknowledgedIsLostByAKilledServer(t *testing.T) {
	server := postgrestest.Start(t)
	acknowledged := 0
	var l *ledger
	var dsn string
	for kill := range serverKills {
		if kill%killsOfOneDatabase == 0 {
			l, dsn = newLedger(), server.NewDatabase(t)
		}
		before := l.entries
		w := startWriter(t, dsn, "")
		w.readFor(eventOpened)
		w.readUntil(time.Now().Add(500*time.Millisecond + rand.N(time.Second)))
		server.Kill()
		w.readUntil(time.Now().Add(100 * time.Millisecond)) // what it said before
		said := len(w.events)
		server.Restart()
		w.readBeyond(said)
		l.note(w.killed()...)
		l.check(t, dsn).report(t, "after a kill of the server")
		if t.Failed() {
			return
		}
		acknowledged += l.entries - before
	}
	t.Logf("%d kills, %d acknowledgements, none missing", serverKills, acknowledged)
}

// readBeyond reads until the process has written more events than that.
func (p *process) readBeyond(events int) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); len(p.events) <= events; p.readUntil(time.Now().Add(time.Millisecond)) {
		if time.Now().After(end) || p.ended {
			p.t.Fatal("the process does not go on when the server is back")
		}
	}
}

// TestNothingAcknowledgedIsLostByAKilledServerControl kills the server of a writer that
// says what is not committed yet.
func TestNothingAcknowledgedIsLostByAKilledServerControl(t *testing.T) {
	server := postgrestest.Start(t)
	for range 20 {
		dsn, l := server.NewDatabase(t), newLedger()
		w := startWriter(t, dsn, "early")
		w.readFor(eventRevoked)
		w.readUntil(time.Now().Add(rand.N(100 * time.Millisecond)))
		server.Kill()
		l.note(w.killed()...)
		server.Restart()
		if len(l.check(t, dsn)[findMissing]) > 0 {
			return
		}
	}
	t.Error("nothing was found in 20 databases")
}
