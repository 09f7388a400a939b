package attack

import (
	"fmt"
	"strings"
)

// Fields are requests that differ in their method, their host, and other headers.
func Fields() (requests []Request) {
	for _, m := range methods {
		requests = append(requests, Request{Name: fmt.Sprintf("method %.40q", m), Line: m + " /api/data"})
	}
	for _, h := range hosts {
		requests = append(requests, Request{Name: fmt.Sprintf("host %.60q", h), Line: "GET /api/data", Headers: h})
	}
	for _, h := range claims {
		requests = append(requests, Request{Name: fmt.Sprintf("header %.60q", h), Line: "GET /open", Headers: h + "\r\n"})
	}
	for _, name := range locators {
		for _, value := range []string{"/api/data", "/open", "http://open.example/open", "{host}"} {
			requests = append(requests, Request{Name: name + ": " + value, Line: "GET /open", Headers: name + ": " + value + "\r\n"})
		}
	}
	return requests
}

// methods are those that servers know, and those that none does.
var methods = append(strings.Fields(`
	GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT MKCALENDAR ACL LINK UNLINK
	PURGE BAN TRACK DEBUG QUERY M-SEARCH NOTIFY SUBSCRIBE INVOKE PRI get Get gET post options Options OPTIONs head trace connect
	X A !#$%&'*+-.^_|~ GET/ GE%54 GET, "GET" G\ET {method} FOO=BAR`),
	strings.Repeat("A", 31), strings.Repeat("A", 32), strings.Repeat("A", 33), strings.Repeat("O", 300), strings.Repeat("x", 5_000),
	"GET\x00", "GET\t", "G\xc3\x89T", "OPTIONS\x0b", "")

// hosts are whole lines; there is no other Host.
var hosts = []string{
	"Host: A.EXAMPLE\r\n", "Host: a.example.\r\n", "Host: a.example..\r\n", "Host: .a.example\r\n", "Host: a.example:80\r\n", "Host: a.example:0\r\n",
	"Host: a.example:99999\r\n", "Host: a.example:\r\n", "Host: :80\r\n", "Host: \r\n", "Host:\r\n", "Host:{host}\r\n", "Host:\t{host}\r\n", "host: {host}\r\n",
	"HOST: {host}\r\n", "Host: {host} \r\n", "Host: {host},open.example\r\n", "Host: {host} open.example\r\n", "Host: open.example\r\n",
	"Host: localhost\r\n", "Host: 127.0.0.1\r\n", "Host: 0x7f.1\r\n", "Host: 2130706433\r\n", "Host: [::1]\r\n", "Host: [::1]:80\r\n", "Host: [::ffff:127.0.0.1]\r\n",
	"Host: [::1%25lo]\r\n", "Host: ::1\r\n", "Host: []\r\n", "Host: ...\r\n", "Host: *\r\n", "Host: *.example\r\n", "Host: xn--a-ecp.example\r\n", "Host: \xc3\xa4.example\r\n",
	"Host: a_b.example\r\n", "Host: a%2eexample\r\n", "Host: {host}/open\r\n", "Host: {host}?a\r\n", "Host: {host}#a\r\n", "Host: a@{host}\r\n", "Host: {host}@a\r\n",
	"Host: http://{host}\r\n", "Host: {host}\\open\r\n", "Host: {http.request.host}\r\n", "Host: a\x00b\r\n", "Host: a\x7fb\r\n",
	"Host: {host}\r\nHost: {host}\r\n", "Host: {host}\r\nHost: open.example\r\n", "Host: open.example\r\nHost: {host}\r\n", "Host: {host}\r\nhost: open.example\r\n",
	"X-A: b\r\nHost: {host}\r\n", " Host: {host}\r\n", "Host : {host}\r\n", "Host:\r\n {host}\r\n", "Host: " + strings.Repeat("a.", 200) + "example\r\n",
}

// locators are headers in which some servers look for the URL or the host of a
// request.
var locators = []string{
	"X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Forwarded-Prefix", "X-Forwarded-Host", "X-Forwarded-Server",
	"X-Host", "X-HTTP-Host-Override", "X-Http-Destinationurl", "X-Proxy-Url", "X-Envoy-Original-Path", "X-Waws-Unencoded-Url", "X-Accel-Redirect", "X-Sendfile",
	"Destination", "Referer", "Forwarded", "Request-Uri", "Path", "Url", "Uri", "Base-Url", "Proxy", "Profile", "Redirect", "Client-Ip",
}

// claims are headers that say who asks, from where, and how to take the request.
var claims = []string{
	"X-HTTP-Method-Override: OPTIONS", "X-HTTP-Method: OPTIONS", "X-Method-Override: OPTIONS", "_method: OPTIONS",
	"X-HTTP-Method-Override: OPTIONS\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET",
	"Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization",
	"X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 10.0.0.1", "X-Real-IP: 127.0.0.1", "True-Client-IP: 127.0.0.1",
	"CF-Connecting-IP: 127.0.0.1", "X-Client-IP: ::1", "Forwarded: for=127.0.0.1;by=127.0.0.1;host=localhost", "X-Cluster-Client-IP: 127.0.0.1",
	"X-Forwarded-User: root", "X-Remote-User: root", "Remote-User: root", "X-Authenticated: true", "X-Auth-Request-User: root", "X-Internal: 1", "X-Debug: 1",
	"X-Account-Id: a\r\nX-Credential-Id: b\r\nX-Key-Id: c\r\nX-Key-Package: d\r\nX-Key-Roles: api_keys:operator",
	"X_Account_Id: a\r\nx.account.id: a\r\nX-ACCOUNT_ID: a", "Connection: close, X-API-Key", "Connection: Authorization", "Connection: X-Account-Id, Host",
	"Authorization: Basic YTpi", "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Bearer null", "Authorization: Bearer undefined",
	"Authorization: Bearer {key}, Bearer {key}", "Authorization: Bearer {key}\r\nAuthorization: Bearer {key}",
	"Authorization: {key}", "Authorization: Token {key}", "Authorization: Digest {key}", "Authorization: BearerX {key}", "Authorization: \"Bearer {key}\"",
	"Proxy-Authorization: Bearer {key}", "WWW-Authenticate: Bearer {key}", "X-API-Key: {key},", "X-API-Key: \"{key}\"", "X-API-Key: {key} x", "X-API-Key: {key};",
	"X-API-Key: {key}\r\nX-API-Key: x", "X-API-Key: x\r\nX-API-Key: {key}", "X-API-Key: {key}\r\nx-api-key: {key}", "X-API-Key: Bearer {key}",
	"X-API-Key: %6bey", "X-API-Key: =?UTF-8?B?{key}?=", "X_API_Key: {key}", "X.API.Key: {key}", "X-API-Key2: {key}", "XAPIKey: {key}", "X-API-Key[]: {key}",
	"X-API-Key:\r\n\t{key}\r\n {key}", "X-API-Key: \xff{key}", "X-API-Key: \x00", "X-API-Key: null", "X-API-Key: *", "X-API-Key: ' OR 1=1 --", "X-API-Key: %",
	"X-API-Key: key_aaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb000000", "X-API-Key: " + strings.Repeat("k", 512), "X-API-Key: " + strings.Repeat("k", 513),
	"X-API-Key: " + strings.Repeat("k", 9_000), "Cookie: X-API-Key={key}; api_key={key}; session={key}", "Cookie: $Version=1; X-API-Key={key}",
	"Sec-WebSocket-Protocol: bearer, {key}", "Apikey: {key}", "Api-Key: {key}", "X-Auth-Token: {key}", "X-Access-Token: {key}", "X-Amz-Security-Token: {key}",
	"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
	"Upgrade: TLS/1.2", "Accept: text/event-stream", "Content-Type: application/grpc\r\nTE: trailers", "Range: bytes=0-", "If-None-Match: *", "If-Modified-Since: x",
	"Max-Forwards: 0", "Via: 1.1 caddy", "Expect: 100-continue", "Expect: x", "TE: trailers, chunked", "Trailer: X-API-Key", "Keep-Alive: timeout=5", "Content-Encoding: gzip",
}
