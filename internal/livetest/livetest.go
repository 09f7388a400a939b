// Package livetest runs the gateway for tests: a real Caddy in this process, with
// a Caddyfile, on ports of its own, before a real upstream. It speaks HTTP/1.1
// and, without TLS, HTTP/2.
package livetest

import (
	"bufio"
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

	_ "github.com/caddy-apikeys/caddy-apikeys"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Main runs the tests of a package with directories of their own for Caddy:
//
//	func TestMain(m *testing.M) { os.Exit(livetest.Main(m)) }
func Main(m interface{ Run() int }) int {
	dir, err := os.MkdirTemp("", "api_keys_live")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"} {
		os.Setenv(name, dir)
	}
	return m.Run()
}

// Gateway is the running Caddy.
type Gateway struct {
	T *testing.T
	// Addr and Admin are the addresses of the site and of the admin endpoint.
	Addr, Admin string
	// Dir is the test's directory: the store is below it, and the log in it.
	Dir      string
	Upstream *Upstream
	clients  map[int]*http.Client // by major version of HTTP
}

// Upstream echoes what reaches it, and records it.
type Upstream struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
}

// Taken returns the requests that reached the upstream since the last call.
func (u *Upstream) Taken() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer func() { u.requests = nil }()
	return u.requests
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	u.mu.Lock()
	u.requests = append(u.requests, r)
	u.mu.Unlock()
	w.Header().Set("X-Upstream", "reached")
	_ = json.NewEncoder(w).Encode(map[string]any{"headers": r.Header, "uri": r.RequestURI})
}

// site is the Caddyfile of [Start].
const site = `{
	admin {admin}
	persist_config off
	auto_https off
	log default {
		output file {dir}/log
		format api_keys
		level DEBUG
	}
	servers {
		protocols h1 h2c
	}
	api_keys {
		store sqlite {store}
		{global}
	}
}
http://{addr} {
	log {
		output file {dir}/access
		format api_keys
	}
	api_keys {
		{block}
	}
	reverse_proxy {upstream}
}
`

// Start runs one site that proxies to the upstream, with the options of the
// global option api_keys in global and those of the directive in block. In both,
// {dir} is the test's directory.
func Start(t *testing.T, global, block string) *Gateway {
	t.Helper()
	return StartWith(t, strings.NewReplacer("{global}", global, "{block}", block).Replace(site))
}

// StartWith runs a whole Caddyfile, in which {admin}, {addr}, {upstream}, {dir}
// and {store} stand for this test's own.
func StartWith(t *testing.T, caddyfile string) *Gateway {
	t.Helper()
	u := &Upstream{}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	g := &Gateway{
		T: t, Addr: FreeAddr(t), Admin: FreeAddr(t), Dir: t.TempDir(), Upstream: u,
		clients: map[int]*http.Client{
			1: {Transport: &http.Transport{}},
			2: {Transport: &http.Transport{Protocols: h2c}},
		},
	}
	t.Cleanup(func() {
		for _, c := range g.clients {
			c.CloseIdleConnections()
		}
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := g.Load(caddyfile); err != nil {
		t.Fatal(err)
	}
	return g
}

// Load loads another Caddyfile, as a reload does.
func (g *Gateway) Load(caddyfile string) error {
	config, err := g.Adapt(caddyfile)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

// Reload loads what [Start] would.
func (g *Gateway) Reload(global, block string) error {
	return g.Load(strings.NewReplacer("{global}", global, "{block}", block).Replace(site))
}

// Adapt turns a Caddyfile into JSON.
func (g *Gateway) Adapt(caddyfile string) ([]byte, error) {
	caddyfile = strings.NewReplacer(
		"{admin}", g.Admin, "{addr}", g.Addr, "{upstream}", g.Upstream.Listener.Addr().String(),
		"{dir}", g.Dir, "{store}", g.StorePath(),
	).Replace(caddyfile)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// Refused returns why a configuration is refused; global and block are as for
// [Start]. It fails the test if it is not. Nothing is started.
func Refused(t *testing.T, global, block string) string {
	t.Helper()
	u := &Upstream{Server: httptest.NewServer(http.NotFoundHandler())}
	defer u.Close()
	g := &Gateway{T: t, Addr: FreeAddr(t), Admin: FreeAddr(t), Dir: t.TempDir(), Upstream: u}
	config, err := g.Adapt(strings.NewReplacer("{global}", global, "{block}", block).Replace(site))
	if err != nil {
		return err.Error()
	}
	var c *caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &c); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(c); err != nil {
		return err.Error()
	}
	t.Fatal("the configuration is accepted")
	return ""
}

// StorePath is the path of the store.
func (g *Gateway) StorePath() string { return filepath.Join(g.Dir, "store", "keys.db") }

// Logged is all that was logged so far, access log included.
func (g *Gateway) Logged() string {
	g.T.Helper()
	var all []byte
	for _, name := range []string{"log", "access"} {
		text, err := os.ReadFile(filepath.Join(g.Dir, name))
		if err != nil && !os.IsNotExist(err) {
			g.T.Fatal(err)
		}
		all = append(all, text...)
	}
	return string(all)
}

// Keyring is that of the running configuration.
func (g *Gateway) Keyring() *keystore.Keyring {
	g.T.Helper()
	app, err := caddy.ActiveContext().App("api_keys")
	if err != nil {
		g.T.Fatal(err)
	}
	kr, err := app.(interface {
		Keyring(context.Context) (*keystore.Keyring, error)
	}).Keyring(context.Background())
	if err != nil {
		g.T.Fatal(err)
	}
	return kr
}

// Account creates an account.
func (g *Gateway) Account(a keystore.Account) *keystore.Account {
	g.T.Helper()
	made, err := g.Keyring().CreateAccount(context.Background(), a)
	if err != nil {
		g.T.Fatal(err)
	}
	return made
}

// Issue creates a credential with its first key, in an account of its own unless
// it names one.
func (g *Gateway) Issue(c keystore.Credential) *keystore.Issued {
	g.T.Helper()
	if c.AccountID == "" {
		c.AccountID = g.Account(keystore.Account{}).ID
	}
	issued, err := g.Keyring().Issue(context.Background(), keystore.Operator(), c)
	if err != nil {
		g.T.Fatal(err)
	}
	return issued
}

// Answer is a response whose body was read.
type Answer struct {
	*http.Response
	Text string
}

// Do sends a request over HTTP of a major version, 1 or 2. Headers are given as
// name, value, name, value ... A body is sent as application/json unless a header
// says otherwise.
func (g *Gateway) Do(version int, method, target, body string, headers ...string) Answer {
	g.T.Helper()
	r, err := http.NewRequest(method, "http://"+g.Addr+target, strings.NewReader(body))
	if err != nil {
		g.T.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	seen := map[string]bool{}
	for i := 0; i < len(headers); i += 2 {
		if !seen[headers[i]] {
			r.Header.Del(headers[i])
		}
		seen[headers[i]] = true
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := g.clients[version].Do(r)
	// Right after a reload, Caddy drops some connections that wait for the listener
	// of the configuration that ends.
	for try := 1; err != nil && try < 10; try++ {
		time.Sleep(time.Duration(try) * time.Millisecond)
		r.Body, _ = r.GetBody()
		resp, err = g.clients[version].Do(r)
	}
	if err != nil {
		g.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.T.Fatal(err)
	}
	if resp.ProtoMajor != version {
		g.T.Fatalf("answered over %s, want HTTP/%d", resp.Proto, version)
	}
	return Answer{resp, string(text)}
}

// JSON is the answer's object.
func (a Answer) JSON(t *testing.T) (object map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Text), &object); err != nil {
		t.Fatalf("%v in %q", err, a.Text)
	}
	return object
}

// Raw sends bytes over a connection of their own and returns what comes back
// until the server closes it.
func (g *Gateway) Raw(request string) string {
	g.T.Helper()
	conn, err := net.Dial("tcp", g.Addr)
	if err != nil {
		g.T.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		g.T.Fatal(err)
	}
	var out bytes.Buffer
	_, _ = io.Copy(&out, conn)
	return out.String()
}

// nextPort is where FreeAddr goes on to look: below the ports that the system
// gives out by itself and those of the project's other tests, and far from those
// of another process.
var nextPort = 10_000 + os.Getpid()*211%9_000

// FreeAddr is an address of this machine on a port that nobody listens on. None
// comes twice: Caddy's listeners share a port without a word, and a test would
// talk to another's.
func FreeAddr(t *testing.T) string {
	t.Helper()
	for range 9_000 {
		nextPort = 10_000 + (nextPort+1-10_000)%9_000
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

// Slowly sends a request over HTTP/1.1 whose body comes late: meanwhile is run once
// the server reads the body, so after it has judged the headers.
func (g *Gateway) Slowly(method, target, body string, meanwhile func(), headers ...string) Answer {
	g.T.Helper()
	conn, err := net.Dial("tcp", g.Addr)
	if err != nil {
		g.T.Fatal(err)
	}
	defer conn.Close()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\nConnection: close\r\n", method, target, g.Addr, len(body))
	for i := 0; i < len(headers); i += 2 {
		head += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	answers := bufio.NewReader(conn)
	if _, err := io.WriteString(conn, head+"\r\n"+body[:1]); err != nil {
		g.T.Fatal(err)
	}
	for line := ""; line != "\r\n"; {
		if line, err = answers.ReadString('\n'); err != nil || line != "\r\n" && !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			g.T.Fatalf("%q: %v", line, err)
		}
	}
	meanwhile()
	if _, err := io.WriteString(conn, body[1:]); err != nil {
		g.T.Fatal(err)
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		g.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.T.Fatal(err)
	}
	return Answer{resp, string(text)}
}

// Update changes a credential as an operator does.
func (g *Gateway) Update(credentialID string, edit func(*keystore.Credential)) {
	g.T.Helper()
	_, err := g.Keyring().UpdateCredential(context.Background(), keystore.Operator(), credentialID, func(c *keystore.Credential) error {
		edit(c)
		return nil
	})
	if err != nil {
		g.T.Fatal(err)
	}
}
