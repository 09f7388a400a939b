package bench

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	apikeys "github.com/caddy-apikeys/caddy-apikeys"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// BenchmarkHandler is the handler around the verdict, beside a handler that does
// nothing: the difference is what the gateway adds, allocations included.
func BenchmarkHandler(b *testing.B) {
	handler, text := loadHandler(b)
	nothing := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	for _, c := range []struct {
		name  string
		serve func(http.ResponseWriter, *http.Request) error
	}{
		{"nothing", nothing.ServeHTTP},
		{"api_keys", func(w http.ResponseWriter, r *http.Request) error { return handler.ServeHTTP(w, r, nothing) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := httptest.NewRecorder()
			base := httptest.NewRequest("GET", "/v1/things?page=2", nil)
			r := caddyhttp.PrepareRequest(base, caddy.NewReplacer(), w, nil)
			key := []string{text}
			for range 5000 { // until the cache holds the key
				r.Header["X-Api-Key"] = key
				_ = c.serve(w, r)
			}
			b.ReportAllocs()
			for b.Loop() {
				// A replacer and headers for each request, as Caddy makes them.
				r := caddyhttp.PrepareRequest(base, caddy.NewReplacer(), w, nil)
				r.Header = http.Header{
					"Accept": {"application/json"}, "Accept-Encoding": {"gzip"}, "User-Agent": {"bench/1"}, "X-Api-Key": key,
				}
				if err := c.serve(w, r); err != nil || w.Code != http.StatusOK {
					b.Fatal(w.Code, err)
				}
			}
		})
	}
}

// loadHandler loads a Caddyfile into a real Caddy and takes the handler out.
func loadHandler(b *testing.B) (*apikeys.Handler, string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	caddyfile := fmt.Sprintf("{\n admin off\n persist_config off\n auto_https off\n log {\n output discard\n }\n api_keys {\n store sqlite %s\n }\n}\nhttp://%s {\n api_keys\n}\n",
		filepath.Join(b.TempDir(), "store", "keys.db"), addr)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = caddy.Stop() })
	app, err := caddy.ActiveContext().App("api_keys")
	if err != nil {
		b.Fatal(err)
	}
	keyring, err := app.(*apikeys.App).Keyring(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	account, err := keyring.CreateAccount(b.Context(), keystore.Account{})
	if err != nil {
		b.Fatal(err)
	}
	web, err := caddy.ActiveContext().App("http")
	if err != nil {
		b.Fatal(err)
	}
	for _, server := range web.(*caddyhttp.App).Servers {
		if h := find(server.Routes); h != nil {
			return h, issue(b, keyring, account.ID)
		}
	}
	b.Fatal("no api_keys handler in the configuration")
	return nil, ""
}

func find(routes caddyhttp.RouteList) *apikeys.Handler {
	for _, route := range routes {
		for _, h := range route.Handlers {
			switch h := h.(type) {
			case *apikeys.Handler:
				return h
			case *caddyhttp.Subroute:
				if found := find(h.Routes); found != nil {
					return found
				}
			}
		}
	}
	return nil
}
