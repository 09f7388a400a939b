// Package examples_test runs the examples as they are: each Caddyfile in a real
// Caddy in this process, and the commands of its comments against it, with the
// status that stands behind them.
package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/caddyserver/certmagic"

	_ "github.com/caddy-apikeys/caddy-apikeys"
)

// asCaddy is set in the environment of a process that is to be a Caddy with this
// module, and not a test.
const asCaddy = "API_KEYS_TEST_AS_CADDY"

// TestMain keeps Caddy out of the developer's own directories.
func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	dir, err := os.MkdirTemp("", "api_keys_examples")
	if err != nil {
		panic(err)
	}
	caddy.ConfigAutosavePath = filepath.Join(dir, "autosave.json")
	caddy.DefaultStorage = &certmagic.FileStorage{Path: dir}
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"} {
		os.Setenv(name, dir)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// example is a running example.
type example struct {
	t         *testing.T
	name      string
	port      string
	admin     string
	log       string // the file to which all its logs go
	variables map[string]string
	secrets   []string // every key that it gave out
}

// start runs the Caddyfile of an example on free ports, with its store and its
// logs in a new directory. Edits are replacements in its text, old and new.
func start(t *testing.T, name string, edits ...string) *example {
	t.Helper()
	dir := t.TempDir()
	ports := freePorts(t, 3)
	e := &example{
		t: t, name: name, port: ports[0], admin: "127.0.0.1:" + ports[2],
		log: filepath.Join(dir, "log"), variables: map[string]string{},
	}
	t.Setenv("PORT", e.port)
	t.Setenv("BACKEND_PORT", ports[1])
	t.Setenv("ADMIN", e.admin)
	t.Setenv("STORE", filepath.Join(dir, "data", "keys.db"))
	text := strings.NewReplacer(edits...).Replace(string(caddyfile(t, name)))
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if err := caddy.Load(e.logToFile(config), true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func caddyfile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for ; len(ports) < n; nextPort++ {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(nextPort))
		if err != nil {
			continue
		}
		defer l.Close()
		ports = append(ports, strconv.Itoa(nextPort))
	}
	return ports
}

// nextPort is where freePorts goes on to look: below the ports that the system
// gives out by itself, and apart from those of the other packages' tests, because
// Caddy's listeners share a port without a word.
var nextPort = 27_000 + os.Getpid()%4_000

// logToFile changes where the logs of a configuration go, and nothing else of
// them.
func (e *example) logToFile(config []byte) []byte {
	e.t.Helper()
	var c map[string]any
	if err := json.Unmarshal(config, &c); err != nil {
		e.t.Fatal(err)
	}
	logs := c["logging"].(map[string]any)["logs"].(map[string]any)
	for name := range logs {
		logs[name].(map[string]any)["writer"] = map[string]any{"output": "file", "filename": e.log, "roll": false}
		logs[name].(map[string]any)["level"] = "DEBUG"
	}
	config, err := json.Marshal(c)
	if err != nil {
		e.t.Fatal(err)
	}
	return config
}

func (e *example) logged() string {
	e.t.Helper()
	text, err := os.ReadFile(e.log)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(text)
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body []byte
}

// send sends a request with headers given as name, value, name, value ...
func (e *example) send(method, path string, headers ...string) answer {
	e.t.Helper()
	return e.sendBody(method, path, "", headers...)
}

func (e *example) sendBody(method, path, body string, headers ...string) answer {
	e.t.Helper()
	r, err := http.NewRequest(method, "http://localhost:"+e.port+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{resp, content}
}

// json is the answer's object.
func (a answer) json(t *testing.T) (object map[string]any) {
	t.Helper()
	if err := json.Unmarshal(a.body, &object); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return object
}

// wants checks the status and members of the body, given as name, value ...
func (a answer) wants(t *testing.T, status int, members ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("status is %d, want %d: %s", a.StatusCode, status, a.body)
		return
	}
	for i := 0; i < len(members); i += 2 {
		if got := a.json(t)[members[i]]; got != members[i+1] {
			t.Errorf("%s is %v, want %q: %s", members[i], got, members[i+1], a.body)
		}
	}
}

func TestQuickstart(t *testing.T) {
	e := start(t, "quickstart")
	e.runComments()
	key := e.variables["KEY"]

	e.send("GET", "/hello").wants(t, 401, "code", "missing_key")
	e.send("GET", "/hello", "X-API-Key", key+"x").wants(t, 401, "code", "invalid_key")
	for _, header := range [][2]string{{"X-API-Key", key}, {"Authorization", "Bearer " + key}} {
		a := e.send("GET", "/hello", header[0], header[1], "X-Account-Id", "root", "x-key-roles", "root")
		a.wants(t, 200, "roles", "", "x_api_key", "", "authorization", "")
		for _, member := range []string{"account_id", "credential_id", "key_id"} {
			if got, _ := a.json(t)[member].(string); len(got) < 12 {
				t.Errorf("%s is %q", member, got)
			}
		}
		if bytes.Contains(a.body, []byte(key)) || strings.Contains(fmt.Sprint(a.Header), key) {
			t.Error("the key is in the answer")
		}
	}
	var accounts struct{ Items []struct{ ID, Email string } }
	a := e.send("GET", "/keys-api/accounts", "X-API-Key", e.variables["OPERATOR"])
	if err := json.Unmarshal(a.body, &accounts); err != nil || len(accounts.Items) != 1 || accounts.Items[0].Email != "ada@example.com" {
		t.Errorf("accounts are %s (%v)", a.body, err)
	}
	e.send("GET", "/hello", "X-API-Key", key).wants(t, 200, "account_id", accounts.Items[0].ID)
	e.checkLog()
}

func TestPackages(t *testing.T) {
	e := start(t, "packages")
	e.runComments()
	reports, billing, ops := e.variables["REPORTS"], e.variables["BILLING"], e.variables["OPS"]
	for _, c := range []struct {
		key, method, path string
		status            int
		code              string
	}{
		{reports, "GET", "/reports/today", 200, ""},
		{reports, "GET", "/billing/today", 403, "wrong_package"},
		{reports, "POST", "/billing/today", 403, "wrong_package"},
		{reports, "GET", "/", 200, ""},
		{billing, "GET", "/billing/today", 200, ""},
		{billing, "HEAD", "/billing/today", 200, ""},
		{billing, "POST", "/billing/today", 403, "missing_role"},
		{billing, "GET", "/reports/today", 403, "wrong_package"},
		{billing, "GET", "/keys-api/accounts", 403, "missing_role"},
		{ops, "GET", "/keys-api/accounts", 200, ""},
		{ops, "GET", "/reports/today", 403, "wrong_package"},
		{ops, "GET", "/billing/today", 403, "wrong_package"},
		{ops, "GET", "/", 403, "wrong_package"},
		{ops, "GET", "/keys-api/none", 403, "wrong_package"},
		{"", "GET", "/reports/today", 401, "missing_key"},
		{"", "POST", "/billing/today", 401, "missing_key"},
		{"", "GET", "/", 401, "missing_key"},
	} {
		a := e.send(c.method, c.path, "X-API-Key", c.key)
		if code, _ := codeOf(a); a.StatusCode != c.status || code != c.code {
			t.Errorf("%s %s with %q: %d %s, want %d %s", c.method, c.path, e.nameOf(c.key), a.StatusCode, code, c.status, c.code)
		}
	}
	e.send("GET", "/reports/today", "X-API-Key", reports).wants(t, 200, "package", "reports", "roles", "read")
	for shape, key := range map[string]string{
		`^rep_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$`: reports,
		`^[0-9a-f-]{36}$`:                       billing,
		`^ops_`:                                 ops,
	} {
		if !regexp.MustCompile(shape).MatchString(key) {
			t.Errorf("%s is not of the shape %s", e.nameOf(key), shape)
		}
	}
	e.checkLog()
}

func codeOf(a answer) (code string, err error) {
	var problem struct{ Code string }
	err = json.Unmarshal(a.body, &problem)
	return problem.Code, err
}

func (e *example) nameOf(key string) string {
	for name, value := range e.variables {
		if value == key {
			return name
		}
	}
	return "no key"
}

func TestExistingAPI(t *testing.T) {
	e := start(t, "existing-api")
	e.runComments()
	key := e.variables["KEY"]
	const token = "Bearer backend-token"

	e.send("GET", "/orders").wants(t, 401, "code", "missing_key")
	e.send("GET", "/orders", "Authorization", token).wants(t, 401, "code", "missing_key")
	e.send("GET", "/orders", "Authorization", "Bearer "+key).wants(t, 401, "code", "missing_key")
	e.send("GET", "/orders", "X-API-Key", key).wants(t, 401, "error", "the backend wants its token")
	a := e.send("GET", "/orders", "X-API-Key", key, "Authorization", token)
	a.wants(t, 200, "authorization", token, "x_api_key", "")
	if a.json(t)["account_id"] == "" {
		t.Error("the backend was not told who called")
	}
	if a := e.send("GET", "/healthz"); a.StatusCode != 200 || string(a.body) != `{"healthy": true}` {
		t.Errorf("health is %d %s", a.StatusCode, a.body)
	}
	for _, path := range []string{"/healthz/", "/healthz/../orders"} {
		if a := e.send("GET", path); a.StatusCode != 401 {
			t.Errorf("%s without a key: %d %s", path, a.StatusCode, a.body)
		}
	}
	e.checkLog()
}

func TestBrowser(t *testing.T) {
	e := start(t, "browser")
	e.runComments()
	key := e.variables["KEY"]
	const origin = "https://app.example"
	allowed := func(a answer) {
		t.Helper()
		if got := a.Header.Values("Access-Control-Allow-Origin"); !slices.Equal(got, []string{origin}) {
			t.Errorf("Access-Control-Allow-Origin is %q", got)
		}
		if !slices.Contains(a.Header.Values("Vary"), "Origin") {
			t.Errorf("Vary is %q", a.Header.Values("Vary"))
		}
	}

	a := e.send("OPTIONS", "/orders", "Origin", origin, "Access-Control-Request-Method", "GET")
	a.wants(t, 204)
	allowed(a)
	if got := a.Header.Get("Access-Control-Allow-Headers"); !strings.Contains(got, "X-API-Key") {
		t.Errorf("Access-Control-Allow-Headers is %q", got)
	}
	if got := a.Header.Get("Access-Control-Allow-Methods"); !strings.Contains(got, "GET") {
		t.Errorf("Access-Control-Allow-Methods is %q", got)
	}

	for _, c := range []struct {
		key    string
		status int
	}{{"", 401}, {"wrong", 401}, {key, 200}} {
		a := e.send("GET", "/orders", "Origin", origin, "X-API-Key", c.key)
		a.wants(t, c.status)
		allowed(a)
		if got := a.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(got, "WWW-Authenticate") {
			t.Errorf("Access-Control-Expose-Headers is %q", got)
		}
	}
	e.send("OPTIONS", "/orders").wants(t, 401, "code", "missing_key")
	e.send("OPTIONS", "/orders", "Origin", origin).wants(t, 401, "code", "missing_key")
	e.checkLog()
}

// leakWarning is what the app says at start of a log that would write keys.
const leakWarning = "would write API keys in clear"

// checkLog checks that the app had nothing to warn of, and that no key is in
// any log, at the most talkative level.
func (e *example) checkLog() {
	e.t.Helper()
	log := e.logged()
	if strings.Contains(log, leakWarning) {
		e.t.Errorf("the app warns of a log:\n%s", log)
	}
	if !strings.Contains(log, "handled request") {
		e.t.Error("there is no access log")
	}
	if len(e.secrets) == 0 {
		e.t.Error("no key was given out")
	}
	for _, secret := range e.secrets {
		if strings.Contains(log, secret) {
			e.t.Errorf("a key is in a log")
		}
	}
}

// TestLeakWarning checks that checkLog would notice: without its encoders, the
// quickstart is warned of both of its logs, and writes keys.
func TestLeakWarning(t *testing.T) {
	e := start(t, "quickstart", "format api_keys", "format json")
	const key = "key_012345678901_01234567890123456789012345678901234567"
	e.send("GET", "/hello", "X-API-Key", key)
	if got := strings.Count(e.logged(), leakWarning); got != 2 {
		t.Errorf("there are %d warnings, want one for the default log and one for the access log", got)
	}
	if !strings.Contains(e.logged(), key) {
		t.Error("the key is not in the log, so that looking for it proves nothing")
	}
}

// metrics is what the admin endpoint shows to Prometheus.
func (e *example) metrics() string {
	e.t.Helper()
	resp, err := http.Get("http://" + e.admin + "/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(text)
}
