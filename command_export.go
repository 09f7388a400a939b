package apikeys

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export <file>|-",
		Short: "Writes all records of the store to a file",
		Long: `
Writes all accounts, credentials and keys of the store to a new file that only you
can read, or to standard output, while Caddy goes on serving: one JSON object a line,
for "import" to take into another store, of any kind. They are of one moment, and
hold no key's text. An existing file is not overwritten, and there is no file unless
the export is whole. Standard output has all of it if the exit status is 0.

Mails that wait to be sent are not in it. docs/operations.md says how to move house.`,
		Example: `  $ caddy api-keys export keys.ndjson
  $ caddy api-keys export - | gzip > keys.ndjson.gz`,
		Args: cobra.ExactArgs(1),
		RunE: withClient(exportStore),
	}
}

func exportStore(cmd *cobra.Command, c *adminClient, args []string) error {
	var whole wholeExport
	check := func(r io.Reader) io.Reader {
		whole.Reader = r
		return &whole
	}
	if args[0] == "-" {
		resp, err := c.send(cmd.Context(), http.MethodGet, "/export", nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(cmd.OutOrStdout(), check(resp.Body)); err != nil {
			return err
		}
	} else if _, err := c.save(cmd.Context(), "/export", args[0], check); err != nil {
		return err
	}
	end := whole.end
	cmd.PrintErrf("%s: %d accounts, %d credentials, %d keys\n", args[0], end.Accounts, end.Credentials, end.Keys)
	if end.WaitingMails > 0 {
		cmd.PrintErrf("%d mails wait to be sent, and are not in it\n", end.WaitingMails)
	}
	return nil
}

// exportEnd is the last line of an export.
type exportEnd struct {
	Accounts     int `json:"accounts"`
	Credentials  int `json:"credentials"`
	Keys         int `json:"keys"`
	WaitingMails int `json:"waiting_mails"`
}

// wholeExport reads an export, and fails where it ends without its last line.
type wholeExport struct {
	io.Reader
	tail []byte
	end  exportEnd
}

// maxEnd is more than the last line has, in bytes.
const maxEnd = 512

var errExportCut = errors.New("the last line of the export is missing")

// Read reads on, and keeps the last of what it read.
func (e *wholeExport) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.tail = append(e.tail, p[max(0, n-maxEnd):n]...)
	e.tail = e.tail[max(0, len(e.tail)-maxEnd):]
	if errors.Is(err, io.EOF) && !e.ended() {
		err = errExportCut
	}
	return n, err
}

// ended reports whether the last line is that of a whole export.
func (e *wholeExport) ended() bool {
	lines := bytes.Split(e.tail, []byte("\n"))
	if len(lines) < 3 || len(lines[len(lines)-1]) != 0 { // there is a line before it, and it has an end
		return false
	}
	var last struct {
		End *exportEnd `json:"end"`
	}
	if err := json.Unmarshal(lines[len(lines)-2], &last); err != nil || last.End == nil {
		return false
	}
	e.end = *last.End
	return true
}
