package singleinvoice_test

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/singleinvoice"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestWrongOptionsAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		name, global, options string
		says                  []string
	}{
		{"an unknown option", global, "limit 3", []string{"single_invoice", `"limit"`, "use one of: account_package, max_keys"}},
		{"an option twice", global, "max_keys 3\nmax_keys 4", []string{"max_keys", "twice"}},
		{"account_package without a name", global, "account_package", []string{"account_package", "use: account_package <name>"}},
		{"account_package with two names", global, "account_package A B", []string{"account_package", "use: account_package <name>"}},
		{"max_keys of 0", global, "max_keys 0", []string{"max_keys", `"0"`, "1 or more"}},
		{"max_keys that is no number", global, "max_keys many", []string{"max_keys", `"many"`}},
		{"max_keys that is too high", global, "max_keys 1001", []string{"dialect single_invoice", "max_keys 1001", "use 1 to 1000"}},
		{"an account_package that is not declared", global, "account_package Accounts", []string{
			"dialect single_invoice", `account_package "Accounts"`, "not declared", "use one of: Account, Coverage, Claim"}},
		{"the default account_package is not declared", "package Coverage", "", []string{
			`account_package "Account"`, "not declared", "Coverage"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused := livetest.Refused(t, c.global, "dialect single_invoice {\n"+c.options+"\n}\nrequire any")
			for _, words := range c.says {
				if !strings.Contains(refused, words) {
					t.Errorf("%q does not say %q", refused, words)
				}
			}
		})
	}
	refused := livetest.Refused(t, "", "dialect single_invoice")
	if !strings.Contains(refused, "api_keys { package Account }") {
		t.Errorf("without packages: %q", refused)
	}
}

func TestMaxKeysOfJSONIsHeldToTheSame(t *testing.T) {
	for limit, allowed := range map[int]bool{-1: false, 0: true, 1: true, 1000: true, 1001: false} {
		d := &singleinvoice.Dialect{MaxKeys: limit}
		err := d.Mount(dialect.Gateway{Packages: []keystore.Package{{Name: "Account"}}, ReservePackage: func(string) {}})
		if (err == nil) != allowed {
			t.Errorf("%d: %v", limit, err)
		}
	}
}

// TestOptionsOfTheErrorsAloneAreHeldToTheSame, but none must be given.
func TestOptionsOfTheErrorsAloneAreHeldToTheSame(t *testing.T) {
	declared := []keystore.Package{{Name: "Accounts"}}
	for _, c := range []struct {
		d    singleinvoice.Dialect
		says string // nothing if it is right
	}{
		{singleinvoice.Dialect{}, ""},
		{singleinvoice.Dialect{AccountPackage: "Accounts", MaxKeys: 1000}, ""},
		{singleinvoice.Dialect{MaxKeys: 1001}, "dialect single_invoice: max_keys 1001: use 1 to 1000"},
		{singleinvoice.Dialect{AccountPackage: "Account"}, `dialect single_invoice: account_package "Account": it is not declared`},
	} {
		// ReservePackage is nil: the errors alone reserve nothing.
		err := c.d.Mount(dialect.Gateway{ErrorsOnly: true, Packages: declared})
		if (err == nil) != (c.says == "") || err != nil && !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.d, err)
		}
	}
}

func TestTheDialectIsAModule(t *testing.T) {
	info, err := caddy.GetModule("http.api_keys.dialects.single_invoice")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := info.New().(*singleinvoice.Dialect); !ok {
		t.Errorf("it makes a %T", info.New())
	}
}
