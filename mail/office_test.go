package mail

import (
	"context"
	"io"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashVariable); path != "" {
		crash(path)
	}
	goleak.VerifyTestMain(m)
}

// office is a keyring over a real store, with what its workers log and count.
type office struct {
	*keystore.Keyring
	t     *testing.T
	path  string
	vault *keystore.Vault
	logs  *observer.ObservedLogs
	log   *zap.Logger

	workers []*Worker

	mu     sync.Mutex
	counts map[string]int
}

func openOffice(t *testing.T, path string, config keystore.Config) *office {
	t.Helper()
	o := &office{t: t, path: path, counts: map[string]int{}}
	var core zapcore.Core
	core, o.logs = observer.New(zap.DebugLevel)
	o.log = zap.New(core)
	store, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	o.vault, err = keystore.OpenVault(t.Context(), store, keystore.DefaultCacheSize, func(problem string, err error) {
		t.Errorf("%s: %v", problem, err)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.vault.Close(); err != nil {
			t.Error(err)
		}
	})
	if o.Keyring, err = keystore.NewKeyring(t.Context(), o.vault, config); err != nil {
		t.Fatal(err)
	}
	return o
}

func newOffice(t *testing.T) *office {
	t.Helper()
	return openOffice(t, filepath.Join(t.TempDir(), "store", "keys.db"), keystore.Config{})
}

// worker makes a worker without waits that sends to addr. It is stopped at the end
// of the test.
func (o *office) worker(options Options, change ...func(*Worker)) *Worker {
	o.t.Helper()
	if options.From == "" {
		options.From = "Keys <keys@sender.example>"
	}
	if options.TLS == "" {
		options.TLS = NoTLS
	}
	sender, err := NewSender(options)
	if err != nil {
		o.t.Fatal(err)
	}
	w := NewWorker(sender, o.Keyring, o.log, o.count)
	w.settle, w.poll = time.Millisecond, 20*time.Millisecond
	w.server = backoff{time.Millisecond, 20 * time.Millisecond}
	w.mail = backoff{time.Millisecond, 20 * time.Millisecond}
	for _, c := range change {
		c(w)
	}
	return w
}

// start is worker, started.
func (o *office) start(options Options, change ...func(*Worker)) *Worker {
	o.t.Helper()
	w := o.worker(options, change...)
	w.Start()
	o.t.Cleanup(w.Stop)
	o.workers = append(o.workers, w)
	return w
}

func (o *office) count(outcome string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts[outcome]++
}

func (o *office) counted(outcome string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[outcome]
}

func (o *office) account(a keystore.Account) *keystore.Account {
	o.t.Helper()
	if a.Email == "" {
		a.Email = "ada@example.com"
	}
	made, err := o.CreateAccount(o.t.Context(), a)
	if err != nil {
		o.t.Fatal(err)
	}
	return made
}

// request asks for a key as a stranger does.
func (o *office) request(address string) {
	o.t.Helper()
	got, err := o.RequestMail(o.t.Context(), keystore.MailRequest{Address: address})
	if err != nil || got.ThrottledUntil != 0 {
		o.t.Fatalf("%+v, error %v", got, err)
	}
}

// ada has an account with a key and asks for another.
func (o *office) ada() (issued *keystore.Issued) {
	o.t.Helper()
	issued, err := o.Issue(o.t.Context(), keystore.Operator(), keystore.Credential{AccountID: o.account(keystore.Account{}).ID})
	if err != nil {
		o.t.Fatal(err)
	}
	o.request("ada@example.com")
	return issued
}

func (o *office) keys(credentialID string) []keystore.KeyStatus {
	o.t.Helper()
	keys, err := o.Keys(o.t.Context(), credentialID, keystore.Page{})
	if err != nil {
		o.t.Fatal(err)
	}
	return keys
}

func (o *office) want(text string, want keystore.Verdict) {
	o.t.Helper()
	if _, got, err := o.Verify(o.t.Context(), text); got != want || err != nil {
		o.t.Errorf("verdict %v, want %v, error %v", got, want, err)
	}
}

// use presents a key as a request does.
func (o *office) use(text string) {
	o.t.Helper()
	_, v, err := o.Accept(o.t.Context(), text, keystore.Request{Requirement: &keystore.Requirement{}})
	if v != keystore.OK || err != nil {
		o.t.Errorf("used: %v, error %v", v, err)
	}
}

// waiting is how many mails are in the outbox.
func (o *office) waiting() (n int) {
	o.t.Helper()
	err := o.View(context.Background(), func(r keystore.Reader) (err error) {
		n, err = r.CountMails()
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return n
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come about", what)
		}
	}
}

// done waits until all is sent and written down, and ends the workers, which have
// then logged it.
func (o *office) done() {
	o.t.Helper()
	until(o.t, "an empty outbox", func() bool { return o.waiting() == 0 })
	for _, w := range o.workers {
		w.Stop()
	}
}

// keyIn is the key that a mail holds.
func keyIn(t *testing.T, mail received) string {
	t.Helper()
	for line := range strings.Lines(bodyOf(t, mail.parse(t))) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "key_") {
			return line
		}
	}
	t.Fatalf("there is no key in %s", mail.raw)
	return ""
}

func bodyOf(t *testing.T, m *netmail.Message) string {
	t.Helper()
	text, err := io.ReadAll(decoded(m))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// logged wants a line of that level, and that no line says what none may.
func (o *office) logged(level zapcore.Level, message string) {
	o.t.Helper()
	found := false
	for _, entry := range o.logs.All() {
		found = found || entry.Level == level && strings.Contains(entry.Message, message)
	}
	if !found {
		o.t.Errorf("no line at %s says %q", level, message)
	}
}

// silent wants that no line holds any of the words.
func (o *office) silent(words ...string) {
	o.t.Helper()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	for _, entry := range o.logs.All() {
		line, err := encoder.EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			o.t.Fatal(err)
		}
		for _, word := range words {
			if strings.Contains(line.String(), word) {
				o.t.Errorf("a line holds %q: %s", word, line)
			}
		}
	}
}
