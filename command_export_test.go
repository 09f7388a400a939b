package apikeys

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

func TestAnExportMovesToAnotherGateway(t *testing.T) {
	from := startWith(t, "", "")
	secret := strings.TrimSpace(from.issueWith("acme"))
	if a := from.get("/", "X-Api-Key", secret); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	path := filepath.Join(t.TempDir(), "keys.ndjson")
	if r := from.cli("export", path).ok(); r.stdout != "" || !strings.Contains(r.stderr, "1 accounts, 1 credentials, 1 keys") {
		t.Errorf("it says %q and %q", r.stdout, r.stderr)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	content, err := os.ReadFile(path)
	if err != nil || bytes.Contains(content, []byte(secret[len(secret)-38:])) || !bytes.Contains(content, []byte(`"last_used_at"`)) {
		t.Errorf("%s, %v", content, err)
	}
	if r := from.cli("export", "-").ok(); r.stdout != string(content) {
		t.Errorf("standard output has\n%s\nand the file\n%s", r.stdout, content)
	}
	from.cli("export", path).fails("not overwritten")
	from.cli("export", filepath.Join(path, "below")).fails()
	from.cli("export").fails("arg")

	to := startWith(t, "", "")
	if a := to.get("/", "X-Api-Key", secret); a.StatusCode != 401 {
		t.Fatalf("before the import: %d", a.StatusCode)
	}
	to.cli("import", path).ok()
	if a := to.get("/", "X-Api-Key", secret); a.StatusCode != 200 {
		t.Errorf("after it: %d %s", a.StatusCode, a.body)
	}
	cut := content[:bytes.LastIndexByte(content[:len(content)-1], '\n')+1]
	cli(t, to.admin, string(cut), "import", "-").fails("cut off", "400")
}

// TestAnExportThatIsNotWholeLeavesNoFile: whether the connection ended early or only
// what it brought.
func TestAnExportThatIsNotWholeLeavesNoFile(t *testing.T) {
	const head, end = `{"export":{"version":1}}` + "\n", `{"end":{"accounts":0,"credentials":0,"keys":0,"waiting_mails":3}}`
	for name, c := range map[string]struct {
		body  string
		abort bool
		says  string
	}{
		"the connection ends":     {head, true, "broke off"},
		"there is nothing":        {"", false, "last line"},
		"there is no end":         {head, false, "last line"},
		"the last line is half":   {head + end, false, "last line"},
		"it begins with the end":  {end + "\n", false, "last line"},
		"it goes on with another": {head + end + "\n" + head, false, "last line"},
		"it is something else":    {"<html>\n</html>\n", false, "last line"},
	} {
		t.Run(name, func(t *testing.T) {
			server := answering(t, c.body, c.abort)
			dir := t.TempDir()
			cli(t, server, "", "export", filepath.Join(dir, "keys.ndjson")).fails(c.says)
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if r := cli(t, server, "", "export", "-"); r.err == nil {
				t.Error("standard output is said to be whole")
			}
		})
	}
	// The control.
	path := filepath.Join(t.TempDir(), "keys.ndjson")
	if r := cli(t, answering(t, head+end+"\n", false), "", "export", path).ok(); !strings.Contains(r.stderr, "3 mails wait") {
		t.Errorf("it says %s", r.stderr)
	}
}

// answering answers everything with a body.
func answering(t *testing.T, body string, abort bool) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, body)
		if abort {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAnExportThatCantBeWrittenFails(t *testing.T) {
	g := startWith(t, "", "")
	cmd := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
	addCommands(cmd)
	r, w := io.Pipe()
	r.CloseWithError(syscall.ENOSPC)
	cmd.SetOut(w)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"export", "-", "--address", g.admin})
	if err := cmd.Execute(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("it ends with %v", err)
	}
}

func TestAnExportNeedsARunningCaddy(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	cli(t, server.Listener.Addr().String(), "", "export", filepath.Join(t.TempDir(), "keys.ndjson")).fails("is Caddy running")
}
