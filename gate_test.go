package apikeys

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/goleak"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// What is asked of the gateway here is written as bytes: clients that build
// requests would repair most of it.

// requestShape is one way to ask. {host} and {key} stand for the address of the
// site and a valid key.
type requestShape struct {
	name string
	// line is the request line without its version; headers are whole lines. A
	// Host is added unless there is one.
	line, headers string
	body          string
	// refused says that the server answers it before any route, and hands it to
	// none; failed that it hands it to error routes; unread that the proxy sends
	// what the upstream can't read.
	refused, failed, unread bool
}

func (s requestShape) raw(g *gateway, key string) string {
	version := " HTTP/1.1"
	if strings.Contains(s.line, " HTTP/") {
		version = ""
	}
	host := "Host: {host}\r\n"
	if strings.Contains(strings.ToLower("\n"+s.headers), "\nhost:") {
		host = ""
	}
	text := s.line + version + "\r\n" + host + s.headers + "Connection: close\r\n\r\n" + s.body
	return strings.NewReplacer("{host}", g.addr, "{key}", key).Replace(text)
}

// requestShapes are ways to ask without a key, none of them a CORS preflight.
var requestShapes = []requestShape{
	{name: "plain", line: "GET /api/data"},
	{name: "root", line: "GET /"},
	{name: "HEAD", line: "HEAD /api/data"},
	{name: "POST", line: "POST /api/data", headers: "Content-Length: 2\r\n", body: "{}"},
	{name: "PURGE", line: "PURGE /api/data"},
	{name: "a method in lower case", line: "get /api/data"},
	{name: "a method of 32 characters", line: "GET" + strings.Repeat("T", 29) + " /api/data"},
	{name: "a method of 33 characters", line: "GET" + strings.Repeat("T", 30) + " /api/data", failed: true},
	{name: "TRACE", line: "TRACE /api/data"},
	{name: "CONNECT", line: "CONNECT {host}"},
	{name: "CONNECT with a path", line: "CONNECT /api/data"},
	{name: "HTTP/1.0", line: "GET /api/data HTTP/1.0"},
	{name: "HTTP/1.0 without a host", line: "GET /api/data HTTP/1.0", headers: "Host: \r\n"},
	{name: "HTTP/0.9", line: "GET /api/data HTTP/0.9", refused: true},
	{name: "HTTP/2.0 in the request line", line: "GET /api/data HTTP/2.0", refused: true},

	{name: "OPTIONS", line: "OPTIONS /api/data"},
	{name: "OPTIONS of the server", line: "OPTIONS *", refused: true},
	{name: "OPTIONS with Origin only", line: "OPTIONS /api/data", headers: "Origin: https://a.example\r\n"},
	{name: "OPTIONS without Origin", line: "OPTIONS /api/data", headers: "Access-Control-Request-Method: GET\r\n"},
	{name: "OPTIONS with an empty Origin", line: "OPTIONS /api/data", headers: "Origin: \r\nAccess-Control-Request-Method: GET\r\n"},
	{name: "options in lower case", line: "options /api/data", headers: "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"},
	{name: "GET that says it is a preflight", line: "GET /api/data", headers: "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"},
	{name: "X-HTTP-Method-Override", line: "GET /api/data", headers: "X-HTTP-Method-Override: OPTIONS\r\nX-Method-Override: OPTIONS\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"},

	{name: "two slashes before", line: "GET //api/data"},
	{name: "two slashes inside", line: "GET /api//data"},
	{name: "a slash after", line: "GET /api/data/"},
	{name: "a dot segment", line: "GET /api/./data"},
	{name: "a path that climbs", line: "GET /open/../api/data"},
	{name: "a path that climbs too far", line: "GET /../../api/data"},
	{name: "an escaped dot segment", line: "GET /open/%2e%2e/api/data"},
	{name: "an escaped slash", line: "GET /api%2Fdata"},
	{name: "a slash escaped twice", line: "GET /api%252Fdata"},
	{name: "an escaped letter", line: "GET /%61pi/data"},
	{name: "upper case", line: "GET /API/DATA"},
	{name: "a path parameter", line: "GET /api;x=y/data;z"},
	{name: "a backslash", line: `GET /api\data`},
	{name: "an escaped backslash", line: "GET /open%5c..%5capi/data"},
	{name: "an escaped NUL", line: "GET /api/data%00.css"},
	{name: "an escaped line break", line: "GET /api/data%0d%0aX-API-Key:%20x"},
	{name: "overlong UTF-8", line: "GET /open/%c0%ae%c0%ae/api/data"},
	{name: "bytes that are not UTF-8", line: "GET /api/\xff\xfe"},
	{name: "a fragment", line: "GET /api/data#/open"},
	{name: "an escaped fragment", line: "GET /api/data%23/open"},
	{name: "an escaped query", line: "GET /api/data%3Fopen"},
	{name: "an empty query", line: "GET /api/data?"},
	{name: "a query of a URL", line: "GET /api/data?url=http://{host}/open"},
	{name: "a broken escape", line: "GET /api/%zz", refused: true},
	{name: "a NUL", line: "GET /api/\x00", refused: true},
	{name: "no slash before", line: "GET api/data", refused: true},
	{name: "a target of one asterisk", line: "GET *"},
	{name: "very long", line: "GET /api/" + strings.Repeat("../x/", 2_000)},
	{name: "far too long", line: "GET /api/" + strings.Repeat("x", 50_000), refused: true},

	{name: "absolute-form", line: "GET http://{host}/api/data"},
	{name: "absolute-form of https", line: "GET https://{host}/api/data"},
	{name: "absolute-form without a path", line: "GET http://{host}"},
	{name: "absolute-form with another host", line: "GET http://open.example/api/data"},
	{name: "absolute-form with a user", line: "GET http://user:pass@{host}/api/data"},
	{name: "absolute-form without an authority", line: "GET http:/api/data"},
	{name: "a target that is opaque", line: "GET http:api/data", unread: true},
	{name: "another scheme", line: "GET file:///api/data"},

	{name: "another host", line: "GET /api/data", headers: "Host: open.example\r\n"},
	{name: "a host in upper case", line: "GET /api/data", headers: "Host: A.EXAMPLE\r\n"},
	{name: "a host with a dot after", line: "GET /api/data", headers: "Host: a.example.\r\n"},
	{name: "a host with another port", line: "GET /api/data", headers: "Host: a.example:1\r\n"},
	{name: "a host that is an IPv6 address", line: "GET /api/data", headers: "Host: [::1]\r\n"},
	{name: "a host of dots", line: "GET /api/data", headers: "Host: ...\r\n", failed: true},
	{name: "an empty host", line: "GET /api/data", headers: "Host: \r\n", failed: true},
	{name: "two hosts", line: "GET /api/data", headers: "Host: {host}\r\nHost: open.example\r\n", refused: true},
	{name: "a host with a path", line: "GET /api/data", headers: "Host: {host}/open\r\n", refused: true},

	{name: "X-Original-URL", line: "GET /open", headers: "X-Original-URL: /api/data\r\n"},
	{name: "X-Rewrite-URL", line: "GET /api/data", headers: "X-Rewrite-URL: /open\r\n"},
	{name: "X-Forwarded-Uri", line: "GET /api/data", headers: "X-Forwarded-Uri: /open\r\nX-Forwarded-Path: /open\r\nX-Forwarded-Prefix: /open\r\n"},
	{name: "X-Forwarded-Host", line: "GET /api/data", headers: "X-Forwarded-Host: open.example\r\nX-Host: open.example\r\nForwarded: for=127.0.0.1;host=open.example\r\n"},
	{name: "X-Forwarded-For", line: "GET /api/data", headers: "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nTrue-Client-IP: 127.0.0.1\r\n"},
	{name: "identity of its own", line: "GET /api/data", headers: "X-Account-Id: a\r\nX-Credential-Id: b\r\nX-Key-Id: c\r\nX-Key-Roles: api_keys:operator\r\n"},
	{name: "an upgrade", line: "GET /api/data", headers: "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"},
	{name: "an upgrade to h2c", line: "GET /api/data", headers: "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"},
	{name: "an event stream", line: "GET /api/data", headers: "Accept: text/event-stream\r\n"},
	{name: "gRPC", line: "POST /api.Data/Get", headers: "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\n"},
	{name: "a request inside of a body", line: "POST /api/data", headers: "Content-Length: 44\r\n", body: "GET /api/data HTTP/1.1\r\nHost: a.example\r\n\r\n\r\n"},
	{name: "two lengths", line: "POST /api/data", headers: "Content-Length: 2\r\nContent-Length: 3\r\n", body: "{}", refused: true},
	{name: "an unknown encoding", line: "POST /api/data", headers: "Transfer-Encoding: xchunked\r\n", body: "0\r\n\r\n", refused: true},
	{name: "a key in a trailer", line: "POST /api/data", headers: "Trailer: X-API-Key\r\nTransfer-Encoding: chunked\r\n", body: "1\r\nx\r\n0\r\nX-API-Key: {key}\r\n\r\n"},
	{name: "a header with a space before the colon", line: "GET /api/data", headers: "X-API-Key : {key}\r\n", refused: true},

	{name: "an empty key", line: "GET /api/data", headers: "X-API-Key: \r\n"},
	{name: "bearer without credentials", line: "GET /api/data", headers: "Authorization: Bearer\r\n"},
	{name: "a wrong key", line: "GET /api/data", headers: "X-API-Key: key_aaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb000000\r\n"},
	{name: "a good key and more", line: "GET /api/data", headers: "X-API-Key: {key}, {key}\r\n"},
	{name: "a good key twice", line: "GET /api/data", headers: "X-API-Key: {key}\r\nX-API-Key: {key}\r\n"},
	{name: "a good key as Basic", line: "GET /api/data", headers: "Authorization: Basic {key}\r\n"},
	{name: "a good key without a scheme", line: "GET /api/data", headers: "Authorization: {key}\r\n"},
	{name: "a good key for the proxy", line: "GET /api/data", headers: "Proxy-Authorization: Bearer {key}\r\n"},
	{name: "a good key in a header with underscores", line: "GET /api/data", headers: "X_API_Key: {key}\r\n"},
	{name: "a good key in a query that is no location", line: "GET /api/data?X-API-Key={key}&api_key={key}"},
	{name: "a good key in a cookie that is no location", line: "GET /api/data", headers: "Cookie: X-API-Key={key}\r\n"},
	{name: "a good key in the path", line: "GET /api/data/{key}"},

	{name: "the path of the document, spelled otherwise", line: "GET /keys-api//openapi.yaml"},
	{name: "a management route", line: "POST /keys-api/accounts", headers: "Content-Type: application/json\r\nContent-Length: 2\r\n", body: "{}"},
}

// site stands before all sites in the shapes below.
const siteOptions = "{\n admin {admin}\n persist_config off\n auto_https off\n grace_period 1s\n log {\n output discard\n }\n api_keys {\n store sqlite {store}\n }\n {servers}\n }\n"

// caddyfileShape is one way to write a site that is behind the gate. {gate} is
// the directive, and {name} and {block} its parts, for a matcher between them.
type caddyfileShape struct {
	name, servers, sites string
	// errorRoute says that an error route proxies and has no gate of its own.
	errorRoute bool
	// lossy says that Caddy loses the proxy without the gate.
	lossy bool
}

var caddyfileShapes = []caddyfileShape{
	{name: "a site", sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "the gate is written last", sites: "http://:{port} {\n reverse_proxy {upstream}\n {gate}\n }"},
	{name: "several sites", sites: "http://a.example:{port} {\n {gate}\n reverse_proxy {upstream}\n }\n http://127.0.0.1:{port}, http://*.example:{port} {\n {gate}\n reverse_proxy {upstream}\n }\n http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "handle", sites: "http://:{port} {\n handle /api/* {\n reverse_proxy {upstream}\n {gate}\n }\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{name: "handle of some paths, and an answer for the others", sites: "http://:{port} {\n handle /api/* {\n {gate}\n reverse_proxy {upstream}\n }\n respond open\n }"},
	{name: "handle behind a gate", sites: "http://:{port} {\n handle /api/* {\n reverse_proxy {upstream}\n }\n handle {\n reverse_proxy {upstream}\n }\n {gate}\n }"},
	{name: "handle_path", sites: "http://:{port} {\n handle_path /api/* {\n {gate}\n reverse_proxy {upstream}\n }\n handle_path /* {\n reverse_proxy {upstream}\n {gate}\n }\n }"},
	{name: "route", sites: "http://:{port} {\n route {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{name: "route with a path", sites: "http://:{port} {\n route /api/* {\n {gate}\n reverse_proxy {upstream}\n }\n route /* {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{name: "nested", sites: "http://:{port} {\n handle {\n route {\n handle_path /api/* {\n reverse_proxy {upstream}\n {gate}\n }\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n }\n }\n }"},
	{name: "a matcher of all paths", sites: "http://:{port} {\n {name} * {block}\n reverse_proxy {upstream}\n }"},
	{name: "a named matcher", sites: "http://:{port} {\n @guarded not path /never/*\n {name} @guarded {block}\n reverse_proxy @guarded {upstream}\n }"},
	{name: "two gates that share the paths", sites: "http://:{port} {\n @api path /api/*\n @other not path /api/*\n {name} @api {block}\n {name} @other {block}\n reverse_proxy {upstream}\n }"},
	{name: "two gates that share the methods", sites: "http://:{port} {\n @get method GET HEAD\n @other not method GET HEAD\n {name} @get {block}\n {name} @other {block}\n reverse_proxy {upstream}\n }"},
	{name: "a proxy with a matcher", sites: "http://:{port} {\n {gate}\n reverse_proxy /api/* {upstream}\n reverse_proxy {upstream}\n }"},
	{name: "a snippet", sites: "(gate) {\n {gate}\n }\n http://:{port} {\n import gate\n reverse_proxy {upstream}\n }"},
	{name: "a snippet with the site in it", sites: "(site) {\n handle {args[0]} {\n {gate}\n reverse_proxy {args[1]}\n }\n }\n http://:{port} {\n import site /api/* {upstream}\n import site /* {upstream}\n }"},
	{name: "a named route", sites: "&(guarded) {\n route {\n {gate}\n reverse_proxy {upstream}\n }\n }\n http://:{port} {\n invoke guarded\n }"},
	{name: "a gate in a named route", sites: "&(gate) {\n {gate}\n }\n http://:{port} {\n invoke gate\n reverse_proxy {upstream}\n }"},
	{name: "a gate in a named route with other directives", sites: "&(gate) {\n header X-A b\n {gate}\n encode\n }\n http://:{port} {\n invoke gate\n reverse_proxy {upstream}\n }"},
	{name: "a named route without a route block", sites: "&(guarded) {\n uri strip_prefix /api\n {gate}\n reverse_proxy {upstream}\n }\n http://:{port} {\n invoke guarded\n handle_errors {\n respond 404\n }\n }", lossy: true},
	{name: "strip_prefix before it", sites: "http://:{port} {\n uri strip_prefix /api\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "strip_prefix before it in a route", sites: "http://:{port} {\n route {\n uri strip_prefix /api\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{name: "a rewrite of all to one path", sites: "http://:{port} {\n rewrite * /one\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "a rewrite that adds a prefix", sites: "http://:{port} {\n rewrite * /keys-api{uri}\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "a rewrite of the path that climbs", sites: "http://:{port} {\n uri path_regexp /+ /\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "a rewrite by the proxy", sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream} {\n rewrite /v1{uri}\n }\n }"},
	{name: "try_files", sites: "http://:{port} {\n root * {dir}\n try_files {path} /index.html\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "forward_auth", sites: "http://:{port} {\n forward_auth {upstream} {\n uri /auth\n }\n {gate}\n respond open\n }"},
	{name: "headers of the request are set for the proxy", sites: "http://:{port} {\n request_header X-Seen caddy\n request_header -X-Forwarded-For\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "intercept", sites: "http://:{port} {\n {gate}\n intercept {\n @refused status 4xx\n handle_response @refused {\n reverse_proxy {upstream}\n }\n }\n reverse_proxy {upstream}\n }"},
	{name: "encode, header and request_body", sites: "http://:{port} {\n encode\n header X-A b\n request_body {\n max_size 1KB\n }\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "trusted proxies", servers: "servers {\n trusted_proxies static private_ranges\n client_ip_headers X-Forwarded-For\n }", sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "headers with underscores are let through", servers: "servers {\n expected_underscore_headers X_*\n }", sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "h2c", servers: "servers {\n protocols h1 h2 h2c\n }", sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{name: "an error route that proxies behind a gate", sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n handle_errors {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{name: "an error route that proxies", errorRoute: true, sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n handle_errors {\n reverse_proxy {upstream}\n }\n }"},
	{name: "an error route that proxies refusals", errorRoute: true, sites: "http://:{port} {\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n handle_errors 4xx 5xx {\n rewrite * /error\n reverse_proxy {upstream}\n }\n }"},
}

// load puts the shape behind the gate, or without one.
func (s caddyfileShape) load(t *testing.T, g *gateway, gated bool) {
	t.Helper()
	g.t, g.addr = t, freeAddr(t)           // the old listener may take connections for a while
	name, block := "header", "X-Gate none" // does nothing, wherever the gate can be
	if gated {
		name, block = "api_keys", "{\n dialect rest /keys-api\n }"
	}
	_, port, _ := net.SplitHostPort(g.addr)
	g.load(strings.NewReplacer("{gate}", name+" "+block, "{name}", name, "{block}", block, "{port}", port,
		"{servers}", s.servers).Replace(siteOptions + s.sites))
}

// TestPromise07WithoutAKeyNothingReachesTheUpstream asks in every shape of
// requests of every shape of Caddyfiles. The control asks the same of the same
// Caddyfiles without the gate: there it does reach the upstream.
func TestPromise07WithoutAKeyNothingReachesTheUpstream(t *testing.T) {
	settle(t)
	g := startWith(t, "", "")
	key := g.issue(keystore.Credential{}).Text
	accounts := g.countAccounts()
	for i, shape := range caddyfileShapes {
		t.Run(shape.name, func(t *testing.T) {
			shape.load(t, g, false)
			reached := 0
			for _, request := range requestShapes {
				g.raw(request.raw(g, key))
				got := len(g.upstream.taken())
				reached += min(got, 1)
				if want := !request.refused && !request.failed && !request.unread; i == 0 && (got > 0) != want {
					t.Errorf("control: %s: the upstream was reached %d times, want it %v", request.name, got, want)
				}
			}
			if reached < len(requestShapes)/3 && !shape.lossy {
				t.Errorf("control: only %d of %d requests reached the upstream", reached, len(requestShapes))
			}

			shape.load(t, g, true)
			for _, request := range requestShapes {
				if request.failed && shape.errorRoute {
					continue // see TestAnErrorRouteThatProxiesNeedsAGateOfItsOwn
				}
				answer := g.raw(request.raw(g, key))
				if n := len(g.upstream.taken()); n > 0 || strings.Contains(answer, "Via:") {
					t.Errorf("%s: the upstream was reached %d times: %.200s", request.name, n, answer)
				}
				if !request.refused && strings.HasPrefix(answer, "HTTP/1.1 5") {
					t.Errorf("%s: %.200s", request.name, answer)
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
		for _, shape := range caddyfileShapes {
			if shape.name != c.shape {
				continue
			}
			shape.load(t, g, true)
			if warned := len(ungatedErrorRoutes(g.web())) > 0; warned != c.reached {
				t.Errorf("%s: the start warns %v, want %v", c.shape, warned, c.reached)
			}
			for _, request := range requestShapes {
				if !request.failed {
					continue
				}
				g.raw(request.raw(g, ""))
				if n := len(g.upstream.taken()); (n > 0) != c.reached {
					t.Errorf("%s: %s: the upstream was reached %d times", c.shape, request.name, n)
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
