package sarus_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"math"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	apikeys "github.com/caddy-apikeys/caddy-apikeys"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/internal/mailbox"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestMain(m *testing.M) { os.Exit(livetest.Main(m)) }

// patience is how long a test waits for what happens in the background.
const patience = 30 * time.Second

// gateway is a running gateway with the dialect below /v1, and its mail server.
type gateway struct {
	*livetest.Gateway
	*testing.T
	mails  *mailbox.Server
	global string
}

// start runs the gateway with options of the dialect, and what else the global
// option api_keys says.
func start(t *testing.T, options string, global ...string) *gateway {
	t.Helper()
	mails, err := mailbox.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mails.Close() })
	g := &gateway{T: t, mails: mails, global: mailOption(mails.Addr) + strings.Join(global, "\n")}
	g.Gateway = livetest.Start(t, g.global, block(options))
	return g
}

func mailOption(addr string) string {
	return "mail {\nsmtp " + addr + "\ntls off\nfrom keys@gateway.example\n}\n"
}

func block(options string) string { return "dialect sarus /v1 {\n" + options + "\n}\nrequire any" }

// in is the gateway in a subtest.
func (g *gateway) in(t *testing.T) *gateway {
	same := *g
	same.T = t
	return &same
}

// reload loads other options of the dialect.
func (g *gateway) reload(options string) {
	g.Helper()
	if err := g.Reload(g.global, block(options)); err != nil {
		g.Fatal(err)
	}
}

// target asks for a key for an address.
func target(address string) string {
	return "/v1/RequestAPIKey?Email=" + url.QueryEscape(address)
}

// envelope is every body of the API, down to the order of its members.
var envelope = regexp.MustCompile(`^\{"ServerDateTime":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)","TimeStamp":(\d{7}(?:\.\d+)?),` +
	`"ExecutionTime":(\d+(?:\.\d{1,3})?),"(Result|Errors)":\{"Status":(\d{3}),"Detail":("(?:[^"\\]|\\.)+")\}\}$`)

// said is what an answer says, in an envelope that was checked.
type said struct {
	livetest.Answer
	member, detail string
	milliseconds   float64 // ExecutionTime
}

// request sends a request and checks the envelope of its answer.
func (g *gateway) request(version int, method, target, body string) said {
	g.Helper()
	a := g.Do(version, method, target, body)
	if method == "HEAD" {
		return said{Answer: a}
	}
	return g.checkEnvelope(a)
}

func (g *gateway) checkEnvelope(a livetest.Answer) said {
	g.Helper()
	m := envelope.FindStringSubmatch(a.Text)
	if m == nil {
		g.Fatalf("%s %s: %d with a body that is none of the API: %s", a.Request.Method, a.Request.URL.Path, a.StatusCode, a.Text)
	}
	if a.Header.Get("Content-Type") != "application/json; charset=utf-8" || a.Header.Get("Cache-Control") != "no-store" {
		g.Errorf("headers %v", a.Header)
	}
	if m[5] != strconv.Itoa(a.StatusCode) || (a.StatusCode == 200) != (m[4] == "Result") {
		g.Errorf("%d with %s", a.StatusCode, a.Text)
	}
	out := said{Answer: a, member: m[4], milliseconds: g.checkTimes(m[1], m[2], m[3])}
	if err := json.Unmarshal([]byte(m[6]), &out.detail); err != nil {
		g.Error(err)
	}
	return out
}

// checkTimes holds the three times of an envelope against each other and the
// clock, and returns the last.
func (g *gateway) checkTimes(dateTime, timeStamp, executionTime string) (milliseconds float64) {
	g.Helper()
	at, err := time.Parse(time.RFC3339, dateTime)
	if err != nil {
		g.Fatal(err)
	}
	if age := time.Since(at); age < 0 || age > patience {
		g.Errorf("ServerDateTime %s is %v old", dateTime, age)
	}
	julian, _ := strconv.ParseFloat(timeStamp, 64)
	const millisecond = 1.0 / (24 * 60 * 60 * 1000)
	if want := float64(at.UnixMilli())/1000/86400 + 2440587.5; math.Abs(julian-want) > millisecond/10 {
		g.Errorf("TimeStamp is %s, want %f, the Julian date of %s", timeStamp, want, dateTime)
	}
	milliseconds, _ = strconv.ParseFloat(executionTime, 64)
	if milliseconds <= 0 || milliseconds > patience.Seconds()*1000 {
		g.Errorf("ExecutionTime is %s", executionTime)
	}
	return milliseconds
}

// want checks the status of an answer and that its detail says all of what is
// given.
func (g *gateway) want(a said, status int, says ...string) {
	g.Helper()
	if a.StatusCode != status {
		g.Fatalf("status %d, want %d: %s", a.StatusCode, status, a.Text)
	}
	for _, s := range says {
		if !strings.Contains(a.detail, s) {
			g.Errorf("the detail does not say %q: %s", s, a.detail)
		}
	}
}

// account creates an account with an address.
func (g *gateway) account(email string) *keystore.Account {
	g.Helper()
	return g.Account(keystore.Account{Email: email})
}

func (g *gateway) deactivate(a *keystore.Account) {
	g.Helper()
	_, err := g.Keyring().UpdateAccount(g.Context(), a.ID, func(a *keystore.Account) error {
		a.Active = false
		return nil
	})
	if err != nil {
		g.Fatal(err)
	}
}

// key issues a key of the account.
func (g *gateway) key(a *keystore.Account) string {
	g.Helper()
	return g.Issue(keystore.Credential{AccountID: a.ID}).Text
}

// mail waits for the next mail, and returns it and the key in it.
func (g *gateway) mail() (mailbox.Mail, string) {
	g.Helper()
	ctx, cancel := context.WithTimeout(g.Context(), patience)
	defer cancel()
	m, err := g.mails.Next(ctx)
	if err != nil {
		g.Fatal(err)
	}
	if len(m.Keys()) != 1 {
		g.Fatalf("the mail holds %d keys, want one", len(m.Keys()))
	}
	return m, m.Keys()[0]
}

// verdict is what a key is worth, without using it.
func (g *gateway) verdict(key string) keystore.Verdict {
	g.Helper()
	_, v, err := g.Keyring().Verify(g.Context(), key)
	if err != nil {
		g.Fatal(err)
	}
	return v
}

// use presents a key on a proxied route.
func (g *gateway) use(version int, key string) livetest.Answer {
	g.Helper()
	return g.Do(version, "GET", "/things", "", "X-API-Key", key)
}

func (g *gateway) accepts(key string) {
	g.Helper()
	if a := g.use(1, key); a.StatusCode != 200 {
		g.Errorf("a key that should work: %d %s", a.StatusCode, a.Text)
	}
}

func (g *gateway) refuses(key, code string) {
	g.Helper()
	if a := g.use(1, key); a.StatusCode != 401 || !strings.Contains(a.Text, `"`+code+`"`) {
		g.Errorf("a key that should be refused as %s: %d %s", code, a.StatusCode, a.Text)
	}
}

// until waits for a condition.
func (g *gateway) until(what string, holds func() bool) {
	g.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.Fatalf("in vain waited until %s", what)
		}
	}
}

// waiting is how many mails wait, throttled until when requests for an address
// are refused.
func (g *gateway) waiting() (n int) {
	g.Helper()
	g.view(func(r keystore.Reader) (err error) {
		n, err = r.CountMails()
		return err
	})
	return n
}

func (g *gateway) throttled(address string) (until keystore.Instant) {
	g.Helper()
	g.view(func(r keystore.Reader) (err error) {
		until, err = r.Throttle(sha256.Sum256([]byte(strings.ToLower(address))))
		return err
	})
	return until
}

func (g *gateway) view(read func(keystore.Reader) error) {
	g.Helper()
	if err := g.Keyring().View(g.Context(), read); err != nil {
		g.Fatal(err)
	}
}

// vault is that of the running configuration.
func (g *gateway) vault() *keystore.Vault {
	g.Helper()
	app, err := caddy.ActiveContext().App("api_keys")
	if err != nil {
		g.Fatal(err)
	}
	vault, err := app.(*apikeys.App).Vault(g.Context())
	if err != nil {
		g.Fatal(err)
	}
	return vault
}
