package apikeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A token of the right shape; its secret alone must not be seen either.
const (
	redactToken  = "key_0Ab1Cd2Ef3Gh_" + redactSecret
	redactSecret = "Zq9Xw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe1D2c3B"
)

func init() {
	// Names that no operator's test of another file is likely to use.
	redactHeader("X-Redact-Header")
	redactQuery("redact_query")
	redactQuery("redact[list]")
	redactCookie("redact_cookie")
}

func TestRedactText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", ""},
		{"plain", "handled request", "handled request"},
		{"unknown parameter", "/a?b=c&key=d#e", "/a?b=c&key=d#e"},
		{"short parts", "some_snake_case_name_of_a_field", "some_snake_case_name_of_a_field"},
		{"hashes", "/x/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "/x/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"},
		{"uuid", "0190b6a0-6a3c-7cc2-9d0e-3f1b2c4d5e6f", "0190b6a0-6a3c-7cc2-9d0e-3f1b2c4d5e6f"},

		{"parameter", "/a?api_key=x.y&b=c", "/a?api_key=REDACTED&b=c"},
		{"later parameter", "/a?b=c&access_token=x", "/a?b=c&access_token=REDACTED"},
		{"repeated", "/a?apikey=x&apikey=y", "/a?apikey=REDACTED&apikey=REDACTED"},
		{"empty value", "/a?apikey=&b=c", "/a?apikey=&b=c"},
		{"name in capitals", "/a?Api_KEY=x", "/a?Api_KEY=REDACTED"},
		{"encoded name", "/a?api%5Fk%65y=x", "/a?api%5Fk%65y=REDACTED"},
		{"name with brackets", "/a?redact[list]=x&redact%5Blist%5D=y", "/a?redact[list]=REDACTED&redact%5Blist%5D=REDACTED"},
		{"header name as parameter", "/a?X-Api-Key=x", "/a?X-Api-Key=REDACTED"},
		{"semicolon", "/a?api_key=x;b=c", "/a?api_key=REDACTED;b=c"},
		{"semicolon in the key", "/a?api_key=x;y", "/a?api_key=REDACTED"},
		{"after a semicolon", "/a;api_key=x?b=c", "/a;api_key=REDACTED"},
		{"number sign in the key", "/a?api_key=x#y", "/a?api_key=REDACTED"},
		{"quotes in the key", `/a?api_key=x",'y`, "/a?api_key=REDACTED"},
		{"encoded separator in the key", "/a?api_key=x%26y&b=c", "/a?api_key=REDACTED&b=c"},
		{"query alone", "api_key=x&b=c", "api_key=REDACTED&b=c"},
		{"longer name", "/a?my_api_key=x", "/a?my_api_key=x"},
		{"twice", "api_key=api_key=x", "api_key=REDACTED"},
		{"link in a link", "/in?to=%2Fa%3Fapi_key%3Dx%26b%3Dc&d=e", "/in?to=%2Fa%3Fapi_key%3DREDACTED%26b%3Dc&d=e"},
		{"link in a link in a link", "/in?to=a%253Fapi_key%253Dx", "/in?to=a%253Fapi_key%253DREDACTED"},
		{"encoded separator in the key in a link", "/in?to=%2Fa%3Fapi_key%3Dx%2526y&d=e", "/in?to=%2Fa%3Fapi_key%3DREDACTED&d=e"},
		{"HTML", `<a href="/a?b=c&amp;api_key=x">`, `<a href="/a?b=c&amp;api_key=REDACTED">`},
		{"JSON", `{"uri":"/a?b=c\u0026api_key=x\u0026d=e"}`, `{"uri":"/a?b=c\u0026api_key=REDACTED\u0026d=e"}`},
		{"error", `Get "http://127.0.0.1:1/x?api_key=x": dial tcp`, `Get "http://127.0.0.1:1/x?api_key=REDACTED": dial tcp`},
		{"error with quotes in the key", `Get "http://a/x?api_key=x\"y": EOF`, `Get "http://a/x?api_key=REDACTED": EOF`},
		{"log line", "GET /a?api_key=x HTTP/1.1", "GET /a?api_key=REDACTED HTTP/1.1"},
		{"key and value", `api_key="x" user=y`, `api_key=REDACTED" user=y`},

		{"bearer", "Bearer x.y-z", "Bearer REDACTED"},
		{"bearer in text", "sent bEARER   x/y+z= to", "sent bEARER   REDACTED to"},
		{"bearer in a parameter", "/a?auth=Bearer%20x&b=c", "/a?auth=Bearer%20REDACTED&b=c"},
		{"bearer in a parameter with plus", "/a?auth=Bearer+x&b=c", "/a?auth=Bearer+REDACTED&b=c"},
		{"bearer in JSON", `{"a":"Bearer x","b":1}`, `{"a":"Bearer REDACTED","b":1}`},
		{"bearer twice", "Bearer Bearer x y", "Bearer REDACTED REDACTED y"},
		{"bearer in a parameter in text", "api_key=Bearer x y", "api_key=REDACTED REDACTED y"},
		{"header after bearer", "Bearer X-Api-Key: x\ny", "Bearer REDACTED REDACTED\ny"},
		{"bearer at the end", "the bearer", "the bearer"},
		{"bearer as part of a word", "forbearer of", "forbearer of"},

		{"token", redactToken, "REDACTED"},
		{"token in text", "no " + redactToken + ", sorry", "no REDACTED, sorry"},
		{"token in a path", "/a/" + redactToken + "/b", "/a/REDACTED/b"},
		{"token in capitals", strings.ToUpper(redactToken), "REDACTED"},
		{"token cut short", redactToken[:len(redactToken)-8] + " b", "REDACTED b"},
		{"token too long", redactToken + "0123456789012345678901234567890", "REDACTED"},
		{"token twice", redactToken + redactToken, "REDACTED"},
		{"token without prefix", redactToken[3:], "REDACTED"},
		{"token with a short id", "key_b1Cd2Ef3Gh_" + redactSecret, "REDACTED"},
		{"token with encoded underscores", strings.ReplaceAll(redactToken, "_", "%5f"), "REDACTED"},
		{"token encoded throughout", "/" + redactPercent(redactToken) + "/b", "/REDACTED/b"},
		{"token encoded twice", "/" + strings.ReplaceAll(redactToken, "_", "%255F"), "/REDACTED"},
		{"token as a name", "/a?" + redactToken + "=1", "/a?REDACTED=1"},

		{"header", "X-Api-Key: x y\r\nAccept: z", "X-Api-Key: REDACTED\r\nAccept: z"},
		{"header in other spelling", "x_api.KEY:x", "x_api.KEY:REDACTED"},
		{"authorization", "Authorization: Basic eDp5\nHost: z", "Authorization: REDACTED\nHost: z"},
		{"header map", "map[Accept:[*/*] X-Api-Key:[x] Host:[z]]", "map[Accept:[*/*] X-Api-Key:[REDACTED] Host:[z]]"},
		{"header JSON", `{"X-Api-Key":["x","y"],"Host":["z"]}`, `{"X-Api-Key":["REDACTED"],"Host":["z"]}`},
		{"JSON string", `{"x-api-key": "x\"y", "b": 1}`, `{"x-api-key": "REDACTED", "b": 1}`},
		{"JSON string with quotes in the key", `{"x-api-key": "x\",y", "b": 1}`, `{"x-api-key": "REDACTED", "b": 1}`},
		{"JSON in JSON", `{\"x-api-key\":\"x\",\"b\":1}`, `{\"x-api-key\":\"REDACTED\",\"b\":1}`},
		{"curl", `curl -H 'X-Api-Key: x' http://a`, `curl -H 'X-Api-Key: REDACTED' http://a`},
		{"query map", "map[b:[c] redact_query:[x]]", "map[b:[c] redact_query:[REDACTED]]"},
		{"encoded JSON", "/a?h=%22X-Api-Key%22%3A%22x%22&b=c", "/a?h=%22X-Api-Key%22%3AREDACTED&b=c"},

		{"cookie out of context", "/a?redact_cookie=x", "/a?redact_cookie=x"},
		{"cookie header", "Cookie: a=b; redact_cookie=x; c=d\nHost: y", "Cookie: a=b; redact_cookie=REDACTED; c=d\nHost: y"},
		{"cookie map", "map[Cookie:[redact_cookie=x; c=d]]", "map[Cookie:[redact_cookie=REDACTED; c=d]]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := redactText(test.text); got != test.want {
				t.Errorf("%q\nbecomes %q\nnot     %q", test.text, got, test.want)
			}
			if again := redactText(test.want); again != test.want {
				t.Errorf("%q\nbecomes %q when redacted again", test.want, again)
			}
		})
	}
}

func redactPercent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func TestRedactCookieField(t *testing.T) {
	tests := []struct{ text, want string }{
		{"a=b; redact_cookie=x y; c=d", "a=b; redact_cookie=REDACTED; c=d"},
		{"Redact_Cookie=\"x\"", "Redact_Cookie=REDACTED"},
		{"redact_cookie=x; Path=/; HttpOnly", "redact_cookie=REDACTED; Path=/; HttpOnly"},
		{"redact_cookie=x&y=\"z\",", "redact_cookie=REDACTED"},
		{"other=" + redactToken, "other=REDACTED"},
	}
	for _, test := range tests {
		if got := redactString(test.text, true); got != test.want {
			t.Errorf("%q becomes %q, not %q", test.text, got, test.want)
		}
	}
}

// redactEncoders returns a RedactEncoder around each encoder of zap.
func redactEncoders() map[string]*RedactEncoder {
	config := zap.NewProductionEncoderConfig()
	encoders := make(map[string]*RedactEncoder)
	for name, inner := range map[string]zapcore.Encoder{
		"json": zapcore.NewJSONEncoder(config), "console": zapcore.NewConsoleEncoder(config),
	} {
		encoders[name] = new(RedactEncoder)
		encoders[name].wrap(inner)
	}
	return encoders
}

// redactEntry returns the line that a logger writes of an entry with these fields; the first ones come from With.
func redactEntry(t testing.TB, enc zapcore.Encoder, message string, with, fields []zapcore.Field) string {
	t.Helper()
	enc = enc.Clone()
	for _, field := range with {
		field.AddTo(enc)
	}
	line, err := enc.EncodeEntry(zapcore.Entry{
		LoggerName: message, Message: message, Stack: "stack of " + message,
		Caller: zapcore.EntryCaller{Defined: true, File: "/" + message + ".go", Function: message},
	}, fields)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Free()
	return line.String()
}

// redactPanicky is a value of every kind whose own code panics, with a key in its message.
type redactPanicky struct{}

func (redactPanicky) String() string                               { panic(redactToken) }
func (redactPanicky) Error() string                                { panic(redactToken) }
func (redactPanicky) MarshalJSON() ([]byte, error)                 { panic(redactToken) }
func (redactPanicky) MarshalLogObject(zapcore.ObjectEncoder) error { panic(redactToken) }
func (redactPanicky) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	enc.AppendString("a")
	panic(redactToken)
}

// redactFailing refuses to be marshaled, and tells the key of a shape that no one knows.
type redactFailing struct{ key string }

func (f redactFailing) MarshalJSON() ([]byte, error) {
	return nil, errors.New("can't marshal " + f.key)
}

func redactFields(key string) []zapcore.Field {
	header := http.Header{"X-Api-Key": {key}, "X-Redact-Header": {key}, "Accept": {"*/*"}}
	cyclic := map[string]any{"key": key}
	cyclic["self"] = cyclic
	request := &http.Request{
		Method: "GET", RequestURI: "/?redact_query=" + url.QueryEscape(key), RemoteAddr: "192.0.2.1:1",
		Header: http.Header{
			"X-Api-Key": {key, key}, "x_api_key": {key}, "Authorization": {key},
			"Referer": {"https://a.test/?b=c&Redact%5FQuery=" + url.QueryEscape(key)},
			"Cookie":  {"a=b; redact_cookie=" + url.QueryEscape(key)},
		},
	}
	return []zapcore.Field{
		zap.Object("request", caddyhttp.LoggableHTTPRequest{
			Request:              request,
			ShouldLogCredentials: true,
		}),
		zap.Object("resp_headers", caddyhttp.LoggableHTTPHeader{
			Header:               http.Header{"Set-Cookie": {"redact_cookie=" + key}, "X-Api-Key": {key}},
			ShouldLogCredentials: true,
		}),
		zap.Inline(caddyhttp.LoggableHTTPHeader{Header: header}),
		zap.Strings("x-api-key", []string{key}),
		zap.String("apikey", key),
		zap.ByteString("Api.Key", []byte(key)),
		zap.Binary("api-key", []byte(key)),
		zap.Dict("api_key", zap.String("text", key)),
		zap.Any("headers", map[string][]string(header)),
		zap.Any("nested", []any{map[string]any{"authorization": map[string]string{"a": key}, "n": 12345678901234567890.0}}),
		zap.Any("values", url.Values{"redact_query": {key}}),
		zap.Reflect("raw", json.RawMessage(`{"X-Api-Key":`+redactQuote(key)+`,"uri":`+redactQuote("/?api_key="+key)+`}`)),
		zap.Reflect("x.api.key", header),
		zap.Reflect("cyclic", cyclic),
		zap.Reflect("channel", map[string]any{"channel": make(chan int), "key": key}),
		zap.Reflect("failing", redactFailing{key}),
		zap.NamedError("error", fmt.Errorf("asking: %w", &url.Error{Op: "Get", URL: "http://a.test/?api_key=" + key, Err: io.EOF})),
		zap.Errors("errors", []error{errors.New("X-Api-Key: " + key)}),
		zap.Stringer("url", &url.URL{Path: "/a", RawQuery: "api_key=" + key}),
		zap.Namespace("namespace"),
		zap.String("X-API-KEY", key),
	}
}

// redactTokenFields hold a token where only its shape tells it.
func redactTokenFields() []zapcore.Field {
	return []zapcore.Field{
		zap.String("string", "a "+redactToken),
		zap.String(redactToken, "name"),
		zap.ByteString("bytes", []byte(redactToken)),
		zap.Binary("binary", []byte(redactToken)),
		zap.Strings("strings", []string{redactToken}),
		zap.ByteStrings("byte_strings", [][]byte{[]byte(redactToken)}),
		zap.Any("any", map[string]any{redactToken: []any{redactToken, []byte(redactToken), 1}}),
		zap.Any("struct", struct{ A, B any }{redactToken, &struct{ C string }{redactToken}}),
		zap.Reflect("reflected_bytes", []byte(redactToken)),
		zap.Reflect("reflected_string", redactToken),
		zap.Error(errors.New(redactToken)),
		zap.Errors("errors", []error{errors.New(redactToken)}),
		zap.Objects("objects", []zapcore.ObjectMarshaler{zapcore.ObjectMarshalerFunc(func(enc zapcore.ObjectEncoder) error {
			enc.OpenNamespace(redactToken)
			return enc.AddArray("inner", zapcore.ArrayMarshalerFunc(func(enc zapcore.ArrayEncoder) error {
				_ = enc.AppendReflected(redactToken)
				return enc.AppendArray(zapcore.ArrayMarshalerFunc(func(enc zapcore.ArrayEncoder) error {
					enc.AppendByteString([]byte(redactToken))
					return errors.New(redactToken)
				}))
			}))
		})}),
		zap.Stringer("stringer", redactPanicky{}),
		zap.NamedError("panicking_error", redactPanicky{}),
		zap.Reflect("reflected", redactPanicky{}),
		zap.Object("object", redactPanicky{}),
		zap.Array("array", redactPanicky{}),
		zap.Inline(redactedMarshaler{redactPanicky{}}),
		zap.Namespace(redactToken),
		zap.String("b", redactToken),
	}
}

func TestRedactEncoder(t *testing.T) {
	const key = "an+odd/Key=of~no$shape!"
	for name, enc := range redactEncoders() {
		for _, test := range []struct {
			name   string
			fields []zapcore.Field
			secret []string
		}{
			{"key of no shape", redactFields(key), []string{key, url.QueryEscape(key), "odd/"}},
			{"token", redactTokenFields(), []string{redactToken, redactSecret, "S2V5", "a2V5XzBBYjFD"}},
		} {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				message := "X-Api-Key: " + key
				if test.name == "token" {
					message = redactToken
				}
				for _, line := range []string{
					redactEntry(t, enc, message, nil, test.fields),
					redactEntry(t, enc, message, test.fields, nil),
				} {
					for _, secret := range test.secret {
						if strings.Contains(line, secret) {
							t.Errorf("%q is in\n%s", secret, line)
						}
					}
					if name == "json" && !json.Valid([]byte(line)) {
						t.Errorf("no JSON:\n%s", line)
					}
				}
			})
		}
	}
}

// Handlers are provisioned while others log.
func TestRedactNamesWhileEncoding(t *testing.T) {
	const field = "X-Redact-Late"
	enc := redactEncoders()["json"]
	done := make(chan bool)
	for range 2 {
		go func() {
			for i := range 10 {
				redactHeader(fmt.Sprint(field, i%2))
				redactEntry(t, enc, "", nil, redactFields("a"))
			}
			done <- true
		}()
	}
	<-done
	<-done
	line := redactEntry(t, enc, "x-redact-late1: canary", nil, []zapcore.Field{zap.String("x_redact_late0", "canary")})
	if strings.Contains(line, "canary") {
		t.Error(line)
	}
}

// What is no key reaches the log as it would without the encoder.
func TestRedactEncoderKeepsTheRest(t *testing.T) {
	plain := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	enc := new(RedactEncoder)
	enc.wrap(plain.Clone())
	fields := []zapcore.Field{
		zap.Bool("bool", true), zap.Int("int", -1), zap.Uint64("uint", 1<<63), zap.Float64("float", 1.5),
		zap.Complex128("complex", 1i), zap.Duration("duration", time.Second), zap.Time("time", time.Unix(1, 0)),
		zap.Durations("durations", []time.Duration{1}), zap.Times("times", []time.Time{time.Unix(1, 0)}),
		zap.String("string", "a\nb\"c"), zap.Strings("strings", []string{"a", ""}), zap.Binary("binary", []byte{0, 255}),
		zap.Any("map", map[string]any{"a": json.Number("123456789012345678901234567890"), "b": nil, "c": "<&>"}),
		zap.Reflect("nil", nil), zap.Error(errors.New("a")), zap.Error(nil), zap.Skip(),
		zap.Object("headers", caddyhttp.LoggableHTTPHeader{Header: http.Header{"Cookie": {"a"}}}),
		zap.Namespace("namespace"), zap.Int("inner", 1),
	}
	want := redactEntry(t, plain, "message", fields[:5], fields[5:])
	if got := redactEntry(t, enc, "message", fields[:5], fields[5:]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRedactCaddyfile(t *testing.T) {
	for _, test := range []struct{ input, json, err string }{
		{"api_keys", `{}`, ""},
		{"api_keys {\n}", `{}`, ""},
		{"api_keys {\nwrap json\n}", `{"wrap":{"format":"json"}}`, ""},
		{"api_keys {\nwrap console {\ntime_local\n}\n}", `{"wrap":{"format":"console","time_local":true}}`, ""},
		{"api_keys json", "", "takes no argument"},
		{"api_keys {\nwrap\n}", "", "wrap needs the name of an encoder"},
		{"api_keys {\nwrap json\nwrap json\n}", "", "one encoder only"},
		{"api_keys {\nwrap nothing\n}", "", "caddy.logging.encoders.nothing"},
		{"api_keys {\nwrap json console\n}", "", "wrong argument count"},
		{"api_keys {\nheader X\n}", "", "knows only"},
	} {
		enc := new(RedactEncoder)
		err := enc.UnmarshalCaddyfile(caddyfile.NewTestDispenser(test.input))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q gives the error %v, not %q", test.input, err, test.err)
			}
			continue
		}
		if text, _ := json.Marshal(enc); err != nil || string(text) != test.json {
			t.Errorf("%q gives %s, %v", test.input, text, err)
		}
	}
}

// A canary for each way a key can reach a log, sent through a gateway that logs all it can.
func TestRedactInCaddy(t *testing.T) {
	const odd = "0dd-Canary.no~shape"
	requests := func(client *http.Client, base string) {
		get := func(path string, edit func(*http.Request)) {
			request, err := http.NewRequest("GET", base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if edit != nil {
				edit(request)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusBadGateway {
				t.Errorf("%s: status %d", path, response.StatusCode)
			}
		}
		for _, key := range []string{redactToken, odd} {
			for _, name := range []string{"X-API-Key", "x-api-key", "x_api_key", "Authorization", "ApiKey", "X-Redact-Header"} {
				get("/header", func(r *http.Request) { r.Header[name] = []string{key} })
			}
			get("/bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) })
			get("/bearer", func(r *http.Request) { r.Header.Set("X-Other", "Bearer "+key) })
			get("/cookie", func(r *http.Request) { r.Header.Set("Cookie", "a=b; redact_cookie="+key) })
			get("/referer", func(r *http.Request) { r.Header.Set("Referer", base+"/a?b=c&apikey="+key) })
			for _, name := range []string{"api_key", "apikey", "API%5FKEY", "a%70i-Key", "redact_query", "b=c&access_token"} {
				get("/query?"+name+"="+key, nil)
			}
			get("/query?to="+url.QueryEscape("/a?api_key="+key), nil)
		}
		get("/path/"+redactToken, nil)
		get("/path/"+strings.ReplaceAll(redactToken, "_", "%5F"), nil)
		get("/path/"+redactToken+"0", nil)
		get("/"+redactToken+"?other="+redactToken, func(r *http.Request) {
			r.Header.Set("User-Agent", redactToken)
			r.Header.Set(redactToken, "1")
			r.Host = "a.test"
		})
	}
	for _, test := range []struct {
		name, format string
		leaks        bool
	}{
		{"json", "format json", true},
		{"api_keys", "format api_keys", false},
		{"console", "format api_keys {\nwrap console\n}", false},
		{"inside", "format filter {\nwrap api_keys {\nwrap append {\nnode a\n}\n}\nuser_id delete\n}", false},
		{"outside", "format api_keys {\nwrap filter {\nwrap json\nuser_id delete\n}\n}", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, port := loadLeakCaddy(t, "{\n{options}\ndebug\nlog {\noutput {file default.log}\n"+test.format+"\n}\n"+
				"servers {\nlog_credentials\ntrace\n}\n}\n"+
				":{port} {\nlog {\noutput {file access.log}\n"+test.format+"\n}\n"+
				"rewrite /query /rewritten\nlog_append referer {http.request.header.Referer}\n"+
				"reverse_proxy 127.0.0.1:{port2} {\nheader_up X-Copy \"Bearer {http.request.header.X-Api-Key}\"\n}\n}")
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			requests(client, "http://127.0.0.1:"+port)
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			var lines, found int
			_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
				if filepath.Ext(path) != ".log" {
					return err
				}
				text, err := os.ReadFile(path)
				for line := range strings.Lines(string(text)) {
					lines++
					for _, secret := range []string{redactToken, redactSecret, odd} {
						if strings.Contains(strings.ToLower(line), strings.ToLower(secret)) {
							found++
							if !test.leaks {
								t.Errorf("%q is in %s:\n%s", secret, filepath.Base(path), line)
							}
						}
					}
				}
				return err
			})
			t.Logf("%d lines, %d times a key", lines, found)
			if lines < 100 || test.leaks && found < 100 {
				t.Errorf("this test shows nothing: %d lines, %d times a key", lines, found)
			}
		})
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("", redactToken, "")
	f.Add("BeArer", "00000000", "0") // a word that announces a key may be announced itself
	f.Add("0", "\"\"000000", "0")    // nor does a quote at the beginning close anything
	f.Add("0", "\"\"\"00000", "0")
	f.Add("0", "[]\"00000", "0")
	f.Add("a b", "x\",\"y':;,&#%26%", "c\nd")
	f.Add("Authorization: Bearer [", "0dd%5F\\u0026]}key", "&e=f;\"")
	encoders := redactEncoders()
	f.Fuzz(func(t *testing.T, before, key, after string) {
		if len(key) < 8 || len(key) > 512 || strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
			return
		}
		// In prose, a quote can end a key early. What is left of it must not look
		// like the whole behind the last letters of REDACTED.
		for n := range key[:4] {
			if strings.HasSuffix("REDACTED", key[:n+1]) {
				return
			}
		}
		for name, enc := range encoders {
			// What the surroundings alone bring is not the key's.
			clean := redactEntry(t, enc, before+" "+after, nil, fuzzedFields(before, "another~key", after))
			line := redactEntry(t, enc, before+" "+after, nil, fuzzedFields(before, key, after))
			if strings.Contains(line, redactSecret) && !strings.Contains(before+key+after, redactSecret) {
				t.Errorf("%s: the token is in\n%s", name, line)
			}
			for _, secret := range []string{key, url.QueryEscape(key)} {
				quoted := redactQuote(secret)
				quoted = quoted[1 : len(quoted)-1] // as it stands inside of a string
				if strings.Contains(line, quoted) && !strings.Contains(clean, quoted) {
					t.Errorf("%s: %q is in\n%s", name, secret, line)
				}
			}
		}
	})
}

// fuzzedFields are fields with a key in every kind of place.
func fuzzedFields(before, key, after string) []zapcore.Field {
	// In a query, what separates pairs is escaped, or it would end the key; so is
	// what JSON writes it with.
	query := strings.NewReplacer("&", "%26", ";", "%3B", "\\", "%5C").Replace(key)
	request := &http.Request{RequestURI: "/" + before + "?redact_query=" + query, Header: http.Header{
		"X-Redact_Header": {key}, "Accept": {before}, "X-After": {after},
		"Referer": {"https://a.test/?redact%5Fquery=" + url.QueryEscape(key)},
		"Cookie":  {before + "; redact_cookie=" + strings.ReplaceAll(key, ";", ""), after},
	}}
	return []zapcore.Field{
		zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: request, ShouldLogCredentials: true}),
		zap.Any("header", request.Header),
		zap.String("bearer", before+" Bearer "+key+" "+after),
		zap.String("text", before+"\nX-Redact-Header: "+key+"\n"+after),
		zap.Error(&url.Error{Op: before, URL: "http://a/?redact_query=" + url.QueryEscape(key), Err: errors.New(after)}),
		zap.String("token", before+"/"+redactToken+"/"+after),
	}
}

func BenchmarkRedact(b *testing.B) {
	for _, bench := range []struct{ name, text string }{
		{"clean", "Mozilla/5.0 (X11 Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"},
		{"uri", "/search/things?query=something&page=2&sort=name%20up"},
		{"text", "dial tcp 127.0.0.1:1234: connect: connection refused"},
		{"query", "/search/things?query=something&api_key=" + redactToken},
		{"token", redactToken},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.text)))
			for b.Loop() {
				redactText(bench.text)
			}
		})
	}
	fields := []zapcore.Field{
		zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: &http.Request{
			RemoteAddr: "192.0.2.1:1234", Proto: "HTTP/2.0", Method: "GET", Host: "api.example.com", RequestURI: "/v1/things?page=2",
			Header: http.Header{
				"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}, "Accept": {"application/json"},
				"Accept-Encoding": {"gzip, deflate, br"}, "X-Api-Key": {redactToken}, "Referer": {"https://example.com/things"},
			},
		}}),
		zap.Int("bytes_read", 0), zap.String("user_id", "a"), zap.Duration("duration", time.Millisecond), zap.Int("size", 1), zap.Int("status", 200),
		zap.Object("resp_headers", caddyhttp.LoggableHTTPHeader{Header: http.Header{"Content-Type": {"application/json"}, "Server": {"Caddy"}}}),
	}
	entry := zapcore.Entry{Message: "handled request", LoggerName: "http.log.access.log0", Time: time.Now()}
	enc := redactEncoders()["json"]
	for name, enc := range map[string]zapcore.Encoder{"line": enc, "line without": enc.wrapped} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				line, _ := enc.EncodeEntry(entry, fields)
				line.Free()
			}
		})
	}
}

func TestRedactTextAllocatesNothingForCleanText(t *testing.T) {
	for _, text := range []string{
		"handled request", "/a?b=c&d=%20#e", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101", "dial tcp 127.0.0.1:80: refused",
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", redactedText, "/a?api_key=REDACTED",
	} {
		if n := testing.AllocsPerRun(100, func() { redactText(text) }); n != 0 {
			t.Errorf("%q costs %v allocations", text, n)
		}
	}
}

// A client must not be able to keep the server busy with a line of its log.
func TestRedactTextTakesLinearTime(t *testing.T) {
	for _, part := range []string{
		"a", "=", ":", "%25", "\"", "[", ";", "apikey=", "apikey=a&", "?apikey=a;", "apikey:", "apikey:[\"", `"apikey":"a",`, "apikey\"", "Bearer ",
		"Bearer a\n", "Cookie: ", "a=", "redact_cookie=", "redact_cookie=a;", "%3Dapi_key", "api_key%3Da%26", "Authorization: a\n", `\u0026`, "_", redactToken,
	} {
		for _, cookie := range []bool{false, true} {
			text := strings.Repeat(part, 1<<18/len(part))
			start := time.Now()
			redactString(text, cookie)
			redactString(text+" ", cookie)
			if took := time.Since(start); took > time.Second {
				t.Errorf("256 KiB of %q take %v", part, took)
			}
		}
	}
}

func redactQuote(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}
