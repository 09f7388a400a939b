package adyen_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestMain(m *testing.M) { os.Exit(livetest.Main(m)) }

// role is what a key needs to generate keys, unless the operator says otherwise.
const role = "Management API—API credentials read and write"

// versions of HTTP over which everything is tried.
var versions = []int{1, 2}

// gateway is a running gateway that speaks the dialect below /v3, and refuses in
// its manner.
type gateway struct{ *livetest.Gateway }

// start runs a gateway with options of the dialect and of the app.
func start(t *testing.T, options, global string) gateway {
	t.Helper()
	return gateway{livetest.Start(t, global, block(options, global))}
}

func block(options, global string) string {
	require := ""
	if strings.Contains(global, "package") {
		require = "\nrequire any"
	}
	return "dialect adyen /v3 {\n" + options + "\n}\nerrors adyen" + require
}

// holder is a credential and its first key.
type holder struct {
	account, credential, key, keyID string
}

// holder makes a credential of an account, of a new one if it is empty.
func (g gateway) holder(account string, roles ...string) holder {
	g.T.Helper()
	return holderOf(g.Issue(keystore.Credential{AccountID: account, Roles: roles}))
}

func holderOf(i *keystore.Issued) holder {
	return holder{i.Credential.AccountID, i.Credential.ID, i.Text, i.Key.ID}
}

func company(account, credential string) string {
	return "/v3/companies/" + account + "/apiCredentials/" + credential + "/generateApiKey"
}

func merchant(account, credential string) string {
	return "/v3/merchants/" + account + "/apiCredentials/" + credential + "/generateApiKey"
}

const me = "/v3/me/generateApiKey"

// generate sends the request that the API's clients send.
func (g gateway) generate(version int, target, key string, headers ...string) livetest.Answer {
	g.T.Helper()
	headers = append([]string{"X-API-Key", key, "Content-Type", "application/json"}, headers...)
	return g.Do(version, "POST", target, "", headers...)
}

var answered = regexp.MustCompile(`^\{"apiKey":"([^"]+)"\}$`)

// wantKey returns the key of an answer that is as it must be.
func (g gateway) wantKey(a livetest.Answer) string {
	g.T.Helper()
	found := answered.FindStringSubmatch(a.Text)
	if a.StatusCode != 200 || found == nil {
		g.T.Fatalf("answered %d %s", a.StatusCode, a.Text)
	}
	wantHeaders(g.T, a, "Content-Type", "application/json; charset=utf-8", "Cache-Control", "no-store")
	return found[1]
}

func wantHeaders(t *testing.T, a livetest.Answer, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := a.Header.Get(pairs[i]); got != pairs[i+1] {
			t.Errorf("%s is %q, want %q", pairs[i], got, pairs[i+1])
		}
	}
}

var requestID = regexp.MustCompile(`"requestId":"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"`)

// idOf is the id of an error, empty if it has none.
func idOf(body string) string {
	if found := requestID.FindStringSubmatch(body); found != nil {
		return found[1]
	}
	return ""
}

// errorObject is the whole body of an error. Fields are those of invalidFields,
// in pairs and a sentence: name, value, message.
func errorObject(status int, title, detail, id string, fields ...[3]string) string {
	page := strings.ReplaceAll(strings.ToLower(title), " ", "-")
	if status == 500 {
		page = "internal"
	}
	body := fmt.Sprintf(`{"type":"https://docs.adyen.com/errors/%s","title":"%s","status":%d,"detail":"%s","errorCode":"00_%d","instance":"urn:uuid:%s","requestId":"%s"`,
		page, title, status, detail, status, id, id)
	for i, f := range fields {
		body += map[bool]string{true: `,"invalidFields":[`, false: ","}[i == 0]
		body += fmt.Sprintf(`{"name":"%s","value":"%s","message":"%s"}`, f[0], f[1], f[2])
	}
	if len(fields) > 0 {
		body += "]"
	}
	return body + "}"
}

// wantError checks an error byte for byte, but for its id, and that its id leads
// to the log.
func (g gateway) wantError(a livetest.Answer, status int, detail string, fields ...[3]string) {
	g.T.Helper()
	id := idOf(a.Text)
	want := errorObject(status, http.StatusText(status), detail, id, fields...)
	if a.StatusCode != status || id == "" || a.Text != want {
		g.T.Errorf("answered %d\n%s, want\n%s", a.StatusCode, a.Text, want)
		return
	}
	wantHeaders(g.T, a, "Content-Type", "application/problem+json", "Cache-Control", "no-store")
	if challenged := a.Header.Get("WWW-Authenticate") != ""; status == 401 && !challenged {
		g.T.Error("a 401 without WWW-Authenticate")
	}
	if !strings.Contains(g.Logged(), `"request_id":"`+id+`"`) {
		g.T.Errorf("the log does not have the id of %s", a.Text)
	}
}

// keys are those of a credential, oldest first.
func (g gateway) keys(credential string) []keystore.KeyStatus {
	g.T.Helper()
	keys, err := g.Keyring().Keys(context.Background(), credential, keystore.Page{})
	if err != nil {
		g.T.Fatal(err)
	}
	return keys
}

// wantKeys checks how many keys a credential has.
func (g gateway) wantKeys(credential string, n int) {
	g.T.Helper()
	if got := len(g.keys(credential)); got != n {
		g.T.Errorf("the credential has %d keys, want %d", got, n)
	}
}

// opens checks whether a key opens a proxied route.
func (g gateway) opens(key string) bool {
	g.T.Helper()
	return g.Do(1, "GET", "/anything", "", "X-API-Key", key).StatusCode == 200
}

// update changes a credential as an operator does.
func (g gateway) update(credential string, edit func(*keystore.Credential)) {
	g.T.Helper()
	_, err := g.Keyring().UpdateCredential(context.Background(), keystore.Operator(), credential, func(c *keystore.Credential) error {
		edit(c)
		return nil
	})
	if err != nil {
		g.T.Fatal(err)
	}
}

// revoke ends a key.
func (g gateway) revoke(keyID string) {
	g.T.Helper()
	if _, err := g.Keyring().RevokeKey(context.Background(), keyID, "test"); err != nil {
		g.T.Fatal(err)
	}
}
