package apikeys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup <file>",
		Short: "Writes a consistent snapshot of the store to a file",
		Long: `
Writes a consistent snapshot of the store to a new file that only you can read,
while Caddy goes on serving: a SQLite database, or, with store postgres, a
script for psql. It holds no key's text. An existing file is not overwritten,
and there is no file unless the snapshot is whole.

The command "restore" puts a SQLite one back.`,
		Example: `  $ caddy api-keys backup keys-$(date +%F).db`,
		Args:    cobra.ExactArgs(1),
		RunE:    withClient(backupStore),
	}
}

func backupStore(cmd *cobra.Command, c *adminClient, args []string) error {
	n, err := c.save(cmd.Context(), "/backup", args[0], func(r io.Reader) io.Reader { return r })
	if err != nil {
		return err
	}
	cmd.PrintErrf("%s: %d bytes\n", args[0], n)
	return nil
}

// save writes what is at a path of the API to a new file, through check.
func (c *adminClient) save(ctx context.Context, from, file string, check func(io.Reader) io.Reader) (n int64, err error) {
	if _, err := os.Lstat(file); err == nil {
		return 0, fmt.Errorf("%s exists, and is not overwritten", file)
	}
	resp, err := c.send(ctx, http.MethodGet, from, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return writeNew(file, check(resp.Body))
}

// writeNew writes a file that did not exist, whole and durably, or not at all.
func writeNew(path string, content io.Reader) (n int64, err error) {
	dir := filepath.Dir(path)
	part, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.part") // mode 0600
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(part.Name()) }()
	n, err = io.Copy(part, content)
	if err != nil {
		err = fmt.Errorf("it broke off after %d bytes, and is not kept: %w", n, err)
	} else {
		err = part.Sync()
	}
	if err := errors.Join(err, part.Close()); err != nil {
		return 0, err
	}
	// A link refuses to replace a file that came to be meanwhile, as a rename
	// does not; some file systems have none.
	err = os.Link(part.Name(), path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return 0, fmt.Errorf("%s exists, and is not overwritten", path)
	case err != nil:
		err = os.Rename(part.Name(), path)
	}
	return n, errors.Join(err, syncDir(dir))
}

// syncDir makes a new name in a directory durable, where the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync()
	return nil
}
