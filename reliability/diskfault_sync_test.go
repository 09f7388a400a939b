//go:build reliability && linux

package reliability

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// failingSyncs is how many of the first syncs of a thread fail in turn, one in
// each run: in runs that fail from the start of the gateway, and in runs that fail
// once it serves.
var failingSyncs = size(5, 24)

// syncFaults are the arguments of strace that make the nth sync of a thread fail, of
// any file, or of one.
func syncFaults(log string, n int, file ...string) []string {
	arguments := []string{"-f", "-q", "-y", "-o", log, "-e", "trace=fsync,fdatasync",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d", n)}
	for _, name := range file {
		arguments = append(arguments, "-P", name)
	}
	return arguments
}

// needsStrace skips the test where system calls can't be made to fail.
func needsStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed; Debian has it in the package strace")
	}
	if out, err := exec.Command("strace", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("processes may not be traced here: %s", out)
	}
}

// injected is the first sync that failed, with the number of those before it.
func injected(t *testing.T, log string) string {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "INJECTED") {
			return fmt.Sprintf("after %d syncs: %s", n, strings.TrimSpace(line))
		}
		if strings.Contains(line, "sync(") {
			n++
		}
	}
	return fmt.Sprintf("none of %d", n)
}

// TestASyncThatFailsAtStart makes one of the syncs fail with which a store is made
// and then used.
func TestASyncThatFailsAtStart(t *testing.T) {
	needsStrace(t)
	for n := 1; n <= failingSyncs; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			store, log := newStorePath(t), filepath.Join(t.TempDir(), "log")
			g := startRemote(t, store, "", newLedger(), append([]string{"strace", "-D", "--seccomp-bpf"}, syncFaults(log, n)...)...)
			f := findings{}
			if g.started() {
				f = stopsWriting(t, g, store, false)
			} else {
				t.Logf("it does not start: %s", g.events[0].Text)
				if _, err := os.Stat(filepath.Dir(store)); err == nil && strings.Contains(g.events[0].Text, "make directory") {
					f.add(findUnsound, "a directory whose name is not on the disk is left for the next start")
				}
				g = g.again(t, store)
				g.goesOn(t, f, store, []*remoteCredential{g.change()})
			}
			t.Log(injected(t, log))
			f.report(t, injected(t, log))
		})
	}
}

// TestASyncThatFails makes a sync fail of a gateway that serves: no change is
// acknowledged from then on, though later syncs would succeed.
func TestASyncThatFails(t *testing.T) {
	needsStrace(t)
	for n := 1; n <= failingSyncs; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			f := failSync(t, syncFaults(log, n), newStorePath(t), false)
			t.Log(injected(t, log))
			f.report(t, injected(t, log))
		})
	}
	t.Run("of a checkpoint", func(t *testing.T) {
		log, store := filepath.Join(t.TempDir(), "log"), newStorePath(t)
		f := failSync(t, syncFaults(log, 1, store), store, false)
		t.Log(injected(t, log))
		f.report(t, injected(t, log))
	})
}

// TestASyncThatFailsControl does so with a client that takes 503 for a success,
// and with a store that does not sync, where nothing can fail.
func TestASyncThatFailsControl(t *testing.T) {
	needsStrace(t)
	t.Run("lying client", func(t *testing.T) {
		if f := failSync(t, syncFaults(filepath.Join(t.TempDir(), "log"), 15), newStorePath(t), true); len(f[findAlive]) == 0 {
			t.Errorf("no revocation is missing; found: %v", f)
		}
	})
	t.Run("store that does not sync", func(t *testing.T) {
		t.Setenv(writerVariant, "unsynced")
		g := startRemote(t, newStorePath(t), "", newLedger())
		g.trace(t, syncFaults(filepath.Join(t.TempDir(), "log"), 1))
		if made := g.changeUntilRefused(20); len(made) < 20 {
			t.Errorf("a change was refused: %s", g.log)
		}
	})
}

// failSync starts a gateway and then makes a sync fail.
func failSync(t *testing.T, faults []string, store string, lying bool) findings {
	t.Helper()
	g := startRemote(t, store, "", newLedger())
	made := []*remoteCredential{g.change(), g.change()}
	if made[1] == nil {
		t.Fatal("nothing works from the start")
	}
	g.trace(t, faults)
	return stopsWriting(t, g, store, lying, made...)
}

// trace lets strace at the running gateway.
func (g *remote) trace(t *testing.T, arguments []string) {
	t.Helper()
	pid := fmt.Sprint(g.cmd.Process.Pid)
	tracer := exec.Command("strace", append(arguments, "-p", pid)...)
	tracer.SysProcAttr = endsWithUs()
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = tracer.Process.Kill()
		_ = tracer.Wait()
	})
	for end := time.Now().Add(10 * time.Second); !traced(t, pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("strace does not attach")
		}
	}
}

// traced reports whether all threads of a process are traced.
func traced(t *testing.T, pid string) bool {
	t.Helper()
	threads, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(text), "TracerPid:\t0\n") {
			return false
		}
	}
	return len(threads) > 0
}
