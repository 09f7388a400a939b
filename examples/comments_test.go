package examples_test

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The commands in the comments of a Caddyfile are the lines that begin with
// this; what follows a backslash at the end goes on in the next line.
const command = "#   "

// run is the part of a command that stands for a Caddy with this module.
const run = "go run ./cmd/caddy "

var (
	assignment = regexp.MustCompile(`^([A-Z]+)=\$\((.*)\)$`)
	expected   = regexp.MustCompile(`^(curl .*?)\s+# (\d{3})$`)
	word       = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
)

// runComments runs the commands of the example's comments, in their order: those
// of the command line tool against the example's admin endpoint, those of curl
// against its site, with the status that they name.
func (e *example) runComments() {
	e.t.Helper()
	requests := 0
	for _, line := range commandsOf(string(caddyfile(e.t, e.name))) {
		switch set, curl := assignment.FindStringSubmatch(line), expected.FindStringSubmatch(line); {
		case line == run+"run --config examples/"+e.name+"/Caddyfile",
			line == "go run ./examples/"+e.name+" run --config examples/"+e.name+"/Caddyfile":
		case set != nil && strings.HasPrefix(set[2], "curl "):
			e.variables[set[1]] = string(e.curl(set[2]).body)
		case set != nil:
			e.variables[set[1]], _ = e.issue(set[2])
		case curl != nil:
			want, _ := strconv.Atoi(curl[2])
			if a := e.curl(curl[1]); a.StatusCode != want {
				e.t.Errorf("%s\nanswers %d: %s", line, a.StatusCode, a.body)
			}
			requests++
		case strings.HasPrefix(line, run+"api-keys "):
			e.tool(line)
		default:
			e.t.Errorf("the comments have a command that this test does not know, or that names no status: %s", line)
		}
	}
	if requests == 0 {
		e.t.Error("the comments have no request")
	}
}

func commandsOf(text string) (commands []string) {
	goesOn := false
	for line := range strings.Lines(text) {
		line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), command)
		if !ok {
			goesOn = false
			continue
		}
		line = strings.TrimSpace(line)
		if goesOn {
			commands[len(commands)-1] += " " + strings.TrimSuffix(line, " \\")
		} else {
			commands = append(commands, strings.TrimSuffix(line, " \\"))
		}
		goesOn = strings.HasSuffix(line, "\\")
	}
	return commands
}

// words splits a command as a shell would, as far as the comments need it, and
// puts in what the variables hold.
func (e *example) words(line string) []string {
	words := word.FindAllString(line, -1)
	for i, w := range words {
		if w[0] == '\'' {
			words[i] = strings.Trim(w, "'")
			continue
		}
		words[i] = os.Expand(strings.Trim(w, `"`), func(name string) string {
			value, ok := e.variables[name]
			if !ok {
				e.t.Errorf("%s: $%s is not set", line, name)
			}
			return value
		})
	}
	return words
}

// curl sends what a line with curl would.
func (e *example) curl(line string) answer {
	e.t.Helper()
	method, path, body := http.MethodGet, "", ""
	var headers []string
	for words := e.words(line)[1:]; len(words) > 0; words = words[1:] {
		switch {
		case words[0] == "-i", words[0] == "-s":
		case words[0] == "-X":
			words = words[1:]
			method = words[0]
		case words[0] == "-H":
			words = words[1:]
			name, value, _ := strings.Cut(words[0], ": ")
			headers = append(headers, name, value)
		case words[0] == "-d":
			words = words[1:]
			body = words[0]
			headers = append(headers, "Content-Type", "application/x-www-form-urlencoded")
		case words[0] == "--json":
			words = words[1:]
			method, body = http.MethodPost, words[0]
			headers = append(headers, "Content-Type", "application/json")
		case strings.HasPrefix(words[0], site+"/"):
			path = strings.TrimPrefix(words[0], site)
		default:
			e.t.Fatalf("%s: this test does not know %q", line, words[0])
		}
	}
	return e.sendBody(method, path, body, headers...)
}

// site is where the examples are, unless they are told otherwise.
const site = "http://localhost:8080"

// issue runs a command that makes a key. What it prints to standard output is
// the key and nothing else.
func (e *example) issue(line string) (key, said string) {
	e.t.Helper()
	out, said := e.tool(line)
	key = strings.TrimSuffix(out, "\n")
	if key == "" || strings.ContainsAny(key, " \n") {
		e.t.Fatalf("%s\nprints %q", line, key)
	}
	e.secrets = append(e.secrets, key)
	return key, said
}

func TestCommandsOf(t *testing.T) {
	got := commandsOf("# text\n#   a b \\\n#     c\n#\n#   d\nsite {\n\t#   e\n}\n")
	if len(got) != 2 || got[0] != "a b c" || got[1] != "d" {
		t.Errorf("commands are %q", got)
	}
}
