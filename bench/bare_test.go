package bench

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bareFile is the variable that makes this program the other process of a bareTable.
const bareFile = "BENCH_BARE_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(bareFile); path != "" {
		if err := serveBareTable(path, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bareTable is a table of rows of 300 bytes in another process. SQLite has one pool of
// pages for all connections of a process, as the driver builds it, so here each side
// of a comparison would push out what the other has read, and live on what it leaves.
type bareTable struct {
	asks    io.Writer
	answers *bufio.Reader
}

const bareRows = 1_000_000

// newBareTable returns when the table is filled.
func newBareTable(b *testing.B) *bareTable {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	process := exec.Command(self)
	process.Env = append(os.Environ(), bareFile+"="+filepath.Join(b.TempDir(), "bare.db"))
	process.Stderr = os.Stderr
	asks, err := process.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	answers, err := process.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := process.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = asks.Close() // which ends it
		if err := process.Wait(); err != nil {
			b.Error(err)
		}
	})
	t := &bareTable{asks, bufio.NewReader(answers)}
	t.await(b)
	return t
}

// lookUp looks up that many rows, one after the other.
func (t *bareTable) lookUp(b *testing.B, times int) {
	if _, err := fmt.Fprintln(t.asks, times); err != nil {
		b.Fatal(err)
	}
	t.await(b)
}

func (t *bareTable) await(b *testing.B) {
	b.Helper()
	if _, err := t.answers.ReadString('\n'); err != nil {
		b.Fatal(err)
	}
}

// serveBareTable fills the table, says so, and looks up as many rows as it is asked to,
// until nobody asks any more.
func serveBareTable(path string, asks io.Reader, answers io.Writer) error {
	ctx := context.Background()
	db, err := openBare(path, 4<<10)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := fillBareTable(ctx, db); err != nil {
		return err
	}
	lookup, err := db.PrepareContext(ctx, `SELECT v FROM t WHERE k = $1`)
	if err != nil {
		return err
	}
	for times := 0; ; {
		for range times {
			digest := digestOf(rand.IntN(bareRows))
			var value []byte
			if err := lookup.QueryRowContext(ctx, digest[:]).Scan(&value); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(answers, times); err != nil {
			return err
		}
		switch _, err := fmt.Fscanln(asks, &times); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

func fillBareTable(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB)`); err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO t (k, v) VALUES ($1, $2)`)
	if err != nil {
		return err
	}
	for i := range bareRows {
		digest := digestOf(i)
		if _, err := insert.ExecContext(ctx, digest[:], make([]byte, 300-len(digest))); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// openBare opens a file as a store does, with a page cache of that many KiB.
func openBare(path string, cache int) (*sql.DB, error) {
	pragmas := []string{
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "temp_store(MEMORY)",
		"mmap_size(0)", "secure_delete(FAST)", fmt.Sprintf("cache_size(-%d)", cache),
	}
	db, err := sql.Open("sqlite", "file://"+path+"?_txlock=immediate&_pragma="+strings.Join(pragmas, "&_pragma="))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	return db, nil
}
