//go:build reliability

package reliability

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const outageSite = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		output discard
	}
	api_keys {
		store postgres {dsn} {
			lease 2s
		}
	}
}
http://{addr} {
	api_keys
	respond reached
}
`

// outage is a gateway whose database goes away.
type outage struct {
	*livetest.Gateway
	t      *testing.T
	server *postgrestest.Server
	net    *badnet.Proxy
	client *http.Client
	dsn    string
}

func newOutage(t *testing.T) *outage {
	t.Helper()
	server := postgrestest.Start(t, postgrestest.NoSync())
	o := &outage{t: t, server: server, net: badnet.Listen(t, server.Addr()), dsn: server.NewDatabase(t)}
	dsn := strings.Replace(o.dsn, server.Addr(), o.net.Addr(), 1)
	o.Gateway = livetest.StartWith(t, strings.ReplaceAll(outageSite, "{dsn}", dsn))
	transport := &http.Transport{MaxIdleConnsPerHost: crowdSize}
	t.Cleanup(transport.CloseIdleConnections)
	o.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return o
}

// crowdSize is how many clients ask at a time.
const crowdSize = 200

// answer is the status of an answer. Every 503 says when to come again.
func (o *outage) answer(method, url, key string) int {
	r, err := http.NewRequest(method, url, strings.NewReader("{}"))
	if err != nil {
		o.t.Error(err)
		return 0
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	resp, err := o.client.Do(r)
	if err != nil {
		o.t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		o.t.Errorf("%s %s: 503 without Retry-After", method, url)
	}
	return resp.StatusCode
}

// ask presents a key, and manage makes an account.
func (o *outage) ask(key string) int { return o.answer(http.MethodGet, "http://"+o.Addr+"/", key) }

func (o *outage) manage() int {
	return o.answer(http.MethodPost, "http://"+o.Admin+"/api_keys/accounts", "")
}

// remember asks until a key is answered from memory.
func (o *outage) remember(key string) {
	o.t.Helper()
	eventually(o.t, 5*time.Second, "the key is in memory", func() bool {
		before := o.misses()
		o.want("a key", o.ask(key), http.StatusOK)
		return o.misses() == before
	})
}

// misses is how often the database was asked for a verdict, as the metric says.
func (o *outage) misses() (count string) {
	o.t.Helper()
	resp, err := o.client.Get("http://" + o.Admin + "/metrics")
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	_, count, found := strings.Cut(string(text), "\ncaddy_api_keys_cache_misses_total ")
	if !found {
		o.t.Fatal("there is no metric of misses")
	}
	count, _, _ = strings.Cut(count, "\n")
	return count
}

func (o *outage) want(what string, got, want int) {
	o.t.Helper()
	if got != want {
		o.t.Errorf("%s is answered %d, want %d", what, got, want)
	}
}

// TestAnOutageOfTheDatabase: keys in memory are judged within the lease, all else is
// answered 503, and nothing has to be restarted.
func TestAnOutageOfTheDatabase(t *testing.T) {
	o := newOutage(t)
	for name, c := range map[string]struct{ begin, end func() }{
		"killed":     {o.server.Kill, o.server.Restart},
		"stopped":    {func() { o.server.Stop(postgrestest.Fast) }, o.server.Restart},
		"cut off":    {o.net.Cut, o.net.Heal},
		"black hole": {o.net.BlackHole, o.net.Heal},
	} {
		t.Run(name, func(t *testing.T) {
			o.t = t
			known, cold := o.Issue(keystore.Credential{}).Text, o.Issue(keystore.Credential{}).Text
			o.remember(known)
			c.begin()
			o.want("a key in memory", o.ask(known), http.StatusOK)
			o.want("a key that is not", o.ask(cold), http.StatusServiceUnavailable)
			o.want("management", o.manage(), http.StatusServiceUnavailable)
			eventually(t, 2*clusterLease, "the lease is over", func() bool { return o.ask(known) == http.StatusServiceUnavailable })
			o.want("a wrong key", o.ask("unknown-but-plausible-text"), http.StatusServiceUnavailable)
			most := o.comeBack(c.end, known, cold)
			if name != "black hole" && most > mostConnections {
				t.Errorf("%d connections when the database was back, want %d at most", most, mostConnections)
			}
			t.Logf("%d connections at most", most)
			o.want("a wrong key", o.ask("unknown-but-plausible-text"), http.StatusUnauthorized)
		})
	}
}

// mostConnections is what a gateway takes: one that writes, 8 for look-ups, 4 for
// views, and that of the feed.
const mostConnections = 14

// comeBack ends the outage while a crowd asks, and waits until everything works. It
// returns how many connections the gateway had at the most. What the black hole kept
// arrives with its end, and would be counted, too.
func (o *outage) comeBack(end func(), keys ...string) (most int) {
	o.t.Helper()
	over := make(chan struct{})
	var crowd sync.WaitGroup
	for i := range crowdSize {
		crowd.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(50 * time.Millisecond):
					o.askAny(i, keys)
				}
			}
		})
	}
	defer func() {
		close(over)
		crowd.Wait()
	}()
	end()
	begin := time.Now()
	var counting sync.WaitGroup
	counting.Go(func() { most = o.connections(time.Second) })
	for _, key := range keys {
		eventually(o.t, 5*time.Second, "keys work again", func() bool { return o.ask(key) == http.StatusOK })
	}
	eventually(o.t, 5*time.Second, "management works again", func() bool { return o.manage() == http.StatusCreated })
	o.t.Logf("back within %v", time.Since(begin).Round(time.Millisecond))
	counting.Wait()
	return most
}

// askAny is one of the crowd, half of which are strangers.
func (o *outage) askAny(i int, keys []string) {
	key, want := keys[i/2%len(keys)], http.StatusOK
	if i%2 == 0 {
		key, want = fmt.Sprintf("the-key-of-stranger-%04d", i), http.StatusUnauthorized
	}
	if status := o.ask(key); status != want && status != http.StatusServiceUnavailable {
		o.t.Errorf("in the crowd, %d is answered where it should be %d, or 503", status, want)
	}
}

// connections is how many the gateway had at the most, for so long.
func (o *outage) connections(watch time.Duration) (most int) {
	conn, err := pgx.Connect(o.t.Context(), o.dsn)
	if err != nil {
		o.t.Error(err)
		return 0
	}
	defer conn.Close(context.Background())
	for end := time.Now().Add(watch); time.Now().Before(end); {
		var now int
		err := conn.QueryRow(o.t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'caddy api_keys'`).Scan(&now)
		if err != nil {
			o.t.Error(err)
		}
		most = max(most, now)
	}
	return most
}
