//go:build reliability && linux

package reliability

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// faultRounds bounds how long a test looks for the answer 503.
const faultRounds = 400

// again starts the next gateway on a store, with the ledger of the last, which
// is killed.
func (g *remote) again(t *testing.T, store string) *remote {
	t.Helper()
	g.kill()
	next := startRemote(t, store, "", g.ledger)
	next.lying, next.account = g.lying, g.account
	return next
}

// goesOn retries the rotation of a credential whose outcome is not known, makes
// further changes, and holds the store against the ledger after a kill.
func (g *remote) goesOn(t *testing.T, f findings, store string, made []*remoteCredential) {
	t.Helper()
	if !g.started() {
		t.Fatalf("the gateway does not start: %s", g.events[0].Text)
	}
	g.retried(f, made[0], "0s")
	if c := g.change(); c == nil || c.unsure {
		f.add(findUnsound, "nothing can be changed: %s", g.log)
	}
	g.verifies(f, made)
	g.kill()
	f.join(g.ledger.check(t, store))
}

func (f findings) join(other findings) {
	for kind, all := range other {
		f[kind] = append(f[kind], all...)
	}
}

var fullDisks = size(2, 10)

// onFullDisks runs a test on small disks of several kinds.
func onFullDisks(t *testing.T, times int, test func(t *testing.T, dir string)) {
	for kind, newDir := range map[string]func(*testing.T) string{
		"tmpfs": func(t *testing.T) string { return inMemory(t, "4m") },
		"ext4":  func(t *testing.T) string { return newDisk(t, inMemory(t, "64m"), 8<<20).dir },
	} {
		for range times {
			t.Run(kind, func(t *testing.T) { test(t, newDir(t)) })
		}
	}
}

// TestAFullDisk fills the disk of a gateway. What is answered with 2xx is there,
// all else is 503, keys are judged as ever; with room again everything goes on,
// also after a kill.
func TestAFullDisk(t *testing.T) {
	if inOwnMounts(t) {
		onFullDisks(t, fullDisks, func(t *testing.T, dir string) { fillUp(t, dir, false).report(t, "full disk") })
	}
}

// TestAFullDiskControl does so with a client that takes 503 for a success.
func TestAFullDiskControl(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	onFullDisks(t, 1, func(t *testing.T, dir string) {
		if f := fillUp(t, dir, true); len(f[findAlive]) == 0 {
			t.Errorf("no revocation is missing; found: %v", f)
		}
	})
}

func fillUp(t *testing.T, dir string, lying bool) findings {
	f := findings{}
	store := filepath.Join(dir, "store", "keys.db")
	g := startRemote(t, store, "", newLedger())
	made := []*remoteCredential{g.change(), g.change()}
	var doomed []*remoteCredential
	for range 20 {
		doomed = append(doomed, g.issue())
	}
	makeRoom := fillDisk(t, dir)
	made = append(made, g.changeUntilRefused(faultRounds)...)
	if g.refusals == 0 {
		t.Fatal("the disk is not full")
	}
	g.lying = lying
	for _, c := range doomed {
		g.rotate(made[0], "0s")
		g.revoke(c)
	}
	g.lying = false
	g.verifies(f, made)
	f.join(g.ledger.check(t, copyStore(t, store)))
	t.Logf("%d changes acknowledged, %d answered 503", g.ledger.entries, g.refusals)
	if rand.N(2) == 0 {
		g = g.again(t, store)
		t.Logf("restarted while the disk is full: %s %s", g.events[0].Kind, g.events[0].Text)
		if !g.started() && !strings.Contains(g.events[0].Text, "full") {
			f.add(findUnsound, "the gateway does not start on a full disk, and does not say why: %s", g.events[0].Text)
		}
		f.join(g.ledger.check(t, copyStore(t, store)))
	}
	makeRoom()
	if !g.started() {
		g = g.again(t, store)
	}
	g.goesOn(t, f, store, made)
	return f
}

// fillDisk takes all but a few pages of a disk, and returns what gives them back.
func fillDisk(t *testing.T, dir string) (makeRoom func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, length := make([]byte, 4096), int64(0)
	for ; err == nil; length += 4096 {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(max(0, length-int64(1+rand.N(30))*4096)), f.Sync()); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// TestAFileThatMayNotGrow runs a gateway whose files can't grow any more.
func TestAFileThatMayNotGrow(t *testing.T) {
	stopAt(t, false, "file size").report(t, "a file that may not grow")
}

func TestAFileThatMayNotGrowControl(t *testing.T) {
	if f := stopAt(t, true, "file size"); len(f[findAlive]) == 0 {
		t.Errorf("no revocation is missing; found: %v", f)
	}
}

// stopAt runs a gateway with a limit that makes writes fail for good, until one
// does, and then one without.
func stopAt(t *testing.T, lying bool, limit string) findings {
	t.Helper()
	store := newStorePath(t)
	return stopsWriting(t, startRemote(t, store, limit, newLedger()), store, lying)
}

// stopsWriting changes until that fails, and holds what then happens against what
// is promised: nothing is acknowledged any more, keys are judged as ever, and a
// restart goes on with all that was acknowledged.
func stopsWriting(t *testing.T, g *remote, store string, lying bool, made ...*remoteCredential) findings {
	t.Helper()
	f := findings{}
	made = append(made, g.changeUntilRefused(faultRounds)...)
	if g.refusals == 0 {
		t.Fatal("no change is refused")
	}
	g.refusesAll(f, made, lying)
	if len(made) > 0 {
		g.verifies(f, made)
	}
	if !strings.Contains(g.log.String(), "writes stopped until a restart") {
		f.add(findUnsound, "the log does not say that writes have stopped")
	}
	f.join(g.ledger.check(t, copyStore(t, store)))
	t.Logf("%d changes acknowledged, %d answered 503", g.ledger.entries, g.refusals)
	g = g.again(t, store)
	if len(made) == 0 {
		made = append(made, g.change())
	}
	g.goesOn(t, f, store, made)
	return f
}

// refusesAll tries to change, which must be refused from now on.
func (g *remote) refusesAll(f findings, made []*remoteCredential, lying bool) {
	g.t.Helper()
	before := g.ledger.entries
	for range 5 {
		g.change()
		for _, c := range made[:min(len(made), 1)] {
			g.rotate(c, "0s")
		}
	}
	if g.ledger.entries != before {
		f.add(findUnsound, "%d changes were acknowledged after one that failed for good", g.ledger.entries-before)
	}
	if len(made) > 1 {
		g.lying = lying
		g.revoke(made[1])
		g.lying, made[1].unsure = false, true
	}
}

// TestTheClientFinds is the control of what the client looks at: a gateway in
// which nothing fails is taken for one that broke its promises.
func TestTheClientFinds(t *testing.T) {
	g := startRemote(t, newStorePath(t), "", newLedger())
	made := []*remoteCredential{g.change(), g.change()}
	for _, c := range []struct {
		what, kind string
		look       func(findings)
	}{
		{"a change after one that failed for good", findUnsound, func(f findings) { g.refusesAll(f, made[:1], false) }},
		{"a retry that leaves two keys", findHalf, func(f findings) { g.retried(f, made[0], "1h") }},
		{"a retry after which the old key works", findAlive, func(f findings) { g.retried(f, made[0], "1h") }},
		{"a good key that is refused", findMissing, func(f findings) { g.verifies(f, []*remoteCredential{{text: "never made"}}) }},
		{"a revoked key that works", findAlive, func(f findings) {
			g.ledger.note(event{Kind: eventRevoked, Key: made[1].key})
			g.verifies(f, made)
		}},
	} {
		f := findings{}
		if c.look(f); len(f[c.kind]) == 0 {
			t.Errorf("%s goes unnoticed; found: %v", c.what, f)
		}
	}
}
