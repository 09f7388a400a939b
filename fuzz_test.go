package apikeys

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// FuzzDialectOptions reads text as the options of each dialect: they are refused
// with a reason, or survive the way through JSON, and are held against what is
// declared.
func FuzzDialectOptions(f *testing.F) {
	for _, options := range []string{"", "package a\nuniform\nthrottle 3m\nclient_limit 20", "account_package a\nmax_keys 50", "role \"a b\"\noverlap 24h\nactivation_delay 0s",
		"overlap until_first_use\nrate 10/1m\ndeprecation 2030-02-02 \"bye\"", "deprecation 2030-02-02T12:00:00Z {env.X}", "rate 0/0s", "rate 10/", "throttle 1ns", "throttle 99999999h", "client_limit -1",
		"overlap -1h", "overlap 9999999h", "activation_delay 1d", "package {", "uniform {\n}", "role", "role \"\"", "max_keys 1e9", "package a\npackage a", "# x", "`a\nb`", "\\\n", "import x", "}\n{"} {
		f.Add(options)
	}
	f.Fuzz(func(t *testing.T, options string) {
		if strings.Contains(options, "import") { // it would read files
			return
		}
		for _, info := range caddy.GetModules(dialect.Namespace) {
			tokens, err := caddyfile.Tokenize([]byte(info.ID.Name()+" /base {\n"+options+"\n}"), "Caddyfile")
			if err != nil {
				return
			}
			if err := mountOptions(t, info, caddyfile.NewDispenser(tokens)); err != nil {
				wantReason(t, info.ID.Name(), options, err)
			}
		}
	})
}

// mountOptions does with options what a start does, and returns why they are
// refused.
func mountOptions(t *testing.T, info caddy.ModuleInfo, tokens *caddyfile.Dispenser) error {
	name := info.ID.Name()
	parsed := info.New()
	if err := parsed.(caddyfile.Unmarshaler).UnmarshalCaddyfile(tokens); err != nil {
		return err
	}
	config, err := json.Marshal(parsed)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	d := info.New().(dialect.Dialect)
	if err := caddy.StrictUnmarshalJSON(config, d); err != nil {
		t.Fatalf("%s: %s: %v", name, config, err)
	}
	return d.Mount(dialect.Gateway{
		Base: "/base", Packages: []keystore.Package{{Name: "a"}, {Name: "b", Roles: []string{keystore.RoleOperator}}},
		ReservePackage: func(string) {}, Mails: true, Site: new(dialect.Finder),
	})
}

// wantReason fails the test unless an error can be read. What it repeats of the
// options may be anything.
func wantReason(t *testing.T, name, options string, err error) {
	text := err.Error()
	garbled := strings.Contains(text, "%!") || strings.Contains(text, "<nil>")
	if len(text) < 10 || garbled && !strings.ContainsAny(options, "%<") {
		t.Errorf("%s: %q is no reason", name, text)
	}
}
