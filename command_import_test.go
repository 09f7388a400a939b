package apikeys

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysInUseElsewhereAreImported(t *testing.T) {
	g := startWith(t, "", "")
	const held, digested = "sk_live_51H8/any+shape", "3f2b8c1e-0000-4000-8000-00000000000a"
	for _, text := range []string{held, digested} {
		if a := g.get("/", "X-Api-Key", text); a.StatusCode != 401 {
			t.Fatalf("before the import: %d", a.StatusCode)
		}
	}
	file := fmt.Sprintf(`{"grant":{"email":"ops@acme.example","roles":["read"],"secret":"%s"}}
{"grant":{"email":"ops@acme.example","description":"nightly","digest":"%x"}}
`, held, sha256.Sum256([]byte(digested)))
	path := filepath.Join(t.TempDir(), "keys.ndjson")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := g.cli("import", path).ok(); !strings.Contains(r.stderr, "2 lines: 1 accounts, 2 credentials and 2 keys are new") || r.stdout != "" {
		t.Errorf("it says %q and %q", r.stdout, r.stderr)
	}
	for _, text := range []string{held, digested, strings.ToUpper(digested)} {
		if a := g.get("/", "X-Api-Key", text); a.StatusCode != 200 {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
	if r := cli(t, g.admin, file, "import", "-", "--json").ok(); strings.TrimSpace(r.stdout) != `{"lines":2,"accounts":0,"credentials":0,"keys":0}` {
		t.Errorf("again: %s", r.stdout)
	}
	r := cli(t, g.admin, file+"{\"grant\":{\"email\":\"x\",\"secret\":\""+held+"\"}}\n", "import", "-").fails("line 3: grant.email", "first 2 lines are imported", "422")
	if strings.Contains(r.stderr, held) {
		t.Errorf("it repeats the key: %s", r.stderr)
	}
	g.cli("import", filepath.Join(t.TempDir(), "none")).fails("no such file")
	g.cli("import").fails("arg")
}
