package sarus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/sarus"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestWrongOptionsAreRefusedWithAReason: which option, what is wrong with it, and
// what is allowed.
func TestWrongOptionsAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		name, global, options string
		says                  []string
	}{
		{"no mail", "-", "", []string{"dialect sarus", "no mail server", "api_keys { mail {"}},
		{"an unknown option", "", "overlap 1h", []string{"dialect sarus", `"overlap"`, "client_limit, package, throttle, uniform"}},
		{"an option twice", "", "uniform\nuniform", []string{"dialect sarus", "uniform", "twice", "once"}},
		{"a block of an option", "", "uniform {\n}", []string{"uniform", "no block", "remove"}},
		{"throttle without a duration", "", "throttle", []string{"throttle", "got 0 arguments", "throttle <duration>"}},
		{"throttle that is none", "", "throttle often", []string{`throttle "often"`, "positive duration", "10m"}},
		{"throttle below zero", "", "throttle -3m", []string{`throttle "-3m"`, "positive duration"}},
		{"throttle of nothing", "", "throttle 0s", []string{`throttle "0s"`, "positive duration"}},
		{"throttle that is too short", "", "throttle 999ms", []string{"throttle 999ms", "at least 1s"}},
		{"client_limit without a number", "", "client_limit", []string{"client_limit", "got 0 arguments", "client_limit <n>"}},
		{"client_limit that is none", "", "client_limit many", []string{`client_limit "many"`, "1 or more"}},
		{"client_limit of nothing", "", "client_limit 0", []string{`client_limit "0"`, "1 or more"}},
		{"client_limit that is too high", "", "client_limit 1000001", []string{"client_limit 1000001", "1 to 1000000"}},
		{"uniform with an argument", "", "uniform yes", []string{"uniform", `"yes"`, "no argument"}},
		{"package without a name", "package P", "package", []string{"package", "got 0 arguments", "package <name>"}},
		{"package with two names", "package P", "package P Q", []string{"package", "got 2 arguments", "package <name>"}},
		{"package that is missing", "package P\npackage Q", "", []string{"dialect sarus", "package is missing", "declared: P, Q"}},
		{"package where none is declared", "", "package P", []string{`package "P"`, "none is", "remove it", "api_keys { package P }"}},
		{"package that is not declared", "package P\npackage Q", "package p", []string{`package "p"`, "not declared", "declared: P, Q"}},
		{"package with a reserved role", "package P {\nroles read api_keys:self\n}", "package P", []string{`package "P"`, "api_keys:self", "not sent by e-mail"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			global := mailOption("127.0.0.1:1") + c.global
			if c.global == "-" {
				global = ""
			}
			refused := livetest.Refused(t, global, block(c.options))
			for _, s := range c.says {
				if !strings.Contains(refused, s) {
					t.Errorf("the error does not say %q:\n%s", s, refused)
				}
			}
		})
	}
}

// TestJSONIsHeldToTheSame, where it says what a Caddyfile can't.
func TestJSONIsHeldToTheSame(t *testing.T) {
	for _, c := range []struct {
		name    string
		dialect sarus.Dialect
		says    string
	}{
		{"throttle below zero", sarus.Dialect{Throttle: -1}, "throttle -1ns: use at least 1s"},
		{"throttle of 3, in nanoseconds", sarus.Dialect{Throttle: 3}, "throttle 3ns: use at least 1s"},
		{"client_limit below zero", sarus.Dialect{ClientLimit: -1}, "client_limit -1: use 1 to 1000000"},
		{"package that is not declared", sarus.Dialect{Package: "P"}, `package "P": it is not declared`},
	} {
		for _, g := range []dialect.Gateway{{Mails: true}, {ErrorsOnly: true}} {
			err := c.dialect.Mount(g)
			if err == nil || !strings.HasPrefix(err.Error(), "dialect sarus: "+c.says) {
				t.Errorf("%s, errors only %v: %v", c.name, g.ErrorsOnly, err)
			}
		}
	}
}

func TestDefaults(t *testing.T) {
	var d sarus.Dialect
	if err := d.Mount(dialect.Gateway{Mails: true}); err != nil {
		t.Fatal(err)
	}
	if d.Throttle != caddy.Duration(3*time.Minute) || d.ClientLimit != 20 || d.Uniform || d.Package != "" {
		t.Errorf("%+v", d)
	}
}

// TestOptionsThatAreRight are accepted, at their bounds too.
func TestOptionsThatAreRight(t *testing.T) {
	declared := []keystore.Package{{Name: "P", Roles: []string{"read"}}, {Name: "M", Management: true}}
	for _, c := range []struct {
		dialect sarus.Dialect
		gateway dialect.Gateway
	}{
		{sarus.Dialect{Throttle: caddy.Duration(time.Second), ClientLimit: 1}, dialect.Gateway{Mails: true}},
		{sarus.Dialect{ClientLimit: 1_000_000, Uniform: true}, dialect.Gateway{Mails: true, Base: "/v1"}},
		{sarus.Dialect{Package: "P"}, dialect.Gateway{Mails: true, Packages: declared}},
		{sarus.Dialect{Package: "M"}, dialect.Gateway{Mails: true, Packages: declared}},
		{sarus.Dialect{}, dialect.Gateway{ErrorsOnly: true, Packages: declared}},
		{sarus.Dialect{Package: "P", Throttle: caddy.Duration(time.Second)}, dialect.Gateway{ErrorsOnly: true, Packages: declared}},
	} {
		if err := c.dialect.Mount(c.gateway); err != nil {
			t.Error(err)
		}
	}
}

func TestTheDialectIsAModule(t *testing.T) {
	info, err := caddy.GetModule("http.api_keys.dialects.sarus")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := info.New().(*sarus.Dialect); !ok {
		t.Errorf("it makes a %T", info.New())
	}
}
