package apikeys

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The promises of the design that need neither a crash nor a cluster, one test
// each; that of reloads is in lifecycle_test.go, that of the gate in
// gate_test.go.

// TestPromise02NoRevokedKeyIsAccepted uses keys from several clients while they
// are revoked: a request that starts after the revocation's answer is refused.
func TestPromise02NoRevokedKeyIsAccepted(t *testing.T) {
	g := startWith(t, "cache_size 64KiB", "")
	for range 60 {
		issued := g.issue(keystore.Credential{})
		var revoked, started atomic.Bool
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for after := false; !after; {
					after = revoked.Load()
					status := g.get("/", "X-Api-Key", issued.Text).StatusCode
					started.Store(true)
					if after && status != http.StatusUnauthorized {
						t.Errorf("a request that started after the revocation's answer got %d", status)
					}
				}
			})
		}
		for !started.Load() {
			runtime.Gosched()
		}
		g.revoke(issued.Key.ID)
		revoked.Store(true)
		clients.Wait()
	}
}

// TestPromise04ACreatedKeyWorksAtOnce also where the same text was refused just
// before it was made.
func TestPromise04ACreatedKeyWorksAtOnce(t *testing.T) {
	g := startWith(t, "", "")
	for range 100 {
		issued := g.issue(keystore.Credential{})
		if got := g.get("/", "X-Api-Key", issued.Text); got.StatusCode != 200 {
			t.Fatalf("a new key is answered %d", got.StatusCode)
		}
		rotated := g.rotate(issued.Credential.ID, "0s")
		if got := g.get("/", "X-Api-Key", rotated.Text); got.StatusCode != 200 {
			t.Fatalf("a rotated key is answered %d", got.StatusCode)
		}
	}
}

// leaky is a gateway whose every log is at DEBUG, with an upstream that is down
// on one path, metrics, and keys in every kind of place.
const leaky = `{
	admin {admin}
	persist_config off
	auto_https off
	metrics
	debug
	log {
		level DEBUG
		output file {dir}/default.log {
			roll_disabled
		}
		format {format}
	}
	api_keys {
		store sqlite {store}
		pepper {env.TEST_PEPPER}
	}
}
http://{addr} {
	log {
		level DEBUG
		output file {dir}/access.log {
			roll_disabled
		}
		format {format}
	}
	api_keys {
		dialect rest /keys-api
		from bearer
		from header X-API-Key
		from header X-Other-Key
		from query api_key
		from cookie session_key
	}
	handle /down* {
		reverse_proxy 127.0.0.1:1
	}
	reverse_proxy {upstream}
}
`

// TestPromise06NoKeyTextAnywhere sends canary keys in every way and searches
// everything the gateway writes or shows.
func TestPromise06NoKeyTextAnywhere(t *testing.T) {
	hits, canaries := runCanaries(t, "api_keys")
	for _, h := range hits {
		t.Errorf("a key's text is in %s", h)
	}
	if canaries == 0 {
		t.Error("no canary was sent")
	}
}

// TestPromise06Control shows that the search finds what stock Caddy's own
// encoder writes.
func TestPromise06Control(t *testing.T) {
	hits, _ := runCanaries(t, "json")
	found := strings.Join(hits, " ")
	for _, name := range []string{"access.log", "default.log"} {
		if !strings.Contains(found, name) {
			t.Errorf("with the json encoder no canary is found in %s", name)
		}
	}
}

func runCanaries(t *testing.T, format string) (hits []string, canaries int) {
	pepper := "pepper of this test " + hex.EncodeToString(make([]byte, 8))
	t.Setenv("TEST_PEPPER", pepper)
	g := start(t, strings.ReplaceAll(leaky, "{format}", format))
	issued := g.issue(keystore.Credential{Roles: []string{keystore.RoleOperator}})
	key := issued.Text
	secret := key[len(key)-38:]
	uuid := "123e4567-e89b-42d3-a456-426655440000"
	seen := map[string][]byte{}
	for i, target := range []string{"/", "/down", "/keys-api/self", "/keys-api/accounts"} {
		for j, headers := range canaryHeaders(key, uuid) {
			canaries++
			got := g.get(target, headers...)
			if got.Header.Get("X-Upstream") == "" { // the upstream echoes what is its own to see
				seen[fmt.Sprintf("answer %d.%d", i, j)] = append(got.body, fmt.Sprint(got.Header)...)
			}
		}
		for j, query := range []string{"?api_key=", "?a=1&api%5Fkey=", "?API_KEY=", "?x=1;api_key="} {
			canaries++
			got := g.get(target + query + url.QueryEscape(key))
			seen[fmt.Sprintf("answer %d to a query %d", i, j)] = got.body
		}
	}
	seen["answer to a path"] = g.get("/keys-api/keys/"+key, "X-Api-Key", key).body
	seen["answer to verify"] = g.verify(key).body
	for _, path := range []string{"/config/", "/metrics"} {
		seen[path] = g.adminGet(path)
	}
	var backup bytes.Buffer
	if err := g.vault().Backup(context.Background(), &backup); err != nil {
		t.Fatal(err)
	}
	seen["backup"] = backup.Bytes()
	g.collectFiles(seen)
	digestless := []string{key, secret, uuid, pepper}
	for name, content := range seen {
		for _, needle := range digestless {
			if containsEncoded(content, needle) {
				hits = append(hits, name)
				break
			}
		}
	}
	return hits, canaries
}

// canaryHeaders are the ways of presenting a key in headers, also wrong ones.
func canaryHeaders(key, uuid string) [][]string {
	return [][]string{
		{"X-Api-Key", key}, {"x-api-key", key}, {"X-OTHER-key", key}, {"Authorization", "Bearer " + key}, {"authorization", "bearer " + key},
		{"Authorization", key}, {"Cookie", "a=1; session_key=" + key}, {"X-Api-Key", key, "Authorization", "Bearer " + key},
		{"X-Api-Key", key + "x"}, {"X-Api-Key", key[:len(key)-1]}, {"X-Api-Key", strings.ToUpper(key)}, {"X-Api-Key", " " + key + " "},
		{"X-Api-Key", uuid}, {"Authorization", "Bearer " + uuid}, {"Cookie", "session_key=" + uuid},
		{"X-Api-Key", key, "Referer", "https://app.example/?api_key=" + key},
		{"X-Api-Key", key, "User-Agent", "curl " + key},
		{"X-Api-Key", key, "Accept", "text/event-stream"},
	}
}

func (g *gateway) verify(key string) answer {
	g.t.Helper()
	r, err := http.NewRequest("POST", "http://"+g.admin+"/api_keys/keys/verify", strings.NewReader(`{"key":"`+key+`"}`))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return g.do(r)
}

func (g *gateway) adminGet(path string) []byte {
	g.t.Helper()
	resp, err := http.Get("http://" + g.admin + path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		g.t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
	}
	return body
}

// collectFiles reads the logs and the files of the store.
func (g *gateway) collectFiles(into map[string][]byte) {
	g.t.Helper()
	err := filepath.WalkDir(g.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		into[filepath.Base(path)] = content
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, name := range []string{"access.log", "default.log", "keys.db"} {
		if len(into[name]) == 0 {
			g.t.Fatalf("%s is empty: there is nothing to search", name)
		}
	}
}

// containsEncoded looks for the text as it is, in hex, base64 and URL-encoded,
// in either case.
func containsEncoded(content []byte, text string) bool {
	lower := bytes.ToLower(content)
	for _, form := range []string{
		text, hex.EncodeToString([]byte(text)), base64.RawStdEncoding.EncodeToString([]byte(text)),
		base64.RawURLEncoding.EncodeToString([]byte(text)), strings.ReplaceAll(text, "_", "%5F"), url.QueryEscape(text),
	} {
		if bytes.Contains(lower, []byte(strings.ToLower(form))) {
			return true
		}
	}
	return false
}

// TestPromise08IdentityIsOursOrAbsent is the table of forgeries for a site that
// lets names with underscores through.
func TestPromise08IdentityIsOursOrAbsent(t *testing.T) {
	for name, block := range map[string]string{"accepted": "", "anonymous": "anonymous allow", "off": "enforce off"} {
		t.Run(name, func(t *testing.T) {
			g := startWith(t, "", block)
			issued := g.issue(keystore.Credential{Roles: []string{"r"}})
			for _, f := range forgeries {
				key := ""
				if block == "" {
					key = "X-API-Key: " + issued.Text + "\r\n"
				}
				g.raw("GET / HTTP/1.1\r\nHost: " + g.addr + "\r\n" + key + f.headers + "Connection: close\r\n\r\n")
				checkIdentity(t, g, f.name, block == "", issued)
			}
		})
	}
}

// TestPromise09AFloodOfUnknownKeysTakesNoMemory floods the gateway with random
// keys of valid shape and checksum; good keys are accepted all the while. Its
// effect on latency is measured in bench/.
func TestPromise09AFloodOfUnknownKeysTakesNoMemory(t *testing.T) {
	const flood, limit = 60_000, 64 << 20
	g := startWith(t, "", "")
	good := g.issue(keystore.Credential{}).Text
	kr := g.keyring()
	before := heap()
	request := keystore.Request{Requirement: &keystore.Requirement{}}
	for i := range flood {
		if _, v, err := kr.Accept(t.Context(), rand.Text(), request); v != keystore.InvalidKey {
			t.Fatalf("an unknown key is %v, %v", v, err)
		}
		if i%100 == 0 {
			if _, v, err := kr.Accept(t.Context(), good, request); v != keystore.OK {
				t.Fatalf("a good key is %v, %v", v, err)
			}
		}
	}
	for range 500 {
		if got := g.get("/", "X-Api-Key", rand.Text()); got.code() != "invalid_key" {
			t.Fatalf("an unknown key is answered %d", got.StatusCode)
		}
	}
	if grown := int64(heap()) - int64(before); grown > limit {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestPromise10BadInputGetsAClearRefusal sends what no client should. Bodies of
// management routes have their own table with dialect rest.
func TestPromise10BadInputGetsAClearRefusal(t *testing.T) {
	g := startWith(t, "", "dialect rest /keys-api")
	good := g.issue(keystore.Credential{Roles: []string{keystore.RoleOperator}}).Text
	long := strings.Repeat("a", 20_000)
	for name, lines := range map[string]string{
		"NUL in the key":             "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: a\x00b\r\n",
		"control in the key":         "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: a\x01b\r\n",
		"not ASCII in the key":       "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: cl\xc3\xa9\r\n",
		"not UTF-8 in the key":       "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: \xff\xfe\r\n",
		"folded header":              "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key:\r\n " + good[:20] + "\r\n " + good[20:] + "\r\n",
		"space before the colon":     "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key : " + good + "\r\n",
		"several at once":            "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: " + good + "\r\nX-API-Key: " + good + "\r\n",
		"a list of keys":             "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: " + good + ", " + good + "\r\n",
		"long key":                   "GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: " + long + "\r\n",
		"long bearer":                "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + long + "\r\n",
		"bearer with parameters":     "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token=\"" + good + "\"\r\n",
		"an id that is a key":        "GET /keys-api/keys/" + good + " HTTP/1.1\r\nHost: x\r\nX-API-Key: " + good + "\r\n",
		"an id with escaped slashes": "GET /keys-api/accounts/..%2f..%2fx HTTP/1.1\r\nHost: x\r\nX-API-Key: " + good + "\r\n",
		"an id with a bad escape":    "GET /keys-api/accounts/%zz HTTP/1.1\r\nHost: x\r\nX-API-Key: " + good + "\r\n",
		"an id with NUL":             "GET /keys-api/accounts/%00 HTTP/1.1\r\nHost: x\r\nX-API-Key: " + good + "\r\n",
		"a wrong method":             "BREW /keys-api/accounts HTTP/1.1\r\nHost: x\r\nX-API-Key: " + good + "\r\n",
		"a body that is no JSON":     "POST /keys-api/accounts HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nX-API-Key: " + good + "\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			request := strings.Replace(lines, "Host: x\r\n", "Host: "+g.addr+"\r\nConnection: close\r\n", 1)
			if !strings.Contains(request, "\r\n\r\n") {
				request += "\r\n"
			}
			got := g.raw(request)
			if !strings.HasPrefix(got, "HTTP/1.1 4") {
				t.Errorf("answered %.60q", got)
			}
			if strings.Contains(got, good) {
				t.Error("the answer repeats the key")
			}
			if n := len(g.upstream.taken()); n != 0 {
				t.Errorf("the upstream was reached %d times", n)
			}
		})
	}
}
