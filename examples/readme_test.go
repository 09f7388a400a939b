package examples_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestReadmeTranscript runs the transcript of the README against the quickstart,
// and compares what the README shows with what comes. Ids and times are other
// ones each time; an id that the README shows twice must be the same twice. An
// ellipsis stands for any text, and alone in its line for any lines.
func TestReadmeTranscript(t *testing.T) {
	e := start(t, "quickstart")
	s := session{e, map[string]string{}}
	ran := 0
	for _, block := range fenced(t, "../README.md", "console") {
		for _, entry := range strings.Split("\n"+block, "\n$ ")[1:] {
			line, shown, _ := strings.Cut(strings.TrimSuffix(entry, "\n"), "\n")
			if line == run+"run --config examples/quickstart/Caddyfile" {
				continue
			}
			s.compare(line, shown, s.play(line))
			ran++
		}
	}
	if ran < 10 {
		t.Errorf("the README has %d commands only", ran)
	}
	e.checkLog()
}

// session plays a transcript.
type session struct {
	*example
	ids map[string]string // those of the transcript, with those that came instead
}

// play runs a command and returns what a terminal would show.
func (s *session) play(line string) string {
	s.t.Helper()
	line = varying.ReplaceAllStringFunc(line, func(shown string) string {
		if !isID(shown) {
			return shown
		}
		if s.ids[shown] == "" {
			s.t.Errorf("%s\nnames %s, which nothing printed", line, shown)
		}
		return s.ids[shown]
	})
	if set := assignment.FindStringSubmatch(line); set != nil {
		key, said := s.issue(set[2])
		s.variables[set[1]] = key
		return said
	}
	if strings.HasPrefix(line, "curl ") {
		a := s.curl(line)
		if !strings.Contains(line, " -i ") {
			return string(a.body)
		}
		return head(a) + "\n" + string(a.body)
	}
	out, said := s.tool(line)
	return out + said
}

func head(a answer) string {
	lines := []string{a.Proto + " " + a.Status}
	for name, values := range a.Header {
		for _, value := range values {
			lines = append(lines, http.CanonicalHeaderKey(name)+": "+value)
		}
	}
	if a.Header.Get("Content-Length") == "" {
		lines = append(lines, fmt.Sprint("Content-Length: ", len(a.body)))
	}
	return strings.Join(lines, "\n") + "\n"
}

// compare finds each shown line among those that came. Their order is not
// compared: that of headers says nothing.
func (s *session) compare(line, shown, came string) {
	s.t.Helper()
	rest := strings.Split(strings.TrimRight(came, "\n"), "\n")
	more := false
	for want := range strings.SplitSeq(strings.TrimRight(shown, "\n"), "\n") {
		if strings.TrimSpace(want) == "…" {
			more = true
			continue
		}
		i := slices.IndexFunc(rest, func(got string) bool { return s.matches(want, got) })
		if i < 0 {
			s.t.Errorf("$ %s\nthe README shows\n%s\nbut there is\n%s", line, want, came)
			return
		}
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) > 0 && !more {
		s.t.Errorf("$ %s\nthe README does not show\n%s", line, strings.Join(rest, "\n"))
	}
}

// varying finds what is another each time: UUIDs, times, lengths, and words that
// may be the id of a key.
var varying = regexp.MustCompile(`[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}` +
	`|\d{4}-\d\d-\d\dT[0-9:.]+Z|\w{3}, \d\d \w{3} \d{4} [0-9:]+ GMT|Content-Length: \d+|[0-9A-Za-z]+|…`)

var number = regexp.MustCompile(`\d+`)

// isID reports whether what varying found is an id.
func isID(s string) bool {
	return len(s) == 36 || len(s) == 12 && strings.ContainsFunc(s, unicode.IsDigit) && strings.ContainsFunc(s, unicode.IsUpper)
}

// matches reports whether a line that came is the one shown, and notes the ids
// in it that are new.
func (s *session) matches(want, got string) bool {
	var pattern strings.Builder
	var news []string
	end := 0
	for _, at := range varying.FindAllStringIndex(want, -1) {
		pattern.WriteString(regexp.QuoteMeta(want[end:at[0]]))
		found := want[at[0]:at[1]]
		end = at[1]
		known, ok := s.ids[found]
		switch {
		case ok:
			pattern.WriteString(known)
		case isID(found):
			news = append(news, found)
			fmt.Fprintf(&pattern, "([0-9A-Za-z-]{%d})", len(found))
		case found == "…":
			pattern.WriteString(".*")
		case strings.HasSuffix(found, "GMT"):
			pattern.WriteString(`\w{3}, \d\d \w{3} \d{4} [0-9:]+ GMT`)
		case strings.Contains(found, ":"): // another time, or a length
			pattern.WriteString(number.ReplaceAllLiteralString(regexp.QuoteMeta(found), `\d+`))
		default:
			pattern.WriteString(regexp.QuoteMeta(found))
		}
	}
	pattern.WriteString(regexp.QuoteMeta(want[end:]))
	found := regexp.MustCompile("^" + pattern.String() + "$").FindStringSubmatch(got)
	if found == nil {
		return false
	}
	for i, shown := range news {
		s.ids[shown] = found[i+1]
	}
	return true
}

// fenced returns the blocks of a Markdown file that name this language.
func fenced(t *testing.T, file, language string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```(\\S*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if m[1] == language {
			blocks = append(blocks, m[2])
		}
	}
	return blocks
}

// documents are the Markdown files of the project.
func documents(t *testing.T) []string {
	t.Helper()
	root, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(root, docs...)
}
