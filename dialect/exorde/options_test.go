package exorde_test

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/dialect/exorde"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
)

func TestWrongOptionsAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		name, options string
		says          []string
	}{
		{"an unknown option", "period 1h", []string{"exorde", `"period"`, "use one of: deprecation, overlap, rate"}},
		{"an option twice", "rate 1/1m\nrate 1/1m", []string{"rate", "twice"}},
		{"overlap without a value", "overlap", []string{"overlap", "use: overlap <duration>|until_first_use"}},
		{"overlap that is no duration", "overlap soon", []string{"dialect exorde", `overlap "soon"`, "30m", "until_first_use"}},
		{"overlap that is negative", "overlap -1s", []string{`overlap "-1s"`}},
		{"overlap that is too long", "overlap 87601h", []string{`overlap "87601h"`, "at most 87600h"}},
		{"rate without a value", "rate", []string{"rate", "use: rate <n>/<duration>"}},
		{"rate in two words", "rate 10 1m", []string{"rate", "use: rate <n>/<duration>"}},
		{"rate without a duration", "rate 10", []string{"dialect exorde", `rate "10"`, "such as 10/1m"}},
		{"rate of nothing", "rate 0/1m", []string{`rate "0/1m"`, "1 to 1000"}},
		{"rate that is too high", "rate 1001/1m", []string{`rate "1001/1m"`, "1 to 1000"}},
		{"rate in too short a time", "rate 1/1ms", []string{`rate "1/1ms"`, "1s to 24h"}},
		{"rate in too long a time", "rate 1/25h", []string{`rate "1/25h"`, "1s to 24h"}},
		{"deprecation without a message", "deprecation 2030-02-02", []string{"deprecation", `use: deprecation <date> "<message>"`}},
		{"deprecation with words for a message", "deprecation 2030-02-02 use v2", []string{"deprecation", "got 3 arguments"}},
		{"deprecation with an empty message", `deprecation 2030-02-02 ""`, []string{"dialect exorde", "deprecation message", "1 to 1000"}},
		{"deprecation with a long message", "deprecation 2030-02-02 " + strings.Repeat("é", 1001), []string{"deprecation message", "1 to 1000"}},
		{"deprecation on no date", "deprecation soon x", []string{"deprecation", `"soon"`, "RFC 3339"}},
		{"deprecation on a day that is none", "deprecation 2030-02-30 x", []string{`"2030-02-30"`, "RFC 3339"}},
		{"deprecation at a time without a zone", "deprecation 2030-02-02T12:00:00 x", []string{"RFC 3339", "2030-02-02T12:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused := livetest.Refused(t, "", "dialect exorde {\n"+c.options+"\n}")
			for _, words := range c.says {
				if !strings.Contains(refused, words) {
					t.Errorf("%q does not say %q", refused, words)
				}
			}
		})
	}
}

func TestTheShutdownIsToldInUTC(t *testing.T) {
	for date, want := range map[string]string{
		"2030-02-02":                "2030-02-02T00:00:00.000Z",
		"2030-02-02T12:00:00Z":      "2030-02-02T12:00:00.000Z",
		"2030-02-02T12:00:00.25Z":   "2030-02-02T12:00:00.250Z",
		"2030-02-02T01:30:00+02:00": "2030-02-01T23:30:00.000Z",
	} {
		t.Run(date, func(t *testing.T) {
			g := start(t, "dialect exorde {\ndeprecation "+date+" soon\n}")
			g.status = `"status":{"cost":0,"apiDeprecationNotice":{"message":"soon","shutdownDate":"` + want + `"}}`
			g.newKey(g.put(1, g.key))
		})
	}
}

func TestOptionsOfJSONAreHeldToTheSame(t *testing.T) {
	long := &exorde.Deprecation{ShutdownDate: "2030-02-02", Message: strings.Repeat("é", 1000)}
	for _, c := range []struct {
		d       *exorde.Dialect
		allowed bool
	}{
		{&exorde.Dialect{}, true},
		{&exorde.Dialect{Overlap: "0s", Rate: "1000/24h", Deprecation: long}, true},
		{&exorde.Dialect{Overlap: "87600h", Rate: "1/1s"}, true},
		{&exorde.Dialect{Overlap: "1d"}, false},
		{&exorde.Dialect{Rate: "/"}, false},
		{&exorde.Dialect{Deprecation: &exorde.Deprecation{}}, false},
		{&exorde.Dialect{Deprecation: &exorde.Deprecation{ShutdownDate: "2030-02-02", Message: "a\nb"}}, false},
		{&exorde.Dialect{Deprecation: &exorde.Deprecation{ShutdownDate: "2030-02-02", Message: "\xff"}}, false},
	} {
		for _, g := range []dialect.Gateway{{}, {ErrorsOnly: true}} {
			if err := c.d.Mount(g); (err == nil) != c.allowed {
				t.Errorf("%+v, errors only %v: %v", c.d, g.ErrorsOnly, err)
			}
		}
	}
}

func TestTheDialectIsAModule(t *testing.T) {
	info, err := caddy.GetModule("http.api_keys.dialects.exorde")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := info.New().(*exorde.Dialect); !ok {
		t.Errorf("it makes a %T", info.New())
	}
}
