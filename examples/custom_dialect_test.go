package examples_test

import (
	"net/http"
	"strings"
	"testing"

	_ "github.com/caddy-apikeys/caddy-apikeys/examples/custom-dialect/plaintext"
)

func TestCustomDialect(t *testing.T) {
	e := start(t, "custom-dialect")
	e.runComments()

	// What the scripts of its users see, to the byte.
	key := e.variables["KEY"]
	line := func(method, path, key string) string {
		a := e.send(method, path, "X-API-Key", key)
		if got := a.Header.Get("Content-Type"); strings.HasPrefix(path, "/key") && got != "text/plain; charset=utf-8" {
			t.Errorf("%s %s: Content-Type is %q", method, path, got)
		}
		return http.StatusText(a.StatusCode) + ": " + string(a.body)
	}
	if got := line("GET", "/key/whoami", key); got != "OK: ada\n" {
		t.Errorf("whoami answers %q", got)
	}
	renewed := line("POST", "/key/renew", key)
	fresh := strings.TrimSuffix(strings.TrimPrefix(renewed, "OK: "), "\n")
	e.secrets = append(e.secrets, fresh)
	if got := line("GET", "/hello", fresh); got != "OK: hello ada" {
		t.Errorf("with the new key %q", got)
	}
	for path, want := range map[string]string{
		"/key/whoami": "Unauthorized: error: invalid_key\n",
		"/hello":      "Unauthorized: error: invalid_key\n",
	} {
		if got := line("GET", path, "wrong"); got != want {
			t.Errorf("%s with a wrong key answers %q, want %q", path, got, want)
		}
	}
	e.checkLog()
}
