package adyen_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/adyen"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
)

func prefixes(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }

func TestOptionsThatCantBeMeantAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, options, global string
		says                  []string
	}{
		{"an unknown option", "window 24h", "", []string{"dialect adyen", `"window"`, "activation_delay, overlap, role"}},
		{"an option twice", "overlap 1h\noverlap 2h", "", []string{"overlap", "twice"}},
		{"a role without a name", "role", "", []string{"role", "use: role <name>"}},
		{"a role that is two words", "role api admin", "", []string{"dialect adyen: role", "2 arguments", "put a text with spaces in quotes"}},
		{"a role with a comma", `role "a,b"`, "", []string{`role "a,b"`, "without comma"}},
		{"a reserved role that does not exist", "role api_keys:rotate", "", []string{"role", "reserved"}},
		{"an overlap that is no duration", "overlap soon", "", []string{`overlap "soon"`, "until_first_use"}},
		{"a negative overlap", "overlap -1h", "", []string{`overlap "-1h"`, "0s"}},
		{"an overlap that is too long", "overlap 100000h", "", []string{"dialect adyen", `overlap "100000h"`, "at most 87600h"}},
		{"a delay that is no duration", "activation_delay soon", "", []string{`activation_delay "soon"`, "0s to 24h"}},
		{"a negative delay", "activation_delay -1s", "", []string{"activation_delay -1s", "0s to 24h"}},
		{"a delay of more than a day", "overlap 90h\nactivation_delay 25h", "", []string{"activation_delay 25h", "0s to 24h"}},
		{"a delay longer than the overlap", "overlap 1h\nactivation_delay 61m", "", []string{"activation_delay 1h1m", "overlap, which is 1h", "no key would work"}},
		{"a delay without an overlap", "overlap 0s\nactivation_delay 1s", "", []string{"activation_delay 1s", "no key would work"}},
		{"a delay after which an unused key has expired", "overlap until_first_use\nactivation_delay 24h", "", []string{"activation_delay 24h", "unused"}},
		{"a delay as long as a package's keys live", "activation_delay 1h", "package P {\n expires_in 1h\n }", []string{"activation_delay 1h", "package P"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := livetest.Refused(t, c.global, block(c.options, c.global))
			for _, part := range c.says {
				if !strings.Contains(got, part) {
					t.Errorf("it says %q, without %q", got, part)
				}
			}
		})
	}
}

func TestOptionsAtTheirLimitsAreTaken(t *testing.T) {
	g := start(t, "", "")
	for _, options := range []string{
		"overlap 24h\nactivation_delay 24h", "overlap 0s\nactivation_delay 0s", "overlap until_first_use\nactivation_delay 23h",
		"activation_delay 1d", "role api_keys:self",
	} {
		if err := g.Reload("", block(options, "")); err != nil {
			t.Errorf("%s: %v", options, err)
		}
	}
}

func TestOptionsOfTheErrorsAloneAreHeldToTheSame(t *testing.T) {
	for _, d := range []*adyen.Dialect{
		{Role: "a,b"}, {Overlap: "100000h"}, {ActivationDelay: -1}, {Overlap: "1s", ActivationDelay: caddy.Duration(time.Minute)},
	} {
		if err := d.Mount(dialect.Gateway{ErrorsOnly: true}); err == nil || !strings.HasPrefix(err.Error(), "dialect adyen: ") {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

func TestTheErrorsAloneNeedNoOptionsAndAnswerNoRoute(t *testing.T) {
	g := gateway{livetest.Start(t, "", "errors adyen")}
	own := g.holder("", role)
	if a := g.Do(1, "POST", "/me/generateApiKey", "", "X-API-Key", own.key); a.Header.Get("X-Upstream") != "reached" {
		t.Errorf("a route is answered: %d %s", a.StatusCode, a.Text)
	}
	g.wantError(g.Do(2, "GET", "/", ""), 401, "No API key was presented.")
}
