package apikeys

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/internal/options"
)

var update = flag.Bool("update", false, "write the adapted JSON of testdata/adapt anew")

// golden is a Caddyfile of testdata/adapt, and where its JSON stands.
type golden struct{ name, caddyfile, json string }

func goldens(t testing.TB) []golden {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "adapt", "*.Caddyfile"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden Caddyfiles, error %v", len(files), err)
	}
	var all []golden
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		stem := strings.TrimSuffix(file, ".Caddyfile")
		all = append(all, golden{filepath.Base(stem), string(text), stem + ".json"})
	}
	return all
}

// TestAdapt holds what each Caddyfile means. Run it with -update to write the
// JSON anew, and read the difference.
func TestAdapt(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(g.caddyfile), map[string]any{"filename": "Caddyfile"})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Errorf("line %d: %s", w.Line, w.Message)
			}
			got := indent(t, config)
			if *update {
				if err := os.WriteFile(g.json, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(g.json)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func indent(t *testing.T, config []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	return out.Bytes()
}

func TestEveryGoldenHasItsCaddyfile(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join("testdata", "adapt", "*.json"))
	for _, file := range files {
		if _, err := os.Stat(strings.TrimSuffix(file, ".json") + ".Caddyfile"); err != nil {
			t.Error(err)
		}
	}
}

// TestEverySubdirectiveHasAGolden fails when the grammar grows and the goldens
// do not.
func TestEverySubdirectiveHasAGolden(t *testing.T) {
	var all strings.Builder
	for _, g := range goldens(t) {
		all.WriteString(g.caddyfile)
	}
	words := strings.Fields(all.String())
	for _, names := range [][]string{
		namesOf(new(App).options()), namesOf(new(Package).options()), namesOf(new(MailConfig).options()), namesOf(new(Handler).options()), fieldNames(),
	} {
		for _, name := range names {
			if !slices.Contains(words, name) {
				t.Errorf("%s stands in no golden Caddyfile", name)
			}
		}
	}
}

func namesOf(all []options.Option) (names []string) {
	for _, option := range all {
		names = append(names, option.Name)
	}
	return names
}

// TestEveryMemberOfADialectIsDocumented in the row of the table that is its
// dialect's, or in one below it.
func TestEveryMemberOfADialectIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range caddy.GetModules(dialect.Namespace) {
		module := reflect.TypeOf(info.New()).Elem()
		if !strings.Contains(module.PkgPath(), "/dialect/") { // one of the tests
			continue
		}
		_, rows, found := strings.Cut(string(text), "| `"+info.ID.Name()+"` |")
		if !found {
			t.Errorf("%s has no row", info.ID.Name())
		}
		rows, _, _ = strings.Cut(rows, "\n| `")
		for i := range module.NumField() {
			member, _, _ := strings.Cut(module.Field(i).Tag.Get("json"), ",")
			if member != "" && !strings.Contains(rows, " `"+member+"` |") {
				t.Errorf("%s: %s has no row", info.ID.Name(), member)
			}
		}
	}
}

// TestValidatingCreatesNothing validates every golden configuration where all
// that it could make would be seen.
func TestValidatingCreatesNothing(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			config, err := os.ReadFile(g.json)
			if err != nil {
				t.Fatal(err)
			}
			dir := emptyHome(t)
			before := tree(t, dir)
			if err := validate(config); err != nil {
				t.Error(err)
			}
			if after := tree(t, dir); !slices.Equal(before, after) {
				t.Errorf("before: %q\nafter: %q", before, after)
			}
			opened := 0
			vaults.Range(func(_, _ any) bool { opened++; return true })
			if opened != 0 {
				t.Errorf("%d stores are open", opened)
			}
		})
	}
}

// emptyHome makes a directory that is the working directory and the one where
// Caddy keeps its data, with what the golden configurations refer to.
func emptyHome(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME", "KEYS_DIR"} {
		t.Setenv(name, dir)
	}
	const pepper = "a pepper of enough characters"
	t.Setenv("KEYS_PEPPER", pepper)
	if err := os.WriteFile("pepper.txt", []byte(pepper+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEYS_SMTP", "mail.example.com:465")
	if err := os.WriteFile("mail.txt", []byte("Your key is\n{{.Key}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// validate does what `caddy validate` does with a configuration in JSON.
func validate(config []byte) error {
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		return err
	}
	parsed.Admin = &caddy.AdminConfig{Disabled: true}
	return caddy.Validate(&parsed)
}

func TestAdaptedSecretsStayPlaceholders(t *testing.T) {
	t.Setenv("KEYS_PEPPER", "a pepper of enough characters")
	config, err := adapt("{\n api_keys {\n pepper {env.KEYS_PEPPER}\n mail {\n password {env.KEYS_PEPPER}\n }\n }\n}\n:8080 {\n api_keys\n}\n")
	for _, member := range []string{`"pepper":"{env.KEYS_PEPPER}"`, `"password":"{env.KEYS_PEPPER}"`} {
		if err != nil || !bytes.Contains(config, []byte(member)) {
			t.Errorf("no %s in %s, error %v", member, config, err)
		}
	}
}

// FuzzCaddyfile looks for text that the parsers can't stand, as the block of the
// directive, of the global option and of the log encoder.
func FuzzCaddyfile(f *testing.F) {
	for _, g := range goldens(f) {
		for _, block := range blocks(g.caddyfile) {
			f.Add(block)
		}
	}
	for _, c := range wrongCaddyfiles {
		f.Add(c.block)
		f.Add(c.global)
	}
	f.Fuzz(func(t *testing.T, block string) {
		if strings.Contains(block, "import") { // it would read files
			return
		}
		for _, caddyfile := range []string{
			":8080 {\n\tapi_keys {\n" + block + "\n\t}\n}\n",
			"{\n\tapi_keys {\n" + block + "\n\t}\n}\n:8080 {\n\tapi_keys\n}\n",
			"{\n\tlog {\n\t\tformat api_keys {\n" + block + "\n\t\t}\n\t}\n}\n",
			":8080 {\n\tapi_keys " + block + "\n}\n",
		} {
			config, err := adapt(caddyfile)
			if err == nil && !json.Valid(config) {
				t.Errorf("adapted to no JSON: %s", config)
			}
		}
	})
}

// blocks returns what stands in the blocks of api_keys.
func blocks(caddyfile string) (found []string) {
	lines := strings.Split(caddyfile, "\n")
	for i := 0; i < len(lines); i++ {
		opening := strings.TrimLeft(lines[i], "\t")
		if !strings.Contains(opening, "api_keys") || !strings.HasSuffix(opening, "{") {
			continue
		}
		closing := strings.Repeat("\t", len(lines[i])-len(opening)) + "}"
		end := slices.Index(lines[i:], closing)
		found = append(found, strings.Join(lines[i+1:i+end], "\n"))
	}
	return found
}
