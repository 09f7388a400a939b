package apikeys

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func init() { caddy.RegisterModule(leakApp{}) }

// leakApp is a Caddy app that asks for the leaking logs when it starts, as the real one does.
type leakApp struct {
	ctx  caddy.Context
	http *caddyhttp.App
}

// What the last leakApp that started has found.
var leakAppLogs, leakAppLoggers []string

func (leakApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "api_keys_leak_test", New: func() caddy.Module { return new(leakApp) }}
}

func (a *leakApp) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	http, err := ctx.App("http")
	if err == nil {
		a.http = http.(*caddyhttp.App)
	}
	return err
}

func (a *leakApp) Start() error {
	leakAppLoggers = accessLoggerNames(a.http)
	leakAppLogs = leakingLogs(a.ctx, leakAppLoggers)
	return nil
}

func (a *leakApp) Stop() error { return nil }

var leakFile = regexp.MustCompile(`\{file (\S+)\}`)

// loadLeakCaddy runs a Caddyfile in this process until the test ends. In it, {port} and {port2} are free
// ports, {options} are the global options of every test, and {file x} is a log file in a new directory, without the
// rotation that would leave a goroutine behind. It returns the directory and the port.
func loadLeakCaddy(t *testing.T, caddyfile string) (dir, port string) {
	t.Helper()
	dir, port = t.TempDir(), freeLeakPort(t)
	caddyfile = strings.NewReplacer(
		"{port}", port, "{port2}", freeLeakPort(t),
		"{options}", "admin off\npersist_config off\nauto_https off\nstorage file_system "+dir,
	).Replace(caddyfile)
	caddyfile = leakFile.ReplaceAllString(caddyfile, "file "+dir+"/$1 {\nroll_disabled\n}")
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatalf("adapting (%v): %v", warnings, err)
	}
	var withApp map[string]any
	if err := json.Unmarshal(config, &withApp); err != nil {
		t.Fatal(err)
	}
	apps := withApp["apps"].(map[string]any)
	apps["api_keys_leak_test"] = map[string]any{}
	apps["tls"] = map[string]any{"disable_storage_clean": true} // it leaves a goroutine for some seconds
	if config, err = json.Marshal(withApp); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatalf("loading: %v\n%s", err, config)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	return dir, port
}

func freeLeakPort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestLeakingLogs(t *testing.T) {
	tests := []struct {
		name, caddyfile string
		loggers, leaks  []string
	}{{
		name:      "no log at all",
		caddyfile: "{\n{options}\n}\n:{port} {\nrespond ok\n}",
		leaks:     []string{"default"},
	}, {
		name:      "default log guarded",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n:{port} {\nrespond ok\n}",
	}, {
		name:      "default log guarded, site log in the clear",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n:{port} {\nlog {\noutput {file a}\n}\n}",
		loggers:   []string{"http.log.access.log0"},
		leaks:     []string{"log0"},
	}, {
		name:      "site log guarded, default log in the clear",
		caddyfile: "{\n{options}\n}\n:{port} {\nlog {\noutput {file a}\nformat api_keys\n}\n}",
		loggers:   []string{"http.log.access.log0"},
		leaks:     []string{"default"},
	}, {
		name: "both guarded",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n:{port} {\nlog {\noutput {file a}\n" +
			"format api_keys {\nwrap console\n}\n}\n}",
		loggers: []string{"http.log.access.log0"},
	}, {
		name:      "site logs to the default log",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n:{port} {\nlog\n}",
		loggers:   []string{"http.log.access"},
	}, {
		name: "one of three sites",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n" +
			"http://a.test:{port} {\nlog {\noutput {file a}\nformat api_keys\n}\n}\n" +
			"http://b.test:{port} {\nlog named {\noutput {file b}\n}\n}\n" +
			"http://c.test:{port2} {\nlog {\noutput {file c}\nformat api_keys\n}\n}",
		loggers: []string{"http.log.access", "http.log.access.log0", "http.log.access.log1", "http.log.access.named"},
		leaks:   []string{"named"},
	}, {
		name: "two logs of one site",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\nhttp://a.test:{port} {\n" +
			"log one {\noutput {file a}\n}\nlog two {\noutput {file b}\n}\n}",
		loggers: []string{"http.log.access", "http.log.access.one", "http.log.access.two"},
		leaks:   []string{"one", "two"},
	}, {
		name: "site without access log beside one with",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n:{port} {\nrespond ok\n}\n" +
			":{port2} {\nlog {\noutput {file b}\n}\n}",
		loggers: []string{"http.log.access.log0"},
		leaks:   []string{"log0"},
	}, {
		name:      "discarded site log",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n:{port} {\nlog {\noutput discard\n}\n}",
		loggers:   []string{"http.log.access.log0"},
	}, {
		name:      "discarded default log",
		caddyfile: "{\n{options}\nlog {\noutput discard\n}\n}\n:{port} {\nrespond ok\n}",
	}, {
		name:      "default log above every level of a gateway",
		caddyfile: "{\n{options}\nlog {\nlevel FATAL\n}\n}\n:{port} {\nrespond ok\n}",
	}, {
		name:      "default log of errors only",
		caddyfile: "{\n{options}\nlog {\nlevel ERROR\n}\n}\n:{port} {\nrespond ok\n}",
		leaks:     []string{"default"},
	}, {
		name:      "default log of something else only",
		caddyfile: "{\n{options}\nlog {\ninclude tls http.auto_https\n}\n}\n:{port} {\nrespond ok\n}",
	}, {
		name:      "default log of the admin endpoint only",
		caddyfile: "{\n{options}\nlog {\ninclude admin.api\n}\n}\n:{port} {\nrespond ok\n}",
		leaks:     []string{"default"},
	}, {
		name: "encoder inside of others",
		caddyfile: "{\n{options}\nlog {\nformat filter {\nwrap api_keys\nfields {\nuser_id delete\n}\n}\n}\n}\n" +
			":{port} {\nlog {\noutput {file a}\nformat append {\nwrap journald {\nwrap api_keys\n}\nnode a\n}\n}\n}",
		loggers: []string{"http.log.access.log0"},
	}, {
		name: "encoder around others",
		caddyfile: "{\n{options}\nlog {\nformat api_keys {\nwrap filter {\nwrap console\nuser_id delete\n}\n}\n}\n}\n" +
			":{port} {\nlog {\noutput {file a}\nformat api_keys {\nwrap append {\nnode a\n}\n}\n}\n}",
		loggers: []string{"http.log.access.log0"},
	}, {
		name: "filter without the encoder",
		caddyfile: "{\n{options}\nlog {\nformat filter {\nrequest>headers>X-Api-Key delete\n}\n}\n}\n" +
			":{port} {\nrespond ok\n}",
		leaks: []string{"default"},
	}, {
		name: "sampled logs",
		caddyfile: "{\n{options}\nlog {\nsampling {\ninterval 1h\nfirst 1\nthereafter 1000000\n}\n}\n}\n" +
			":{port} {\nlog {\noutput {file a}\nsampling {\ninterval 1h\nfirst 1\nthereafter 1000000\n}\n}\n}",
		loggers: []string{"http.log.access.log0"},
		leaks:   []string{"default", "log0"},
	}, {
		name: "global log of everything",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\nlog audit {\noutput {file audit}\n}\n}\n" +
			":{port} {\nlog {\noutput {file a}\nformat api_keys\n}\n}",
		loggers: []string{"http.log.access.log0"},
		leaks:   []string{"http.log.error"},
	}, {
		name:      "global log of everything beside a default log in the clear",
		caddyfile: "{\n{options}\nlog audit {\noutput {file audit}\n}\n}\n:{port} {\nrespond ok\n}",
		leaks:     []string{"default", "http.log.error"},
	}, {
		name: "global log of all access logs",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\nlog access {\ninclude http.log.access\noutput {file a}\n}\n}\n" +
			"http://a.test:{port} {\nlog {\noutput {file b}\nformat api_keys\n}\n}",
		loggers: []string{"http.log.access", "http.log.access.log0"},
		leaks:   []string{"http.log.access"},
	}, {
		name: "second log of a site's access logger",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\nlog copy {\ninclude http.log.access.log0\noutput {file a}\n}\n}\n" +
			":{port} {\nlog {\noutput {file b}\nformat api_keys\n}\n}",
		loggers: []string{"http.log.access.log0"},
		leaks:   []string{"log0"},
	}, {
		name: "access log that only a handler names",
		caddyfile: "{\n{options}\nlog {\nformat api_keys\n}\n}\n:{port} {\nlog_name hidden\n" +
			"log {\noutput {file a}\nformat api_keys\n}\nlog hidden {\nno_hostname\noutput {file b}\n}\n}",
		loggers: []string{"http.log.access.log0"},
		leaks:   []string{"http.log.access.*"},
	}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			loadLeakCaddy(t, test.caddyfile)
			if !slices.Equal(leakAppLoggers, test.loggers) {
				t.Errorf("access loggers are %q, not %q", leakAppLoggers, test.loggers)
			}
			if !slices.Equal(leakAppLogs, test.leaks) {
				t.Errorf("leaking logs are %q, not %q", leakAppLogs, test.leaks)
			}
		})
	}
}

// In JSON, unlike in a Caddyfile, the default log may receive what a site's own log receives.
func TestLeakingLogsOfBoth(t *testing.T) {
	for _, test := range []struct {
		name, defaultFormat, siteFormat string
		leaks                           []string
	}{
		{"neither", "api_keys", "api_keys", nil},
		{"default", "json", "api_keys", []string{"default"}},
		{"site", "api_keys", "json", []string{"log0"}},
		{"both", "json", "json", []string{"default", "log0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := fmt.Sprintf(`{
				"admin": {"disabled": true, "config": {"persist": false}},
				"logging": {"logs": {
					"default": {"encoder": {"format": %q}},
					"own": {"include": ["http.log.access.log0"], "encoder": {"format": %q},
						"writer": {"output": "file", "filename": %q, "roll": false}}
				}},
				"apps": {"api_keys_leak_test": {}, "tls": {"disable_storage_clean": true}, "http": {"servers": {"a": {
					"listen": [":%s"], "logs": {"default_logger_name": "log0"}
				}}}}
			}`, test.defaultFormat, test.siteFormat, filepath.Join(t.TempDir(), "own"), freeLeakPort(t))
			if err := caddy.Load([]byte(config), true); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = caddy.Stop() })
			if !slices.Equal(leakAppLogs, test.leaks) {
				t.Errorf("leaking logs are %q, not %q", leakAppLogs, test.leaks)
			}
		})
	}
}

// A probe must leave no trace: neither an entry nor a field in the entries that follow.
func TestLeakProbeWritesNothing(t *testing.T) {
	dir, _ := loadLeakCaddy(t, "{\n{options}\nlog {\noutput {file default}\n}\n"+
		"log guarded {\noutput {file guarded}\nformat api_keys\n}\n}\n:{port} {\nrespond ok\n}")
	caddy.Log().Named("http.log.error").Error("after the probe")
	for _, name := range []string{"default", "guarded"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "api_keys probes") || strings.Contains(string(text), `"api_keys":`) {
			t.Errorf("log %s is\n%s", name, text)
		}
	}
}
