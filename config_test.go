package apikeys

import (
	"fmt"
	"strings"
	"testing"
)

// wrong is a configuration that must be refused, and how.
type wrong struct {
	name string
	// global is the block of the global option, block that of the directive.
	global, block string
	// line is that of the Caddyfile, after its template, on which the error must
	// point; 0 if it is found only when all is known.
	line int
	// says are what the error must contain: where it is, what is wrong, and what
	// is allowed.
	says []string
}

// The first lines of the blocks in wrongTemplate, where most rows go wrong.
const (
	wrongTemplate = "{\n\tapi_keys {\n\t\tstore sqlite {store}\n%s\n\t}\n}\n:8080 {\n\trespond ok\n\tapi_keys {\n%s\n\t}\n}\n"
	globalLine    = 4
	blockLine     = 10
)

var wrongCaddyfiles = []wrong{
	// The directive.
	{"unknown subdirective", "", "alow all", blockLine, []string{"api_keys", `"alow"`, "use one of: dialect, from, require"}},
	{"a global option in a site", "", "store sqlite", blockLine, []string{"api_keys", `"store"`, "use one of: dialect"}},
	{"subdirectives are lower case", "", "FROM bearer", blockLine, []string{`"FROM"`, "from"}},
	{"a block where none belongs", "", "forward_key {\n}", blockLine, []string{"forward_key takes no block", "remove"}},

	{"dialect without a name", "", "dialect", blockLine, []string{"dialect", "missing", "use: dialect <name> [<base path>]", "rest"}},
	{"unknown dialect", "", "dialect soap", blockLine, []string{"dialect", `"soap"`, "use one of:", "rest"}},
	{"dialect sarus without mail", "", "dialect sarus /v1", 0, []string{"dialect sarus", "no mail server", "api_keys { mail { smtp <host:port>"}},
	{"dialect sarus with an option it does not know", "", "dialect sarus {\noverlap 1h\n}", blockLine + 1, []string{"dialect sarus", `"overlap"`, "use one of: client_limit, package, throttle, uniform"}},
	{"dialect adyen with a role of several words", "", "dialect adyen {\nrole Management API\n}", blockLine + 1, []string{"dialect adyen: role", "got 2 arguments", "use: role <name>", "put a text with spaces in quotes"}},
	{"dialect sarus with an option that is wrong", "", "dialect sarus {\nclient_limit many\n}", blockLine + 1, []string{"dialect sarus: client_limit", `"many"`}},
	{"dialect with two base paths", "", "dialect rest /a /b", blockLine, []string{"dialect rest", `"/b"`, "base path only"}},
	{"dialect with an option it does not know", "", "dialect rest {\nopenapi off\n}", blockLine + 1, []string{"dialect rest", `"openapi"`, "no options"}},
	{"dialect with base and an option it does not know", "", "dialect rest /k {\nopenapi off\n}", blockLine + 1, []string{"dialect rest", `"openapi"`, "no options"}},
	{"base path without a slash before", "", "dialect rest keys-api", blockLine, []string{"dialect base path", `"keys-api"`, "begins with '/'"}},
	{"base path with two slashes after", "", "dialect rest /keys-api//", blockLine, []string{"dialect base path", `"/keys-api//"`, "clean path"}},
	{"base path of two slashes", "", "dialect rest //", blockLine, []string{"dialect base path", `"//"`, "clean path"}},
	{"base path of three slashes", "", "dialect rest ///", blockLine, []string{"dialect base path", `"///"`, "clean path"}},
	{"base path with two slashes before", "", "dialect rest //keys-api", blockLine, []string{"dialect base path", `"//keys-api"`, "clean path"}},
	{"base path with two slashes inside", "", "dialect rest /a//b", blockLine, []string{"dialect base path", `"/a//b"`, "single slashes"}},
	{"base path with a dot segment", "", "dialect rest /a/./b", blockLine, []string{"dialect base path", `"/a/./b"`, "clean path"}},
	{"base path that climbs", "", "dialect rest /a/../b", blockLine, []string{"dialect base path", `"/a/../b"`, "clean path"}},
	{"base path with a wildcard", "", "dialect rest /keys/*", blockLine, []string{"dialect base path", `"/keys/*"`, "letters, digits"}},
	{"base path with a query", "", "dialect rest /keys?a=1", blockLine, []string{"dialect base path", `"/keys?a=1"`, "letters, digits"}},
	{"base path with a fragment", "", "dialect rest /keys#a", blockLine, []string{"dialect base path", `"/keys#a"`, "letters, digits"}},
	{"base path that is escaped", "", "dialect rest /k%65ys", blockLine, []string{"dialect base path", `"/k%65ys"`, "letters, digits"}},
	{"base path with a space", "", `dialect rest "/keys api"`, blockLine, []string{"dialect base path", `"/keys api"`, "letters, digits"}},
	{"base path with a placeholder", "", "dialect rest /{http.request.host}", blockLine, []string{"dialect base path", `"/{http.request.host}"`, "letters, digits"}},
	{"base path with a backslash", "", `dialect rest "/a\b"`, blockLine, []string{"dialect base path", "letters, digits"}},
	{"base path with a path parameter", "", "dialect rest /a;b", blockLine, []string{"dialect base path", `"/a;b"`, "letters, digits"}},
	{"base path that clients must escape", "", "dialect rest /clés", blockLine, []string{"dialect base path", `"/clés"`, "letters, digits"}},
	{"base path with a quote", "", "dialect rest `/a\"b`", blockLine, []string{"dialect base path", "letters, digits"}},
	{"dialect twice at the root", "", "dialect rest\ndialect rest /", 0, []string{"dialect rest /", "twice", "another base path"}},
	{"dialect twice at a base path", "", "dialect rest /k\ndialect rest /k/", 0, []string{"dialect rest /k/", "twice", "another base path"}},

	{"from without a place", "", "from", blockLine, []string{"from", "got 0 arguments", "bearer, header <name>, query <name> or cookie <name>"}},
	{"from with too much", "", "from header A B", blockLine, []string{"from", "got 3 arguments", "header <name>"}},
	{"from an unknown place", "", "from body key", blockLine, []string{"from", `"body"`, "bearer, header <name>, query <name> or cookie <name>"}},
	{"from bearer with a name", "", "from bearer token", blockLine, []string{"from bearer", `"token"`, "takes no name"}},
	{"from header without a name", "", "from header", blockLine, []string{"from header", `""`, "such as X-API-Key"}},
	{"from a header with an underscore", "", "from header X_API_KEY", blockLine, []string{"from header", `"X_API_KEY"`, "letters, digits and '-'"}},
	{"from a header with a dot", "", "from header x.api.key", blockLine, []string{"from header", `"x.api.key"`, "letters, digits and '-'"}},
	{"from a header with a space", "", `from header "X Key"`, blockLine, []string{"from header", `"X Key"`, "letters, digits and '-'"}},
	{"from a header with a colon", "", "from header X-Key:", blockLine, []string{"from header", `"X-Key:"`, "letters, digits and '-'"}},
	{"from Authorization", "", "from header authorization", blockLine, []string{"from header Authorization", "use bearer"}},
	{"from Cookie", "", "from header COOKIE", blockLine, []string{"from header Cookie", "use cookie <name>"}},
	{"from Host", "", "from header Host", blockLine, []string{"from header Host", "use another"}},
	{"from Connection", "", "from header connection", blockLine, []string{"from header connection", "use another"}},
	{"from query without a name", "", "from query", blockLine, []string{"from query", `""`, "parameter name"}},
	{"from a query with a separator", "", "from query a&b", blockLine, []string{"from query", `"a&b"`, "without '&'"}},
	{"from a query with an escape", "", "from query a%62", blockLine, []string{"from query", `"a%62"`, "without '&'"}},
	{"from cookie without a name", "", "from cookie", blockLine, []string{"from cookie", `""`, "cookie name"}},
	{"from a cookie with a semicolon", "", "from cookie a;b", blockLine, []string{"from cookie", `"a;b"`, "cookie name"}},
	{"from bearer twice", "", "from bearer\nfrom bearer", blockLine + 1, []string{"from bearer", "twice", "once"}},
	{"from a query twice", "", "from query k\nfrom bearer\nfrom query k", blockLine + 2, []string{"from query k", "twice", "once"}},
	{"from a header twice in two spellings", "", "from header X-API-Key\nfrom header x-api-key", blockLine + 1, []string{"from header x-api-key", "twice", "once"}},

	{"require without a demand", "", "require", blockLine, []string{"require", "missing", "require any, require package <name...> or require role <name...>"}},
	{"require an unknown demand", "", "require owner Bob", blockLine, []string{"require owner Bob", "require any, require package"}},
	{"require package without a name", "", "require package", blockLine, []string{"require package", "<name...>"}},
	{"require role without a name", "", "require role", blockLine, []string{"require role", "<name...>"}},
	{"require any with a name", "", "require any Coverage", blockLine, []string{"require any Coverage", "use: require any"}},
	{"require any beside a role", "", "require any\nrequire role a", 0, []string{"require any", "can't be combined", "remove"}},
	{"require any twice", "", "require any\nrequire any", 0, []string{"require any", "can't be combined", "remove"}},
	{"require a package where none is declared", "", "require package Coverage", 0, []string{`require package "Coverage"`, "not declared", "api_keys { package Coverage }"}},
	{"require a package that is not declared", "package Account", "require package Coverage", 0, []string{`require package "Coverage"`, "not declared", "declared: Account"}},
	{"packages are case-sensitive", "package Coverage\npackage Account", "require package coverage", 0, []string{`require package "coverage"`, "declared: Coverage, Account"}},
	{"require is missing though packages are declared", "package Coverage", "", 0, []string{"require is missing", "declared: Coverage", "require any"}},
	{"require is missing where anonymous are allowed", "package Coverage", "anonymous allow", 0, []string{"require is missing", "declared: Coverage", "require any"}},
	{"require a role with a comma", "", "require role a,b", blockLine, []string{`require role "a,b"`, "without comma"}},
	{"require an empty role", "", `require role ""`, blockLine, []string{`require role ""`, "1 to 128 printable characters"}},
	{"require a reserved role that is none", "", "require role api_keys:admin", blockLine, []string{`require role "api_keys:admin"`, "api_keys:operator", "api_keys:self"}},

	{"enforce without a word", "", "enforce", blockLine, []string{"enforce", "got 0 arguments", "use: enforce off"}},
	{"enforce with another word", "", "enforce on", blockLine, []string{"enforce", `"on"`, `"off"`, "leave enforce out"}},
	{"enforce with two words", "", "enforce off now", blockLine, []string{"enforce", "got 2 arguments", "use: enforce off"}},
	{"enforce twice", "", "enforce off\nenforce off", blockLine + 1, []string{"enforce", "twice", "once"}},
	{"enforce off with require", "", "enforce off\nrequire any", 0, []string{"enforce off", "remove", "require"}},
	{"enforce off with anonymous", "", "anonymous allow\nenforce off", 0, []string{"enforce off", "remove", "anonymous"}},
	{"enforce off with preflight", "", "enforce off\npreflight enforce", 0, []string{"enforce off", "remove", "preflight"}},
	{"anonymous without a word", "", "anonymous", blockLine, []string{"anonymous", "got 0 arguments", "use: anonymous allow"}},
	{"anonymous with another word", "", "anonymous deny", blockLine, []string{"anonymous", `"deny"`, `"allow"`}},
	{"anonymous twice", "", "anonymous allow\nanonymous allow", blockLine + 1, []string{"anonymous", "twice"}},
	{"preflight without a word", "", "preflight", blockLine, []string{"preflight", "use: preflight enforce"}},
	{"preflight with another word", "", "preflight pass", blockLine, []string{"preflight", `"pass"`, `"enforce"`}},
	{"preflight twice", "", "preflight enforce\npreflight enforce", blockLine + 1, []string{"preflight", "twice"}},

	{"identity_header without a name", "", "identity_header account_id", blockLine, []string{"identity_header", "got 1 arguments", "account_id|credential_id|key_id|package|roles <name>"}},
	{"identity_header with two names", "", "identity_header account_id A B", blockLine, []string{"identity_header", "got 3 arguments"}},
	{"identity_header of an unknown field", "", "identity_header email X-Email", blockLine, []string{"identity_header", `"email"`, "account_id, credential_id, key_id, package, roles"}},
	{"identity_header with an underscore", "", "identity_header account_id X_User", blockLine, []string{"identity_header account_id", `"X_User"`, "letters, digits and '-'"}},
	{"identity_header with a dot", "", "identity_header account_id X.User", blockLine, []string{"identity_header account_id", `"X.User"`, "letters, digits and '-'"}},
	{"identity_header that is too long", "", "identity_header account_id X-" + strings.Repeat("a", 62), blockLine, []string{"identity_header account_id", "at most 63"}},
	{"identity_header Authorization", "", "identity_header account_id authorization", blockLine, []string{"identity_header account_id", "authorization", "use another"}},
	{"identity_header Cookie", "", "identity_header roles Cookie", blockLine, []string{"identity_header roles", "Cookie", "use another"}},
	{"identity_header Host", "", "identity_header roles host", blockLine, []string{"identity_header roles", "host", "use another"}},
	{"identity_header that the proxy drops", "", "identity_header roles Proxy-Authorization", blockLine, []string{"identity_header roles", "Proxy-Authorization", "use another"}},
	{"identity_header that the proxy writes", "", "identity_header roles X-Forwarded-For", blockLine, []string{"identity_header roles", "X-Forwarded-For", "use another"}},
	{"identity_header of a field twice", "", "identity_header key_id A\nidentity_header key_id B", blockLine + 1, []string{"identity_header key_id", "twice"}},
	{"two identity headers of one name", "", "identity_header key_id X-Who\nidentity_header account_id x-who", 0, []string{"identity_header key_id", "X-Who", "use another"}},
	{"identity header with the default name of another", "", "identity_header account_id X-Key-Id", 0, []string{"identity_header key_id", "X-Key-Id", "use another"}},
	{"identity header in the header of the key", "", "identity_header account_id X-API-Key", 0, []string{"identity_header account_id", "X-Api-Key", "use another"}},
	{"the key in a header of identity", "", "from header X-Account-ID", 0, []string{"identity_header account_id", "X-Account-Id", "use another"}},
	{"the key in a header of identity that is off", "", "from header X-Account-ID\nidentity_headers off", 0, []string{"identity_header account_id", "X-Account-Id", "use another"}},
	{"identity_headers with another word", "", "identity_headers on", blockLine, []string{"identity_headers", `"on"`, `"off"`}},
	{"identity_headers without a word", "", "identity_headers", blockLine, []string{"identity_headers", "use: identity_headers off"}},
	{"identity_headers twice", "", "identity_headers off\nidentity_headers off", blockLine + 1, []string{"identity_headers", "twice"}},
	{"identity_headers off beside identity_header", "", "identity_headers off\nidentity_header key_id A", 0, []string{"identity_headers off", "remove", "identity_header"}},

	{"forward_key with a word", "", "forward_key on", blockLine, []string{"forward_key", `"on"`, "no argument"}},
	{"forward_key twice", "", "forward_key\nforward_key", blockLine + 1, []string{"forward_key", "twice"}},
	{"errors without a dialect", "", "errors", blockLine, []string{"errors", "got 0 arguments", "use: errors <dialect>"}},
	{"errors with an empty name", "", `errors ""`, blockLine, []string{"errors", "empty", "use: errors <dialect>"}},
	{"errors with two", "", "errors rest rest", blockLine, []string{"errors", "got 2 arguments"}},
	{"errors of an unknown dialect", "", "errors soap", blockLine, []string{"errors", `"soap"`, "use one of:", "rest"}},
	{"errors twice", "", "errors rest\nerrors rest", blockLine + 1, []string{"errors", "twice"}},

	// The global option.
	{"unknown global subdirective", "stoer sqlite", "", globalLine, []string{"api_keys", `"stoer"`, "use one of: store, cache_size"}},
	{"a subdirective of a site in the global option", "from bearer", "", globalLine, []string{"api_keys", `"from"`, "use one of: store"}},
	{"store twice", "store sqlite a.db", "", globalLine, []string{"store", "twice", "once"}},

	{"cache_size without a size", "cache_size", "", globalLine, []string{"cache_size", "got 0 arguments", "use: cache_size <bytes>"}},
	{"cache_size with two", "cache_size 1 MiB", "", globalLine, []string{"cache_size", "got 2 arguments"}},
	{"cache_size that is no size", "cache_size big", "", globalLine, []string{"cache_size", `"big"`, "such as 64MiB"}},
	{"cache_size below zero", "cache_size -1", "", globalLine, []string{"cache_size", `"-1"`, "such as 64MiB"}},
	{"cache_size of nothing", "cache_size 0", "", globalLine, []string{"cache_size", `"0"`, "such as 64MiB"}},
	{"cache_size beyond measure", "cache_size 10EiB", "", globalLine, []string{"cache_size", `"10EiB"`, "such as 64MiB"}},
	{"cache_size that is too small", "cache_size 64kB", "", globalLine, []string{"cache_size", "64000", "at least 65536"}},
	{"cache_size that is too large", "cache_size 2TiB", "", globalLine, []string{"cache_size", "2199023255552", "at most 1099511627776"}},
	{"cache_size twice", "cache_size 1MiB\ncache_size 1MiB", "", globalLine + 1, []string{"cache_size", "twice"}},

	{"key_prefix without a prefix", "key_prefix", "", globalLine, []string{"key_prefix", "use: key_prefix <prefix>"}},
	{"key_prefix that is empty", `key_prefix ""`, "", globalLine, []string{"key_prefix", "empty"}},
	{"key_prefix in upper case", "key_prefix KEY", "", globalLine, []string{"key_prefix", `"KEY"`, "lower-case letter"}},
	{"key_prefix of one letter", "key_prefix k", "", globalLine, []string{"key_prefix", `"k"`, "1 to 15"}},
	{"key_prefix that is too long", "key_prefix abcdefghijklmnopq", "", globalLine, []string{"key_prefix", `"abcdefghijklmnopq"`, "1 to 15"}},
	{"key_prefix with an underscore", "key_prefix a_b", "", globalLine, []string{"key_prefix", `"a_b"`, "lower-case letters or digits"}},
	{"key_prefix that begins with a digit", "key_prefix 1a", "", globalLine, []string{"key_prefix", `"1a"`, "lower-case letter"}},

	{"pepper without a secret", "pepper", "", globalLine, []string{"pepper", "use: pepper <secret>"}},
	{"pepper of two words", "pepper salt and", "", globalLine, []string{"pepper", "got 2 arguments", "put a text with spaces in quotes"}},
	{"pepper that is too short", "pepper paprika", "", 0, []string{"pepper", "7 characters", "at least 16"}},
	{"pepper in a variable that is not set", "pepper {env.NOBODY_SET_THIS}", "", 0, []string{"pepper", "{env.NOBODY_SET_THIS}", "set it"}},
	{"pepper in a file that does not exist", "pepper {file./nonexistent/pepper}", "", 0, []string{"pepper", "{file./nonexistent/pepper}", "set it"}},
	{"pepper whose placeholder lacks a brace", "pepper {env.PAPRIKA_AND_MORE", "", 0, []string{"pepper", "{env.<name>}", "{file.<path>}"}},
	{"pepper with braces", "pepper paprika{chili}cayenne", "", 0, []string{"pepper", "{env.<name>}", "{file.<path>}"}},
	{"pepper of a placeholder and more", "pepper {env.KEYS_PEPPER}-paprika", "", 0, []string{"pepper: it has braces", "{env.<name>}", "alone"}},
	{"pepper with a brace that closes nothing", "pepper paprika-and-chili}", "", 0, []string{"pepper: it has braces", "without braces"}},
	{"recoverable without a file", "recoverable", "", globalLine, []string{"recoverable", "use: recoverable <file>"}},

	{"package without a name", "package", "", globalLine, []string{"package", "use: package <name>"}},
	{"package with two names", "package A B", "", globalLine, []string{"package", "got 2 arguments"}},
	{"package with a space", `package "A B"`, "require any", globalLine, []string{"package", `"A B"`, "1 to 64 letters"}},
	{"package with a comma", "package A,B", "require any", globalLine, []string{"package", `"A,B"`, "1 to 64 letters"}},
	{"package whose name is too long", "package " + strings.Repeat("a", 65), "require any", globalLine, []string{"package", "1 to 64 letters"}},
	{"package declared twice", "package A\npackage A", "require any", globalLine + 1, []string{"package A", "twice", "once"}},
	{"unknown option of a package", "package A {\nlifetime 1d\n}", "", globalLine + 1, []string{"package A: unknown option", `"lifetime"`, "use one of: format, prefix, roles, expires_in, max_keys, management"}},
	{"option of a package twice", "package A {\nmanagement\nmanagement\n}", "", globalLine + 2, []string{"package A", "management", "twice"}},
	{"format without a word", "package A {\nformat\n}", "", globalLine + 1, []string{"format", "token", "uuid", "alphanumeric <length>"}},
	{"unknown format", "package A {\nformat hex\n}", "", globalLine + 2, []string{"package A", "format", `"hex"`, "token, uuid or alphanumeric"}},
	{"format uuid with a length", "package A {\nformat uuid 36\n}", "", globalLine + 1, []string{"format uuid 36", "alphanumeric <length>"}},
	{"format alphanumeric without a length", "package A {\nformat alphanumeric\n}", "", globalLine + 1, []string{"format alphanumeric", "alphanumeric <length>"}},
	{"format alphanumeric with a word", "package A {\nformat alphanumeric long\n}", "", globalLine + 1, []string{"format alphanumeric", `"long"`, "alphanumeric <length>"}},
	{"format alphanumeric that is too short", "package A {\nformat alphanumeric 21\n}", "", globalLine + 2, []string{"package A", "format alphanumeric 21", "22 to 256"}},
	{"format alphanumeric that is too long", "package A {\nformat alphanumeric 257\n}", "", globalLine + 2, []string{"package A", "format alphanumeric 257", "22 to 256"}},
	{"prefix in upper case", "package A {\nprefix Cov\n}", "", globalLine + 2, []string{"package A", "prefix", `"Cov"`, "lower-case letter"}},
	{"prefix of a format that has none", "package A {\nformat uuid\nprefix cov\n}", "", globalLine + 3, []string{"package A", "prefix", `"cov"`, "only format token"}},
	{"roles without a role", "package A {\nroles\n}", "", globalLine + 1, []string{"roles", "missing", "use: roles <role...>"}},
	{"role with a comma", "package A {\nroles a,b\n}", "", globalLine + 2, []string{"package A", "role", `"a,b"`, "without comma"}},
	{"reserved role that is none", "package A {\nroles api_keys:admin\n}", "", globalLine + 2, []string{"package A", `"api_keys:admin"`, "api_keys:operator", "api_keys:self"}},
	{"expires_in without a duration", "package A {\nexpires_in\n}", "", globalLine + 1, []string{"expires_in", "use: expires_in <duration>"}},
	{"expires_in without a unit", "package A {\nexpires_in 90\n}", "", globalLine + 1, []string{"expires_in", `"90"`, "12h or 90d"}},
	{"expires_in of nothing", "package A {\nexpires_in 0s\n}", "", globalLine + 1, []string{"expires_in", `"0s"`, "positive"}},
	{"expires_in below zero", "package A {\nexpires_in -1h\n}", "", globalLine + 1, []string{"expires_in", `"-1h"`, "positive"}},
	{"expires_in of less than a second", "package A {\nexpires_in 10ms\n}", "", globalLine + 2, []string{"package A", "expires_in 10ms", "at least 1s"}},
	{"max_keys without a number", "package A {\nmax_keys\n}", "", globalLine + 1, []string{"max_keys", "use: max_keys <n>"}},
	{"max_keys that is no number", "package A {\nmax_keys many\n}", "", globalLine + 1, []string{"package A: max_keys", `"many"`, "1 or more"}},
	{"max_keys of none", "package A {\nmax_keys 0\n}", "", globalLine + 1, []string{"max_keys", `"0"`, "1 or more"}},
	{"max_keys below zero", "package A {\nmax_keys -3\n}", "", globalLine + 1, []string{"max_keys", `"-3"`, "1 or more"}},
	{"management with a word", "package A {\nmanagement on\n}", "", globalLine + 1, []string{"management", `"on"`, "no argument"}},

	{"mail with an argument", "mail example.com", "", globalLine, []string{"mail", `"example.com"`, "a block only"}},
	{"mail twice", "mail {\nsmtp a:25\n}\nmail {\nsmtp a:25\n}", "", globalLine + 3, []string{"mail", "twice", "once"}},
	{"unknown option of mail", "mail {\nserver a:25\n}", "", globalLine + 1, []string{"mail", `"server"`, "use one of: smtp, tls, username, password, from, subject, template"}},
	{"option of mail twice", mailWith("smtp b:25"), "", globalLine + 3, []string{"mail", "smtp", "twice"}},
	{"mail without a server", "mail {\nfrom a@b.example\n}", "", 0, []string{"mail: smtp is missing", "smtp <host:port>"}},
	{"mail without a block", "mail", "", 0, []string{"mail: smtp is missing", "smtp <host:port>"}},
	{"mail without a sender", "mail {\nsmtp a:25\n}", "", 0, []string{"mail: from is missing", "from <address>"}},
	{"smtp without a server", "mail {\nsmtp\n}", "", globalLine + 1, []string{"smtp", "got 0 arguments", "use: smtp <host:port>"}},
	{"smtp with two", "mail {\nsmtp a 25\n}", "", globalLine + 1, []string{"smtp", "got 2 arguments", "use: smtp <host:port>"}},
	{"smtp without a port", "mail {\nsmtp a\nfrom a@b.example\n}", "", 0, []string{"mail: smtp", `"a"`, "<host:port>", "mail.example.com:587"}},
	{"smtp in a variable that is not set", "mail {\nsmtp {env.NOBODY_SET_THIS}\nfrom a@b.example\n}", "", 0, []string{"mail: smtp", "{env.NOBODY_SET_THIS}", "set it"}},
	{"tls without a word", "mail {\ntls\n}", "", globalLine + 1, []string{"tls", "use: tls starttls|implicit|off"}},
	{"tls with another word", "mail {\ntls on\n}", "", globalLine + 1, []string{"tls", `"on"`, "starttls, implicit or off"}},
	{"username without a password", mailWith("username paula"), "", 0, []string{"mail: username", "without password", "both"}},
	{"password without a username", mailWith("password paprika"), "", 0, []string{"mail: password", "without username", "both"}},
	{"password of two words", mailWith("password salt and"), "", globalLine + 3, []string{"mail: password", "got 2 arguments", "put a text with spaces in quotes"}},
	{"password in a variable that is not set", mailWith("username paula\npassword {env.NOBODY_SET_THIS}"), "", 0, []string{"mail: password", "{env.NOBODY_SET_THIS}", "set it"}},
	{"password in a file that does not exist", mailWith("username paula\npassword {file./nonexistent/password}"), "", 0, []string{"mail: password", "{file./nonexistent/password}", "set it"}},
	{"password with braces", mailWith("username paula\npassword paprika{chili}cayenne"), "", 0, []string{"mail: password", "{env.<name>}", "{file.<path>}"}},
	{"password whose placeholder lacks a brace", mailWith("username paula\npassword {env.PAPRIKA_AND_MORE"), "", 0, []string{"mail: password: it has braces", "{env.<name>}", "{file.<path>}"}},
	{"password of a placeholder and more", mailWith("username paula\npassword {env.KEYS_PEPPER}-paprika"), "", 0, []string{"mail: password: it has braces", "alone"}},
	{"password with a brace that is escaped", mailWith("username paula\npassword paprika\\{chili"), "", 0, []string{"mail: password: it has braces", "without braces"}},
	{"password in clear", mailWith("username paula\npassword paprika\ntls off"), "", 0, []string{"mail: username and password", "in clear", "tls starttls or tls implicit"}},
	{"from of two words", "mail {\nfrom Paula paula@example.com\n}", "", globalLine + 1, []string{"from", "got 2 arguments", "use: from <address>", "put a text with spaces in quotes"}},
	{"from that is no address", "mail {\nsmtp a:25\nfrom paula\n}", "", 0, []string{"mail: from", `"paula"`, "one address"}},
	{"from with two addresses", "mail {\nsmtp a:25\nfrom \"a@b.example, c@d.example\"\n}", "", 0, []string{"mail: from", "one address"}},
	{"subject of two words", mailWith("subject Your key"), "", globalLine + 3, []string{"subject", "got 2 arguments", "use: subject <text>", "put a text with spaces in quotes"}},
	{"subject of two lines", mailWith("subject \"Your\nkey\""), "", 0, []string{"mail: subject", "one line"}},
	{"template that does not exist", mailWith("template /nonexistent/mail.txt"), "", 0, []string{"mail: template", "/nonexistent/mail.txt", "no such file"}},
	{"template that is a directory", mailWith("template ."), "", 0, []string{"mail: template", "is a directory"}},
	{"template that is empty", mailWith("template /dev/null"), "", 0, []string{"mail: template", "/dev/null", "it is empty", "leave template out"}},
	{"template without the key", mailWith("template pepper.txt"), "", 0, []string{"mail: template", "{{.Key}}", "exactly once", "pepper.txt"}},
}

// mailWith is a block of the global option that is right but for one line, its
// third.
func mailWith(line string) string {
	return "mail {\nsmtp mail.example.com:587\nfrom keys@example.com\n" + line + "\n}"
}

// peppers are the secrets of the rows above, which no error may repeat.
var peppers = []string{"paprika", "chili", "cayenne", "salt"}

func TestWrongCaddyfilesAreRefusedWithAReason(t *testing.T) {
	for _, c := range wrongCaddyfiles {
		t.Run(c.name, func(t *testing.T) {
			says := c.says
			if c.line > 0 {
				says = append(says, fmt.Sprintf("Caddyfile:%d", c.line))
			}
			wantRefusal(t, fmt.Sprintf(wrongTemplate, c.global, c.block), says)
		})
	}
}

// wantRefusal adapts and validates the Caddyfile, and wants an error that says
// all of what is given.
func wantRefusal(t *testing.T, caddyfile string, says []string) {
	t.Helper()
	dir := emptyHome(t)
	config, err := adapt(strings.ReplaceAll(caddyfile, "{store}", dir+"/keys.db"))
	if err == nil {
		err = validate(config)
	}
	wantError(t, err, says)
}

func wantError(t *testing.T, err error, says []string) {
	t.Helper()
	if err == nil {
		t.Fatal("it is accepted")
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error does not say %q:\n%v", s, err)
		}
	}
	for _, secret := range peppers {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error says %q:\n%v", secret, err)
		}
	}
}

// TestWholeCaddyfilesAreRefusedWithAReason is for what does not fit the
// template.
func TestWholeCaddyfilesAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		name, caddyfile string
		says            []string
	}{
		{"two global options", "{\napi_keys\napi_keys\n}\n", []string{"api_keys", "twice", "one block", "Caddyfile:3"}},
		{"a stray argument of the global option", "{\napi_keys foo\n}\n", []string{"api_keys", `"foo"`, "a block only", "Caddyfile:2"}},
		{"a stray argument of the directive", ":8080 {\napi_keys foo\n}\n", []string{"api_keys", `"foo"`, "a block only", "Caddyfile:2"}},
		{"a stray argument after the matcher", ":8080 {\napi_keys /a /b\n}\n", []string{"api_keys", `"/b"`, "a block only", "Caddyfile:2"}},
		{"a block on one line", ":8080 {\napi_keys { from bearer }\n}\n", []string{"after '{' on same line", "Caddyfile:2"}},
		{"store without an engine", "{\napi_keys {\nstore\n}\n}\n", []string{"store", "got no arguments", "use: store sqlite [<path>], or store postgres <dsn>", "Caddyfile:3"}},
		{"store with two paths", "{\napi_keys {\nstore sqlite a b\n}\n}\n", []string{"store sqlite", "got 2 arguments", "use: store sqlite [<path>]", "Caddyfile:3"}},
		{"store sqlite with a lease", "{\napi_keys {\nstore sqlite a {\nlease 5s\n}\n}\n}\n", []string{"store sqlite", `"lease"`, "Caddyfile:4"}},
		{"store postgres without a dsn", "{\napi_keys {\nstore postgres\n}\n}\n", []string{"store postgres", "got 0 arguments", "store postgres <dsn>", "Caddyfile:3"}},
		{"a lease that is too short", "{\napi_keys {\nstore postgres dbname=keys {\nlease 10ms\n}\n}\n}\n", []string{"lease 10ms", "at least 1s", "at most 1h", "Caddyfile:"}},
		{"a lease that is no duration", "{\napi_keys {\nstore postgres dbname=keys {\nlease soon\n}\n}\n}\n", []string{"lease", `"soon"`, "positive duration", "Caddyfile:4"}},
		{"an unknown option of store postgres", "{\napi_keys {\nstore postgres dbname=keys {\npool 5\n}\n}\n}\n", []string{"store postgres", `"pool"`, "lease", "stale_if_unavailable", "Caddyfile:4"}},
		{"two stores", "{\napi_keys {\nstore sqlite\nstore postgres dbname=keys\n}\n}\n", []string{"store", "Caddyfile:4"}},
		{"a dsn with a password", "{\napi_keys {\nstore postgres postgres://keys:paprika@db/keys\n}\n}\n:8080 {\napi_keys\n}\n", []string{"store postgres", "holds a password", "{env.<name>}", "passfile"}},
		{"a dsn that can't be read", "{\napi_keys {\nstore postgres postgres://keys@db:paprika/keys\n}\n}\n:8080 {\napi_keys\n}\n", []string{"store postgres", "can't be read", "see port", "sslmode=verify-full"}},
		{"a dsn with an unknown TLS mode", "{\napi_keys {\nstore postgres postgres://db/keys?sslmode=paprika\n}\n}\n:8080 {\napi_keys\n}\n", []string{"store postgres", "can't be read", "see sslmode"}},
		{"a dsn in a variable that is not set", "{\napi_keys {\nstore postgres {env.NOBODY_SET_THIS}\n}\n}\n:8080 {\napi_keys\n}\n", []string{"store postgres", "{env.NOBODY_SET_THIS}", "set it"}},
		{"an unknown store", "{\napi_keys {\nstore redis\n}\n}\n", []string{"store", `"redis"`, "use: store sqlite [<path>]", "Caddyfile:3"}},
		{"a store in a variable that is not set", "{\napi_keys {\nstore sqlite {env.NOBODY_SET_THIS}\n}\n}\n:8080 {\napi_keys\n}\n",
			[]string{"store sqlite", "{env.NOBODY_SET_THIS}", "set it"}},
		{"inside of a snippet", "(keys) {\napi_keys {\nenforce {args[0]}\n}\n}\n:8080 {\nimport keys on\n}\n", []string{"enforce", `"on"`, `"off"`, "Caddyfile:3"}},
		{"the log encoder with an argument", "{\nlog {\nformat api_keys json\n}\n}\n", []string{"format api_keys", `"json"`, "wrap <encoder>", "Caddyfile:3"}},
		{"the log encoder with an unknown option", "{\nlog {\nformat api_keys {\nfields a\n}\n}\n}\n", []string{"format api_keys", `"fields"`, "wrap <encoder>", "Caddyfile:4"}},
		{"the log encoder around an unknown one", "{\nlog {\nformat api_keys {\nwrap xml\n}\n}\n}\n", []string{"xml", "Caddyfile:4"}},
		{"the log encoder around nothing", "{\nlog {\nformat api_keys {\nwrap\n}\n}\n}\n", []string{"wrap", "json or console", "Caddyfile:4"}},
		{"the log encoder around two", "{\nlog {\nformat api_keys {\nwrap json\nwrap console\n}\n}\n}\n", []string{"format api_keys", "one encoder only", "Caddyfile:5"}},
	} {
		t.Run(c.name, func(t *testing.T) { wantRefusal(t, c.caddyfile, c.says) })
	}
}

// TestWrongJSONIsRefusedWithAReason holds JSON to what the Caddyfile is held to.
func TestWrongJSONIsRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		name, app, handler string // members of the objects
		says               []string
	}{
		{"unknown member of the app", `"stoer":{}`, "", []string{"api_keys", `unknown field "stoer"`}},
		{"unknown member of the store", `"store":{"file":"x"}`, "", []string{"api_keys", `unknown field "file"`}},
		{"unknown store", `"store":{"engine":"redis"}`, "", []string{"api_keys", `store "redis"`, "use: store sqlite"}},
		{"store postgres without a dsn", `"store":{"engine":"postgres"}`, "", []string{"api_keys", "store postgres", "the dsn is missing"}},
		{"store postgres with a path", `"store":{"engine":"postgres","path":"x","dsn":"dbname=x"}`, "", []string{"api_keys", "store postgres", "path is for store sqlite"}},
		{"store sqlite with a dsn", `"store":{"dsn":"dbname=x"}`, "", []string{"api_keys", "store sqlite", "for store postgres"}},
		{"store postgres with a password", `"store":{"engine":"postgres","dsn":"host=db password=paprika"}`, "", []string{"api_keys", "store postgres", "holds a password"}},
		{"stale_if_unavailable that is too long", `"store":{"engine":"postgres","dsn":"dbname=x","stale_if_unavailable":90000000000000}`, "", []string{"stale_if_unavailable 25h", "at most 1h"}},
		{"store is an object", `"store":"sqlite"`, "", []string{"api_keys", "store", "string"}},
		{"cache_size below zero", `"cache_size":-1`, "", []string{"api_keys", "cache_size -1", "at least 65536"}},
		{"cache_size that is too small", `"cache_size":1000`, "", []string{"api_keys", "cache_size 1000", "at least 65536"}},
		{"cache_size is a number", `"cache_size":"64MiB"`, "", []string{"api_keys", "cache_size", "string"}},
		{"key_prefix", `"key_prefix":"A"`, "", []string{"api_keys", `key_prefix "A"`, "lower-case letter"}},
		{"pepper that is too short", `"pepper":"paprika"`, "", []string{"api_keys", "pepper", "7 characters", "at least 16"}},
		{"pepper in a variable that is not set", `"pepper":"{env.NOBODY_SET_THIS}"`, "", []string{"api_keys", "pepper", "{env.NOBODY_SET_THIS}", "set it"}},
		{"pepper with braces", `"pepper":"paprika {chili} cayenne"`, "", []string{"api_keys", "pepper", "{env.<name>}"}},
		{"package without a name", `"packages":[{}]`, `"require":[{"any":true}]`, []string{"package name", `""`, "1 to 64 letters"}},
		{"package twice", `"packages":[{"name":"A"},{"name":"A"}]`, `"require":[{"any":true}]`, []string{"package A", "twice"}},
		{"unknown member of a package", `"packages":[{"name":"A","lifetime":1}]`, "", []string{"api_keys", `unknown field "lifetime"`}},
		{"unknown format", `"packages":[{"name":"A","format":"hex"}]`, "", []string{"package A", `format "hex"`, "token, uuid or alphanumeric"}},
		{"format alphanumeric without a length", `"packages":[{"name":"A","format":"alphanumeric"}]`, "", []string{"package A", "alphanumeric 0", "22 to 256"}},
		{"a length of a format that has none", `"packages":[{"name":"A","length":40}]`, "", []string{"package A", "length 40", "only format alphanumeric"}},
		{"expires_in below zero", `"packages":[{"name":"A","expires_in":-1}]`, "", []string{"package A", "expires_in", "at least 1s"}},
		{"max_keys below zero", `"packages":[{"name":"A","max_keys":-1}]`, "", []string{"package A", "max_keys -1", "1 or more"}},
		{"reserved role", `"packages":[{"name":"A","roles":["api_keys:admin"]}]`, "", []string{"package A", `"api_keys:admin"`, "api_keys:operator"}},

		{"unknown member of the handler", "", `"form":[]`, []string{"api_keys", `unknown field "form"`}},
		{"unknown place", "", `"from":[{"in":"body"}]`, []string{"from", `"body"`, "bearer, header <name>, query <name> or cookie <name>"}},
		{"unknown member of a place", "", `"from":[{"in":"bearer","of":"x"}]`, []string{"api_keys", `unknown field "of"`}},
		{"a header with a dot", "", `"from":[{"in":"header","name":"a.b"}]`, []string{"from header", `"a.b"`, "letters, digits and '-'"}},
		{"a place twice", "", `"from":[{"in":"bearer"},{"in":"bearer"}]`, []string{"from bearer", "twice", "once"}},
		{"a header twice in two spellings", "", `"from":[{"in":"header","name":"X-K"},{"in":"header","name":"x-k"}]`, []string{"from header x-k", "twice", "once"}},
		{"a demand that says nothing", "", `"require":[{}]`, []string{"require", "any, package <name...> and role <name...>", "says 0"}},
		{"a demand that says two things", `"packages":[{"name":"A"}]`, `"require":[{"any":true,"packages":["A"]}]`, []string{"require", "says 2", "one entry for each"}},
		{"a demand for a package and a role", `"packages":[{"name":"A"}]`, `"require":[{"roles":["r"],"packages":["A"]}]`, []string{"require", "says 2", "one entry for each"}},
		{"any beside a role", "", `"require":[{"any":true},{"roles":["r"]}]`, []string{"require any", "can't be combined"}},
		{"package that is not declared", "", `"require":[{"packages":["A"]}]`, []string{`require package "A"`, "not declared"}},
		{"reserved role", "", `"require":[{"roles":["api_keys:admin"]}]`, []string{"require role", `"api_keys:admin"`, "api_keys:self"}},
		{"require is missing", `"packages":[{"name":"A"}]`, "", []string{"require is missing", "declared: A"}},
		{"enforce_off and require", "", `"enforce_off":true,"require":[{"any":true}]`, []string{"enforce off", "remove"}},
		{"a switch is true or false", "", `"enforce_off":"yes"`, []string{"enforce_off", "string"}},
		{"identity header of an unknown field", "", `"identity_headers":{"email":"X-E"}`, []string{"identity_header", `"email"`, "account_id, credential_id"}},
		{"identity header without a name", "", `"identity_headers":{"roles":""}`, []string{"identity_header roles", `""`, "letters, digits"}},
		{"identity headers that are off and named", "", `"identity_headers_off":true,"identity_headers":{"roles":"X-R"}`, []string{"identity_headers off", "remove"}},
		{"unknown dialect", "", `"dialects":[{"dialect":{"name":"soap"}}]`, []string{"dialect", `"soap"`, "use one of:", "rest"}},
		{"dialect without a name", "", `"dialects":[{"dialect":{}}]`, []string{"dialect", `""`, "use one of:", "rest"}},
		{"mount without a dialect", "", `"dialects":[{"base_path":"/k"}]`, []string{"dialect", `""`, "use one of:", "rest"}},
		{"unknown member of a mount", "", `"dialects":[{"base":"/k","dialect":{"name":"rest"}}]`, []string{"api_keys", `unknown field "base"`}},
		{"unknown option of a dialect", "", `"dialects":[{"dialect":{"name":"rest","openapi":false}}]`, []string{"dialect", "rest", `unknown field "openapi"`}},
		{"base path", "", `"dialects":[{"base_path":"k","dialect":{"name":"rest"}}]`, []string{"dialect base path", `"k"`, "begins with '/'"}},
		{"dialect twice at one base path", "", `"dialects":[{"dialect":{"name":"rest"}},{"base_path":"/","dialect":{"name":"rest"}}]`, []string{"dialect rest /", "twice"}},
		{"errors of an unknown dialect", "", `"errors":{"name":"soap"}`, []string{"errors", `"soap"`, "use one of:", "rest"}},
		{"errors without a name", "", `"errors":{}`, []string{"errors", `""`, "use one of:", "rest"}},
		{"errors as text", "", `"errors":"sarus"`, []string{`errors "sarus": use {"name": "<dialect>"}`}},
		{"errors as a list", "", `"errors":["rest"]`, []string{`errors ["rest"]: use {"name": "<dialect>"}`}},
		{"errors with a number for a name", "", `"errors":{"name":5}`, []string{`errors {"name":5}: use {"name": "<dialect>"}`}},
		{"dialect as text", "", `"dialects":[{"dialect":"sarus"}]`, []string{`dialect "sarus": use {"name": "<dialect>"}`}},
		{"errors with an unknown option", "", `"errors":{"name":"rest","x":1}`, []string{"errors", `unknown field "x"`}},
		{"errors with an option that is wrong", "", `"errors":{"name":"sarus","throttle":1}`, []string{"dialect sarus: throttle 1ns", "at least 1s"}},
		{"errors with options beside a mount", "", `"dialects":[{"dialect":{"name":"rest"}}],"errors":{"name":"rest","x":1}`, []string{"errors rest", "options there only"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			emptyHome(t)
			handler := `"handler":"api_keys"`
			if c.handler != "" {
				handler += "," + c.handler
			}
			wantError(t, validate([]byte(`{"apps":{"api_keys":{`+c.app+`},"http":{"servers":{"s":{"listen":[":8080"],"routes":[{"handle":[{`+handler+`}]}]}}}}}`)), c.says)
		})
	}
}

// TestTheTemplatesAreRightByThemselves keeps the rows above honest: what is
// wrong in them is their own.
func TestTheTemplatesAreRightByThemselves(t *testing.T) {
	dir := emptyHome(t)
	config, err := adapt(strings.ReplaceAll(fmt.Sprintf(wrongTemplate, "", ""), "{store}", dir+"/keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{string(config),
		`{"apps":{"api_keys":{},"http":{"servers":{"s":{"listen":[":8080"],"routes":[{"handle":[{"handler":"api_keys"}]}]}}}}}`} {
		if err := validate([]byte(config)); err != nil {
			t.Errorf("%s: %v", config, err)
		}
	}
}
