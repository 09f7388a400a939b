//go:build reliability && linux

package reliability

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
)

// A gateway under attack runs in a process of its own: what it uses is then not
// what the attackers use, and they can't stop it from working but over the network.

const (
	serveFile  = "RELIABILITY_CADDYFILE"
	serveFiles = "RELIABILITY_OPEN_FILES"
)

func init() { children["gateway"] = serve }

// serve runs the Caddyfile that the environment names, with at most as many open
// files as it says.
func serve() {
	if most, err := strconv.ParseUint(os.Getenv(serveFiles), 10, 64); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
			panic(err)
		}
	}
	os.Args = []string{"caddy", "run", "--adapter", "caddyfile", "--config", os.Getenv(serveFile)}
	caddycmd.Main()
}

// served is a gateway in another process.
type served struct {
	httpGate
	addr, dir string
	cmd       *exec.Cmd
	stdin     io.WriteCloser
	answers   *bufio.Reader // its standard output
}

// startServed runs the test binary as a gateway with a Caddyfile, in which {admin},
// {addr} and {dir} stand for this test's own. It returns when the site listens.
func startServed(t *testing.T, caddyfile string, env ...string) *served {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(env, childVariable+"=gateway")
	return runServed(t, t.TempDir(), caddyfile, cmd)
}

// runServed runs a command that is to serve the Caddyfile.
func runServed(t *testing.T, dir, caddyfile string, cmd *exec.Cmd) *served {
	t.Helper()
	s := &served{dir: dir, addr: livetest.FreeAddr(t), cmd: cmd}
	admin := livetest.FreeAddr(t)
	s.httpGate = newHTTPGate(t, "http://"+s.addr, "http://"+admin).(httpGate)
	file := filepath.Join(dir, "Caddyfile")
	text := strings.NewReplacer("{admin}", admin, "{addr}", s.addr, "{dir}", dir).Replace(caddyfile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(cmd.Args) == 1 {
		cmd.Args = append(cmd.Args, "run", "--adapter", "caddyfile", "--config", file)
	}
	cmd.Env = append(append(os.Environ(), serveFile+"="+file), cmd.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.begin()
	return s
}

// begin starts the process and waits until the site listens.
func (s *served) begin() {
	s.t.Helper()
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stderr = log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	s.answers = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
}

// ready waits until site and admin endpoint answer.
func (s *served) ready() *served {
	s.t.Helper()
	end := time.Now().Add(time.Minute)
	for _, url := range []string{s.site, s.admin + "/config/"} {
		for {
			resp, err := s.client.Get(url)
			if err == nil {
				resp.Body.Close()
				break
			}
			if time.Now().After(end) || syscall.Kill(s.cmd.Process.Pid, 0) != nil {
				s.t.Fatalf("the gateway does not serve: %v\n%s", err, s.logged())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return s
}

// end stops the process as an operator does.
func (s *served) end() {
	s.t.Helper()
	s.client.CloseIdleConnections()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Fatalf("%v\n%s", err, s.logged())
	}
}

func (s *served) logPath() string   { return filepath.Join(s.dir, "stderr") }
func (s *served) storePath() string { return filepath.Join(s.dir, "store", "keys.db") }

func (s *served) logged() string {
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		s.t.Error(err)
	}
	return string(text)
}

// status is what a GET with a key is answered.
func (s *served) status(key string) int {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.site+"/", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	return s.do(r, nil)
}

// resident is the memory of the process, in bytes, as the system counts it.
func (s *served) resident() int64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	var kib int64
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		s.t.Fatal(err)
	}
	return kib << 10
}

// live is the memory that the process can't give back, in bytes: its heap right
// after a collection.
func (s *served) live() int64 {
	s.t.Helper()
	resp, err := s.client.Get(s.admin + "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var n int64
	_, after, _ := strings.Cut(string(text), "# HeapAlloc = ")
	if _, err := fmt.Sscan(after, &n); err != nil {
		s.t.Fatalf("no heap in %q: %v", text, err)
	}
	return n
}

// processorTime is what the process used of the processors since it started.
func (s *served) processorTime() time.Duration {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks time.Duration // of a hundredth of a second, on every Linux
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			s.t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}
