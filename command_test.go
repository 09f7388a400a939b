package apikeys

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// ran is what a command did.
type ran struct {
	t              *testing.T
	stdout, stderr string
	err            error
}

// cli runs "caddy api-keys" with arguments, against an admin endpoint.
func cli(t *testing.T, address, stdin string, args ...string) ran {
	t.Helper()
	cmd := &cobra.Command{Use: "api-keys", SilenceUsage: true}
	caddycmd.Commands()["api-keys"].CobraFunc(cmd)
	var stdout, stderr bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(append(args, "--address", address))
	err := cmd.Execute()
	return ran{t, stdout.String(), stderr.String(), err}
}

func (g *gateway) cli(args ...string) ran {
	g.t.Helper()
	return cli(g.t, g.admin, "", args...)
}

func (r ran) ok() ran {
	r.t.Helper()
	if r.err != nil {
		r.t.Fatalf("%v\n%s%s", r.err, r.stdout, r.stderr)
	}
	return r
}

// fails wants an error that says all of these, and nothing on standard output.
func (r ran) fails(says ...string) ran {
	r.t.Helper()
	if r.err == nil || r.stdout != "" {
		r.t.Fatalf("error %v, standard output %q", r.err, r.stdout)
	}
	for _, s := range says {
		if !strings.Contains(r.stderr, s) {
			r.t.Errorf("%q is not in %q", s, r.stderr)
		}
	}
	return r
}

var aloneOnALine = regexp.MustCompile(`^key_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}\n$`)

func TestACommandPrintsANewKeyAlone(t *testing.T) {
	g := startWith(t, "", "")
	g.cli("account", "create", "--id", "acme", "--email", "ops@acme.example").ok()
	for _, account := range []string{"acme", "ops@acme.example", "OPS@acme.example"} {
		issued := g.cli("issue", "--account", account, "--role", "read", "--role", "write").ok()
		if !aloneOnALine.MatchString(issued.stdout) {
			t.Errorf("standard output is %q", issued.stdout)
		}
		if strings.Contains(issued.stderr, strings.TrimSpace(issued.stdout)) {
			t.Errorf("standard error has the key: %s", issued.stderr)
		}
		if a := g.get("/", "X-Api-Key", strings.TrimSpace(issued.stdout)); a.StatusCode != 200 {
			t.Errorf("the site answers %d %s", a.StatusCode, a.body)
		}
		credential := regexp.MustCompile(`credential (\S+),`).FindStringSubmatch(issued.stderr)[1]
		rotated := g.cli("rotate", credential, "--overlap", "24h").ok()
		if !aloneOnALine.MatchString(rotated.stdout) || !strings.Contains(rotated.stderr, "retiring until") {
			t.Errorf("got %q and %q", rotated.stdout, rotated.stderr)
		}
	}
}

func TestIssueSetsWhatItsFlagsSay(t *testing.T) {
	g := startWith(t, "package Coverage {\n roles base\n}", "require any")
	g.cli("account", "create", "--id", "acme").ok()
	raw := g.cli("issue", "--account", "acme", "--package", "Coverage", "--role", "read", "--description", "night job",
		"--allowed-ip", "192.0.2.7", "--allowed-ip", "2001:db8::/32", "--metadata", "team=a=b", "--expires-in", "30d", "--json").ok().stdout
	for _, want := range []string{`"package":"Coverage"`, `"roles":["base","read"]`, `"description":"night job"`,
		`"allowed_ips":["192.0.2.7/32","2001:db8::/32"]`, `"metadata":{"team":"a=b"}`, `"secret":"key_`} {
		if !strings.Contains(raw, want) {
			t.Errorf("%s is not in %s", want, raw)
		}
	}
	if strings.Contains(raw, `"expires_at":null,"created_at"`) {
		t.Errorf("it does not expire: %s", raw)
	}
	g.cli("issue", "--account", "acme").fails("package", "Coverage", "422")
	g.cli("issue", "--account", "acme", "--package", "Coverage", "--allowed-ip", "nowhere").fails("allowed_ips", "CIDR")
	g.cli("issue", "--account", "acme", "--package", "Coverage", "--expires-in", "soon").fails("--expires-in")
	g.cli("issue", "--account", "acme", "--package", "Coverage", "--metadata", "x").fails("name=value")
	g.cli("issue", "--account", "nobody").fails("404")
	g.cli("issue", "--account", "nobody@acme.example").fails("no account has this e-mail address")
	g.cli("issue").fails("account")
}

func TestAccountsAreManagedByCommand(t *testing.T) {
	g := startWith(t, "", "")
	made := g.cli("account", "create", "--id", "acme", "--email", "ops@acme.example", "--first-name", "Ada", "--last-name", "Lovelace",
		"--company", "Acme Corp.", "--phone", "+33", "--postal-address", "1 rue", "--siren", "123", "--role", "vip", "--attribute", "plan=gold").ok()
	for _, want := range []string{"acme", "ops@acme.example", "Ada Lovelace", "Acme Corp.", "+33", "1 rue", "123", "vip", "attribute plan"} {
		if !strings.Contains(made.stdout, want) {
			t.Errorf("%q is not in\n%s", want, made.stdout)
		}
	}
	if shown := g.cli("account", "show", "ops@acme.example").ok(); shown.stdout != made.stdout {
		t.Errorf("made:\n%s\nshown:\n%s", made.stdout, shown.stdout)
	}
	g.cli("account", "update", "ops@acme.example", "--active=false", "--phone", "", "--role", "", "--attribute", "").ok()
	raw := g.cli("account", "show", "acme", "--json").ok().stdout
	for _, want := range []string{`"active":false`, `"phone":null`, `"roles":[]`, `"attributes":{}`, `"company":"Acme Corp."`} {
		if !strings.Contains(raw, want) {
			t.Errorf("%s is not in %s", want, raw)
		}
	}
	if listed := g.cli("account", "list").ok(); !regexp.MustCompile(`1 +acme +ops@acme.example +Acme Corp\. +false`).MatchString(listed.stdout) {
		t.Errorf("got\n%s", listed.stdout)
	}
	g.cli("account", "create", "--email", "OPS@acme.example").fails("email", "exists", "409")
	g.cli("account", "create", "--attribute", "a=1", "--attribute", "a=2").fails("each name once")
	g.cli("account", "delete", "acme").ok()
	g.cli("account", "show", "acme").fails("404")
	g.cli("account", "show", "a/../b").fails("404")
}

func TestListShowsAccountsCredentialsAndKeys(t *testing.T) {
	g := startWith(t, "", "")
	g.cli("account", "create", "--id", "acme", "--email", "ops@acme.example").ok()
	g.cli("account", "create", "--id", "empty").ok()
	issued := g.cli("issue", "--account", "acme", "--role", "read").ok()
	key := strings.Split(issued.stdout, "_")[1]
	g.cli("revoke", key, "--reason", "test").ok()
	for _, args := range [][]string{{"list"}, {"list", "--account", "acme"}, {"list", "--account", "ops@acme.example"}} {
		out := g.cli(args...).ok().stdout
		if !regexp.MustCompile(`(?m)^acme +ops@acme\.example +\S+ +- +read +` + key + ` +revoked `).MatchString(out) {
			t.Errorf("%v:\n%s", args, out)
		}
		if strings.Contains(out, "empty") != (len(args) == 1) {
			t.Errorf("%v:\n%s", args, out)
		}
	}
	var all struct {
		Items []struct {
			Account struct{ ID string }
			Keys    []struct{ ID, State string }
		}
	}
	raw := g.cli("list", "--json").ok().stdout
	if err := json.Unmarshal([]byte(raw), &all); err != nil || len(all.Items) != 1 || all.Items[0].Account.ID != "acme" ||
		all.Items[0].Keys[0].ID != key || all.Items[0].Keys[0].State != "revoked" {
		t.Errorf("%v: %s", err, raw)
	}
	g.cli("list", "--account", "nobody").fails("404")
}

func TestVerifyTellsByItsStatus(t *testing.T) {
	g := startWith(t, "", "")
	issued := g.issueWith("acme")
	if r := cli(t, g.admin, issued, "verify", "-").ok(); !strings.Contains(r.stdout, "acme") || strings.Contains(r.stdout+r.stderr, strings.TrimSpace(issued)) {
		t.Errorf("got %q and %q", r.stdout, r.stderr)
	}
	g.cli("revoke", strings.Split(issued, "_")[1]).ok()
	if r := cli(t, g.admin, issued, "verify", "-"); r.err == nil || !strings.Contains(r.stdout, "revoked_key") {
		t.Errorf("a revoked key: %v, %s", r.err, r.stdout)
	}
	if r := cli(t, g.admin, "nonsense", "verify", "-", "--json"); r.err == nil || !strings.Contains(r.stdout, `"code":"invalid_key"`) {
		t.Errorf("nonsense: %v, %s", r.err, r.stdout)
	}
	cli(t, g.admin, " \n", "verify", "-").fails("no key on standard input")
}

// issueWith makes an account and returns the output of issue for it.
func (g *gateway) issueWith(account string) string {
	g.t.Helper()
	g.cli("account", "create", "--id", account).ok()
	return g.cli("issue", "--account", account).ok().stdout
}

func TestAKeyIsNoArgument(t *testing.T) {
	g := startWith(t, "", "")
	key := strings.TrimSpace(g.issueWith("acme"))
	for _, args := range [][]string{{"verify", key}, {"verify"}, {"verify", "-", key}, {"revoke", key}, {"rotate", key}, {"account", "show", key}, {"issue", "--account", key}} {
		if r := g.cli(args...).fails("command line"); strings.Contains(r.stderr, key) {
			t.Errorf("%v repeats it: %s", args[0], r.stderr)
		}
	}
	if r := cli(t, g.admin, key, "verify", "-"); r.err != nil {
		t.Errorf("the key does not work any more: %v", r.err)
	}
}

func TestABackupIsANewPrivateFile(t *testing.T) {
	g := startWith(t, "", "")
	secret := strings.TrimSpace(g.issueWith("acme"))
	path := filepath.Join(t.TempDir(), "keys.db")
	g.cli("backup", path).ok()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	content, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(content, []byte("SQLite format 3\x00")) || !bytes.Contains(content, []byte("acme")) ||
		bytes.Contains(content, []byte(secret[len(secret)-38:])) {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	g.cli("backup", path).fails("not overwritten")
	if again, _ := os.ReadFile(path); !bytes.Equal(again, content) {
		t.Error("the file was overwritten")
	}
	g.cli("backup", filepath.Join(path, "below")).fails()
}

// A server that breaks off is what a full disk or a crash looks like.
func TestABackupThatBreaksOffLeavesNoFile(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "SQLite format 3\x00")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	dir := t.TempDir()
	cli(t, server.Listener.Addr().String(), "", "backup", filepath.Join(dir, "keys.db")).fails("broke off")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestACommandSaysWhatIsWrong(t *testing.T) {
	cli(t, freeAddr(t), "", "list").fails("is Caddy running")
	cli(t, "localhost:1-2", "", "list").fails("admin address")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	cli(t, plain.Listener.Addr().String(), "", "list").fails("404", "module api_keys")
	g := startWith(t, "", "")
	g.issueWith("acme")
	g.cli("rotate", "nothing").fails("404 not_found")
	g.cli("rotate", "nothing", "extra").fails("arg")
	g.cli("revoke", "").fails("empty")
	g.cli("revoke", "nothing").fails("404 not_found")
}

func TestIssueRefusesEmptyFlags(t *testing.T) {
	g := startWith(t, "", "")
	g.cli("account", "create", "--id", "acme").ok()
	for _, flag := range []string{"--allowed-ip", "--role", "--package", "--metadata", "--expires-in", "--description"} {
		g.cli("issue", "--account", "acme", flag, "").fails(flag, "is empty")
	}
	if list := g.cli("list").ok().stdout; strings.Contains(list, "active") {
		t.Errorf("something was issued:\n%s", list)
	}
}

func TestCommandsReachAUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sock") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	address := "unix/" + filepath.Join(dir, "admin.sock")
	g := start(t, strings.NewReplacer("{admin}", address, "{global}", "", "{block}", "").Replace(minimal))
	cli(t, address, "", "account", "create", "--id", "acme").ok()
	cli(t, address+"|0200", "", "account", "show", "acme").ok()
	// The admin endpoint outlives the test's Caddy, but must not its socket.
	g.load("{\n\tadmin off\n\tpersist_config off\n}\n")
}

func TestEveryCommandExplainsItself(t *testing.T) {
	cmd := &cobra.Command{Use: "api-keys", Long: caddycmd.Commands()["api-keys"].Long}
	addCommands(cmd)
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Long == "" || c.HasParent() && c.Short == "" || !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s lacks a short or long text, or an example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(cmd)
}

// TestAMisspeltCommandFails: a script that believes to have revoked must not.
func TestAMisspeltCommandFails(t *testing.T) {
	for _, args := range [][]string{{"revok", "x"}, {"account", "delet", "x"}, {"unknown"}} {
		root := &cobra.Command{Use: "api-keys", SilenceErrors: true, SilenceUsage: true}
		addCommands(root)
		root.SetArgs(args)
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), "unknown command") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
