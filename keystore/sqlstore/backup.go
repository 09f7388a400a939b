package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// copyBuffer is how much of a backup is written between two looks at the
// context.
const copyBuffer = 1 << 18

// backup copies the store into a private file, and that to w. The copy is
// consistent, holds no page that was freed, and takes the time of the disk:
// only for so long does it keep the log from being checkpointed, however slow
// w is.
func (e *sqlite) backup(ctx context.Context, w io.Writer) (err error) {
	name, err := privateFile(e.path, forBackup)
	if err != nil {
		return unavailable("back up", err)
	}
	defer func() {
		// A store that was opened anew at this path meanwhile has removed it.
		if gone := os.Remove(name); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	if err := e.snapshot(ctx, name); err != nil {
		return unavailable("back up", err)
	}
	f, err := os.Open(name)
	if err != nil {
		return unavailable("back up", err)
	}
	defer f.Close()
	return stream(ctx, w, f)
}

// snapshot copies the store into the file of this name, which is there and
// empty, so that SQLite keeps its mode. It has a connection of its own, so that
// it keeps no reader waiting for one.
func (e *sqlite) snapshot(ctx context.Context, name string) (err error) {
	db, err := connect(e.path, copying)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, `VACUUM INTO $1`, name)
	return err
}

// stream copies r to w until ctx ends.
func stream(ctx context.Context, w io.Writer, r io.Reader) error {
	buffer := make([]byte, copyBuffer)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return fmt.Errorf("back up: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unavailable("back up", err)
		}
	}
}
