package examples_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestDocumentedConfigurations loads what the documents show as Caddyfiles and
// JSON, as far as "caddy validate" does.
func TestDocumentedConfigurations(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(secret, []byte(strings.Repeat("0", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("API_KEYS_PEPPER", strings.Repeat("p", 32))
	t.Setenv("API_KEYS_DSN", "postgres://apikeys@db.internal/apikeys?sslmode=verify-full")
	found := 0
	for _, file := range documents(t) {
		for _, block := range fenced(t, file, "caddyfile") {
			found++
			config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(block), map[string]any{"filename": "Caddyfile"})
			if err != nil || len(warnings) > 0 {
				t.Errorf("%s: %v %v in\n%s", file, err, warnings, block)
				continue
			}
			validate(t, file, config)
		}
		for _, block := range fenced(t, file, "json") {
			if strings.Contains(block, `"apps"`) || strings.Contains(block, `"logging"`) {
				found++
				validate(t, file, []byte(block))
			} else if !json.Valid([]byte(block)) {
				t.Errorf("%s: no JSON:\n%s", file, block)
			}
		}
	}
	if found < 5 {
		t.Errorf("the documents show %d configurations only", found)
	}
}

func validate(t *testing.T, file string, config []byte) {
	t.Helper()
	var c caddy.Config
	err := caddy.StrictUnmarshalJSON(config, &c)
	if err == nil {
		err = caddy.Validate(&c)
	}
	if err != nil {
		t.Errorf("%s: %v in\n%s", file, err, config)
	}
}

// TestDocumentedSubdirectives holds the syntax that is documented against what
// the parser itself says it takes.
func TestDocumentedSubdirectives(t *testing.T) {
	for name, caddyfile := range map[string]string{
		"the global option": "{\n\tapi_keys {\n\t\tno\n\t}\n}\n",
		"a package":         "{\n\tapi_keys {\n\t\tpackage p {\n\t\t\tno\n\t\t}\n\t}\n}\n",
		"the directive":     ":80 {\n\tapi_keys {\n\t\tno\n\t}\n}\n",
	} {
		_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
		if err == nil {
			t.Fatalf("%s takes a subdirective that is none", name)
		}
		m := regexp.MustCompile(`use one of: ([a-z_, ]+)`).FindStringSubmatch(err.Error())
		if m == nil {
			t.Fatalf("%s does not say what it takes: %v", name, err)
		}
		list, _, _ := strings.Cut(m[1], ", at ") // what follows is the place in the file
		for _, file := range []string{"../README.md", "../docs/caddyfile.md"} {
			syntax := strings.Join(fenced(t, file, ""), "\n")
			for subdirective := range strings.SplitSeq(list, ", ") {
				if !regexp.MustCompile(`(?m)^\s+` + subdirective + `\b`).MatchString(syntax) {
					t.Errorf("%s does not show %s of %s", file, subdirective, name)
				}
			}
		}
	}
}

// TestDocumentedCommands looks for each command and each flag in docs/cli.md.
func TestDocumentedCommands(t *testing.T) {
	text, err := os.ReadFile("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	root := &cobra.Command{Use: "api-keys"}
	caddycmd.Commands()["api-keys"].CobraFunc(root)
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Runnable() && !strings.Contains(string(text), "`"+c.CommandPath()) && !strings.Contains(string(text), "caddy "+c.CommandPath()) {
			t.Errorf("docs/cli.md does not have %q", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(string(text), "--"+f.Name) {
				t.Errorf("docs/cli.md does not have --%s of %q", f.Name, c.CommandPath())
			}
		})
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(root)
}

// TestDocumentedCalls looks for each call of the management API in docs/rest.md.
func TestDocumentedCalls(t *testing.T) {
	text, err := os.ReadFile("../docs/rest.md")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../dialect/rest/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path, calls := "", 0
	for line := range strings.SplitSeq(string(document), "\n") {
		if m := regexp.MustCompile(`^  (/\S+):$`).FindStringSubmatch(line); m != nil {
			path = m[1]
		}
		if m := regexp.MustCompile(`^    (get|post|patch|delete|put):$`).FindStringSubmatch(line); m != nil && path != "" {
			calls++
			if call := strings.ToUpper(m[1]) + " " + path; !strings.Contains(string(text), call) {
				t.Errorf("docs/rest.md does not have %s", call)
			}
		}
	}
	if calls < 15 {
		t.Errorf("openapi.yaml has %d calls only", calls)
	}
}

// TestDocumentedMetrics looks for each metric of a running gateway in the
// documents.
func TestDocumentedMetrics(t *testing.T) {
	e := start(t, "quickstart")
	text, err := os.ReadFile("../docs/metrics-events-logs.md")
	if err != nil {
		t.Fatal(err)
	}
	e.send("GET", "/")
	metrics := e.metrics()
	names := regexp.MustCompile(`(?m)^# TYPE (caddy_api_keys_\w+) `).FindAllStringSubmatch(metrics, -1)
	if len(names) < 3 {
		t.Errorf("there are %d metrics only", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(text), name[1]) {
			t.Errorf("docs/metrics-events-logs.md does not have %s", name[1])
		}
	}
	for _, code := range regexp.MustCompile(`caddy_api_keys_requests_total\{outcome="(\w+)"\}`).FindAllStringSubmatch(metrics, -1) {
		for _, file := range []string{"../docs/caddyfile.md", "../docs/metrics-events-logs.md"} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), "`"+code[1]+"`") {
				t.Errorf("%s does not have the verdict %s", file, code[1])
			}
		}
	}
}

// TestLinks looks for what the documents link to.
func TestLinks(t *testing.T) {
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(text), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			linked := filepath.Join(filepath.Dir(file), target)
			if target == "" {
				linked = file
			}
			content, err := os.ReadFile(linked)
			if info, statErr := os.Stat(linked); statErr != nil || (err != nil && !info.IsDir()) {
				t.Errorf("%s links to %s, which is not there", file, m[1])
				continue
			}
			if anchor != "" && !hasAnchor(string(content), anchor) {
				t.Errorf("%s links to %s, which has no such heading", file, m[1])
			}
		}
	}
}

// hasAnchor reports whether a heading gets this name in a link.
func hasAnchor(text, anchor string) bool {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		name := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		name = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(name, "")
		if strings.ReplaceAll(name, " ", "-") == anchor {
			return true
		}
	}
	return false
}
