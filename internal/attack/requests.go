package attack

import "strings"

// Request is one way to ask. {host} and {key} stand for the address of the site
// and a valid key.
type Request struct {
	Name string
	// Line is the request line without its version; Headers are whole lines. A
	// Host is added unless there is one.
	Line, Headers string
	Body          string
	// Refused says that the server answers it before any route, and hands it to
	// none; Failed that it hands it to error routes; Unread that the proxy sends
	// what the upstream can't read.
	Refused, Failed, Unread bool
}

// Text is the request as bytes on the wire.
func (r Request) Text(host, key string) string {
	version := " HTTP/1.1"
	if strings.Contains(r.Line, " HTTP/") {
		version = ""
	}
	hostLine := "Host: {host}\r\n"
	if strings.Contains(strings.ToLower("\n"+r.Headers), "\nhost:") {
		hostLine = ""
	}
	return Fill(r.Line+version+"\r\n"+hostLine+r.Headers+"Connection: close\r\n\r\n"+r.Body, host, key)
}

// Fill puts the address of the site and a key into a text.
func Fill(text, host, key string) string {
	return strings.NewReplacer("{host}", host, "{key}", key).Replace(text)
}

// Requests are ways to ask without a key, none of them a CORS preflight.
var Requests = []Request{
	{Name: "plain", Line: "GET /api/data"},
	{Name: "root", Line: "GET /"},
	{Name: "HEAD", Line: "HEAD /api/data"},
	{Name: "POST", Line: "POST /api/data", Headers: "Content-Length: 2\r\n", Body: "{}"},
	{Name: "PURGE", Line: "PURGE /api/data"},
	{Name: "a method in lower case", Line: "get /api/data"},
	{Name: "a method of 32 characters", Line: "GET" + strings.Repeat("T", 29) + " /api/data"},
	{Name: "a method of 33 characters", Line: "GET" + strings.Repeat("T", 30) + " /api/data", Failed: true},
	{Name: "TRACE", Line: "TRACE /api/data"},
	{Name: "CONNECT", Line: "CONNECT {host}"},
	{Name: "CONNECT with a path", Line: "CONNECT /api/data"},
	{Name: "HTTP/1.0", Line: "GET /api/data HTTP/1.0"},
	{Name: "HTTP/1.0 without a host", Line: "GET /api/data HTTP/1.0", Headers: "Host: \r\n"},
	{Name: "HTTP/0.9", Line: "GET /api/data HTTP/0.9", Refused: true},
	{Name: "HTTP/2.0 in the request line", Line: "GET /api/data HTTP/2.0", Refused: true},

	{Name: "OPTIONS", Line: "OPTIONS /api/data"},
	{Name: "OPTIONS of the server", Line: "OPTIONS *", Refused: true},
	{Name: "OPTIONS with Origin only", Line: "OPTIONS /api/data", Headers: "Origin: https://a.example\r\n"},
	{Name: "OPTIONS without Origin", Line: "OPTIONS /api/data", Headers: "Access-Control-Request-Method: GET\r\n"},
	{Name: "OPTIONS with an empty Origin", Line: "OPTIONS /api/data", Headers: "Origin: \r\nAccess-Control-Request-Method: GET\r\n"},
	{Name: "options in lower case", Line: "options /api/data", Headers: "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"},
	{Name: "GET that says it is a preflight", Line: "GET /api/data", Headers: "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"},
	{Name: "X-HTTP-Method-Override", Line: "GET /api/data", Headers: "X-HTTP-Method-Override: OPTIONS\r\nX-Method-Override: OPTIONS\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"},

	{Name: "two slashes before", Line: "GET //api/data"},
	{Name: "two slashes inside", Line: "GET /api//data"},
	{Name: "a slash after", Line: "GET /api/data/"},
	{Name: "a dot segment", Line: "GET /api/./data"},
	{Name: "a path that climbs", Line: "GET /open/../api/data"},
	{Name: "a path that climbs too far", Line: "GET /../../api/data"},
	{Name: "an escaped dot segment", Line: "GET /open/%2e%2e/api/data"},
	{Name: "an escaped slash", Line: "GET /api%2Fdata"},
	{Name: "a slash escaped twice", Line: "GET /api%252Fdata"},
	{Name: "an escaped letter", Line: "GET /%61pi/data"},
	{Name: "upper case", Line: "GET /API/DATA"},
	{Name: "a path parameter", Line: "GET /api;x=y/data;z"},
	{Name: "a backslash", Line: `GET /api\data`},
	{Name: "an escaped backslash", Line: "GET /open%5c..%5capi/data"},
	{Name: "an escaped NUL", Line: "GET /api/data%00.css"},
	{Name: "an escaped line break", Line: "GET /api/data%0d%0aX-API-Key:%20x"},
	{Name: "overlong UTF-8", Line: "GET /open/%c0%ae%c0%ae/api/data"},
	{Name: "bytes that are not UTF-8", Line: "GET /api/\xff\xfe"},
	{Name: "a fragment", Line: "GET /api/data#/open"},
	{Name: "an escaped fragment", Line: "GET /api/data%23/open"},
	{Name: "an escaped query", Line: "GET /api/data%3Fopen"},
	{Name: "an empty query", Line: "GET /api/data?"},
	{Name: "a query of a URL", Line: "GET /api/data?url=http://{host}/open"},
	{Name: "a broken escape", Line: "GET /api/%zz", Refused: true},
	{Name: "a NUL", Line: "GET /api/\x00", Refused: true},
	{Name: "no slash before", Line: "GET api/data", Refused: true},
	{Name: "a target of one asterisk", Line: "GET *"},
	{Name: "very long", Line: "GET /api/" + strings.Repeat("../x/", 2_000)},
	{Name: "far too long", Line: "GET /api/" + strings.Repeat("x", 50_000), Refused: true},

	{Name: "absolute-form", Line: "GET http://{host}/api/data"},
	{Name: "absolute-form of https", Line: "GET https://{host}/api/data"},
	{Name: "absolute-form without a path", Line: "GET http://{host}"},
	{Name: "absolute-form with another host", Line: "GET http://open.example/api/data"},
	{Name: "absolute-form with a user", Line: "GET http://user:pass@{host}/api/data"},
	{Name: "absolute-form without an authority", Line: "GET http:/api/data"},
	{Name: "a target that is opaque", Line: "GET http:api/data", Unread: true},
	{Name: "another scheme", Line: "GET file:///api/data"},

	{Name: "another host", Line: "GET /api/data", Headers: "Host: open.example\r\n"},
	{Name: "a host in upper case", Line: "GET /api/data", Headers: "Host: A.EXAMPLE\r\n"},
	{Name: "a host with a dot after", Line: "GET /api/data", Headers: "Host: a.example.\r\n"},
	{Name: "a host with another port", Line: "GET /api/data", Headers: "Host: a.example:1\r\n"},
	{Name: "a host that is an IPv6 address", Line: "GET /api/data", Headers: "Host: [::1]\r\n"},
	{Name: "a host of dots", Line: "GET /api/data", Headers: "Host: ...\r\n", Failed: true},
	{Name: "an empty host", Line: "GET /api/data", Headers: "Host: \r\n", Failed: true},
	{Name: "two hosts", Line: "GET /api/data", Headers: "Host: {host}\r\nHost: open.example\r\n", Refused: true},
	{Name: "a host with a path", Line: "GET /api/data", Headers: "Host: {host}/open\r\n", Refused: true},

	{Name: "X-Original-URL", Line: "GET /open", Headers: "X-Original-URL: /api/data\r\n"},
	{Name: "X-Rewrite-URL", Line: "GET /api/data", Headers: "X-Rewrite-URL: /open\r\n"},
	{Name: "X-Forwarded-Uri", Line: "GET /api/data", Headers: "X-Forwarded-Uri: /open\r\nX-Forwarded-Path: /open\r\nX-Forwarded-Prefix: /open\r\n"},
	{Name: "X-Forwarded-Host", Line: "GET /api/data", Headers: "X-Forwarded-Host: open.example\r\nX-Host: open.example\r\nForwarded: for=127.0.0.1;host=open.example\r\n"},
	{Name: "X-Forwarded-For", Line: "GET /api/data", Headers: "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nTrue-Client-IP: 127.0.0.1\r\n"},
	{Name: "identity of its own", Line: "GET /api/data", Headers: "X-Account-Id: a\r\nX-Credential-Id: b\r\nX-Key-Id: c\r\nX-Key-Roles: api_keys:operator\r\n"},
	{Name: "an upgrade", Line: "GET /api/data", Headers: "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"},
	{Name: "an upgrade to h2c", Line: "GET /api/data", Headers: "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"},
	{Name: "an event stream", Line: "GET /api/data", Headers: "Accept: text/event-stream\r\n"},
	{Name: "gRPC", Line: "POST /api.Data/Get", Headers: "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\n"},
	{Name: "a request inside of a body", Line: "POST /api/data", Headers: "Content-Length: 44\r\n", Body: "GET /api/data HTTP/1.1\r\nHost: a.example\r\n\r\n\r\n"},
	{Name: "two lengths", Line: "POST /api/data", Headers: "Content-Length: 2\r\nContent-Length: 3\r\n", Body: "{}", Refused: true},
	{Name: "an unknown encoding", Line: "POST /api/data", Headers: "Transfer-Encoding: xchunked\r\n", Body: "0\r\n\r\n", Refused: true},
	{Name: "a key in a trailer", Line: "POST /api/data", Headers: "Trailer: X-API-Key\r\nTransfer-Encoding: chunked\r\n", Body: "1\r\nx\r\n0\r\nX-API-Key: {key}\r\n\r\n"},
	{Name: "a header with a space before the colon", Line: "GET /api/data", Headers: "X-API-Key : {key}\r\n", Refused: true},

	{Name: "an empty key", Line: "GET /api/data", Headers: "X-API-Key: \r\n"},
	{Name: "bearer without credentials", Line: "GET /api/data", Headers: "Authorization: Bearer\r\n"},
	{Name: "a wrong key", Line: "GET /api/data", Headers: "X-API-Key: key_aaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb000000\r\n"},
	{Name: "a good key and more", Line: "GET /api/data", Headers: "X-API-Key: {key}, {key}\r\n"},
	{Name: "a good key twice", Line: "GET /api/data", Headers: "X-API-Key: {key}\r\nX-API-Key: {key}\r\n"},
	{Name: "a good key as Basic", Line: "GET /api/data", Headers: "Authorization: Basic {key}\r\n"},
	{Name: "a good key without a scheme", Line: "GET /api/data", Headers: "Authorization: {key}\r\n"},
	{Name: "a good key for the proxy", Line: "GET /api/data", Headers: "Proxy-Authorization: Bearer {key}\r\n"},
	{Name: "a good key in a header with underscores", Line: "GET /api/data", Headers: "X_API_Key: {key}\r\n"},
	{Name: "a good key in a query that is no location", Line: "GET /api/data?X-API-Key={key}&api_key={key}"},
	{Name: "a good key in a cookie that is no location", Line: "GET /api/data", Headers: "Cookie: X-API-Key={key}\r\n"},
	{Name: "a good key in the path", Line: "GET /api/data/{key}"},

	{Name: "the path of the document, spelled otherwise", Line: "GET /keys-api//openapi.yaml"},
	{Name: "a management route", Line: "POST /keys-api/accounts", Headers: "Content-Type: application/json\r\nContent-Length: 2\r\n", Body: "{}"},
}
