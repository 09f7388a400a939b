package apikeys

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestPromise05ReloadsLoseNoRequest reloads changed and unchanged configurations
// under load: every request is answered, a revocation made in one configuration
// holds in the next, and the store stays the same one.
//
// A connection on which Caddy never answers is tried again, as HTTP clients do
// with GET: stock Caddy drops some of those that wait for the listener of the
// configuration that ends (measured without this module: 24 to 79 in 100
// reloads). The log is searched for panics, which would look the same.
func TestPromise05ReloadsLoseNoRequest(t *testing.T) {
	const reloads = 25
	logged := strings.Replace(minimal, "{", "{\n log {\n output file {dir}/log {\n roll_disabled\n }\n }", 1)
	g := start(t, strings.NewReplacer("{global}", "", "{block}", "").Replace(logged))
	key, doomed := g.issue(keystore.Credential{}), g.issue(keystore.Credential{})
	vault := g.vault()
	var stop atomic.Bool
	var served atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for !stop.Load() {
				if err := g.accepted(client, key.Text); err != nil {
					t.Error(err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range reloads {
		if i == reloads/2 {
			g.revoke(doomed.Key.ID)
		}
		block := []string{"", "identity_header roles X-Roles-" + fmt.Sprint(i)}[i%2]
		g.load(strings.NewReplacer("{global}", fmt.Sprintf("cache_size %dMiB", 1+i%3), "{block}", block).Replace(logged))
		if g.vault() != vault {
			t.Fatal("a reload opened the store anew")
		}
	}
	before := served.Load()
	for served.Load() == before && !t.Failed() { // some load after the last reload
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	load.Wait()
	if _, v, _ := g.keyring().Verify(t.Context(), doomed.Text); v != keystore.RevokedKey {
		t.Errorf("a key revoked before the last reloads is %v", v)
	}
	if refs, _ := vaults.References(place{engine: engineSQLite, at: g.storePath()}); refs != 1 {
		t.Errorf("%d configurations hold the store, want 1", refs)
	}
	if log, err := os.ReadFile(filepath.Join(g.dir, "log")); err != nil || bytes.Contains(log, []byte("panic")) {
		t.Errorf("the log, %v: %s", err, log)
	}
	t.Logf("%d reloads, %d requests", reloads, served.Load())
}

// accepted sends a request with a key and says if it was not let through.
func (g *gateway) accepted(client *http.Client, key string) error {
	r, err := http.NewRequest("GET", "http://"+g.addr+"/", nil)
	if err != nil {
		return err
	}
	r.Header.Set("X-API-Key", key)
	resp, err := client.Do(r)
	for try := 1; err != nil && try < 20; try++ {
		time.Sleep(time.Duration(try) * time.Millisecond)
		resp, err = client.Do(r)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("X-Upstream") != "reached" {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func (g *gateway) vault() *keystore.Vault {
	g.t.Helper()
	app, err := caddy.ActiveContext().App(appName)
	if err != nil {
		g.t.Fatal(err)
	}
	v, err := app.(*App).Vault(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

func TestAReloadToABadConfigurationKeepsTheOldOneServing(t *testing.T) {
	g := startWith(t, "", "")
	key := g.issue(keystore.Credential{}).Text
	for name, bad := range map[string]string{
		"pepper of another store": strings.NewReplacer("{global}", "pepper \"a pepper of good length\"", "{block}", "").Replace(minimal),
		"store is a directory":    strings.NewReplacer("{global}", "", "{block}", "", "{store}", "{dir}").Replace(minimal),
		"no master key":           strings.NewReplacer("{global}", "recoverable {dir}/none", "{block}", "").Replace(minimal),
		"http does not start":     strings.NewReplacer("{global}", "", "{block}", "", "{addr}", "192.0.2.1:80 {\n bind 192.0.2.1\n respond x\n }\n http://{addr}").Replace(minimal),
	} {
		err := g.tryLoad(bad)
		if name == "pepper of another store" {
			// A store takes the pepper with the first key made under it.
			if err != nil {
				t.Fatal(err)
			}
			g.issue(keystore.Credential{})
			bad = strings.Replace(bad, "a pepper", "b pepper", 1)
			err = g.tryLoad(bad)
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if got := g.get("/", "X-Api-Key", key); got.StatusCode != 200 {
			t.Errorf("%s: afterwards the key is answered %d", name, got.StatusCode)
		}
		if refs, _ := vaults.References(place{engine: engineSQLite, at: g.storePath()}); refs != 1 {
			t.Errorf("%s: %d configurations hold the store, want 1", name, refs)
		}
	}
}

// TestValidateOpensNothing validates a configuration beside the running server,
// and one whose store does not exist.
func TestValidateOpensNothing(t *testing.T) {
	g := startWith(t, "", "")
	elsewhere := filepath.Join(g.dir, "elsewhere", "keys.db")
	for _, path := range []string{g.storePath(), elsewhere} {
		before := listing(t, g.dir)
		config, err := adapt(strings.Replace(g.expand(strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal)), g.storePath(), path, 1))
		if err != nil {
			t.Fatal(err)
		}
		var parsed caddy.Config
		if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&parsed); err != nil {
			t.Errorf("validating beside a running server: %v", err)
		}
		if after := listing(t, g.dir); after != before {
			t.Errorf("validating changed files from\n%s to\n%s", before, after)
		}
	}
	if got := g.get("/"); got.StatusCode != 401 {
		t.Errorf("afterwards the server answers %d", got.StatusCode)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		fmt.Fprintln(&out, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestASecondProcessOnTheSameStoreIsRefused starts a whole Caddy beside this one.
func TestASecondProcessOnTheSameStoreIsRefused(t *testing.T) {
	g := startWith(t, "", "")
	caddyfile := filepath.Join(g.dir, "Caddyfile")
	second := *g
	second.admin, second.addr = freeAddr(t), freeAddr(t)
	content := second.expand(strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal))
	if err := os.WriteFile(caddyfile, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	run := exec.CommandContext(ctx, buildCaddy(t), "run", "--config", caddyfile)
	var output bytes.Buffer
	run.Stdout, run.Stderr = &output, &output
	started := time.Now()
	if err := run.Run(); err == nil || ctx.Err() != nil {
		t.Fatalf("the second process: %v\n%s", err, output.String())
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("it took %v to refuse", took)
	}
	if !strings.Contains(output.String(), "in use by another process") || !strings.Contains(output.String(), g.storePath()) {
		t.Errorf("the error does not say what is wrong: %s", output.String())
	}
	if got := g.get("/"); got.StatusCode != 401 {
		t.Errorf("afterwards the first process answers %d", got.StatusCode)
	}
}

// buildCaddy builds cmd/caddy once for all tests.
func buildCaddy(t *testing.T) string {
	t.Helper()
	path, err := builtCaddy()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builtCaddy = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv("XDG_DATA_HOME"), "caddy-under-test")
	build := exec.Command("go", "build", "-o", path, "./cmd/caddy")
	build.Env = append(os.Environ(), "HOME="+originalHome)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cmd/caddy: %w\n%s", err, out)
	}
	return path, nil
})

// TestTheStoreIsClosedAtTheEnd stops Caddy: nobody holds the store, and another
// process could open it.
func TestTheStoreIsClosedAtTheEnd(t *testing.T) {
	g := startWith(t, "", "")
	key := g.issue(keystore.Credential{})
	kr := g.keyring()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, held := vaults.References(place{engine: engineSQLite, at: g.storePath()}); held {
		t.Error("the store is still held")
	}
	// What is left of the old configuration answers errors, and does not panic.
	if _, v, _ := kr.Verify(t.Context(), key.Text); v != keystore.StoreUnavailable {
		t.Errorf("after the end the verdict is %v", v)
	}
	g.load(strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal))
	if got := g.get("/", "X-Api-Key", key.Text); got.StatusCode != 200 {
		t.Errorf("after a new start the key is answered %d", got.StatusCode)
	}
}
