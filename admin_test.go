package apikeys

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// onAdmin calls the admin endpoint; headers are given in pairs.
func (g *gateway) onAdmin(method, target, body string, headers ...string) answer {
	g.t.Helper()
	r, err := http.NewRequest(method, "http://"+g.admin+target, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return g.do(r)
}

func (g *gateway) wantOnAdmin(status int, code, method, target, body string) answer {
	g.t.Helper()
	a := g.onAdmin(method, target, body)
	if a.StatusCode != status || a.code() != code {
		g.t.Errorf("%s %s answers %d %s", method, target, a.StatusCode, a.body)
	}
	if status >= 400 && a.Header.Get("Content-Type") != "application/problem+json" {
		g.t.Errorf("%s %s answers with %s", method, target, a.Header.Get("Content-Type"))
	}
	return a
}

// settleAdmin waits until the admin endpoint of the former configuration is
// gone: for a moment after a load, its listener still takes connections that
// nobody answers.
func (g *gateway) settleAdmin() {
	http.DefaultClient.CloseIdleConnections()
	for answered := 0; answered < 20; {
		resp, err := http.Get("http://" + g.admin + "/config/")
		if err != nil {
			answered = 0
			continue
		}
		resp.Body.Close()
		http.DefaultClient.CloseIdleConnections() // the next one is a new connection
		answered++
	}
}

func TestTheAdminEndpointManagesKeysThatSitesTake(t *testing.T) {
	g := startWith(t, "", "dialect rest /keys-api")
	g.wantOnAdmin(201, "", "POST", "/api_keys/accounts", `{"id":"acme"}`)
	made := g.wantOnAdmin(201, "", "POST", "/api_keys/accounts/acme/credentials", `{"roles":["api_keys:self"]}`)
	if !strings.HasPrefix(made.Header.Get("Location"), "/api_keys/credentials/") {
		t.Errorf("Location is %q", made.Header.Get("Location"))
	}
	_, rest, _ := strings.Cut(string(made.body), `"secret":"`)
	secret, _, _ := strings.Cut(rest, `"`)
	if a := g.get("/", "X-Api-Key", secret); a.StatusCode != 200 {
		t.Errorf("the site answers %d %s", a.StatusCode, a.body)
	}
	if a := g.get("/keys-api/self", "X-Api-Key", secret); a.StatusCode != 200 || !strings.Contains(string(a.body), `"acme"`) {
		t.Errorf("the dialect answers %d %s", a.StatusCode, a.body)
	}
	g.wantOnAdmin(204, "", "DELETE", "/api_keys/accounts/acme", "")
	if a := g.get("/", "X-Api-Key", secret); a.StatusCode != 401 || a.code() != "revoked_key" {
		t.Errorf("after the deletion the site answers %d %s", a.StatusCode, a.body)
	}
}

func TestTheAdminEndpointAnswersProblems(t *testing.T) {
	g := startWith(t, "", "")
	g.wantOnAdmin(404, "not_found", "GET", "/api_keys/", "")
	g.wantOnAdmin(404, "not_found", "GET", "/api_keys/unknown", "")
	g.wantOnAdmin(404, "not_found", "GET", "/api_keys/self", "")
	g.wantOnAdmin(404, "not_found", "GET", "/api_keys/accounts/a%2Fb", "")
	g.wantOnAdmin(405, "method_not_allowed", "PUT", "/api_keys/accounts", "")
	g.wantOnAdmin(400, "malformed_body", "POST", "/api_keys/accounts", "nonsense")
	g.wantOnAdmin(400, "invalid_parameter", "GET", "/api_keys/backup?x=1", "")
}

func TestCaddyChecksWhoCallsTheAdminEndpoint(t *testing.T) {
	g := startWith(t, "", "")
	if a := g.onAdmin("POST", "/api_keys/accounts", "{}", "Origin", "https://evil.example"); a.StatusCode != 403 {
		t.Errorf("another origin gets %d %s", a.StatusCode, a.body)
	}
	if a := g.onAdmin("GET", "/api_keys/accounts", "", "Sec-Fetch-Mode", "no-cors"); a.StatusCode != 400 {
		t.Errorf("a page without CORS gets %d %s", a.StatusCode, a.body)
	}
}

func TestWithoutTheAppTheAdminEndpointSaysSo(t *testing.T) {
	g := start(t, "{\n\tadmin {admin}\n\tpersist_config off\n\tauto_https off\n}\nhttp://{addr} {\n\trespond ok\n}\n")
	g.wantOnAdmin(404, "not_configured", "GET", "/api_keys/accounts", "")
	g.wantOnAdmin(404, "not_configured", "GET", "/api_keys/backup", "")
	g.wantOnAdmin(404, "not_configured", "GET", "/api_keys/export", "")
	g.load(strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal))
	g.settleAdmin()
	g.wantOnAdmin(200, "", "GET", "/api_keys/accounts", "")
}

func TestAnAppThatOnlyASiteBroughtInIsManaged(t *testing.T) {
	g := start(t, "{\n\tadmin {admin}\n\tpersist_config off\n\tauto_https off\n}\nhttp://{addr} {\n\tapi_keys\n\trespond ok\n}\n")
	g.wantOnAdmin(200, "", "GET", "/api_keys/accounts", "")
}

func TestTheAdminEndpointFollowsAReload(t *testing.T) {
	g := startWith(t, "", "")
	g.wantOnAdmin(201, "", "POST", "/api_keys/accounts", `{"id":"first"}`)
	g.load(strings.NewReplacer("{global}", "key_prefix acme", "{block}", "").Replace(minimal))
	g.settleAdmin()
	made := g.wantOnAdmin(201, "", "POST", "/api_keys/accounts/first/credentials", "")
	if !strings.Contains(string(made.body), `"secret":"acme_`) {
		t.Errorf("the key is not of the new configuration: %s", made.body)
	}
}

func TestAStoreThatCantBeOpenedIsUnavailable(t *testing.T) {
	g := startWith(t, "", "")
	// A configuration whose store is damaged does not start, so the running app
	// is made to look as if it had not opened its store yet.
	damaged := filepath.Join(t.TempDir(), "store", "damaged.db")
	if err := os.MkdirAll(filepath.Dir(damaged), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, []byte("SQLite format 3\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	app, err := runningApp()
	if err != nil {
		t.Fatal(err)
	}
	old, path := app.opened.Swap(nil), app.place
	app.place = place{engine: engineSQLite, at: damaged}
	defer func() {
		app.place = path
		app.opened.Store(old)
	}()
	for _, target := range []string{"/api_keys/accounts", "/api_keys/backup", "/api_keys/export"} {
		a := g.wantOnAdmin(503, "store_unavailable", "GET", target, "")
		if a.Header.Get("Retry-After") == "" || strings.Contains(string(a.body), "damaged") {
			t.Errorf("%v %s", a.Header, a.body)
		}
	}
}

func TestTheAdminEndpointStreamsABackup(t *testing.T) {
	g := startWith(t, "", "")
	g.wantOnAdmin(201, "", "POST", "/api_keys/accounts", `{"id":"acme"}`)
	resp, err := http.Get("http://" + g.admin + "/api_keys/backup")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasPrefix(string(got), "SQLite format 3\x00") || !strings.Contains(string(got), "acme") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if resp.Header.Get("Content-Type") != "application/vnd.sqlite3" {
		t.Errorf("headers are %v", resp.Header)
	}
}
