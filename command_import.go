package apikeys

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"
)

func importCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import <file>|-",
		Short: "Brings in keys that are in use elsewhere",
		Long: `
Brings in keys that are in use elsewhere, while Caddy goes on serving, so that
they work from then on. The file, or standard input, has one JSON object a line:

	{"grant":{"email":"ops@acme.example","roles":["read"],"digest":"<SHA-256 of the key>"}}
	{"grant":{"account_id":"acme","secret":"<the key itself>"}}

An account or credential that is not there is made. A bad line ends the import;
those before it stay. To go on, mend the line and import the whole file again: what
is there already changes nothing. docs/cli.md has all of the format.`,
		Example: `  $ caddy api-keys import keys.ndjson
  $ jq -c '{grant: {email: .owner, digest: .sha256}}' old.json | caddy api-keys import -`,
		Args: cobra.ExactArgs(1),
		RunE: withClient(importFile),
	}
}

// importedAnswer is what an import stored.
type importedAnswer struct {
	Lines       int `json:"lines"`
	Accounts    int `json:"accounts"`
	Credentials int `json:"credentials"`
	Keys        int `json:"keys"`
}

func importFile(cmd *cobra.Command, c *adminClient, args []string) error {
	content := cmd.InOrStdin()
	if args[0] != "-" {
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		content = file
	}
	made, raw, err := decoded[importedAnswer](cmd.Context(), c, http.MethodPost, "/import", lines{io.NopCloser(content)})
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if wantsJSON(cmd) {
		return printRaw(cmd, raw)
	}
	cmd.PrintErrf("%d lines: %d accounts, %d credentials and %d keys are new\n",
		made.Lines, made.Accounts, made.Credentials, made.Keys)
	return nil
}
