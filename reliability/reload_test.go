//go:build reliability

package reliability

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/internal/mailbox"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Stock Caddy drops some connections in quick reloads: those that wait for the
// listener of the configuration that ends. So each test runs without the gateway,
// too, and counts apart what no HTTP client sees that sends a GET again of which no
// byte was answered.

// reloadable is a Caddyfile that is loaded again and again; the gateway's options
// are filled in by a [reloads].
const reloadable = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		output file {dir}/log
		format {encoder}
		level ERROR
	}
	{global}
}
http://{addr} {
	route {
		{before}
		{gateway}
		reverse_proxy {upstream}
	}
}
`

// reloads are configurations to load in turn, with what is between one and the next.
type reloads struct {
	encoder string
	global  string // around the options
	gateway string // around those of the directive
	before  string
	turns   []turn
	// refused are configurations that do not start.
	refused []turn
}

// turn is the options of a configuration, of the app and of the directive.
type turn struct{ global, block string }

func (l reloads) caddyfile(c turn) string {
	return strings.NewReplacer(
		"{encoder}", l.encoder, "{before}", l.before,
		"{global}", strings.Replace(l.global, "{}", c.global, 1),
		"{gateway}", strings.Replace(l.gateway, "{}", c.block, 1),
	).Replace(reloadable)
}

// stock is Caddy without the gateway.
func stock() reloads {
	return reloads{encoder: "json", gateway: "{}", turns: []turn{
		{"", ""}, {"", ""}, {"", "header X-A 1"}, {"grace_period 10s", "header X-B 2"}, {"", "header X-C 3"},
	}, refused: []turn{{"", "file_server {\n precompressed nothing\n }"}}}
}

// withGateway is Caddy with the gateway: its cache, packages, dialects and mail come
// and go.
func withGateway(smtp string) reloads {
	mail := "mail {\n smtp " + smtp + "\n tls off\n from keys@example.com\n }"
	return reloads{
		encoder: "api_keys",
		global:  "api_keys {\n store sqlite {store}\n {}\n }",
		gateway: "api_keys {\n {}\n }",
		turns: []turn{
			{"", ""}, {"", ""}, {"cache_size 1MiB", "dialect rest /keys-api"}, {"cache_size 64KiB", ""},
			{"package a\n package b", "require any"}, {mail, "dialect sarus /by-mail"}, {mail, ""},
			{"package a", "require any\n identity_header roles X-Roles"},
		},
		refused: []turn{
			{"recoverable {dir}/none", ""}, {"package a", ""}, {"", "dialect sarus"}, {"store sqlite {dir}", ""},
		},
	}
}

// counts are what became of requests.
type counts struct {
	served, dropped, lost, wrong atomic.Int64
	most                         atomic.Int64 // how often one request was sent
}

func (c *counts) String() string {
	return fmt.Sprintf("%d requests: %d connections dropped before an answer began, one request sent %d times at most; %d lost, %d answered wrong",
		c.served.Load(), c.dropped.Load(), c.most.Load(), c.lost.Load(), c.wrong.Load())
}

// tries is how often a client sends a request of which no byte is answered.
const tries = 10

// send sends a GET as such a client does.
func (c *counts) send(client *http.Client, url, key string, want int) {
	for try := 1; try <= tries; try++ {
		c.most.Store(max(c.most.Load(), int64(try)))
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			panic(err)
		}
		r.Header.Set("X-API-Key", key)
		resp, err := client.Do(r)
		if err != nil {
			c.dropped.Add(1)
			time.Sleep(time.Duration(try) * time.Millisecond)
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		c.served.Add(1)
		if err != nil || resp.StatusCode != want {
			c.wrong.Add(1)
		}
		return
	}
	c.lost.Add(1)
}

// load is clients that send requests all the time, half of them on connections of
// their own; each sends with every key in turn.
func (c *counts) load(url string, wants map[string]int, done chan struct{}) *sync.WaitGroup {
	var clients sync.WaitGroup
	for n := range 4 {
		clients.Go(func() {
			transport := &http.Transport{DisableKeepAlives: n%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
			for {
				for key, want := range wants {
					select {
					case <-done:
						return
					default:
						c.send(client, url, key, want)
					}
				}
			}
		})
	}
	return &clients
}

// run reloads so often under load, and returns what became of the requests. Every
// eighth time it first loads a configuration that is refused.
func (l reloads) run(t *testing.T, g *livetest.Gateway, n int, wants map[string]int, loaded func(turn)) *counts {
	t.Helper()
	c, done := new(counts), make(chan struct{})
	clients := c.load("http://"+g.Addr+"/", wants, done)
	for i := range n {
		if bad := l.refused; i%8 == 7 {
			if err := g.Load(l.caddyfile(bad[i/8%len(bad)])); err == nil {
				t.Errorf("a configuration that can't work is accepted: %v", bad[i/8%len(bad)])
			}
		}
		next := l.turns[i%len(l.turns)]
		if err := g.Load(l.caddyfile(next)); err != nil {
			t.Fatal(err)
		}
		if loaded != nil {
			loaded(next)
		}
		for before := c.served.Load(); c.served.Load() < before+4; { // it has served, too
			time.Sleep(time.Millisecond)
		}
	}
	close(done)
	clients.Wait()
	return c
}

// holdings are what a process has.
type holdings struct{ goroutines, files, heap int }

// settled is what the process has once nothing goes away any more.
func settled(t *testing.T, g *livetest.Gateway) (h holdings) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	g.Upstream.CloseClientConnections()
	for same := 0; same < 20; time.Sleep(10 * time.Millisecond) {
		g.Upstream.Taken()
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc here")
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		now := holdings{runtime.NumGoroutine(), len(files), int(m.HeapAlloc)}
		if same++; now.goroutines < h.goroutines || now.files < h.files || h.files == 0 {
			same = 0
		}
		h = now
	}
	return h
}

// grown says what has grown by more than what comes and goes by itself.
func (h holdings) grown(since holdings) (out []string) {
	for _, c := range []struct {
		name         string
		now, was, by int
	}{
		{"goroutines", h.goroutines, since.goroutines, 8}, {"files", h.files, since.files, 8}, {"bytes of heap", h.heap, since.heap, 3 << 20},
	} {
		if c.now > c.was+c.by {
			out = append(out, fmt.Sprintf("%d %s, before %d", c.now, c.name, c.was))
		}
	}
	return out
}

// reloadCount is how often a test reloads.
func reloadCount() int { return size(40, 200) }

// TestReloadsLoseNothing reloads under load, with good keys and with one that was
// revoked; Caddy alone is measured the same way.
func TestReloadsLoseNothing(t *testing.T) {
	inbox, err := mailbox.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inbox.Close() })
	l := withGateway(inbox.Addr)
	g := livetest.StartWith(t, l.caddyfile(l.turns[0]))
	good, revoked := g.Issue(keystore.Credential{}), g.Issue(keystore.Credential{})
	if _, err := g.Keyring().RevokeKey(t.Context(), revoked.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	wants := map[string]int{good.Text: 200, revoked.Text: 401, randomText: 401, "": 401}
	l.run(t, g, 10, wants, nil) // warm
	before, mails := settled(t, g), 0
	ours := l.run(t, g, reloadCount(), wants, func(c turn) {
		if strings.Contains(c.block, "sarus") { // sending begins, and the next reload ends it
			mails += askByMail(t, g)
		}
	})
	after := settled(t, g)
	t.Logf("with the gateway, %d reloads: %v; %+v, before %+v", reloadCount(), ours, after, before)
	for _, what := range after.grown(before) {
		t.Error(what)
	}
	if ours.lost.Load()+ours.wrong.Load() != 0 {
		t.Errorf("requests are lost: %v", ours)
	}
	if err := g.Load(l.caddyfile(l.turns[5])); err != nil {
		t.Fatal(err)
	}
	wantMails(t, inbox, mails)

	alone := stock()
	if err := g.Load(alone.caddyfile(alone.turns[0])); err != nil {
		t.Fatal(err)
	}
	theirs := alone.run(t, g, reloadCount(), map[string]int{good.Text: 200}, nil)
	t.Logf("Caddy alone, %d reloads: %v", reloadCount(), theirs)
	// The counts vary from run to run; what the gateway adds must be within that.
	if ours.dropped.Load() > 3*theirs.dropped.Load()+10 {
		t.Errorf("with the gateway %d connections are dropped, without it %d", ours.dropped.Load(), theirs.dropped.Load())
	}
}

const randomText = "a-text-that-is-no-key"

// askByMail asks for a key for a new account.
func askByMail(t *testing.T, g *livetest.Gateway) int {
	t.Helper()
	address := fmt.Sprintf("a%d@example.com", time.Now().UnixNano())
	g.Account(keystore.Account{Email: address})
	if got := g.Do(1, http.MethodGet, "/by-mail/RequestAPIKey?Email="+address, ""); got.StatusCode != http.StatusOK {
		t.Errorf("a request by mail is answered %d: %s", got.StatusCode, got.Text)
		return 0
	}
	return 1
}

// wantMails waits until each request was mailed.
func wantMails(t *testing.T, inbox *mailbox.Server, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen := map[string]bool{}
	for len(seen) < n {
		m, err := inbox.Next(ctx)
		if err != nil {
			t.Errorf("%d of %d mails came: %v", len(seen), n, err)
			return
		}
		seen[m.To[0]] = true
	}
	t.Logf("%d mails asked for between reloads, all came", n)
}

// TestControlReloadsThatLoseSomething are the controls: another store after a
// reload gives wrong verdicts, and what each configuration leaves behind adds up.
func TestControlReloadsThatLoseSomething(t *testing.T) {
	l := withGateway("127.0.0.1:1")
	g := livetest.StartWith(t, l.caddyfile(l.turns[0]))
	good := g.Issue(keystore.Credential{})
	forgets := l
	forgets.global = strings.Replace(l.global, "{store}", "{dir}/other/keys.db", 1)
	forgets.turns = l.turns[:2]
	if c := forgets.run(t, g, 4, map[string]int{good.Text: 200}, nil); c.wrong.Load() == 0 {
		t.Errorf("a store that is exchanged in a reload goes unnoticed: %v", c)
	}

	t.Cleanup(takeBackLeaks)
	leaks := l
	leaks.before, leaks.turns = "broken leaks", l.turns[:3]
	leaks.run(t, g, 2, map[string]int{randomText: 401}, nil)
	before := settled(t, g)
	leaks.run(t, g, 24, map[string]int{randomText: 401}, nil)
	if grown := settled(t, g).grown(before); len(grown) != 3 {
		t.Errorf("of three kinds of leaks, these are found: %q", grown)
	}
}
