package apikeys

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/internal/mailbox"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const postPassword = "a password for the post"

// post is a mail server in which ada logs in. Each mail is held until hold, where
// that is set, returns.
type post struct {
	t *testing.T
	*mailbox.Server
}

func openPost(t *testing.T, hold func()) *post {
	t.Helper()
	t.Setenv("POST_PASSWORD", postPassword)
	s, err := mailbox.StartWith(mailbox.Options{Username: "ada", Password: postPassword, Hold: hold})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if more := s.Taken(); len(more) > 0 {
			t.Errorf("%d mails too many came", len(more))
		}
	})
	return &post{t, s}
}

// key is the key in the next mail.
func (p *post) key() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	m, err := p.Next(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(m.Keys()) != 1 {
		p.t.Fatalf("a mail holds %d keys", len(m.Keys()))
	}
	return m.Keys()[0]
}

// mailing is the Caddyfile of a site that sends mails to the post.
func (p *post) mailing(more string) string {
	global := fmt.Sprintf("mail {\nsmtp %s\ntls off\nusername ada\npassword {env.POST_PASSWORD}\nfrom keys@example.com\n}\n%s", p.Addr, more)
	logged := strings.Replace(minimal, "{", "{\n log {\n output file {dir}/log {\n roll_disabled\n }\n level DEBUG\n format api_keys\n }\n", 1)
	return strings.NewReplacer("{global}", global, "{block}", "").Replace(logged)
}

// ada has an account with a key.
func (g *gateway) ada() *keystore.Issued {
	g.t.Helper()
	a, err := g.keyring().CreateAccount(g.t.Context(), keystore.Account{Email: "ada@example.com"})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.issue(keystore.Credential{AccountID: a.ID})
}

func (g *gateway) requestMail(address string) {
	g.t.Helper()
	if _, err := g.keyring().RequestMail(g.t.Context(), keystore.MailRequest{Address: address}); err != nil {
		g.t.Fatal(err)
	}
}

// waitForMails waits until so many mails are in the outbox.
func (g *gateway) waitForMails(want int) {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n := -1
		err := g.keyring().View(g.t.Context(), func(r keystore.Reader) (err error) {
			n, err = r.CountMails()
			return err
		})
		switch {
		case err != nil:
			g.t.Fatal(err)
		case n == want:
			return
		case time.Now().After(deadline):
			g.t.Fatalf("%d mails wait, want %d", n, want)
		}
	}
}

func TestAKeyByMailOpensTheGate(t *testing.T) {
	post := openPost(t, nil)
	g := start(t, post.mailing(""))
	older := g.ada()
	g.requestMail("Ada@example.com")
	key := post.key()
	for _, text := range []string{older.Text, key} {
		if got := g.get("/", "X-Api-Key", text); got.StatusCode != 200 {
			t.Errorf("before its first use a key is answered %d", got.StatusCode)
		}
	}
	if got := g.get("/", "X-Api-Key", older.Text); got.StatusCode != 401 || got.code() != "expired_key" {
		t.Errorf("after the first use the older key is answered %d %s", got.StatusCode, got.code())
	}
	g.waitForMails(0)
	if metrics := g.admined("/metrics"); !strings.Contains(metrics, `caddy_api_keys_mails_total{outcome="sent"}`) {
		t.Error("the mail is not counted")
	}
	if config := g.admined("/config/"); strings.Contains(config, postPassword) || !strings.Contains(config, "{env.POST_PASSWORD}") {
		t.Errorf("the configuration is shown as %s", config)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(g.dir, "log"))
	if err != nil || !strings.Contains(string(log), `"mail sent"`) {
		t.Errorf("the log, %v: %s", err, log)
	}
	for _, secret := range []string{key, postPassword, "ada@example.com", older.Text} {
		if strings.Contains(string(log), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// admined is an answer of the admin endpoint.
func (g *gateway) admined(path string) string {
	g.t.Helper()
	resp, err := http.Get("http://" + g.admin + path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(text)
}

// TestAReloadWhileAMailIsSentSendsItOnce: the new configuration runs before the
// old one ends, and the old one lets its mail finish. A mail too many would wait
// for its answer, and leave a goroutine behind.
func TestAReloadWhileAMailIsSentSendsItOnce(t *testing.T) {
	taking, answer := make(chan struct{}), make(chan struct{})
	post := openPost(t, func() {
		taking <- struct{}{}
		<-answer
	})
	g := start(t, post.mailing(""))
	older := g.ada()
	g.requestMail("ada@example.com")
	<-taking
	var reload sync.WaitGroup
	reload.Go(func() {
		if err := g.tryLoad(post.mailing("cache_size 1MiB")); err != nil {
			t.Error(err)
		}
	})
	// A mail that is asked for meanwhile is sent by either.
	if _, err := g.keyring().CreateAccount(t.Context(), keystore.Account{Email: "bob@example.com"}); err != nil {
		t.Fatal(err)
	}
	g.requestMail("bob@example.com")
	answer <- struct{}{}
	<-taking
	answer <- struct{}{}
	reload.Wait()
	keys := []string{post.key(), post.key()}
	g.waitForMails(0)
	for _, text := range append(keys, older.Text) {
		if got := g.get("/", "X-Api-Key", text); got.StatusCode != 200 && text != older.Text {
			t.Errorf("a mailed key is answered %d", got.StatusCode)
		}
	}
}

func TestAMailSurvivesARestartAndAConfigurationWithoutMail(t *testing.T) {
	post := openPost(t, nil)
	without := strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal)
	g := start(t, without)
	g.ada()
	g.requestMail("ada@example.com")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	g.load(without)
	g.waitForMails(1)
	g.load(post.mailing(""))
	if got := g.get("/", "X-Api-Key", post.key()); got.StatusCode != 200 {
		t.Errorf("the key is answered %d", got.StatusCode)
	}
	g.waitForMails(0)
}

func TestValidatingConnectsToNoMailServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	emptyHome(t)
	config, err := adapt(fmt.Sprintf("{\n api_keys {\n mail {\n smtp %s\n from keys@example.com\n }\n }\n}\n:8080 {\n api_keys\n}\n", l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(config); err != nil {
		t.Error(err)
	}
	if err := l.(*net.TCPListener).SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("somebody connected")
	}
}

func TestMailMembersInJSONAreHeldToTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		mail string
		says []string
	}{
		"nothing":        {`{}`, []string{"mail: smtp is missing"}},
		"unknown member": {`{"server":"a:25"}`, []string{`unknown field "server"`}},
		"unknown TLS":    {`{"smtp":"a:25","from":"a@b.example","tls":"on"}`, []string{"mail: tls", `"on"`, "starttls, implicit or off"}},
		"a port as such": {`{"smtp":25}`, []string{"number"}},
		"no address":     {`{"smtp":"a:25","from":"paula"}`, []string{"mail: from", `"paula"`}},
	} {
		t.Run(name, func(t *testing.T) {
			emptyHome(t)
			wantError(t, validate([]byte(`{"apps":{"api_keys":{"mail":`+c.mail+`}}}`)), c.says)
		})
	}
}
