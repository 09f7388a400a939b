package examples_test

import (
	"bytes"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// tool runs a command line of "caddy api-keys" in this process, against the
// example's admin endpoint, and returns what it prints to standard output and to
// standard error.
func (e *example) tool(line string) (out, said string) {
	e.t.Helper()
	root := &cobra.Command{Use: "api-keys", SilenceUsage: true}
	caddycmd.Commands()["api-keys"].CobraFunc(root)
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append(e.words(strings.TrimPrefix(line, run+"api-keys ")), "--address", e.admin))
	if err := root.Execute(); err != nil {
		e.t.Fatalf("%s\n%v\n%s", line, err, &stderr)
	}
	return stdout.String(), stderr.String()
}
