package postgrestest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheNewestServerIsTaken(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"9.6", "17", "15", "notes"} {
		if err := os.MkdirAll(filepath.Join(dir, version, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := newest(filepath.Join(dir, "*", "bin")), filepath.Join(dir, "17", "bin"); got != want {
		t.Errorf("got %q, not %q", got, want)
	}
	if got := newest(filepath.Join(dir, "none", "*")); got != "" {
		t.Errorf("got %q where there is none", got)
	}
}

func TestADirectoryWithoutAServerIsNamed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("POSTGRES_BIN", dir)
	if got, err := findServer(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %q and %v", got, err)
	}
}

// outcome is a test that records how it was ended.
type outcome struct {
	testing.TB
	is string
}

func (o *outcome) Helper()      {}
func (o *outcome) Skip(...any)  { o.is = "skipped" }
func (o *outcome) Fatal(...any) { o.is = "failed" }

func TestOnlyWhatIsMissingSkips(t *testing.T) {
	missing := fmt.Errorf("the program was %w", errNoProgram)
	tests := []struct {
		name, required string
		err            error
		want           string
	}{
		{"a server that is there", "1", nil, ""},
		{"no server", "", missing, "skipped"},
		{"no server, but required", "1", missing, "failed"},
		{"a server that doesn't start", "", os.ErrPermission, "failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("REQUIRE_POSTGRES", tt.required)
			o := new(outcome)
			if demand(o, tt.err); o.is != tt.want {
				t.Errorf("the test was %q, not %q", o.is, tt.want)
			}
		})
	}
}
