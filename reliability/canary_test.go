//go:build reliability

package reliability

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestNoKeyTextAnywhere sends keys of every format through everything that makes,
// takes or sees one, and looks for their texts in everything that is written or
// shown. With recoverable, they are sealed in the store.
//
// The control has the json encoder of Caddy in the place of ours.
func TestNoKeyTextAnywhere(t *testing.T) {
	for _, kind := range []string{"digests", "sealed"} {
		t.Run(kind, func(t *testing.T) {
			found, _ := runCanaries(t, "api_keys", kind == "sealed")
			for _, leak := range found {
				t.Error(leak)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		found, places := runCanaries(t, "json", false)
		all := strings.Join(found, "\n")
		for _, log := range []string{"access.log", "access2.log", "default.log"} {
			for _, key := range []string{"the operator's", "exorde's", "mail's"} {
				if !strings.Contains(all, key+" is in "+log) {
					t.Errorf("control: %s key is not found in %s of the json encoder", key, log)
				}
			}
		}
		for name, content := range places {
			if !strings.HasPrefix(name, "the answer") && content == "" {
				t.Errorf("control: %s is empty: there was nothing to search", name)
			}
		}
	})
}

// TestTheLimitOfTheLogs holds what the documentation says: a key that has not the
// shape of a token is hidden where keys are taken, and can't be told from other text
// elsewhere.
func TestTheLimitOfTheLogs(t *testing.T) {
	c := startCanaries(t, "api_keys", "")
	uuid := c.Issue(keystore.Credential{Package: "Uuid"}).Text
	c.call(c.Addr, "GET", "/hidden", "", "X-API-Key", uuid)
	c.call(c.Addr, "GET", "/shown/"+uuid, "")
	log, err := os.ReadFile(filepath.Join(c.Dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if shown := strings.Contains(line, uuid); shown != strings.Contains(line, "/shown/") {
			t.Errorf("shown %v in %s", shown, line)
		}
	}
}

// runCanaries returns what was found, and where it was looked for.
func runCanaries(t *testing.T, format string, sealed bool) (found []string, places map[string]string) {
	t.Helper()
	autosave := filepath.Join(t.TempDir(), "autosave.json")
	caddy.ConfigAutosavePath, autosave = autosave, caddy.ConfigAutosavePath
	t.Cleanup(func() { caddy.ConfigAutosavePath = autosave })
	c := startCanaries(t, format, masterKey(t, sealed))
	c.makeKeys(sealed)
	for name, text := range c.texts {
		c.present(name, text)
	}
	c.misplace(c.texts["the operator's"])
	places = c.places()
	size := 0
	for _, content := range places {
		size += len(content)
	}
	t.Logf("%d keys, %d answers, %d bytes in %v", len(c.texts), len(c.answers), size, slices.Sorted(maps.Keys(places)))
	for name, answer := range c.answers {
		places["the answer to "+name] = answer
	}
	if !strings.Contains(places["events"], "api_keys.rotated") || !strings.Contains(places["/metrics"], "caddy_api_keys_requests_total") {
		t.Error("events or metrics are missing")
	}
	return leaks(places, c.texts), places
}

// masterKey is the option recoverable.
func masterKey(t *testing.T, sealed bool) string {
	t.Helper()
	if !sealed {
		return ""
	}
	key := make([]byte, keystore.MasterKeySize)
	_, _ = rand.Read(key)
	path := filepath.Join(t.TempDir(), "master")
	if err := os.WriteFile(path, []byte(hex.EncodeToString(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	return "recoverable " + path
}

// makeKeys makes a key in every way there is.
func (c *canaries) makeKeys(sealed bool) {
	c.T.Helper()
	operator := c.Issue(keystore.Credential{Package: "Coverage", Roles: []string{keystore.RoleOperator, "reader"}}).Text
	self := c.Issue(keystore.Credential{Package: "Uuid", Roles: []string{keystore.RoleSelf, "reader"}}).Text
	c.texts["the operator's"], c.texts["the holder's"] = operator, self

	secret := func(object map[string]any) string { return object["key"].(map[string]any)["secret"].(string) }
	for where, api := range map[string]string{"the site": c.Addr + " /keys-api", "the admin endpoint": c.Admin + " /api_keys"} {
		addr, base, _ := strings.Cut(api, " ")
		key := []string{"X-API-Key", operator}
		if addr == c.Admin {
			key = nil
		}
		account := c.must(addr, "POST", base+"/accounts", `{"email":"`+strings.ReplaceAll(where, " ", ".")+`@example.com"}`, key...)["id"].(string)
		made := c.must(addr, "POST", base+"/accounts/"+account+"/credentials", `{"package":"Uuid"}`, key...)
		c.texts["issued at "+where] = secret(made)
		credential := made["credential"].(map[string]any)["id"].(string)
		c.texts["rotated at "+where] = secret(c.must(addr, "POST", base+"/credentials/"+credential+"/rotate", `{"overlap":"1h"}`, key...))
		for _, text := range []string{c.texts["rotated at "+where], "key_wrong", operator} {
			_, c.answers["verify at "+where] = c.call(addr, "POST", base+"/keys/verify", `{"key":"`+text+`"}`, key...)
		}
		for _, list := range []string{"/accounts", "/accounts/" + account + "/credentials", "/credentials/" + credential + "/keys", "/openapi.yaml"} {
			_, c.answers[list+" at "+where] = c.call(addr, "GET", base+list, "", key...)
		}
	}
	repeated := []string{"X-API-Key", operator, "Idempotency-Key", "canary"}
	account := c.Account(keystore.Account{Email: "canary@example.com"})
	path := "/keys-api/accounts/" + account.ID + "/credentials"
	c.texts["sent twice"] = secret(c.must(c.Addr, "POST", path, `{"package":"Coverage"}`, repeated...))
	if again := secret(c.must(c.Addr, "POST", path, `{"package":"Coverage"}`, repeated...)); again != c.texts["sent twice"] {
		c.T.Error("a request that is sent twice makes two keys")
	}
	c.texts["the holder's new"] = secret(c.must(c.Addr, "POST", "/keys-api/self/rotate", `{"overlap":"1h"}`, "Authorization", "Bearer "+self))
	c.makeKeysOfDialects(account.ID, sealed)
}

func (c *canaries) makeKeysOfDialects(account string, sealed bool) {
	c.T.Helper()
	owner := c.Issue(keystore.Credential{AccountID: account, Package: "Account"}).Text
	c.texts["the account's"] = owner
	for i, target := range []string{"/invoice/account/key", "/invoice/account/key?apikey=" + owner} {
		headers := []string{"apikey", owner}[:2*(1-i)]
		keys := c.must(c.Addr, "POST", target, `{"package":"Coverage"}`, headers...)["ApiKeys"].([]any)
		c.texts[fmt.Sprint("single_invoice's ", i)] = keys[len(keys)-1].(string)
		if shown := fmt.Sprint(keys); sealed != strings.Contains(shown, owner) {
			c.T.Errorf("control: sealed %v, and the older keys are shown as %s", sealed, shown)
		}
	}
	plain := c.Issue(keystore.Credential{AccountID: account, Package: "Coverage", Roles: []string{"reader"}}).Text
	c.texts["adyen's caller's"] = plain
	c.texts["adyen's"] = c.must(c.Addr, "POST", "/v3/me/generateApiKey", "", "X-API-Key", plain, "Idempotency-Key", "canary")["apiKey"].(string)
	c.texts["exorde's caller's"] = c.Issue(keystore.Credential{AccountID: account, Package: "Uuid"}).Text
	c.texts["exorde's"] = c.must(c.Addr, "PUT", "/exorde/user/api-key", "", "Authorization", "Bearer "+c.texts["exorde's caller's"])["apikey"].(string)
	c.must(c.Addr, "GET", "/sarus/RequestAPIKey?Email=canary%40example.com", "")
	ctx, cancel := context.WithTimeout(c.T.Context(), 30*time.Second)
	defer cancel()
	mail, err := c.mails.Next(ctx)
	if err != nil || len(mail.Keys()) != 1 {
		c.T.Fatalf("no mail with a key came: %v", err)
	}
	c.texts["mail's"] = mail.Keys()[0]
}

// targets are paths to every kind of answer.
var targets = []string{"/", "/down", "/missing", "/keys-api/self", "/keys-api/none", "/keys-api/accounts", "/invoice/account/key", "/v3/me/generateApiKey2", "/sarus/RequestAPIKey"}

// present sends a key to all places where keys are taken, right and wrong.
func (c *canaries) present(name, key string) {
	c.T.Helper()
	upper := strings.ToUpper(key)
	bad := key[:len(key)-1] + "!"
	for i, target := range append(targets, "/panic", "/forwarded") {
		addr := c.Addr
		if target == "/panic" || target == "/forwarded" {
			addr = c.second
		}
		for j, h := range [][]string{
			{"X-API-Key", key}, {"x-api-key", key}, {"X-Other-KEY", key}, {"Authorization", "Bearer " + key}, {"authorization", "bearer  " + key}, {"Authorization", "Basic " + key},
			{"Cookie", "a=b; session_key=" + key + "; c=d"}, {"Cookie", `session_key="` + key + `"`}, {"X-API-Key", key, "X-API-Key", key}, {"X-API-Key", upper},
			{"X-API-Key", key, "Authorization", "Bearer " + key}, {"X-API-Key", bad}, {"Authorization", "Bearer " + bad}, {"X-API-Key", key, "Accept", "text/event-stream"}, {"apikey", key},
		} {
			_, c.answers[fmt.Sprint(name, i, " ", j)] = c.call(addr, "GET", target, "", h...)
		}
		for j, query := range []string{"?api_key=", "?a=b&api%5Fkey=", "?a=b;api_key=", "?API_KEY=", "?apikey="} {
			_, c.answers[fmt.Sprint(name, i, " query ", j)] = c.call(addr, "GET", target+query+url.QueryEscape(key), "")
		}
	}
}

// misplace sends a token to places where no key belongs. Its shape tells it.
func (c *canaries) misplace(token string) {
	c.T.Helper()
	for i, r := range []struct {
		method, target, body string
		headers              []string
	}{
		{"GET", "/" + token, "", nil},
		{"GET", "/keys-api/keys/" + token, "", []string{"X-API-Key", token}},
		{"GET", "/keys-api/accounts/" + token + "?" + token + "=" + token, "", []string{"X-API-Key", token}},
		{"GET", "/sarus/RequestAPIKey?Email=" + token + "&" + token, "", nil},
		{"GET", "/sarus/RequestAPIKey?" + token + "=x", "", nil},
		{"POST", "/sarus/RequestAPIKey", token, nil},
		{"POST", "/keys-api/accounts", `{"` + token + `":"` + token + `"}`, []string{"X-API-Key", token}},
		{"POST", "/keys-api/accounts", token, []string{"X-API-Key", token}},
		{"POST", "/invoice/account/key", `{"package":"` + token + `"}`, []string{"apikey", c.texts["the account's"]}},
		{"POST", "/v3/me/generateApiKey", `{"` + token + `":1}`, []string{"X-API-Key", c.texts["adyen's"], "Idempotency-Key", token}},
		{"PUT", "/exorde/user/api-key", token, []string{"Authorization", "Bearer " + c.texts["exorde's"], "X-Exorde-Api-Version", token}},
		{"GET", "/down", "", []string{"X-API-Key", token, "Referer", "https://a.example/?q=" + token, "User-Agent", "curl " + token, "Origin", token, "X-Unknown", token, "Cookie", "x=" + token}},
		{"GET", "/", "", []string{"X-API-Key", token + "," + token}},
		{"GET", "/", "", []string{"X-API-Key", "{" + token + "}"}},
		{token[:20], "/" + token, "", nil},
	} {
		_, c.answers[fmt.Sprint("a wrong place ", i)] = c.call(c.Addr, r.method, r.target, r.body, r.headers...)
	}
}

// places is everything that is written or shown.
func (c *canaries) places() map[string]string {
	c.T.Helper()
	places := map[string]string{"events": events.take()}
	for _, path := range []string{"/config/", "/metrics", "/api_keys/accounts", "/api_keys/backup", "/api_keys/export", "/reverse_proxy/upstreams"} {
		resp, err := http.Get("http://" + c.Admin + path)
		if err != nil {
			c.T.Fatal(err)
		}
		content, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err != nil {
			c.T.Fatal(err)
		}
		places[path] = string(content)
	}
	if backup := places["/api_keys/backup"]; !strings.HasPrefix(backup, "SQLite format 3") {
		c.T.Errorf("the backup begins with %.20q", backup)
	}
	files := append([]string{caddy.ConfigAutosavePath}, c.files()...)
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			c.T.Fatal(err)
		}
		places[filepath.Base(path)] = string(content)
	}
	return places
}

// files are those of the store and the logs.
func (c *canaries) files() (paths []string) {
	c.T.Helper()
	err := filepath.WalkDir(c.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".lock") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		c.T.Fatal(err)
	}
	return paths
}
