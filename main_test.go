package apikeys

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"go.uber.org/goleak"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// originalHome is where the go command finds its caches.
var originalHome = os.Getenv("HOME")

// TestMain gives Caddy a data directory of its own and looks for goroutines that
// the gateway leaves behind.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "api_keys_test")
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"} {
		os.Setenv(name, dir)
	}
	code := postgrestest.Main(m).Run()
	if code == 0 {
		// Stop leaves the admin endpoint running; a configuration without ends it.
		_ = caddy.Load([]byte(`{"admin":{"disabled":true,"config":{"persist":false}}}`), true)
		_ = caddy.Stop()
		http.DefaultClient.CloseIdleConnections()
		if err := goleak.Find(leftByCaddy...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// leftByCaddy are goroutines that Caddy and what it imports keep running after
// a stop.
var leftByCaddy = []goleak.Option{
	goleak.IgnoreTopFunction("github.com/caddyserver/certmagic.(*Cache).maintainAssets"),
	goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
	goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2.trapSignalsCrossPlatform.func1"),
	goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2/modules/caddytls.(*TLS).keepStorageClean.func1"),
}

// gateway is a Caddy with the gateway, in this process, before a real upstream.
type gateway struct {
	t        *testing.T
	dir      string
	admin    string // address of the admin endpoint
	addr     string // address of the site
	upstream *upstream
}

// upstream records what reaches it, and echoes its headers.
type upstream struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		u.mu.Lock()
		u.requests = append(u.requests, r)
		u.mu.Unlock()
		w.Header().Set("X-Upstream", "reached")
		_ = json.NewEncoder(w).Encode(map[string]any{"headers": r.Header, "uri": r.RequestURI, "trailer": r.Trailer})
	}))
	t.Cleanup(u.Close)
	return u
}

// taken returns the requests since the last call.
func (u *upstream) taken() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer func() { u.requests = nil }()
	return u.requests
}

// start loads a Caddyfile in which {admin}, {addr}, {upstream}, {dir} and
// {store} stand for this test's own.
func start(t *testing.T, caddyfile string) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir(), admin: freeAddr(t), addr: freeAddr(t), upstream: newUpstream(t)}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	g.load(caddyfile)
	return g
}

// minimal is the Caddyfile of tests that need nothing special: {global} and
// {block} are filled in.
const minimal = `{
	admin {admin}
	persist_config off
	auto_https off
	api_keys {
		store sqlite {store}
		{global}
	}
}
http://{addr} {
	api_keys {
		{block}
	}
	reverse_proxy {upstream}
}
`

func startWith(t *testing.T, global, block string) *gateway {
	t.Helper()
	return start(t, strings.NewReplacer("{global}", global, "{block}", block).Replace(minimal))
}

func (g *gateway) load(caddyfile string) {
	g.t.Helper()
	if err := g.tryLoad(caddyfile); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) tryLoad(caddyfile string) error {
	config, err := adapt(g.expand(caddyfile))
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

func (g *gateway) expand(caddyfile string) string {
	return strings.NewReplacer(
		"{admin}", g.admin, "{addr}", g.addr, "{upstream}", g.upstream.Listener.Addr().String(),
		"{dir}", g.dir, "{store}", g.storePath(),
	).Replace(caddyfile)
}

func (g *gateway) storePath() string { return filepath.Join(g.dir, "store", "keys.db") }

func adapt(caddyfile string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// nextPort is where freeAddr goes on to look. Its ports are below those that the
// system gives out by itself, and none comes twice: Caddy's listeners share a port
// without a word, and a test would talk to another's.
var nextPort = 20_000 + os.Getpid()%5_000

func freeAddr(t *testing.T) string {
	t.Helper()
	for range 5_000 {
		nextPort = 20_000 + (nextPort+1-20_000)%6_000
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

// keyring is that of the running configuration.
func (g *gateway) keyring() *keystore.Keyring {
	g.t.Helper()
	app, err := caddy.ActiveContext().App(appName)
	if err != nil {
		g.t.Fatal(err)
	}
	kr, err := app.(*App).Keyring(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	return kr
}

// issue makes a credential, in an account of its own unless it names one.
func (g *gateway) issue(c keystore.Credential) *keystore.Issued {
	g.t.Helper()
	if c.AccountID == "" {
		a, err := g.keyring().CreateAccount(context.Background(), keystore.Account{})
		if err != nil {
			g.t.Fatal(err)
		}
		c.AccountID = a.ID
	}
	issued, err := g.keyring().Issue(context.Background(), keystore.Operator(), c)
	if err != nil {
		g.t.Fatal(err)
	}
	return issued
}

func (g *gateway) rotate(credentialID, overlap string) *keystore.Issued {
	g.t.Helper()
	o, err := keystore.ParseOverlap(overlap)
	if err != nil {
		g.t.Fatal(err)
	}
	issued, err := g.keyring().Rotate(context.Background(), keystore.Operator(), keystore.Rotation{CredentialID: credentialID, Overlap: o})
	if err != nil {
		g.t.Fatal(err)
	}
	return issued
}

func (g *gateway) revoke(keyID string) {
	g.t.Helper()
	if _, err := g.keyring().RevokeKey(context.Background(), keyID, "test"); err != nil {
		g.t.Fatal(err)
	}
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body []byte
}

// get sends a GET with headers given as name, value, name, value ...
func (g *gateway) get(target string, headers ...string) answer {
	g.t.Helper()
	return g.send(http.MethodGet, target, headers...)
}

func (g *gateway) send(method, target string, headers ...string) answer {
	g.t.Helper()
	r, err := http.NewRequest(method, "http://"+g.addr+target, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	return g.do(r)
}

// do sends a request. One that nobody answers is sent again, if it has no body:
// right after a reload, Caddy drops some connections that wait for the listener
// of the configuration that ends.
func (g *gateway) do(r *http.Request) answer {
	g.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	for try := 1; err != nil && r.Body == nil && try < 10; try++ {
		time.Sleep(time.Duration(try) * time.Millisecond)
		resp, err = http.DefaultClient.Do(r)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer{resp, body}
}

// code is the member code of a problem document.
func (a answer) code() string {
	var problem struct{ Code string }
	_ = json.Unmarshal(a.body, &problem)
	return problem.Code
}

// raw sends bytes over a socket of their own and returns what comes back until
// the server closes it.
func (g *gateway) raw(request string) string {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	var out bytes.Buffer
	_, _ = io.Copy(&out, conn)
	return out.String()
}
