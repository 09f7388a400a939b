package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// This file puts a backup in the place of a store that nobody has open. What the
// store would lose by that is found in losses.go.

// ErrNewer means that a store has what the backup has not, so that restoring it
// would undo that.
var ErrNewer = errors.New("the store is newer than the backup")

// Restored is what a restore did, or would have done.
type Restored struct {
	Losses
	// Aside is where the store is that was replaced, empty if there was none.
	Aside string
}

// RestoreSQLite puts a backup in the place of the store at path, in one step: a
// crash leaves the store as it was, or the backup whole. The backup itself stays as
// it is. The store that was there is kept beside, under another name.
//
// A backup that is not a whole store of this program's version or an older one is
// refused with keystore.ErrDamaged, a store that is open with [ErrLocked], and one
// that has what the backup has not with [ErrNewer], unless it is forced. What that
// is, is returned in both cases. The store goes on from the latest time that either
// has seen.
func RestoreSQLite(ctx context.Context, path, backup string, force bool) (out Restored, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return out, err
	}
	if err := checkBackup(path, backup); err != nil {
		return out, err
	}
	if err := ensureDir(path); err != nil {
		return out, err
	}
	if err := checkFiles(path, checkFile); err != nil {
		return out, err
	}
	held, err := lock(ctx, path)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	if err := removeStale(path); err != nil {
		return out, refusal(path, "%w", err)
	}
	defer func() { err = errors.Join(err, removeStale(path)) }()

	staged, err := stage(ctx, path, backup)
	if err != nil {
		return out, err
	}
	if out.Losses, err = losses(ctx, path, staged); err != nil {
		return out, err
	}
	if out.Any() && !force {
		return out, ErrNewer
	}
	s := &swap{path: path, staged: staged, at: time.Now(), reached: func(string) {}}
	out.Aside, err = s.run()
	return out, err
}

// checkBackup judges a backup by its header, before anything is made for it.
func checkBackup(path, backup string) error {
	info, err := os.Stat(backup)
	if err != nil {
		return fmt.Errorf("backup %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("backup %s: it is not a regular file", backup)
	}
	if store, err := os.Stat(path); err == nil && os.SameFile(store, info) {
		return fmt.Errorf("backup %s: it is the store itself", backup)
	}
	return checkDamage(backup)
}

// stage copies a backup beside the store, brings it up to date there, and checks
// all of it.
func stage(ctx context.Context, path, backup string) (staged string, err error) {
	if staged, err = privateFile(path, forRestore); err != nil {
		return "", refusal(path, "%w", err)
	}
	// A copy of a store that was not closed has its log beside it.
	for _, suffix := range []string{"", "-wal"} {
		err := copyFile(ctx, staged+suffix, backup+suffix)
		if suffix != "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", refusal(path, "copy the backup: %w", err)
		}
	}
	if err := verify(ctx, staged, backup); err != nil {
		return "", err
	}
	return staged, nil
}

// copyFile copies a file to one of mode 0600.
func copyFile(ctx context.Context, to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return stream(ctx, out, in)
}

// verify upgrades the staged copy of a backup, and refuses it unless it is whole.
func verify(ctx context.Context, staged, backup string) (err error) {
	db, err := connect(staged, writing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	e := &sqlite{path: backup} // which errors name
	if err := e.matchSchema(ctx, db); err != nil {
		return err
	}
	if err := db.prepare(ctx, lookup, statements); err != nil {
		return e.unreadable(err)
	}
	for _, check := range []struct{ name, query string }{
		{"integrity check", "PRAGMA integrity_check(1)"},
		{"foreign key check", "PRAGMA foreign_key_check"},
		{"comparison of grants with keys, credentials and accounts", strayGrants},
	} {
		if err := e.passes(ctx, db, check.name, check.query); err != nil {
			return err
		}
	}
	return nil
}

// passes runs a check that answers nothing, or ok.
func (e *sqlite) passes(ctx context.Context, db *database, name, query string) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return e.unreadable(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return e.unreadable(err)
	}
	found := make([]any, len(columns))
	for i := range found {
		found[i] = new(any)
	}
	for rows.Next() {
		if err := rows.Scan(found...); err != nil {
			return e.unreadable(err)
		}
		if said := *found[0].(*any); said != "ok" {
			return damaged(e.path, fmt.Errorf("%s says %q: %s", name, fmt.Sprint(said), restore))
		}
	}
	if err := rows.Err(); err != nil {
		return e.unreadable(err)
	}
	return nil
}

// swap puts a staged file in the place of the store.
type swap struct {
	path, staged string
	at           time.Time
	// reached is told of each step that is done; a test looks at the files then.
	reached func(step string)
}

// run keeps the old files under other names, and then renames. A log that is still
// there belongs to a store that could not be read; it must be gone before the new
// file is, since SQLite would take it for that of the new one.
func (s *swap) run() (aside string, err error) {
	if err := s.sync(); err != nil {
		return "", err
	}
	s.reached("synced")
	name := s.path + ".before-restore-" + s.at.UTC().Format("20060102T150405Z")
	for _, suffix := range []string{"", "-wal"} {
		switch err := keep(s.path+suffix, name+suffix); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", refusal(s.path, "keep the old store: %w", err)
		default:
			aside = name
		}
	}
	if err := syncDir(filepath.Dir(s.path)); err != nil {
		return aside, refusal(s.path, "%w", err)
	}
	s.reached("kept")
	for _, suffix := range []string{"-shm", "-wal"} {
		if err := os.Remove(s.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return aside, refusal(s.path, "%w", err)
		}
	}
	s.reached("log removed")
	if err := os.Rename(s.staged, s.path); err != nil {
		return aside, refusal(s.path, "%w", err)
	}
	s.reached("renamed")
	return aside, syncDir(filepath.Dir(s.path))
}

// sync makes the staged file durable, which must have no log any more.
func (s *swap) sync() error {
	if _, err := os.Lstat(s.staged + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return refusal(s.path, "the copy of the backup has a log that could not be emptied")
	}
	if err := syncFile(s.staged); err != nil {
		return refusal(s.path, "%w", err)
	}
	return nil
}

// keep gives a file a second name, or where that can't be, makes a copy.
func keep(path, name string) error {
	err := os.Link(path, name)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
