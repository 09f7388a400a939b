//go:build reliability && linux

package reliability

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestNoMoreFiles takes every file descriptor of a gateway with connections. What
// is answered with 2xx is there, no good key is refused as bad, and once the
// connections are gone everything goes on.
func TestNoMoreFiles(t *testing.T) {
	f, exhausted := runOutOfFiles(t, "no more files")
	if !exhausted {
		t.Error("files were left")
	}
	f.report(t, "without files")
}

// TestNoMoreFilesControl shows that the test notices where files are left, and
// where a good key is refused.
func TestNoMoreFilesControl(t *testing.T) {
	if _, exhausted := runOutOfFiles(t, ""); exhausted {
		t.Error("no file is left without a limit")
	}
	g := startRemote(t, newStorePath(t), "", newLedger())
	f := findings{}
	g.useAll(f, []*remoteCredential{{text: "never made"}})
	if len(f[findMissing]) == 0 {
		t.Error("a key that is refused goes unnoticed")
	}
}

func runOutOfFiles(t *testing.T, limit string) (f findings, exhausted bool) {
	t.Helper()
	f = findings{}
	store := newStorePath(t)
	g := startRemote(t, store, limit, newLedger())
	made := []*remoteCredential{g.change(), g.change(), g.change()}
	if made[2] == nil {
		t.Fatal("nothing works from the start")
	}
	g.use(made[0].text) // leaves a connection open for later
	release := g.takeFiles(t, 40)
	exhausted = g.filesLeft(t) <= 0
	for range 5 {
		if c := g.change(); c != nil {
			made = append(made, c)
		}
	}
	g.useAll(f, made)
	t.Logf("%d files left, %d changes acknowledged, %d answered 503", g.filesLeft(t), g.ledger.entries, g.refusals)
	release()
	for end := time.Now().Add(10 * time.Second); g.filesLeft(t) < 8; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the gateway keeps its connections")
		}
	}
	g.retried(f, made[0], "0s")
	g.verifies(f, made)
	g.kill()
	f.join(g.ledger.check(t, store))
	return f, exhausted
}

// useAll presents keys at once, over connections as far as there are any. No
// answer may say that a key is bad.
func (g *remote) useAll(f findings, made []*remoteCredential) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	g.site.Timeout = 2 * time.Second // for those that nobody accepts
	defer func() { g.site.Timeout = 30 * time.Second }()
	for _, c := range made {
		wg.Go(func() {
			switch status := g.use(c.text); status {
			case http.StatusOK, http.StatusServiceUnavailable, 0:
			default:
				mu.Lock()
				defer mu.Unlock()
				f.add(findMissing, "a key that works is answered %d", status)
			}
		})
	}
	wg.Wait()
}

// takeFiles opens connections until the gateway has no file left, at most so
// many.
func (g *remote) takeFiles(t *testing.T, most int) (release func()) {
	t.Helper()
	var open []net.Conn
	for range most {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		before := g.filesLeft(t)
		for end := time.Now().Add(20 * time.Millisecond); before > 0 && g.filesLeft(t) == before && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	return func() {
		for _, c := range open {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// filesLeft is how many files the gateway can still open.
func (g *remote) filesLeft(t *testing.T) int {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", g.cmd.Process.Pid)
	open, err := os.ReadDir(proc + "fd")
	limits, err2 := os.ReadFile(proc + "limits")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(limits), "Max open files")
	limit, err := strconv.Atoi(strings.Fields(line)[0])
	if err != nil {
		t.Fatal(err)
	}
	return limit - len(open)
}

// TestTooFewFilesToStart opens a store with next to no files: it is not harmed.
func TestTooFewFilesToStart(t *testing.T) {
	store := newStorePath(t)
	g := startRemote(t, store, "", newLedger())
	made := []*remoteCredential{g.change()}
	for files := 8; files <= 24; files += 2 {
		g.kill()
		g = startRemote(t, store, fmt.Sprint("few files ", files), g.ledger)
		if len(g.events) > 0 {
			t.Logf("with %d files it is %s: %.200s", files, g.events[0].Kind, g.events[0].Text)
		}
		g.ledger.check(t, copyStore(t, store)).report(t, fmt.Sprint("with ", files, " files"))
	}
	f := findings{}
	g.again(t, store).goesOn(t, f, store, made)
	f.report(t, "after starts with few files")
}
