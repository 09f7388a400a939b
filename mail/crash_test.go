package mail

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// crashVariable makes the test program a worker that kills itself: it holds the
// path of the store and the address of the server.
const crashVariable = "MAIL_TEST_CRASH"

// leaseOfTheDead is how long a mail waits whose worker was killed.
const leaseOfTheDead = 300 * time.Millisecond

// crash is what the process does whose worker is killed between the commit of the
// key and the mail.
func crash(arguments string) {
	path, addr, _ := strings.Cut(arguments, "|")
	store, err := sqlstore.OpenSQLite(context.Background(), path)
	if err != nil {
		panic(err)
	}
	vault, err := keystore.OpenVault(context.Background(), store, keystore.DefaultCacheSize, func(string, error) {})
	if err != nil {
		panic(err)
	}
	kr, err := keystore.NewKeyring(context.Background(), vault, keystore.Config{})
	if err != nil {
		panic(err)
	}
	sender, err := NewSender(Options{Server: addr, TLS: NoTLS, From: "keys@sender.example"})
	if err != nil {
		panic(err)
	}
	w := NewWorker(sender, kr, zap.NewNop(), func(string) {})
	w.settle, w.lease = 0, leaseOfTheDead
	w.begun = func() {
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	}
	w.Start()
	time.Sleep(time.Minute)
	os.Exit(3)
}

// TestAMailSurvivesKill9 kills a worker after the key was made and before the mail
// was sent, twice. The next worker sends one, with a key that works; those that
// nobody got are revoked with it.
func TestAMailSurvivesKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	s := serve(t, nil)
	var older *keystore.Issued
	t.Run("a request is made", func(t *testing.T) { older = openOffice(t, path, keystore.Config{}).ada() })
	for range 2 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashVariable+"="+path+"|"+s.addr)
		out, err := child.CombinedOutput()
		if code := child.ProcessState.ExitCode(); code == 0 || code > 1 {
			t.Fatalf("the worker was not killed: %v\n%s", err, out)
		}
	}
	if mails, _ := s.came(); mails != 0 {
		t.Fatalf("%d mails were sent before", mails)
	}
	o := openOffice(t, path, keystore.Config{})
	before := o.keys(older.Credential.ID)
	if len(before) != 3 || !before[1].State.Live() || !before[2].State.Live() {
		t.Fatalf("the killed workers left %d keys", len(before))
	}
	o.start(Options{Server: s.addr})
	key := keyIn(t, s.next(1))
	o.done()
	o.want(key, keystore.OK)
	o.want(older.Text, keystore.OK)
	after := o.keys(older.Credential.ID)
	for i, want := range []keystore.State{keystore.StateRetiring, keystore.StateRevoked, keystore.StateRevoked, keystore.StateActive} {
		if after[i].State != want {
			t.Errorf("key %d is %s, want %s", i, after[i].State, want)
		}
	}
	if mails, _ := s.came(); mails != 1 {
		t.Errorf("%d mails", mails)
	}
}

// TestNoMailedKeyLiesInTheStore reads every file of the store, while it is open
// and after.
func TestNoMailedKeyLiesInTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	var keys []string
	look := func(t *testing.T) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%d files, error %v", len(files), err)
		}
		seen := false
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			seen = seen || bytes.Contains(content, []byte(keystore.UntilFirstUse)) || bytes.Contains(content, []byte("ada@example.com"))
			for _, key := range keys {
				secret := key[strings.LastIndex(key, "_")+1:]
				if bytes.Contains(content, []byte(secret)) {
					t.Errorf("%s holds a key", file)
				}
			}
		}
		if !seen {
			t.Error("nothing was looked at")
		}
	}
	t.Run("open", func(t *testing.T) {
		o := openOffice(t, path, keystore.Config{})
		s := serve(t, func(s *server) {
			s.rcpt = func(n int, _ string) error {
				if n == 1 {
					return refusal(451)
				}
				return nil
			}
		})
		o.ada()
		o.start(Options{Server: s.addr})
		keys = append(keys, keyIn(t, s.next(1)))
		o.done()
		look(t)
	})
	t.Run("closed", look)
}
