package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestWithoutAStoreEveryCallIsUnavailable(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""), "api_keys:operator")
	g.broken = errBroken
	for _, call := range everyCall(h) {
		clients := []client{g.holder(h.secret), g.operator()}
		if strings.HasPrefix(call[1], "/self") {
			clients = clients[:1]
		}
		for _, c := range clients {
			before := g.logs.Len()
			a := c.do(call[0], call[1], "").wantProblem(503, "store_unavailable", "")
			if a.header.Get("Retry-After") != "5" || strings.Contains(a.body, errBroken.Error()) {
				t.Errorf("%s %s: %v %s", call[0], call[1], a.header, a.body)
			}
			if logged := g.logs.All()[before:]; len(logged) != 1 || !strings.Contains(fmt.Sprint(logged[0].ContextMap()), errBroken.Error()) {
				t.Errorf("%s %s: logged %v", call[0], call[1], logged)
			}
		}
	}
}

func TestAClosedStoreIsUnavailable(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(""))
	if err := g.vault.Close(); err != nil {
		t.Fatal(err)
	}
	for _, call := range everyCall(h) {
		if strings.HasPrefix(call[1], "/self") {
			continue
		}
		body := ""
		if call[1] == "/keys/verify" {
			body = `{"key":"` + strings.Repeat("x", 30) + `"}`
		}
		g.operator().do(call[0], call[1], body).wantProblem(503, "store_unavailable", "")
	}
	g.operator().do("GET", "/backup", "").wantProblem(503, "store_unavailable", "")
}

func TestEveryErrorHasItsAnswer(t *testing.T) {
	for _, rule := range []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"a damaged store", fmt.Errorf("reading: %w", keystore.ErrDamaged), 503, "store_unavailable"},
		{"a client that went away", fmt.Errorf("reading: %w", context.Canceled), 503, "store_unavailable"},
		{"a conflict that the store found", fmt.Errorf("insert into accounts: %w", keystore.ErrConflict), 409, "conflict"},
		{"something unforeseen", errors.New("sql: no rows"), 500, "internal_error"},
		{"an unforeseen error that wraps a refusal", fmt.Errorf("sql: %w", refuse(errBroken, "member", "detail")), 500, "internal_error"},
	} {
		t.Run(rule.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			New(nil, zap.NewNop()).fail(w, httptest.NewRequest("GET", "/x", nil), rule.err)
			if w.Code != rule.status || !strings.Contains(w.Body.String(), `"code":"`+rule.code+`"`) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			for _, word := range []string{"sql", "insert", "reading", "member"} {
				if strings.Contains(w.Body.String(), word) {
					t.Errorf("the answer says %q: %s", word, w.Body)
				}
			}
		})
	}
}

func TestABackupIsAWholeStore(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(`{"company":"Acme"}`))
	a := g.operator().do("GET", "/backup", "").want(200)
	if !strings.HasPrefix(a.body, "SQLite format 3\x00") || a.header.Get("Content-Type") != "application/vnd.sqlite3" ||
		!strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="api_keys-`) {
		t.Errorf("headers %v, %d bytes", a.header, len(a.body))
	}
	if !strings.Contains(a.body, h.credential) || strings.Contains(a.body, h.secret[len(h.secret)-38:]) {
		t.Error("the snapshot lacks a credential, or holds a key's text")
	}
}

func TestABackupOfAServersStoreIsAScript(t *testing.T) {
	routes := New(nil, zap.NewNop()).OperatorRoutes("", func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "-- A backup\n")
		return err
	})
	resp, err := http.Get(serveRoutes(t, routes.Find).URL + "/backup")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if is, named := resp.Header.Get("Content-Type"), resp.Header.Get("Content-Disposition"); is != "application/sql" || !strings.HasSuffix(named, `.sql"`) {
		t.Errorf("Content-Type %q, Content-Disposition %q", is, named)
	}
}

func TestABackupThatBreaksOffIsNoWholeResponse(t *testing.T) {
	routes := New(nil, zap.NewNop()).OperatorRoutes("", func(_ context.Context, w io.Writer) error {
		_, _ = w.Write([]byte("SQLite format 3\x00"))
		return errBroken
	})
	server := serveRoutes(t, routes.Find)
	server.Config.ErrorLog = nil
	resp, err := http.Get(server.URL + "/backup")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a part of a snapshot passes for the whole")
	}
}

func TestARefusalIsAProblem(t *testing.T) {
	finder, err := dialect.NewFinder(dialect.DefaultLocations())
	if err != nil {
		t.Fatal(err)
	}
	for v := keystore.MissingKey; v < keystore.Verdicts; v++ {
		f := dialect.RefusalOf(v, nil, finder)
		w := httptest.NewRecorder()
		new(Dialect).Refuse(w, httptest.NewRequest("GET", "/a%2Fb?key=x", nil), f)
		body := w.Body.String()
		if w.Code != f.Status || !strings.Contains(body, `"code":"`+v.String()+`"`) || !strings.Contains(body, `"instance":"/a%2Fb"`) {
			t.Errorf("%s: %d %s", v, w.Code, body)
		}
		if f.Status == 401 && w.Header().Get("WWW-Authenticate") == "" || w.Header().Get("WWW-Authenticate") != f.Challenge {
			t.Errorf("%s: WWW-Authenticate is %q", v, w.Header().Get("WWW-Authenticate"))
		}
	}
}
