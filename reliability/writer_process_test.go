//go:build reliability && linux

package reliability

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// newStorePath is where a store can be made.
func newStorePath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "store", "keys.db")
}

// process is a child that writes events.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *os.File
	rest []byte // of a line that has not ended
	// events are what was read of it so far.
	events []event
	ended  bool
}

// startWriter starts a writer on the store at that path, or DSN.
func startWriter(t *testing.T, store, variant string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=writer", writerStore+"="+store, writerVariant+"="+variant)
	return startChild(t, cmd)
}

// startChild starts a child, which is killed at the end of the test at the latest.
func startChild(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	cmd.SysProcAttr = endsWithUs()
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	err = errors.Join(cmd.Start(), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, out: r}
	t.Cleanup(p.kill)
	return p
}

// readUntil reads what the process writes until that moment, or until it ends.
func (p *process) readUntil(end time.Time) {
	p.t.Helper()
	if err := p.out.SetReadDeadline(end); err != nil {
		p.t.Fatal(err)
	}
	buffer := make([]byte, 1<<16)
	for !p.ended {
		n, err := p.out.Read(buffer)
		p.take(buffer[:n])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err == io.EOF:
			p.ended = true
		case err != nil:
			p.t.Fatal(err)
		}
	}
}

// readFor reads until an event of that kind came, for some time at most.
func (p *process) readFor(kind string) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); !p.ended; p.readUntil(time.Now().Add(time.Millisecond)) {
		for _, e := range p.events {
			if e.Kind == kind {
				return
			}
		}
		if time.Now().After(end) {
			p.t.Fatalf("the process does not say %q", kind)
		}
	}
	p.t.Fatalf("the process ended before it said %q: %v", kind, p.events)
}

// take splits what was read into events.
func (p *process) take(text []byte) {
	p.t.Helper()
	p.rest = append(p.rest, text...)
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			return
		}
		p.rest = rest
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			p.t.Fatalf("%v in %q", err, line)
		}
		if e.Kind == eventFailed {
			p.t.Fatalf("the process failed: %s", e.Text)
		}
		p.events = append(p.events, e)
	}
}

// stop stops all threads of the process, and reads what it had written.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		p.t.Fatalf("the process did not stop: %v, %v", status, err)
	}
	p.drain()
}

// drain reads what is in the pipe, of a process that writes nothing.
func (p *process) drain() {
	p.t.Helper()
	raw, err := p.out.SyscallConn()
	if err == nil {
		err = p.out.SetReadDeadline(time.Time{})
	}
	if err != nil {
		p.t.Fatal(err)
	}
	buffer := make([]byte, 1<<16)
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.Read(int(fd), buffer)
			if n <= 0 || err != nil {
				return true
			}
			p.take(buffer[:n])
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// goOn ends a stop.
func (p *process) goOn() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the process as kill -9 does, and reads what it had written.
func (p *process) kill() {
	if p.out == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	p.readUntil(time.Now().Add(30 * time.Second))
	_ = p.cmd.Wait()
	_ = p.out.Close()
	p.out = nil
}

// killed is kill, with the events.
func (p *process) killed() []event {
	p.kill()
	return p.events
}

// copyStore copies what a process left of the store at from, log included, and
// returns the path of the copy.
func copyStore(t *testing.T, from string) string {
	t.Helper()
	to := newStorePath(t)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}
