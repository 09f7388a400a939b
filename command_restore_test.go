package apikeys

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// stop ends Caddy, so that its store is nobody's.
func (g *gateway) stop() {
	g.t.Helper()
	if err := caddy.Stop(); err != nil {
		g.t.Fatal(err)
	}
}

func TestRestoreSaysWhatItUndoes(t *testing.T) {
	caddyfile := strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal)
	g := start(t, caddyfile)
	key := strings.TrimSpace(g.issueWith("acme"))
	id := strings.Split(key, "_")[1]
	backup := filepath.Join(t.TempDir(), "backup.db")
	g.cli("backup", backup).ok()
	g.cli("revoke", id, "--reason", "found on the web").ok()
	store := g.storePath()
	g.cli("restore", backup, "--store", store, "--force").fails("in use by another process")

	g.stop()
	g.cli("restore", backup, "--store", store).fails("key "+id+", ", "account acme", `"found on the web"`, "alive again: 1", "--force")
	g.load(caddyfile)
	if a := g.get("/", "X-Api-Key", key); a.StatusCode != 401 {
		t.Errorf("after a restore that was refused: %d", a.StatusCode)
	}

	g.stop()
	done := g.cli("restore", backup, "--store", store, "--force", "--json").ok()
	var said restoredAnswer
	if err := json.Unmarshal([]byte(done.stdout), &said); err != nil || !said.Restored || said.RevivedCount != 1 || said.Revived[0].KeyID != id || said.Aside == "" {
		t.Errorf("%v: %s", err, done.stdout)
	}
	if info, err := os.Stat(said.Aside); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the store that was there: %v, %v", info, err)
	}
	g.load(caddyfile)
	if a := g.get("/", "X-Api-Key", key); a.StatusCode != 200 {
		t.Errorf("after the restore: %d", a.StatusCode)
	}
}

func TestRestoreKnowsWhereTheStoreIs(t *testing.T) {
	caddyfile := strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal)
	g := start(t, caddyfile)
	g.issueWith("acme")
	backup := filepath.Join(t.TempDir(), "backup.db")
	g.cli("backup", backup).ok()
	// Other tests leave a store there.
	clear := func() { _ = os.RemoveAll(filepath.Dir(defaultStorePath())) }
	clear()
	t.Cleanup(clear)
	said := g.cli("restore", backup).ok()
	if _, err := os.Stat(defaultStorePath()); err != nil || !strings.Contains(said.stderr, defaultStorePath()+" is restored") {
		t.Errorf("%v: %s", err, said.stderr)
	}
	g.cli("restore", backup, "--store", "").fails("--store is empty")
	g.cli("restore", filepath.Join(t.TempDir(), "none")).fails("no such file")
	g.cli("restore").fails("arg")
}
