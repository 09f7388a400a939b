package sqlstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// holdEnv makes the test binary a process that holds the store it names until
// its standard input ends.
const holdEnv = "SQLSTORE_TEST_HOLD"

func hold(path string) {
	store, err := sqlstore.OpenSQLite(context.Background(), path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := store.Close(); err != nil {
		os.Exit(1)
	}
}

// holdElsewhere starts a process that holds the store, and returns what ends
// it.
func holdElsewhere(t *testing.T, path string) (release func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestAStoreIsOpenOnce(t *testing.T) {
	t.Parallel()
	for name, occupy := range map[string]func(*testing.T, string) func(){
		"by another process": holdElsewhere,
		"by this process": func(t *testing.T, path string) func() {
			store := open(t, path)
			return func() { _ = store.Close() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			release := occupy(t, path)
			start := time.Now()
			_, err := sqlstore.OpenSQLite(t.Context(), path)
			if !errors.Is(err, sqlstore.ErrLocked) {
				t.Errorf("got %v, want %v", err, sqlstore.ErrLocked)
			}
			for _, part := range []string{path, path + ".lock", "stop that process"} {
				if !strings.Contains(fmt.Sprint(err), part) {
					t.Errorf("%v does not say %q", err, part)
				}
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			release()
			if err := open(t, path).Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAStoreThatIsLetGoInTimeOpens(t *testing.T) {
	path := newPath(t)
	store := open(t, path)
	opened := make(chan error)
	go func() {
		second, err := sqlstore.OpenSQLite(t.Context(), path)
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	path := newPath(t)
	store := open(t, path)
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sqlstore.OpenSQLite(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
