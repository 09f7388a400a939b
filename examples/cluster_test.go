package examples_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
)

// TestCluster runs the script of the example as it is, with this program as its Caddy.
func TestCluster(t *testing.T) {
	out := runCluster(t, "POSTGRES_BIN="+postgrestest.Programs(t))
	var answers []string
	for _, m := range regexp.MustCompile(`<- (.) answers (\d+)`).FindAllStringSubmatch(out, -1) {
		answers = append(answers, m[1]+" "+m[2])
	}
	want := []string{
		"A 200", "B 200", // a key that was issued at A
		"A 200", "A 401", "B 401", // its revocation at A
		"B 200",                   // another key
		"A 202", "A 401", "B 401", // its revocation, while B stands still
	}
	if !slices.Equal(answers, want) {
		t.Errorf("the answers are %q, not %q", answers, want)
	}
	if got := strings.Count(out, `"code":"revoked_key"`); got != 4 {
		t.Errorf("%d answers are that the key is revoked, not 4", got)
	}
	if regexp.MustCompile(`key_\w{12}_`).MatchString(out) {
		t.Error("the script prints a key")
	}
	if t.Failed() {
		t.Log(out)
	}
}

// runCluster runs the script, and checks that it leaves no file behind.
func runCluster(t *testing.T, env ...string) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not of t.TempDir: where root runs the tests, the server's user has to get in.
	dir, err := os.MkdirTemp("", "api_keys_cluster")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "cluster/run")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	ports := freePorts(t, 4)
	cmd.Env = slices.Concat(os.Environ(), env, []string{"CADDY=" + program, asCaddy + "=1", "TMPDIR=" + dir,
		"PORT_A=" + ports[0], "PORT_B=" + ports[1], "ADMIN_A=" + ports[2], "ADMIN_B=" + ports[3]})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the script leaves behind %v (%v)", left, err)
	}
	return string(out)
}
