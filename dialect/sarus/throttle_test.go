package sarus_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestAnAddressIsThrottled in all its spellings, whoever asks, known or not.
func TestAnAddressIsThrottled(t *testing.T) {
	g := start(t, "client_limit 1000")
	g.account("Ada@Example.com")
	for _, c := range []struct {
		address string
		status  int
	}{
		{"ada@example.com", 200},
		{"ada@example.com", 429},
		{"ADA@example.COM", 429},
		{"Ada@Example.com", 429},
		{"bob@example.com", 200},
		{"Bob@example.com", 429},
		{"ada@example.org", 200},
	} {
		g.want(g.request(1, "GET", target(c.address), ""), c.status)
	}
}

func TestTheThrottleIsWhatIsConfigured(t *testing.T) {
	g := start(t, "throttle 61s\nclient_limit 1000")
	g.want(g.request(1, "GET", target("a@example.com"), ""), 200)
	a := g.request(1, "GET", target("a@example.com"), "")
	g.want(a, 429, "You may retry in 2 minutes.")
	if seconds := retryAfter(t, a); seconds < 30 || seconds > 61 {
		t.Errorf("Retry-After is %d", seconds)
	}
	g.reload("throttle 5s\nclient_limit 1000")
	g.want(g.request(1, "GET", target("b@example.com"), ""), 200)
	a = g.request(1, "GET", target("b@example.com"), "")
	g.want(a, 429, "You may retry in 1 minute.")
	if seconds := retryAfter(t, a); seconds < 1 || seconds > 5 {
		t.Errorf("Retry-After is %d", seconds)
	}
}

func retryAfter(t *testing.T, a said) int {
	t.Helper()
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if err != nil {
		t.Error(err)
	}
	return seconds
}

// TestTheThrottleOutlivesTheConfigurationAndTheProcess of Caddy.
func TestTheThrottleOutlivesTheConfigurationAndTheProcess(t *testing.T) {
	g := start(t, "client_limit 1000")
	g.account("known@example.com")
	addresses := []string{"known@example.com", "nobody@example.com"}
	for _, address := range addresses {
		g.want(g.request(1, "GET", target(address), ""), 200)
	}
	for _, again := range []struct {
		how string
		do  func() error
	}{
		{"reload", func() error { return g.Reload(g.global, block("client_limit 999")) }},
		{"restart", func() error { return errors.Join(caddy.Stop(), g.Reload(g.global, block("client_limit 1000"))) }},
	} {
		if err := again.do(); err != nil {
			t.Fatal(err)
		}
		for _, address := range addresses {
			if a := g.request(1, "GET", target(address), ""); a.StatusCode != 429 {
				t.Errorf("after a %s, %s: %d", again.how, address, a.StatusCode)
			}
		}
	}
	if m, _ := g.mail(); m.To[0] != "known@example.com" {
		t.Errorf("the mail went to %s", m.To)
	}
}

// TestAClientIsLimited over all addresses, with the same answer as for one
// address.
func TestAClientIsLimited(t *testing.T) {
	g := start(t, "")
	for i := range 20 {
		g.want(g.request(1+i%2, "GET", target(fmt.Sprintf("a%d@example.com", i)), ""), 200)
	}
	for version := 1; version <= 2; version++ {
		byAddress := g.request(version, "GET", target("a0@example.com"), "")
		byClient := g.request(version, "GET", target("new@example.com"), "")
		g.want(byClient, 429, "You may retry in 3 minutes.")
		if seconds := retryAfter(t, byClient); seconds < 150 || seconds > 180 {
			t.Errorf("Retry-After is %d", seconds)
		}
		byAddress.Header.Del("Retry-After")
		byClient.Header.Del("Retry-After")
		if blank(byAddress) != blank(byClient) {
			t.Errorf("%s\nwant\n%s", blank(byClient), blank(byAddress))
		}
	}
	if g.throttled("new@example.com") != 0 {
		t.Error("a request that was refused throttles its address")
	}
	g.want(g.request(1, "GET", "/v1/RequestAPIKey", ""), 400) // what is wrong is told first
}

// forwarded is a site behind a proxy, which tells who the client is.
const forwarded = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		output discard
	}
	servers {
		trusted_proxies static 127.0.0.1/32
	}
	api_keys {
		store sqlite {store}
		{mail}
	}
}
http://{addr} {
	api_keys {
		dialect sarus /v1 {
			client_limit 2
		}
	}
	reverse_proxy {upstream}
}
`

// TestClientsAreToldApart by their address; all of an IPv6 network of 64 bits is
// one client.
func TestClientsAreToldApart(t *testing.T) {
	g := start(t, "")
	if err := g.Load(strings.ReplaceAll(forwarded, "{mail}", g.global)); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		client string
		status int
	}{
		{"192.0.2.1", 200},
		{"192.0.2.1", 200},
		{"192.0.2.1", 429},
		{"::ffff:192.0.2.1", 429},
		{"192.0.2.2", 200},
		{"2001:db8:1:2::1", 200},
		{"2001:db8:1:2:ffff:ffff:ffff:ffff", 200},
		{"2001:db8:1:2::3", 429},
		{"2001:db8:1:3::1", 200},
	} {
		a := g.Do(1, "GET", target(fmt.Sprintf("a%d@example.com", i)), "", "X-Forwarded-For", c.client)
		if a.StatusCode != c.status {
			t.Errorf("request %d, from %s: %d, want %d", i, c.client, a.StatusCode, c.status)
		}
	}
}

// TestAStoreThatIsGone is the server's fault, and its cause is in the log only.
func TestAStoreThatIsGone(t *testing.T) {
	g := start(t, "client_limit 1000")
	g.account("a@example.com")
	if err := g.vault().Close(); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{1, 2} {
		for _, address := range []string{"a@example.com", "nobody@example.com"} {
			a := g.request(version, "GET", target(address), "")
			g.want(a, 500)
			if a.detail != "Server may be down for maintenance." || a.Header.Get("Retry-After") != "5" {
				t.Errorf("%s, Retry-After %s", a.Text, a.Header.Get("Retry-After"))
			}
		}
	}
	g.logsOneErrorEach(4, "store unavailable")
}

// logsOneErrorEach checks what the log says of requests that the server could
// not take.
func (g *gateway) logsOneErrorEach(requests int, cause string) {
	g.Helper()
	found := 0
	for line := range strings.Lines(g.Logged()) {
		if !strings.Contains(line, "a key could not be requested by e-mail") {
			continue
		}
		found++
		if !strings.Contains(line, `"level":"error"`) || !strings.Contains(line, cause) {
			g.Errorf("want an error that says %q: %s", cause, line)
		}
		if strings.Contains(line, "example.com") {
			g.Errorf("the log line has the address: %s", line)
		}
	}
	if found != requests {
		g.Errorf("%d errors are logged, want %d", found, requests)
	}
}

// TestAFullOutbox takes no request, and forgets it: the address may ask again.
func TestAFullOutbox(t *testing.T) {
	g := start(t, "client_limit 1000")
	account := g.account("a@example.com")
	g.key(account)
	var last string
	err := g.vault().Update(t.Context(), func(tx keystore.Tx) error {
		never := g.Keyring().Now().Add(1e6 * patience)
		for i := range 10_000 {
			last = fmt.Sprintf("waiting-%d", i)
			if err := tx.PutMail(&keystore.Mail{ID: last, AccountID: last, RequestedAt: 1, DueAt: never}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"a@example.com", "nobody@example.com"} {
		a := g.request(1, "GET", target(address), "")
		g.want(a, 500)
		if a.detail != "Server may be down for maintenance." {
			t.Errorf("%s", a.Text)
		}
		if g.throttled(address) != 0 {
			t.Errorf("%s is throttled", address)
		}
	}
	g.logsOneErrorEach(2, "outbox full")
	if err := g.vault().Update(t.Context(), func(tx keystore.Tx) error { return tx.DeleteMail(last) }); err != nil {
		t.Fatal(err)
	}
	g.want(g.request(1, "GET", target("a@example.com"), ""), 200)
	g.mail()
}
