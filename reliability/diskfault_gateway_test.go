//go:build reliability && linux

package reliability

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
)

// This file is a gateway in a process of its own, whose disk can fail, and a
// client that keeps the ledger of its answers.

func init() { children["faulty gateway"] = func() { reportTo(os.Stdout, serveOnFaults) } }

const (
	// gatewayCaddyfile and gatewayLimit are the environment variables with the
	// Caddyfile and with a limit of the system, see limitOf.
	gatewayCaddyfile = "RELIABILITY_CADDYFILE"
	gatewayLimit     = "RELIABILITY_LIMIT"
)

// limitOf is what a limit takes from the gateway, and when.
func limitOf(name string) systemLimit {
	if count, ok := strings.CutPrefix(name, "few files "); ok {
		return systemLimit{beforeStart: func() error {
			files, err := strconv.ParseUint(count, 10, 64)
			return errors.Join(err, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: 4096}))
		}}
	}
	return systemLimits[name]
}

type systemLimit struct{ beforeStart, afterStart func() error }

var systemLimits = map[string]systemLimit{
	"": {},
	// Files that can't grow beyond 400 KiB.
	"file size": {beforeStart: func() error {
		signal.Ignore(syscall.SIGXFSZ)
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 400 << 10, Max: 1 << 30})
	}},
	"no more files": {afterStart: func() error {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(len(open) + 12), Max: 4096})
	}},
}

// serveOnFaults runs the gateway until the process ends.
func serveOnFaults(_ context.Context, report func(event)) error {
	limit := limitOf(os.Getenv(gatewayLimit))
	if limit.beforeStart != nil {
		if err := limit.beforeStart(); err != nil {
			return err
		}
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(os.Getenv(gatewayCaddyfile)), nil)
	if err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		report(event{Kind: eventNotStarted, Text: err.Error()})
		return nil
	}
	if limit.afterStart != nil {
		if err := limit.afterStart(); err != nil {
			return err
		}
	}
	report(event{Kind: eventOpened})
	select {}
}

// eventNotStarted is the event of a gateway that does not start.
const eventNotStarted = "not started"

// gatewayConfig is the Caddyfile: a cache that holds next to nothing, so that
// verdicts ask the store.
const gatewayConfig = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		format api_keys
	}
	api_keys {
		store sqlite {store}
		cache_size 64KiB
	}
}
http://{addr} {
	api_keys
	respond reached
}
`

// remote is a gateway in a process of its own.
type remote struct {
	*process
	t           *testing.T
	addr, admin string
	log         *logged
	site, api   *http.Client
	// ledger is what its answers promised.
	ledger *ledger
	// lying makes the client take answers for a success that are none.
	lying bool
	// refusals counts the answers 503.
	refusals int
	account  string
}

// logged collects a process's log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startRemote starts a gateway on a store. Before are words of the command that
// runs it. It has started, or was refused, when this returns.
func startRemote(t *testing.T, store, limit string, l *ledger, before ...string) *remote {
	t.Helper()
	g := &remote{
		t: t, addr: livetest.FreeAddr(t), admin: livetest.FreeAddr(t), log: &logged{}, ledger: l,
		site: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 30 * time.Second},
		api:  &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second},
	}
	caddyfile := strings.NewReplacer("{admin}", g.admin, "{addr}", g.addr, "{store}", store).Replace(gatewayConfig)
	command := append(before, os.Args[0])
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), childVariable+"=faulty gateway", gatewayCaddyfile+"="+caddyfile, gatewayLimit+"="+limit)
	cmd.Stderr = g.log
	g.process = startChild(t, cmd)
	t.Cleanup(func() {
		g.site.CloseIdleConnections()
		g.api.CloseIdleConnections()
	})
	for len(g.events) == 0 && !g.ended {
		g.readUntil(time.Now().Add(time.Millisecond))
	}
	return g
}

// started reports whether the gateway serves, and fails the test if it ended
// without a word.
func (g *remote) started() bool {
	g.t.Helper()
	if len(g.events) == 0 {
		g.t.Fatalf("the gateway ended: %s", g.log)
	}
	return g.events[0].Kind == eventOpened
}

// call calls the management API. The answer is 0 if the gateway died of it.
func (g *remote) call(method, path string, body any) (status int, answer map[string]any) {
	g.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		g.t.Fatal(err)
	}
	r, err := http.NewRequest(method, "http://"+g.admin+"/api_keys"+path, bytes.NewReader(text))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := g.api.Do(r)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil && resp.StatusCode != http.StatusNoContent {
		g.t.Errorf("%s %s: %d, %v", method, path, resp.StatusCode, err)
	}
	switch {
	case resp.StatusCode/100 == 2:
	case resp.StatusCode == http.StatusServiceUnavailable:
		g.refusals++
	case resp.StatusCode == http.StatusConflict && g.lying:
	default:
		g.t.Errorf("%s %s: %d %v", method, path, resp.StatusCode, answer)
	}
	return resp.StatusCode, answer
}

func memberOf(answer map[string]any, path ...string) string {
	for _, name := range path[:len(path)-1] {
		answer, _ = answer[name].(map[string]any)
	}
	text, _ := answer[path[len(path)-1]].(string)
	return text
}

// remoteCredential is what the client has of one.
type remoteCredential struct {
	id, key, text string
	// unsure is set once a change of it was not answered: nobody knows whether it
	// was made.
	unsure bool
}

// issue makes a credential, in an account of its own for the first. It is nil if
// it was not made.
func (g *remote) issue() *remoteCredential {
	g.t.Helper()
	if g.account == "" {
		if status, answer := g.call("POST", "/accounts", map[string]any{}); status == http.StatusCreated {
			g.account = memberOf(answer, "id")
			g.ledger.note(event{Kind: eventAccount, Account: g.account})
		} else {
			return nil
		}
	}
	status, answer := g.call("POST", "/accounts/"+g.account+"/credentials", map[string]any{})
	if status != http.StatusCreated {
		return nil
	}
	c := &remoteCredential{id: memberOf(answer, "credential", "id"), key: memberOf(answer, "key", "id"), text: memberOf(answer, "key", "secret")}
	g.ledger.note(event{Kind: eventIssued, Credential: c.id, Key: c.key, Text: c.text})
	return c
}

// rotate reports whether the rotation was answered, and then c is the new key.
func (g *remote) rotate(c *remoteCredential, overlap string) bool {
	g.t.Helper()
	status, answer := g.call("POST", "/credentials/"+c.id+"/rotate", map[string]any{"overlap": overlap})
	if c.unsure = status != http.StatusOK; c.unsure {
		return false
	}
	c.key, c.text = memberOf(answer, "key", "id"), memberOf(answer, "key", "secret")
	e := event{Kind: eventRotated, Credential: c.id, Key: c.key, Text: c.text, Overlap: overlap}
	previous, _ := answer["previous"].([]any)
	for _, p := range previous {
		k, _ := p.(map[string]any)
		e.Previous = append(e.Previous, memberOf(k, "id"))
	}
	g.ledger.note(e)
	return true
}

func (g *remote) revoke(c *remoteCredential) bool {
	g.t.Helper()
	status, _ := g.call("POST", "/keys/"+c.key+"/revoke", map[string]any{"reason": byHand})
	if status == http.StatusOK || g.lying {
		g.ledger.note(event{Kind: eventRevoked, Key: c.key})
	}
	return status == http.StatusOK
}

// use presents a key to the site and returns the answer's status, 0 if there is
// none.
func (g *remote) use(text string) int {
	r, err := http.NewRequest("GET", "http://"+g.addr+"/", nil)
	if err != nil {
		return 0
	}
	r.Header.Set("X-Api-Key", text)
	resp, err := g.site.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// takeIntoUse rotates and uses the new key, which stops the others.
func (g *remote) takeIntoUse(c *remoteCredential) {
	g.t.Helper()
	if !g.rotate(c, "until_first_use") {
		return
	}
	if c.unsure = g.use(c.text) != http.StatusOK; !c.unsure {
		g.ledger.note(event{Kind: eventUsed, Key: c.key})
	}
}

// change makes one change of each kind. It returns a credential that works, or
// should: nil if none was made.
func (g *remote) change() *remoteCredential {
	g.t.Helper()
	c := g.issue()
	if c == nil {
		return nil
	}
	for _, rotate := range []func(){
		func() { g.rotate(c, "1h") }, func() { g.takeIntoUse(c) }, func() { g.rotate(c, "0s") },
	} {
		if rotate(); c.unsure {
			return c
		}
	}
	if doomed := g.issue(); doomed != nil {
		g.revoke(doomed)
	}
	return c
}

// changeUntilRefused changes until the answer is 503, for so many rounds at most,
// and returns the credentials that were made.
func (g *remote) changeUntilRefused(rounds int) (made []*remoteCredential) {
	g.t.Helper()
	for before := g.refusals; g.refusals == before && len(made) < rounds; {
		c := g.change()
		if c == nil {
			break
		}
		made = append(made, c)
	}
	return made
}

// verifies reports, as findings, which keys are not judged as they should.
func (g *remote) verifies(f findings, made []*remoteCredential) {
	g.t.Helper()
	for _, c := range made[max(0, len(made)-20):] {
		if status := g.use(c.text); !c.unsure && status != http.StatusOK {
			f.add(findMissing, "a key that works is answered %d", status)
		}
	}
	asked := 0
	for id := range g.ledger.revoked {
		if text := g.ledger.texts[id]; text != "" && g.use(text) != http.StatusUnauthorized {
			f.add(findAlive, "key %s works", id)
		}
		if asked++; asked == 20 {
			break
		}
	}
	if status := g.use("key_never_made_" + made[0].text); status != http.StatusUnauthorized {
		f.add(findUnsound, "an unknown key is answered %d", status)
	}
}

// retried repeats a rotation whose outcome is not known, and reports whether what
// the overlap 0s promises is there then: one key works, the new one.
func (g *remote) retried(f findings, c *remoteCredential, overlap string) {
	g.t.Helper()
	old := *c
	if !g.rotate(c, overlap) {
		f.add(findUnsound, "the retry was not answered with 200")
		return
	}
	_, answer := g.call("GET", "/credentials/"+c.id+"/keys", nil)
	items, _ := answer["items"].([]any)
	var live []string
	for _, item := range items {
		k, _ := item.(map[string]any)
		if state := memberOf(k, "state"); state != "revoked" && state != "expired" {
			live = append(live, memberOf(k, "id"))
		}
	}
	if fmt.Sprint(live) != fmt.Sprint([]string{c.key}) {
		f.add(findHalf, "after the retry %v work, want %s", live, c.key)
	}
	if status := g.use(c.text); status != http.StatusOK {
		f.add(findMissing, "the new key is answered %d", status)
	}
	if status := g.use(old.text); status != http.StatusUnauthorized {
		f.add(findAlive, "the old key is answered %d", status)
	}
}
