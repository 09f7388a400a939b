package apikeys

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/goleak"

	"github.com/caddy-apikeys/caddy-apikeys/internal/attack"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// What is asked of the gateway here is written as bytes: clients that build
// requests would repair most of it.

// loadShape puts the shape behind the gate, or without one.
func (g *gateway) loadShape(t *testing.T, shape attack.Caddyfile, gated bool) {
	t.Helper()
	g.t, g.addr = t, freeAddr(t) // the old listener may take connections for a while
	name, block := attack.NoGate, attack.NoGateBlock
	if gated {
		name, block = "api_keys", "{\n dialect rest /keys-api\n }"
	}
	_, port, _ := net.SplitHostPort(g.addr)
	g.load(shape.Write(name, block, port))
}

// TestPromise07WithoutAKeyNothingReachesTheUpstream asks in every shape of
// requests of every shape of Caddyfiles. The control asks the same of the same
// Caddyfiles without the gate: there it does reach the upstream.
func TestPromise07WithoutAKeyNothingReachesTheUpstream(t *testing.T) {
	settle(t)
	g := startWith(t, "", "")
	key := g.issue(keystore.Credential{}).Text
	accounts := g.countAccounts()
	for i, shape := range attack.Caddyfiles {
		t.Run(shape.Name, func(t *testing.T) {
			g.loadShape(t, shape, false)
			reached := 0
			for _, request := range attack.Requests {
				g.raw(request.Text(g.addr, key))
				got := len(g.upstream.taken())
				reached += min(got, 1)
				if want := !request.Refused && !request.Failed && !request.Unread; i == 0 && (got > 0) != want {
					t.Errorf("control: %s: the upstream was reached %d times, want it %v", request.Name, got, want)
				}
			}
			if reached < len(attack.Requests)/3 && !shape.Lossy {
				t.Errorf("control: only %d of %d requests reached the upstream", reached, len(attack.Requests))
			}

			g.loadShape(t, shape, true)
			for _, request := range attack.Requests {
				if request.Failed && shape.ErrorRoute {
					continue // see TestAnErrorRouteThatProxiesNeedsAGateOfItsOwn
				}
				answer := g.raw(request.Text(g.addr, key))
				if n := len(g.upstream.taken()); n > 0 || strings.Contains(answer, "Via:") {
					t.Errorf("%s: the upstream was reached %d times: %.200s", request.Name, n, answer)
				}
				if !request.Refused && strings.HasPrefix(answer, "HTTP/1.1 5") {
					t.Errorf("%s: %.200s", request.Name, answer)
				}
			}
			if n := g.countAccounts(); n != accounts {
				t.Errorf("%d accounts, want %d", n, accounts)
			}
		})
	}
}

// TestAnErrorRouteThatProxiesNeedsAGateOfItsOwn holds what the documentation
// and a warning at start say: what Caddy refuses before it looks at the routes of a site goes to the
// error routes, past every directive that is not in them.
func TestAnErrorRouteThatProxiesNeedsAGateOfItsOwn(t *testing.T) {
	settle(t)
	g := startWith(t, "", "")
	for _, c := range []struct {
		shape   string
		reached bool
	}{
		{"an error route that proxies", true},
		{"an error route that proxies behind a gate", false},
	} {
		for _, shape := range attack.Caddyfiles {
			if shape.Name != c.shape {
				continue
			}
			g.loadShape(t, shape, true)
			if warned := len(ungatedErrorRoutes(g.web())) > 0; warned != c.reached {
				t.Errorf("%s: the start warns %v, want %v", c.shape, warned, c.reached)
			}
			for _, request := range attack.Requests {
				if !request.Failed {
					continue
				}
				g.raw(request.Text(g.addr, ""))
				if n := len(g.upstream.taken()); (n > 0) != c.reached {
					t.Errorf("%s: %s: the upstream was reached %d times", c.shape, request.Name, n)
				}
			}
		}
	}
}

// web is the http app of the running configuration.
func (g *gateway) web() *caddyhttp.App {
	g.t.Helper()
	web, err := caddy.ActiveContext().App("http")
	if err != nil {
		g.t.Fatal(err)
	}
	return web.(*caddyhttp.App)
}

// settle waits, after the Caddy of the test stopped, for the connections that it
// refused: each lingers for half a second, so that its client can read why.
func settle(t *testing.T) {
	admin := goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2.replaceLocalAdminServer.func2")
	t.Cleanup(func() {
		for range 10 {
			if goleak.Find(append(leftByCaddy, admin)...) == nil {
				return
			}
		}
	})
}

func (g *gateway) countAccounts() (n int) {
	g.t.Helper()
	err := g.keyring().View(g.t.Context(), func(r keystore.Reader) error {
		all, err := r.Accounts(keystore.Page{Limit: 1000})
		n = len(all)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// TestASecondRequestOnAConnectionNeedsAKeyOfItsOwn sends both at once.
func TestASecondRequestOnAConnectionNeedsAKeyOfItsOwn(t *testing.T) {
	settle(t)
	g := startWith(t, "", "")
	key := g.issue(keystore.Credential{}).Text
	head := " HTTP/1.1\r\nHost: " + g.addr + "\r\n"
	withKey := head + "X-API-Key: " + key + "\r\n"
	for name, requests := range map[string]string{
		"one after the other": "GET /first" + withKey + "\r\nGET /second" + head + "Connection: close\r\n\r\n",
		"after a body":        "POST /first" + withKey + "Content-Length: 2\r\n\r\n{}GET /second" + head + "Connection: close\r\n\r\n",
		"after chunks":        "POST /first" + withKey + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nGET /second" + head + "Connection: close\r\n\r\n",
		"after chunks with a length": "POST /first" + withKey + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" +
			"0\r\n\r\nGET /second" + head + "Connection: close\r\n\r\n",
	} {
		g.raw(requests)
		for _, r := range g.upstream.taken() {
			if r.URL.Path != "/first" {
				t.Errorf("%s: the upstream got %s", name, r.RequestURI)
			}
		}
	}
}

func TestWithoutAKeyNothingReachesTheUpstreamOverHTTP2(t *testing.T) {
	g := start(t, strings.NewReplacer("{global}", "", "{block}", "", "admin {admin}",
		"admin {admin}\n servers {\n protocols h1 h2c\n }").Replace(minimal))
	key := g.issue(keystore.Credential{}).Text
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	ask := func(headers ...string) *http.Response {
		r, err := http.NewRequest("GET", "http://"+g.addr+"/api/data", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if resp := ask(); resp.StatusCode != 401 || resp.ProtoMajor != 2 || len(g.upstream.taken()) != 0 {
		t.Errorf("without a key: %s %s", resp.Proto, resp.Status)
	}
	if resp := ask("X-API-Key", key); resp.StatusCode != 200 || len(g.upstream.taken()) != 1 {
		t.Errorf("control, with a key: %s %s", resp.Proto, resp.Status)
	}
}

// managementTarget is a way to write the target of a management route, below a
// base path that stands for {base}.
type managementTarget struct {
	name, target string
	// exact says that it is one, refused that no route sees it.
	exact, refused bool
}

var managementTargets = []managementTarget{
	{"as it is", "{base}/accounts", true, false},
	{"with an empty query", "{base}/accounts?", true, false},
	{"with a query", "{base}/accounts?a=b", true, false},
	{"absolute-form", "http://{host}{base}/accounts", true, false},
	{"absolute-form without an authority", "http:{base}/accounts", true, false},

	{"two slashes before", "/{base}/accounts", false, false},
	{"absolute-form with two slashes before", "http://{host}/{base}/accounts", false, false},
	{"two slashes inside", "{base}//accounts", false, false},
	{"a slash after", "{base}/accounts/", false, false},
	{"two slashes after", "{base}/accounts//", false, false},
	{"a dot segment", "{base}/./accounts", false, false},
	{"a dot segment before", "/.{base}/accounts", false, false},
	{"a path that climbs", "/x/..{base}/accounts", false, false},
	{"a path that climbs inside", "{base}/x/../accounts", false, false},
	{"an escaped dot segment", "/x/%2e%2e{base}/accounts", false, false},
	{"a slash that is escaped", "{base}%2Faccounts", false, false},
	{"a slash that is escaped, in lower case", "{base}%2faccounts", false, false},
	{"a slash that is escaped twice", "{base}%252Faccounts", false, false},
	{"a slash after that is escaped", "{base}/accounts%2F", false, false},
	{"an escaped letter", "{base}/%61ccounts", false, false},
	{"an escaped last letter", "{base}/account%73", false, false},
	{"an escaped letter and one that need not be", "{base}/%61ccounts?a", false, false},
	{"upper case", "{base}/ACCOUNTS", false, false},
	{"one letter in upper case", "{base}/Accounts", false, false},
	{"a path parameter", "{base}/accounts;x=y", false, false},
	{"an empty path parameter", "{base}/accounts;", false, false},
	{"a path parameter before", ";x=y{base}/accounts", false, true},
	{"a path parameter in a segment before", "/;x=y{base}/accounts", false, false},
	{"an escaped question mark", "{base}/accounts%3F", false, false},
	{"an escaped number sign", "{base}/accounts%23", false, false},
	{"a fragment", "{base}/accounts#x", false, false},
	{"a backslash", `{base}\accounts`, false, false},
	{"a backslash before", `/x\..{base}/accounts`, false, false},
	{"an escaped backslash", "{base}%5Caccounts", false, false},
	{"an escaped NUL", "{base}/accounts%00", false, false},
	{"an escaped NUL and more", "{base}/accounts%00.css", false, false},
	{"an escaped space", "{base}/accounts%20", false, false},
	{"an escaped tab", "{base}/accounts%09", false, false},
	{"an escaped line break", "{base}/accounts%0D%0A", false, false},
	{"an overlong slash", "{base}%c0%afaccounts", false, false},
	{"an overlong letter", "{base}/%c1%a1ccounts", false, false},
	{"a wide letter", "{base}/%ef%bd%81ccounts", false, false},
	{"a letter that folds to another", "{base}/account%c5%bf", false, false},
	{"a byte that is not UTF-8", "{base}/accounts\xff", false, false},
	{"an extension", "{base}/accounts.json", false, false},
	{"very long", "{base}/" + strings.Repeat("./", 5_000) + "accounts", false, false},

	{"a broken escape", "{base}/accounts%", false, true},
	{"another broken escape", "{base}/%zzaccounts", false, true},
	{"a NUL", "{base}/accounts\x00", false, true},
	{"a space", "{base}/ accounts", false, true},
	{"far too long", "{base}/" + strings.Repeat("x", 50_000), false, true},
}

// below returns the target below a base path.
func (m managementTarget) below(base string) managementTarget {
	m.target = strings.ReplaceAll(m.target, "{base}", base)
	m.refused = m.refused || m.target[0] != '/' && !strings.HasPrefix(m.target, "http")
	return m
}

// raw asks for the target. A body comes with POST only.
func (m managementTarget) raw(g *gateway, method, key string) string {
	body := ""
	if method == "POST" {
		body = "{}"
	}
	if key != "" {
		key = "X-API-Key: " + key + "\r\n"
	}
	target := strings.ReplaceAll(m.target, "{host}", g.addr)
	text := method + " " + target + " HTTP/1.1\r\nHost: " + g.addr + "\r\n" + key + "Connection: close\r\n"
	if body != "" {
		text += "Content-Type: application/json\r\nContent-Length: 2\r\n"
	}
	return text + "\r\n" + body
}

// TestOnlyTheExactSpellingIsAManagementRoute asks for a route in every spelling,
// below a base path and at the root. Without a key nothing happens; with an
// ordinary key the route itself refuses, and every other spelling is a path like
// any other; with the key of an operator the route makes accounts, and no other
// spelling does.
func TestOnlyTheExactSpellingIsAManagementRoute(t *testing.T) {
	for _, base := range []string{"/keys-api", ""} {
		t.Run("base "+base+"/", func(t *testing.T) {
			settle(t)
			g := startWith(t, "", "dialect rest "+base+"/")
			ordinary := g.issue(keystore.Credential{}).Text
			operator := g.issue(keystore.Credential{Roles: []string{keystore.RoleOperator}}).Text
			for _, target := range managementTargets {
				target := target.below(base)
				for _, method := range []string{"GET", "POST", "OPTIONS", "HEAD", "PURGE"} {
					name := method + " " + target.name
					target.wantTurnedAway(t, name, method, g.ask(target.raw(g, method, "")))
					target.wantOrdinary(t, name, method, g.ask(target.raw(g, method, ordinary)))
					target.wantOperator(t, name, method, g.ask(target.raw(g, method, operator)))
				}
			}
		})
	}
}

// outcome is what a request led to.
type outcome struct {
	status               string
	text                 string
	reached, newAccounts int
}

// ask sends bytes and looks at what they did.
func (g *gateway) ask(request string) outcome {
	g.t.Helper()
	before := g.countAccounts()
	o := outcome{text: g.raw(request)}
	if fields := strings.Fields(o.text); len(fields) > 1 {
		o.status = fields[1]
	}
	o.reached = len(g.upstream.taken())
	o.newAccounts = g.countAccounts() - before
	return o
}

// want fails the test unless the outcome is as given.
func (o outcome) want(t *testing.T, name, status string, reached, newAccounts int) {
	t.Helper()
	if o.status != status || o.reached != reached || o.newAccounts != newAccounts {
		t.Errorf("%s: status %s, the upstream reached %d times, %d new accounts; want %s, %d, %d: %.300s",
			name, o.status, o.reached, o.newAccounts, status, reached, newAccounts, o.text)
	}
}

func hasRoute(method string) bool { return method == "GET" || method == "HEAD" || method == "POST" }

// onTheRoute is the status of the route for who may use it.
func (m managementTarget) onTheRoute(method string) (status string, newAccounts int) {
	switch {
	case !hasRoute(method):
		return "405", 0
	case strings.HasSuffix(m.target, "?a=b"): // no parameter of the route
		return "400", 0
	case method == "POST":
		return "201", 1
	}
	return "200", 0
}

func (m managementTarget) wantTurnedAway(t *testing.T, name, method string, got outcome) {
	t.Helper()
	status := "401"
	switch {
	case m.refused:
		status = got.status
	case m.exact && !hasRoute(method):
		status = "405"
	}
	got.want(t, name+" without a key", status, 0, 0)
}

func (m managementTarget) wantOrdinary(t *testing.T, name, method string, got outcome) {
	t.Helper()
	name += " with an ordinary key"
	switch {
	case m.refused:
		got.want(t, name, got.status, 0, 0)
	case m.exact && !hasRoute(method):
		got.want(t, name, "405", 0, 0)
	case m.exact:
		got.want(t, name, "403", 0, 0)
	default:
		got.want(t, name, "200", 1, 0)
	}
}

func (m managementTarget) wantOperator(t *testing.T, name, method string, got outcome) {
	t.Helper()
	name += " with the key of an operator"
	switch {
	case m.refused:
		got.want(t, name, got.status, 0, 0)
	case m.exact:
		status, newAccounts := m.onTheRoute(method)
		got.want(t, name, status, 0, newAccounts)
	default:
		got.want(t, name, "200", 1, 0)
	}
}
