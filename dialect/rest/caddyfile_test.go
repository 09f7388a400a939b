package rest

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestTheDialectTakesABasePathOnly(t *testing.T) {
	for input, allowed := range map[string]bool{
		"rest":                      true,
		"rest /keys-api":            true,
		"rest {\n}":                 true,
		"rest /keys-api {\n}":       true,
		"rest /keys-api /other":     false,
		"rest {\n\troles admin\n}":  false,
		"rest /x {\n\tanything\n}":  false,
		"rest /x /y {\n\toption\n}": false,
	} {
		err := new(Dialect).UnmarshalCaddyfile(caddyfile.NewTestDispenser(input))
		if (err == nil) != allowed {
			t.Errorf("%q: %v", input, err)
		}
	}
}

func TestTheDialectIsAModule(t *testing.T) {
	info, err := caddy.GetModule("http.api_keys.dialects.rest")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := info.New().(*Dialect); !ok {
		t.Errorf("it makes a %T", info.New())
	}
}
