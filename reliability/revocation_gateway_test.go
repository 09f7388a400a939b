//go:build reliability

package reliability

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// racedSite is a gateway whose cache is too small.
const racedSite = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		output discard
	}
	api_keys {
		store sqlite {store}
		cache_size 64KiB
		package a
		package b
	}
}
http://{addr} {
	api_keys {
		require package a
	}
	respond "let through"
}
`

// httpGate is a gateway as a gate: it judges at its site, and is changed at its
// admin endpoint.
type httpGate struct {
	t           *testing.T
	site, admin string
	client      *http.Client
}

func newHTTPGate(t *testing.T, site, admin string) gate {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return httpGate{t, site, admin, &http.Client{Transport: transport}}
}

// verdictOf finds verdicts by their code on the wire.
var verdictOf = func() map[string]keystore.Verdict {
	out := map[string]keystore.Verdict{}
	for v := range keystore.Verdict(keystore.Verdicts) {
		out[v.String()] = v
	}
	return out
}()

func (g httpGate) judge(text string) keystore.Verdict {
	r, err := http.NewRequest(http.MethodGet, g.site+"/", nil)
	if err != nil {
		g.t.Error(err)
		return 0
	}
	r.Header.Set("X-API-Key", text)
	var problem struct{ Code string }
	if g.do(r, &problem) == http.StatusOK {
		return keystore.OK
	}
	return verdictOf[problem.Code]
}

// do sends a request and reads the answer into the value if it is JSON.
func (g httpGate) do(r *http.Request, into any) int {
	resp, err := g.client.Do(r)
	if err != nil {
		g.t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		g.t.Error(err)
	}
	_ = json.Unmarshal(body.Bytes(), into)
	return resp.StatusCode
}

// operate calls the management API, which must answer as wanted.
func (g httpGate) operate(method, path string, body map[string]any, want int, into any) {
	text, err := json.Marshal(body)
	if err != nil {
		g.t.Error(err)
	}
	if body == nil {
		text = nil
	}
	r, err := http.NewRequest(method, g.admin+"/api_keys"+path, bytes.NewReader(text))
	if err != nil {
		g.t.Error(err)
		return
	}
	r.Header.Set("Content-Type", "application/json")
	if got := g.do(r, into); got != want {
		g.t.Errorf("%s %s: %d, want %d", method, path, got, want)
	}
}

// madeKey is what the calls that make a key answer.
type madeKey struct {
	Credential struct{ ID string }
	Key        struct{ ID, Secret string }
}

func (g httpGate) issue() raced {
	var account struct{ ID string }
	g.operate(http.MethodPost, "/accounts", map[string]any{}, http.StatusCreated, &account)
	var made madeKey
	g.operate(http.MethodPost, "/accounts/"+account.ID+"/credentials", map[string]any{"package": "a"}, http.StatusCreated, &made)
	return raced{made.Key.Secret, made.Key.ID, made.Credential.ID, account.ID}
}

func (g httpGate) rotate(credentialID, overlap string) raced {
	var made madeKey
	g.operate(http.MethodPost, "/credentials/"+credentialID+"/rotate", map[string]any{"overlap": overlap}, http.StatusOK, &made)
	return raced{text: made.Key.Secret, key: made.Key.ID, credential: credentialID}
}

func (g httpGate) revoke(keyID string) {
	g.operate(http.MethodPost, "/keys/"+keyID+"/revoke", map[string]any{}, http.StatusOK, nil)
}

func (g httpGate) changeCredential(id, member string, value any) {
	g.operate(http.MethodPatch, "/credentials/"+id, map[string]any{member: value}, http.StatusOK, nil)
}

func (g httpGate) changeAccount(id, member string, value any) {
	g.operate(http.MethodPatch, "/accounts/"+id, map[string]any{member: value}, http.StatusOK, nil)
}

func (g httpGate) deleteCredential(id string) {
	g.operate(http.MethodDelete, "/credentials/"+id, nil, http.StatusNoContent, nil)
}

func (g httpGate) deleteAccount(id string) {
	g.operate(http.MethodDelete, "/accounts/"+id, nil, http.StatusNoContent, nil)
}

// forgetfulFront is a cache of accepted keys before a gateway: the operator, too,
// goes through it, and it forgets everything at each change before that is
// answered. It returns where it stands for the site and for the admin endpoint.
func forgetfulFront(t *testing.T, site, admin string) (string, string) {
	var accepted sync.Map
	toSite := forward(t, site)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("X-API-Key")
		if _, ok := accepted.Load(key); ok {
			fmt.Fprint(w, "let through")
			return
		}
		seen := &statusWriter{ResponseWriter: w}
		toSite.ServeHTTP(seen, r)
		if seen.status == http.StatusOK {
			accepted.Store(key, true)
		}
	}))
	t.Cleanup(front.Close)
	toAdmin := forward(t, admin)
	toAdmin.ModifyResponse = func(*http.Response) error {
		accepted.Clear()
		return nil
	}
	back := httptest.NewServer(toAdmin)
	t.Cleanup(back.Close)
	return front.URL, back.URL
}

func forward(t *testing.T, to string) *httputil.ReverseProxy {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
