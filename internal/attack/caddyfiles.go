// Package attack is what is tried against the gate: ways to write a Caddyfile with
// a site behind it, and ways to ask that site. They are bytes, since clients that
// build requests would repair most of them.
package attack

import "strings"

// Caddyfile is one way to write a site that is behind the gate. {gate} is the
// directive, and {name} and {block} its parts, for a matcher between them.
type Caddyfile struct {
	Name, Servers, Sites string
	// ErrorRoute says that an error route proxies and has no gate of its own.
	ErrorRoute bool
	// Lossy says that Caddy loses the proxy without the gate.
	Lossy bool
}

// Write is the whole Caddyfile, with a directive in the place of the gate. {admin},
// {store}, {dir} and {upstream} are left to fill in.
func (c Caddyfile) Write(directive, block, port string) string {
	return strings.NewReplacer("{gate}", directive+" "+block, "{name}", directive, "{block}", block, "{port}", port,
		"{servers}", c.Servers).Replace(options + c.Sites)
}

// NoGate is a directive that can stand wherever the gate can, and does nothing.
const NoGate, NoGateBlock = "header", "X-Gate none"

// options stands before all sites.
const options = "{\n admin {admin}\n persist_config off\n auto_https off\n grace_period 1s\n log {\n output discard\n }\n api_keys {\n store sqlite {store}\n }\n {servers}\n }\n"

// Caddyfiles are the ways.
var Caddyfiles = []Caddyfile{
	{Name: "a site", Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "the gate is written last", Sites: "http://:{port} {\n reverse_proxy {upstream}\n {gate}\n }"},
	{Name: "several sites", Sites: "http://a.example:{port} {\n {gate}\n reverse_proxy {upstream}\n }\n http://127.0.0.1:{port}, http://*.example:{port} {\n {gate}\n reverse_proxy {upstream}\n }\n http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "handle", Sites: "http://:{port} {\n handle /api/* {\n reverse_proxy {upstream}\n {gate}\n }\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{Name: "handle of some paths, and an answer for the others", Sites: "http://:{port} {\n handle /api/* {\n {gate}\n reverse_proxy {upstream}\n }\n respond open\n }"},
	{Name: "handle behind a gate", Sites: "http://:{port} {\n handle /api/* {\n reverse_proxy {upstream}\n }\n handle {\n reverse_proxy {upstream}\n }\n {gate}\n }"},
	{Name: "handle_path", Sites: "http://:{port} {\n handle_path /api/* {\n {gate}\n reverse_proxy {upstream}\n }\n handle_path /* {\n reverse_proxy {upstream}\n {gate}\n }\n }"},
	{Name: "route", Sites: "http://:{port} {\n route {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{Name: "route with a path", Sites: "http://:{port} {\n route /api/* {\n {gate}\n reverse_proxy {upstream}\n }\n route /* {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{Name: "nested", Sites: "http://:{port} {\n handle {\n route {\n handle_path /api/* {\n reverse_proxy {upstream}\n {gate}\n }\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n }\n }\n }"},
	{Name: "a matcher of all paths", Sites: "http://:{port} {\n {name} * {block}\n reverse_proxy {upstream}\n }"},
	{Name: "a named matcher", Sites: "http://:{port} {\n @guarded not path /never/*\n {name} @guarded {block}\n reverse_proxy @guarded {upstream}\n }"},
	{Name: "two gates that share the paths", Sites: "http://:{port} {\n @api path /api/*\n @other not path /api/*\n {name} @api {block}\n {name} @other {block}\n reverse_proxy {upstream}\n }"},
	{Name: "two gates that share the methods", Sites: "http://:{port} {\n @get method GET HEAD\n @other not method GET HEAD\n {name} @get {block}\n {name} @other {block}\n reverse_proxy {upstream}\n }"},
	{Name: "a proxy with a matcher", Sites: "http://:{port} {\n {gate}\n reverse_proxy /api/* {upstream}\n reverse_proxy {upstream}\n }"},
	{Name: "a snippet", Sites: "(gate) {\n {gate}\n }\n http://:{port} {\n import gate\n reverse_proxy {upstream}\n }"},
	{Name: "a snippet with the site in it", Sites: "(site) {\n handle {args[0]} {\n {gate}\n reverse_proxy {args[1]}\n }\n }\n http://:{port} {\n import site /api/* {upstream}\n import site /* {upstream}\n }"},
	{Name: "a named route", Sites: "&(guarded) {\n route {\n {gate}\n reverse_proxy {upstream}\n }\n }\n http://:{port} {\n invoke guarded\n }"},
	{Name: "a gate in a named route", Sites: "&(gate) {\n {gate}\n }\n http://:{port} {\n invoke gate\n reverse_proxy {upstream}\n }"},
	{Name: "a gate in a named route with other directives", Sites: "&(gate) {\n header X-A b\n {gate}\n encode\n }\n http://:{port} {\n invoke gate\n reverse_proxy {upstream}\n }"},
	{Name: "a named route without a route block", Sites: "&(guarded) {\n uri strip_prefix /api\n {gate}\n reverse_proxy {upstream}\n }\n http://:{port} {\n invoke guarded\n handle_errors {\n respond 404\n }\n }", Lossy: true},
	{Name: "strip_prefix before it", Sites: "http://:{port} {\n uri strip_prefix /api\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "strip_prefix before it in a route", Sites: "http://:{port} {\n route {\n uri strip_prefix /api\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{Name: "a rewrite of all to one path", Sites: "http://:{port} {\n rewrite * /one\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "a rewrite that adds a prefix", Sites: "http://:{port} {\n rewrite * /keys-api{uri}\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "a rewrite of the path that climbs", Sites: "http://:{port} {\n uri path_regexp /+ /\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "a rewrite by the proxy", Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream} {\n rewrite /v1{uri}\n }\n }"},
	{Name: "try_files", Sites: "http://:{port} {\n root * {dir}\n try_files {path} /index.html\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "forward_auth", Sites: "http://:{port} {\n forward_auth {upstream} {\n uri /auth\n }\n {gate}\n respond open\n }"},
	{Name: "headers of the request are set for the proxy", Sites: "http://:{port} {\n request_header X-Seen caddy\n request_header -X-Forwarded-For\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "intercept", Sites: "http://:{port} {\n {gate}\n intercept {\n @refused status 4xx\n handle_response @refused {\n reverse_proxy {upstream}\n }\n }\n reverse_proxy {upstream}\n }"},
	{Name: "encode, header and request_body", Sites: "http://:{port} {\n encode\n header X-A b\n request_body {\n max_size 1KB\n }\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "trusted proxies", Servers: "servers {\n trusted_proxies static private_ranges\n client_ip_headers X-Forwarded-For\n }", Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "headers with underscores are let through", Servers: "servers {\n expected_underscore_headers X_*\n }", Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "h2c", Servers: "servers {\n protocols h1 h2 h2c\n }", Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "an error route that proxies behind a gate", Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n handle_errors {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{Name: "an error route that proxies", ErrorRoute: true, Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream}\n handle_errors {\n reverse_proxy {upstream}\n }\n }"},
	{Name: "an error route that proxies refusals", ErrorRoute: true, Sites: "http://:{port} {\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n handle_errors 4xx 5xx {\n rewrite * /error\n reverse_proxy {upstream}\n }\n }"},
	{Name: "map", Sites: "http://:{port} {\n map {path} {open} {\n /open* no\n default yes\n }\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "vars", Sites: "http://:{port} {\n vars guarded yes\n @guarded vars guarded yes\n {name} @guarded {block}\n reverse_proxy {upstream}\n }"},
	{Name: "two gates by expressions", Sites: "http://:{port} {\n @api path_regexp ^/api\n @other not path_regexp ^/api\n {name} @api {block}\n {name} @other {block}\n reverse_proxy {upstream}\n }"},
	{Name: "two gates by hosts", Sites: "http://:{port} {\n @a host a.example open.example\n @b not host a.example open.example\n {name} @a {block}\n {name} @b {block}\n reverse_proxy {upstream}\n }"},
	{Name: "two gates by headers", Sites: "http://:{port} {\n @a header X-Forwarded-Uri *\n @b not header X-Forwarded-Uri *\n {name} @a {block}\n {name} @b {block}\n reverse_proxy {upstream}\n }"},
	{Name: "handle by hosts", Sites: "http://:{port} {\n @a host a.example\n handle @a {\n {gate}\n reverse_proxy {upstream}\n }\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{Name: "the method is rewritten", Sites: "http://:{port} {\n method POST\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "uri replace and strip_suffix", Sites: "http://:{port} {\n uri replace /open /api\n uri strip_suffix .json\n uri query -a\n {gate}\n reverse_proxy {upstream}\n }"},
	{Name: "strip_prefix after it", Sites: "http://:{port} {\n route {\n {gate}\n uri strip_prefix /api\n reverse_proxy {upstream}\n }\n }"},
	{Name: "handle_path of another depth", Sites: "http://:{port} {\n route {\n {gate}\n handle_path /api/* {\n rewrite * /v2{uri}\n reverse_proxy {upstream}\n }\n handle {\n reverse_proxy {upstream}\n }\n }\n }"},
	{Name: "try_files in a route", Sites: "http://:{port} {\n root * {dir}\n route {\n try_files {path} {path}/ /index.html?{query}\n {gate}\n reverse_proxy {upstream}\n }\n }"},
	{Name: "an error directive", Sites: "http://:{port} {\n error /open* 403\n {gate}\n reverse_proxy {upstream}\n handle_errors {\n respond 403\n }\n }"},
	{Name: "a named route in a handle", Sites: "&(guarded) {\n route {\n {gate}\n reverse_proxy {upstream}\n }\n }\n http://:{port} {\n handle /api/* {\n invoke guarded\n }\n handle {\n invoke guarded\n }\n }"},
	{Name: "a gate in a gate", Sites: "http://:{port} {\n {gate}\n handle {\n {gate}\n reverse_proxy {upstream}\n }\n }"},
}

// BackendOnly are those before which only a [Backend] stands: other servers wait
// for more of some requests.
var BackendOnly = []Caddyfile{
	{Name: "a response that is handled", Sites: "http://:{port} {\n {gate}\n reverse_proxy {upstream} {\n @missing status 404\n handle_response @missing {\n respond 404\n }\n }\n }"},
	{Name: "FastCGI", Sites: "http://:{port} {\n root * {dir}\n {gate}\n reverse_proxy {upstream} {\n transport fastcgi\n }\n }"},
}
