package mail

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestAKeyArrivesAndTheOlderOneWorksUntilItIsUsed(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	older := o.ada()
	o.start(Options{Server: s.addr})
	mail := s.next(1)
	o.done()
	fresh := keyIn(t, mail)
	if mail.to != "ada@example.com" || mail.from != "keys@sender.example" {
		t.Errorf("sent from %q to %q", mail.from, mail.to)
	}
	// A whole name, or an address in brackets.
	if !strings.Contains(mail.hello, ".") || strings.HasPrefix(mail.hello, "[") && mail.hello != "[127.0.0.1]" {
		t.Errorf("greeted as %q", mail.hello)
	}
	o.want(older.Text, keystore.OK)
	o.want(fresh, keystore.OK)
	o.use(fresh)
	o.want(older.Text, keystore.ExpiredKey)
	if keys := o.keys(older.Credential.ID); len(keys) != 2 {
		t.Errorf("%d keys, want 2", len(keys))
	}
	o.logged(zap.InfoLevel, "mail sent")
	o.silent("ada@", fresh, older.Text)
	if o.counted(CountSent) != 1 {
		t.Errorf("counted %v", o.counts)
	}
}

// TestWhatBecomesOfAnAttempt goes through every way in which the first attempt
// can end. The second always succeeds, and the key in its mail works.
func TestWhatBecomesOfAnAttempt(t *testing.T) {
	readAll := func(r io.Reader) { _, _ = io.Copy(io.Discard, r) }
	for _, c := range []struct {
		name    string
		rcpt    func() error
		data    func(net.Conn, io.Reader) error
		outcome string
		tells   string
	}{
		{"RCPT is refused for good", func() error { return refusal(550) }, nil, CountRefused, "RCPT: the server answered 550 5.1.1"},
		{"RCPT is refused for now", func() error { return refusal(451) }, nil, CountRefused, "RCPT: the server answered 451 4.1.1"},
		{"the text is refused for good", nil, func(_ net.Conn, r io.Reader) error { readAll(r); return refusal(554) }, CountRefused, "end of data: the server answered 554 5.1.1"},
		{"the text is refused for now", nil, func(_ net.Conn, r io.Reader) error { readAll(r); return refusal(451) }, CountRefused, "end of data: the server answered 451 4.1.1"},
		{"the server is closing down", nil, func(_ net.Conn, r io.Reader) error { readAll(r); return refusal(421) }, CountRefused, "end of data: the server answered 421 4.1.1"},
		{"the connection is lost within the text", nil, func(c net.Conn, r io.Reader) error { _ = c.Close(); return nil }, CountUnknown, "end of data: the server closed the connection"},
		{"the connection is lost before the answer", nil, func(c net.Conn, r io.Reader) error { readAll(r); _ = c.Close(); return nil }, CountUnknown, "end of data: the server closed the connection"},
		{"the answer breaks off", nil, func(c net.Conn, r io.Reader) error {
			readAll(r)
			_, _ = io.WriteString(c, "250-2.0.0 taken")
			_ = c.Close()
			return nil
		}, CountUnknown, "end of data: the server closed the connection"},
		{"the answer is nonsense", nil, func(c net.Conn, r io.Reader) error {
			readAll(r)
			_, _ = io.WriteString(c, "thanks, ada@example.com\r\n")
			_ = c.Close()
			return nil
		}, CountUnknown, "end of data: the server does not speak SMTP"},
		{"the connection is lost at RCPT", func() error { return errHangUp }, nil, CountRefused, "RCPT: the server closed the connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOffice(t)
			s := serve(t, func(s *server) {
				s.rcpt = func(n int, _ string) error {
					if n == 1 && c.rcpt != nil {
						return c.rcpt()
					}
					return nil
				}
				s.data = func(n int, conn net.Conn, r io.Reader) error {
					if n == 1 && c.data != nil {
						return c.data(conn, r)
					}
					return nil
				}
			})
			older := o.ada()
			// What the first attempt left behind is looked at when the second begins.
			var keys []keystore.KeyStatus
			var attempts int
			o.start(Options{Server: s.addr}, func(w *Worker) {
				w.begun = func() {
					if attempts++; attempts == 2 {
						keys = o.keys(older.Credential.ID)
					}
				}
			})
			o.done()
			if o.counted(c.outcome) != 1 || o.counted(CountSent) != 1 {
				t.Errorf("counted %v", o.counts)
			}
			if state := keys[1].State; (state == keystore.StateRevoked) != (c.outcome == CountRefused) {
				t.Errorf("after the first attempt its key is %s", state)
			}
			after := o.keys(older.Credential.ID)
			if len(after) != 3 || after[1].State != keystore.StateRevoked {
				t.Errorf("after the second the key of the first is %s, of %d", after[1].State, len(after))
			}
			mails, _ := s.came()
			o.want(keyIn(t, s.next(mails)), keystore.OK)
			o.want(older.Text, keystore.OK)
			o.tells(c.tells)
			o.silent("ada@example.com")
		})
	}
}

// tells wants a line whose error begins with text.
func (o *office) tells(text string) {
	o.t.Helper()
	var all []string
	for _, entry := range o.logs.All() {
		if cause, ok := entry.ContextMap()["error"].(string); ok {
			if strings.HasPrefix(cause, text) {
				return
			}
			all = append(all, cause)
		}
	}
	o.t.Errorf("no error begins with %q: %q", text, all)
}

func TestAKeyInUseSurvivesTheMailAfterIt(t *testing.T) {
	o := newOffice(t)
	var first atomic.Pointer[string]
	s := serve(t, func(s *server) {
		s.data = func(n int, conn net.Conn, r io.Reader) error {
			if n > 1 {
				return nil
			}
			raw, _ := io.ReadAll(r)
			key := keyIn(t, received{raw: raw})
			first.Store(&key)
			o.use(key) // it arrived, though nobody said so
			return conn.Close()
		}
	})
	older := o.ada()
	o.start(Options{Server: s.addr})
	o.done()
	o.want(*first.Load(), keystore.OK)
	o.want(older.Text, keystore.ExpiredKey)
	o.want(keyIn(t, s.next(2)), keystore.OK)
}

func TestNoKeyIsMadeWhileTheServerIsDown(t *testing.T) {
	o := newOffice(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	older := o.ada()
	o.start(Options{Server: addr})
	until(t, "a third try", func() bool { return o.counted(CountUnreachable) >= 3 })
	if keys := o.keys(older.Credential.ID); len(keys) != 1 {
		t.Errorf("%d keys were made", len(keys)-1)
	}
	if o.waiting() != 1 {
		t.Error("the mail does not wait")
	}
	errorsLogged := o.logs.FilterLevelExact(zap.ErrorLevel).Len()
	if errorsLogged != 1 {
		t.Errorf("%d lines at ERROR, want 1", errorsLogged)
	}
	until(t, "the port, which is free unless another took it for a moment", func() bool {
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	s := serveOn(t, l, nil)
	o.want(keyIn(t, s.next(1)), keystore.OK)
	o.done()
	o.logged(zap.InfoLevel, "the mail server can be used again")
	for _, entry := range o.logs.FilterMessageSnippet("the mail server").All() {
		if got := entry.ContextMap()["server"]; got != addr {
			t.Errorf("%q is told of %v", entry.Message, got)
		}
	}
}

// TestWhatIsNotToBeSentLeavesWhileTheServerIsDown: nobody waits for the server to
// be tried again, which takes an hour.
func TestWhatIsNotToBeSentLeavesWhileTheServerIsDown(t *testing.T) {
	o := newOffice(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	older := o.ada()
	o.request("nobody@example.com")
	o.start(Options{Server: l.Addr().String()}, func(w *Worker) { w.server = backoff{time.Hour, time.Hour} })
	until(t, "the failure", func() bool { return o.counted(CountUnreachable) == 1 })
	if n := o.waiting(); n != 1 {
		t.Errorf("%d mails wait when the server was tried", n)
	}
	o.request("nobody@example.com")
	until(t, "an outbox without the mail to nobody", func() bool { return o.waiting() == 1 })
	if o.counted(CountDropped) != 0 {
		t.Error("mails to nobody are told as dropped")
	}
	o.put("late", older.Credential.AccountID, o.Now().Add(-keystore.MailLifetime))
	until(t, "an empty outbox", func() bool { return o.waiting() == 0 && o.counted(CountDropped) == 1 })
	o.done()
	o.logged(zap.ErrorLevel, "mail dropped: it could not be sent for a day")
	if keys := o.keys(older.Credential.ID); len(keys) != 1 || o.counted(CountUnreachable) != 1 {
		t.Errorf("%d keys, counted %v", len(keys), o.counts)
	}
}

// put stores a mail that was asked for at that time, in the place of the account's.
func (o *office) put(id, accountID string, requested keystore.Instant) {
	o.t.Helper()
	err := o.vault.Update(o.t.Context(), func(tx keystore.Tx) error {
		return tx.PutMail(&keystore.Mail{ID: id, AccountID: accountID, RequestedAt: requested, DueAt: o.Now()})
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

// TestAnAddressThatNoMailCanGoToIsDropped: no key is made for it.
func TestAnAddressThatNoMailCanGoToIsDropped(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	const address = "a\u2028@example.com"
	issued, err := o.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: o.account(keystore.Account{Email: address}).ID})
	if err != nil {
		t.Fatal(err)
	}
	o.request(address)
	o.start(Options{Server: s.addr})
	o.done()
	o.logged(zap.ErrorLevel, "mail dropped: the account's e-mail address")
	o.silent("a\u2028", `a\u2028`)
	if keys := o.keys(issued.Credential.ID); len(keys) != 1 || o.counted(CountDropped) != 1 || o.counted(CountRefused) != 0 {
		t.Errorf("%d keys, counted %v", len(keys), o.counts)
	}
	line := o.logs.FilterMessageSnippet("mail dropped").All()[0].ContextMap()
	if line["account_id"] != issued.Credential.AccountID {
		t.Errorf("the line has %v", line)
	}
}

func TestManyMailsGoOverOneConnection(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	for _, name := range []string{"a", "b", "c", "d"} {
		o.account(keystore.Account{Email: name + "@example.com"})
		o.request(name + "@example.com")
	}
	o.request("nobody@example.com")
	o.start(Options{Server: s.addr})
	o.done()
	if mails, sessions := s.came(); mails != 4 || sessions != 1 {
		t.Errorf("%d mails in %d sessions", mails, sessions)
	}
}

// TestTwoWorkersOnOneStoreSendEachMailOnce is what a reload does for a moment.
func TestTwoWorkersOnOneStoreSendEachMailOnce(t *testing.T) {
	const accounts = 20
	o, s := newOffice(t), serve(t, nil)
	for i := range accounts {
		address := string(rune('a'+i)) + "@example.com"
		o.account(keystore.Account{Email: address})
		o.request(address)
	}
	for range 2 {
		o.start(Options{Server: s.addr})
	}
	o.done()
	if mails, _ := s.came(); mails != accounts || o.counted(CountSent) != accounts {
		t.Errorf("%d mails, counted %v", mails, o.counts)
	}
}

func TestASecondRequestThatStillWaitsIsOneMail(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	o.ada()
	o.request("ADA@example.com")
	o.start(Options{Server: s.addr})
	o.done()
	if mails, _ := s.came(); mails != 1 {
		t.Errorf("%d mails", mails)
	}
}

func TestARequestThatComesWhileItsMailIsSentIsAnotherMail(t *testing.T) {
	o := newOffice(t)
	s := serve(t, func(s *server) {
		s.data = func(n int, _ net.Conn, _ io.Reader) error {
			if n == 1 {
				o.request("ada@example.com")
			}
			return nil
		}
	})
	o.ada()
	o.start(Options{Server: s.addr})
	second := keyIn(t, s.next(2))
	o.done()
	o.want(keyIn(t, s.next(1)), keystore.RevokedKey)
	o.want(second, keystore.OK)
}

func TestNothingIsSentToWhoeverIsGone(t *testing.T) {
	for name, change := range map[string]func(o *office, id string) error{
		"deactivated": func(o *office, id string) error {
			_, err := o.UpdateAccount(o.t.Context(), id, func(a *keystore.Account) error { a.Active = false; return nil })
			return err
		},
		"deleted": func(o *office, id string) error { return o.DeleteAccount(o.t.Context(), id) },
		"without an address": func(o *office, id string) error {
			_, err := o.UpdateAccount(o.t.Context(), id, func(a *keystore.Account) error { a.Email = ""; return nil })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, s := newOffice(t), serve(t, nil)
			older := o.ada()
			if err := change(o, older.Credential.AccountID); err != nil {
				t.Fatal(err)
			}
			o.start(Options{Server: s.addr})
			o.done()
			if mails, _ := s.came(); mails != 0 {
				t.Errorf("%d mails came", mails)
			}
		})
	}
}

func TestAMailGoesToTheAddressOfItsTime(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	older := o.ada()
	_, err := o.UpdateAccount(t.Context(), older.Credential.AccountID, func(a *keystore.Account) error {
		a.Email = "Ada.New@example.com"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	o.start(Options{Server: s.addr})
	if to := s.next(1).to; to != "Ada.New@example.com" {
		t.Errorf("sent to %q", to)
	}
	o.done()
}

// TestStopLetsAMailFinish stops the worker while the server has the mail and does
// not answer yet.
func TestStopLetsAMailFinish(t *testing.T) {
	o, arrived, answer := newOffice(t), make(chan struct{}), make(chan struct{})
	s := serve(t, func(s *server) {
		s.data = func(int, net.Conn, io.Reader) error {
			close(arrived)
			<-answer
			return nil
		}
	})
	o.ada()
	o.account(keystore.Account{Email: "bob@example.com"})
	w := o.start(Options{Server: s.addr})
	<-arrived
	o.request("bob@example.com")
	var stop sync.WaitGroup
	stop.Go(w.Stop)
	until(t, "the stop", w.stopping)
	close(answer)
	stop.Wait()
	if mails, _ := s.came(); mails != 1 || o.counted(CountSent) != 1 || o.waiting() != 1 {
		t.Errorf("%d mails, counted %v, %d wait", mails, o.counts, o.waiting())
	}
}

func TestStopEndsAMailThatTakesTooLong(t *testing.T) {
	o, arrived, answer := newOffice(t), make(chan struct{}), make(chan struct{})
	s := serve(t, func(s *server) {
		s.data = func(int, net.Conn, io.Reader) error {
			close(arrived)
			<-answer
			return nil
		}
	})
	t.Cleanup(func() { close(answer) }) // before the server is shut down
	o.ada()
	w := o.start(Options{Server: s.addr}, func(w *Worker) { w.grace = 10 * time.Millisecond })
	<-arrived
	w.Stop()
	if o.counted(CountUnknown) != 1 || o.waiting() != 1 {
		t.Errorf("counted %v, %d wait", o.counts, o.waiting())
	}
	o.tells("end of data: the gateway was stopped or reloaded")
}

// TestStopDoesNotWaitForAServerThatSaysNothing: no mail was begun.
func TestStopDoesNotWaitForAServerThatSaysNothing(t *testing.T) {
	o, addr, dialled := newOffice(t), mute(t), make(chan struct{})
	older := o.ada()
	w := o.worker(Options{Server: addr()})
	w.grace = time.Hour
	w.Start()
	go func() { addr(); close(dialled) }()
	<-dialled
	w.Stop()
	if len(o.keys(older.Credential.ID)) != 1 || o.counted(CountUnreachable) != 0 {
		t.Errorf("counted %v", o.counts)
	}
}

// mute is a server that accepts and says nothing. The first call returns its
// address, the second waits until somebody came.
func mute(t *testing.T) func() string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan net.Conn, 100)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came <- c
		}
	})
	var open []net.Conn
	t.Cleanup(func() {
		_ = l.Close()
		accepting.Wait()
		close(came)
		for c := range came {
			open = append(open, c)
		}
		for _, c := range open {
			_ = c.Close()
		}
	})
	asked := false
	return func() string {
		if asked {
			open = append(open, <-came)
		}
		asked = true
		return l.Addr().String()
	}
}

func TestAServerThatHangsIsGivenUp(t *testing.T) {
	t.Run("at the greeting", func(t *testing.T) {
		o := newOffice(t)
		older := o.ada()
		o.start(Options{Server: mute(t)()}, func(w *Worker) { w.sender.connectTimeout = 20 * time.Millisecond })
		until(t, "a second try", func() bool { return o.counted(CountUnreachable) >= 2 })
		if len(o.keys(older.Credential.ID)) != 1 {
			t.Error("a key was made")
		}
		o.tells("greeting: the server does not answer in time: use tls implicit if this port speaks TLS from the start")
	})
	t.Run("after the text", func(t *testing.T) {
		o, answer := newOffice(t), make(chan struct{})
		s := serve(t, func(s *server) {
			s.data = func(n int, _ net.Conn, _ io.Reader) error {
				if n == 1 {
					<-answer
				}
				return nil
			}
		})
		t.Cleanup(func() { close(answer) })
		o.ada()
		o.start(Options{Server: s.addr}, func(w *Worker) { w.sender.deliverTimeout = 50 * time.Millisecond })
		o.done()
		if o.counted(CountUnknown) < 1 || o.counted(CountSent) != 1 {
			t.Errorf("counted %v", o.counts)
		}
		o.tells("end of data: the server does not answer in time")
	})
}

func TestAttemptsAreFartherAndFartherApart(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		0: time.Minute, 1: time.Minute, 2: 2 * time.Minute, 3: 4 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 100: time.Hour, 1 << 40: time.Hour,
	} {
		if got := mailBackoff.after(failures); got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
	}
	for range 100 {
		if d := jittered(time.Second); d < 800*time.Millisecond || d > 1200*time.Millisecond {
			t.Errorf("jittered to %v", d)
		}
	}
}

// TestAnAttemptIsOverBeforeItsLease holds together times that stand apart.
func TestAnAttemptIsOverBeforeItsLease(t *testing.T) {
	if attempt := connectTimeout + deliverTimeout + endTimeout; attempt >= lease {
		t.Errorf("an attempt takes up to %v, its lease is %v", attempt, lease)
	}
}

func TestAMailThatFailsForADayIsDropped(t *testing.T) {
	o := newOffice(t)
	s := serve(t, func(s *server) { s.rcpt = func(int, string) error { return refusal(550) } })
	older := o.ada()
	o.start(Options{Server: s.addr}, func(w *Worker) { w.mail = backoff{25 * time.Hour, 25 * time.Hour} })
	o.done()
	o.logged(zap.ErrorLevel, "mail dropped")
	o.silent("ada@example.com")
	if o.counted(CountDropped) != 1 || o.counted(CountRefused) != 1 {
		t.Errorf("counted %v", o.counts)
	}
	o.want(older.Text, keystore.OK)
}

// TestAMailThatWaitedForADayIsDropped is what happens when the server comes back
// too late: no key is made.
func TestAMailThatWaitedForADayIsDropped(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	a := o.account(keystore.Account{})
	o.put("late", a.ID, o.Now().Add(-keystore.MailLifetime))
	o.start(Options{Server: s.addr})
	o.done()
	o.logged(zap.ErrorLevel, "mail dropped")
	if mails, _ := s.came(); mails != 0 || o.counted(CountDropped) != 1 {
		t.Errorf("%d mails, counted %v", mails, o.counts)
	}
}

// TestATemplateThatFailsForOneAccountSparesTheOthers: it worked with the samples,
// and nothing of the account is in the log.
func TestATemplateThatFailsForOneAccountSparesTheOthers(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	o.account(keystore.Account{Company: "Secret Ltd"})
	o.request("ada@example.com")
	o.account(keystore.Account{Email: "bob@example.com"})
	o.request("bob@example.com")
	o.start(Options{Server: s.addr, TemplateFile: "greeting.txt", Template: `{{if eq .Company "Secret Ltd"}}{{index .Company 99}}{{end}}` + "\n{{.Key}}"},
		func(w *Worker) { w.mail = backoff{25 * time.Hour, 25 * time.Hour} })
	o.done()
	if mails, sessions := s.came(); mails != 1 || sessions != 1 || s.next(1).to != "bob@example.com" || o.counted(CountRefused) != 1 {
		t.Errorf("%d mails in %d sessions, counted %v", mails, sessions, o.counts)
	}
	o.logged(zap.ErrorLevel, "mail could not be written")
	o.tells("the template greeting.txt:1:33 failed for this account: it must suit every account, also where a field is empty or short; change it, then run caddy reload --force")
	o.silent("Secret", "ada@example.com", "refused")
}

// TestAnUnsuitableTextIsToldWithoutItsWords is of what is wrong with a text that
// was written.
func TestAnUnsuitableTextIsToldWithoutItsWords(t *testing.T) {
	sender, err := NewSender(Options{Server: "127.0.0.1:25", From: "a@b.example", Template: "{{if ne .Company \"Secret\"}}{{.Key}}{{end}}", TemplateFile: "greeting.txt"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = sender.compose(attemptTo(keystore.Account{Email: "ada@example.com", Company: "Secret"}), time.Now())
	const want = "the template greeting.txt failed for this account: the text holds the key 0 times: write {{.Key}} exactly once; change it, then run caddy reload --force"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestAStoreThatIsGoneIsLogged(t *testing.T) {
	o, s := newOffice(t), serve(t, nil)
	w := o.worker(Options{Server: s.addr})
	if err := o.vault.Close(); err != nil {
		t.Fatal(err)
	}
	w.Start()
	until(t, "an error", func() bool { return o.logs.FilterMessage("the outbox can't be worked on").Len() > 1 })
	w.Stop()
}
