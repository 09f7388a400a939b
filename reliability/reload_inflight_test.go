//go:build reliability

package reliability

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// slowSite has an upstream that answers a part, and the rest when it is told.
const slowSite = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		output file {dir}/log
		format api_keys
	}
	api_keys {
		store sqlite {dir}/{name}/keys.db
	}
}
http://{addr} {
	api_keys {
		dialect rest /keys-api
		{block}
	}
	reverse_proxy {slow} {
		flush_interval -1
	}
}
`

// slowUpstream sends "begin", then waits, and sends "end" and how much it was sent.
func slowUpstream(t *testing.T, goOn chan struct{}) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/upload" {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprintln(w, "begin", n, err)
			return
		}
		w.Header().Set("Content-Type", r.Header.Get("Accept"))
		fmt.Fprintln(w, "begin")
		w.(http.Flusher).Flush()
		select {
		case <-goOn:
			fmt.Fprintln(w, "end")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// inFlight is a request that is under way while configurations change.
type inFlight struct {
	name   string
	finish func() error
}

// beginAll sends the requests, and returns when the gateway has let each through.
func beginAll(t *testing.T, g *livetest.Gateway, key string, goOn chan struct{}) (all []inFlight) {
	t.Helper()
	for name, accept := range map[string]string{"a long answer": "text/plain", "a stream of events": "text/event-stream"} {
		resp := do(t, g, http.MethodGet, "/long", key, accept, nil)
		answer := bufio.NewReader(resp.Body)
		if line, err := answer.ReadString('\n'); line != "begin\n" {
			t.Fatalf("%s: %q, %v", name, line, err)
		}
		all = append(all, inFlight{name, func() error {
			defer resp.Body.Close()
			rest, err := io.ReadAll(answer)
			if err == nil && string(rest) != "end\n" {
				err = fmt.Errorf("the rest is %q", rest)
			}
			return err
		}})
	}
	const half = 100_000
	for name, c := range map[string]struct {
		path, begin, end, want string
	}{
		"a slow body":       {"/upload", strings.Repeat("x", half), strings.Repeat("y", half), fmt.Sprint("begin ", 2*half)},
		"a slow management": {"/keys-api/accounts", `{"company":"`, `slow"}`, `"company":"slow"`},
		"a slow rotation":   {"/keys-api/self/rotate", `{"overlap":`, `"1h"}`, `"secret":`},
	} {
		all = append(all, beginBody(t, g, key, name, c.path, c.begin, c.end, c.want))
	}
	return all
}

// beginBody sends a part of a body.
func beginBody(t *testing.T, g *livetest.Gateway, key, name, path, first, second, want string) inFlight {
	t.Helper()
	body, write := io.Pipe()
	answered := make(chan error, 1)
	go func() {
		resp, err := send(g, http.MethodPost, path, key, "*/*", body)
		if err != nil {
			answered <- err
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && !strings.Contains(string(text), want) {
			err = fmt.Errorf("answered %d: %.200s", resp.StatusCode, text)
		}
		answered <- err
	}()
	if _, err := io.WriteString(write, first); err != nil { // it is being read when this returns
		t.Fatal(err)
	}
	return inFlight{name, func() error {
		if _, err := io.WriteString(write, second); err != nil {
			return err
		}
		write.Close()
		select {
		case err := <-answered:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("no answer")
		}
	}}
}

func send(g *livetest.Gateway, method, path, key, accept string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequest(method, "http://"+g.Addr+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-API-Key", key)
	r.Header.Set("Accept", accept)
	r.Header.Set("Content-Type", "application/json")
	if body != nil { // it is sent when somebody begins to read it
		r.Header.Set("Expect", "100-continue")
	}
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: 20 * time.Second}}).Do(r)
}

func do(t *testing.T, g *livetest.Gateway, method, path, key, accept string, body io.Reader) *http.Response {
	t.Helper()
	resp, err := send(g, method, path, key, accept, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// slowCaddyfile is slowSite with its store below a directory of that name.
func slowCaddyfile(slow *httptest.Server, name, block string) string {
	return strings.NewReplacer("{slow}", slow.Listener.Addr().String(), "{name}", name, "{block}", block).Replace(slowSite)
}

// across begins requests, reloads a few times with the store at that place, and
// tells which do not finish, and what the log says of panics.
func across(t *testing.T, name string) (failed map[string]error) {
	t.Helper()
	goOn := make(chan struct{})
	slow := slowUpstream(t, goOn)
	g := livetest.StartWith(t, slowCaddyfile(slow, "store", ""))
	key := g.Issue(keystore.Credential{Roles: []string{keystore.RoleOperator}})
	requests := beginAll(t, g, key.Text, goOn)
	for i := range 6 {
		if err := g.Load(slowCaddyfile(slow, name, fmt.Sprint("identity_header roles X-Roles-", i/2))); err != nil {
			t.Fatal(err)
		}
	}
	if name != "store" { // what is to end with the store has a second to
		time.Sleep(time.Second)
	}
	close(goOn)
	failed = map[string]error{}
	for _, r := range requests {
		if err := r.finish(); err != nil {
			failed[r.name] = err
		}
	}
	if strings.Contains(g.Logged(), "panic") {
		t.Errorf("the log: %s", g.Logged())
	}
	return failed
}

// TestRequestsOutliveTheirConfiguration changes the configuration while requests are
// under way: all finish. The control is a configuration with another store, with
// which the one that they need is closed: they are answered, but with an error, and
// the stream ends, since nobody would learn of a revocation any more.
func TestRequestsOutliveTheirConfiguration(t *testing.T) {
	for range size(3, 20) {
		for name, err := range across(t, "store") {
			t.Errorf("%s: %v", name, err)
		}
	}
	failed := across(t, "other")
	t.Logf("with another store: %v", failed)
	for _, name := range []string{"a stream of events", "a slow management", "a slow rotation"} {
		if failed[name] == nil {
			t.Errorf("%s finishes without its store", name)
		}
	}
	if len(failed) != 3 {
		t.Errorf("%d requests fail without their store, want 3", len(failed))
	}
}

// TestAStreamOfAnEarlierConfigurationEndsWithItsKey: what began in an earlier
// configuration is still watched.
func TestAStreamOfAnEarlierConfigurationEndsWithItsKey(t *testing.T) {
	goOn := make(chan struct{})
	slow := slowUpstream(t, goOn)
	defer close(goOn)
	g := livetest.StartWith(t, slowCaddyfile(slow, "store", ""))
	ended := func(accept string, revoke bool) bool {
		issued := g.Issue(keystore.Credential{})
		resp := do(t, g, http.MethodGet, "/long", issued.Text, accept, nil)
		defer resp.Body.Close()
		if err := g.Load(slowCaddyfile(slow, "store", "identity_header roles X-"+issued.Key.ID)); err != nil {
			t.Fatal(err)
		}
		if revoke {
			if _, err := g.Keyring().RevokeKey(t.Context(), issued.Key.ID, ""); err != nil {
				t.Fatal(err)
			}
		}
		end := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, resp.Body)
			close(end)
		}()
		select {
		case <-end:
			return true
		case <-time.After(1500 * time.Millisecond):
			return false
		}
	}
	if !ended("text/event-stream", true) {
		t.Error("a stream goes on without its key")
	}
	// The controls: a stream whose key works, and an answer that is no stream.
	if ended("text/event-stream", false) || ended("text/plain", true) {
		t.Error("what should go on ends: the test does not see what ends streams")
	}
}
