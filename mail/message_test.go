package mail

import (
	"bytes"
	"io"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// decoded reads the text of a mail.
func decoded(m *netmail.Message) io.Reader {
	if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		return quotedprintable.NewReader(m.Body)
	}
	return m.Body
}

// receive sends one mail over a real server and returns it as it came in.
func receive(t *testing.T, options Options, a keystore.Account) received {
	t.Helper()
	o, s := newOffice(t), serve(t, func(s *server) { s.smtp.EnableSMTPUTF8 = true })
	made := o.account(a)
	o.request(made.Email)
	options.Server = s.addr
	o.start(options)
	mail := s.next(1)
	o.done()
	return mail
}

// headersOf are the lines before the text, unfolded.
func headersOf(t *testing.T, raw []byte) []string {
	t.Helper()
	head, _, found := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !found {
		t.Fatalf("no end of the headers: %q", raw)
	}
	return strings.Split(strings.ReplaceAll(string(head), "\r\n ", " "), "\r\n")
}

func TestAMailHasTheseHeadersAndNoOther(t *testing.T) {
	mail := receive(t, Options{}, keystore.Account{ID: "ada"})
	want := []string{
		"Date: ", "From: \"Keys\" <keys@sender.example>", "To: <ada@example.com>", "Subject: Your new API key",
		"Message-ID: <", "Auto-Submitted: auto-generated", "MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 7bit",
	}
	got := headersOf(t, mail.raw)
	if len(got) != len(want) {
		t.Fatalf("headers %q", got)
	}
	for i, w := range want {
		if exact := !strings.HasSuffix(w, " ") && !strings.HasSuffix(w, "<"); !strings.HasPrefix(got[i], w) || exact && got[i] != w {
			t.Errorf("header %q, want %q", got[i], w)
		}
	}
	m := mail.parse(t)
	if date, err := m.Header.Date(); err != nil || time.Since(date).Abs() > time.Minute {
		t.Errorf("date %v, error %v", date, err)
	}
	if id := m.Header.Get("Message-ID"); !strings.HasSuffix(id, ".1@sender.example>") {
		t.Errorf("Message-ID %q", id)
	}
}

func TestTheDefaultTextSaysWhatToDo(t *testing.T) {
	mail := receive(t, Options{}, keystore.Account{Number: 1})
	key, lines := keyIn(t, mail), strings.Split(string(mail.raw), "\r\n")
	for _, line := range lines {
		if len(line) > 78 && line != key {
			t.Errorf("a line of %d: %q", len(line), line)
		}
		if strings.ContainsAny(line, "\r\n") {
			t.Errorf("a bare line end in %q", line)
		}
	}
	if !slices.Contains(lines, key) || strings.Count(string(mail.raw), key) != 1 {
		t.Errorf("the key does not stand once, alone on a line: %q", mail.raw)
	}
	text := strings.Join(strings.Fields(bodyOf(t, mail.parse(t))), " ")
	for _, says := range []string{" UTC. If it was not used by then, it expires.", "goes on working. A key from", "If you did not ask for a key, there is nothing to do", "delete this mail."} {
		if !strings.Contains(text, says) {
			t.Errorf("the text does not say %q: %s", says, text)
		}
	}
	if strings.Contains(text, "older key") {
		t.Errorf("the text speaks of an older key, and there is none: %s", text)
	}
}

func TestTheTextTellsOfTheOlderKeyAndOfTheEnd(t *testing.T) {
	now := keystore.InstantOf(time.Now())
	key := func(mailed bool, used keystore.Instant) keystore.KeyStatus {
		return keystore.KeyStatus{Key: &keystore.Key{Mailed: mailed, FirstUsedAt: used}}
	}
	attempt := func(credentialEnds, keyEnds keystore.Instant, older ...keystore.KeyStatus) *keystore.MailAttempt {
		a := attemptTo(keystore.Account{ID: "ada", Email: "ada@example.com"})
		a.Credential.ExpiresAt, a.Key.ExpiresAt = credentialEnds, keyEnds
		a.Key.UnusedExpiresAt, a.Previous = now.Add(24*time.Hour), older
		return a
	}
	hour, day, week := now.Add(time.Hour), now.Add(24*time.Hour), now.Add(7*24*time.Hour)
	for _, c := range []struct {
		name    string
		attempt *keystore.MailAttempt
		older   bool
		useBy   keystore.Instant
		expires keystore.Instant
	}{
		{"no older key", attempt(0, 0), false, day, 0},
		{"an older key", attempt(0, 0, key(false, 0)), true, day, 0},
		{"an older key that was mailed and used", attempt(0, 0, key(true, now)), true, day, 0},
		{"an unused key of an earlier mail does not count", attempt(0, 0, key(true, 0)), false, day, 0},
		{"a key that ends", attempt(0, week), false, day, week},
		{"a key that ends before it must be used", attempt(0, hour), false, hour, hour},
		{"a credential that ends", attempt(week, 0), false, day, week},
		{"a credential that ends before its key", attempt(hour, week), false, hour, hour},
		{"a credential that ends after its key", attempt(week, hour), false, hour, hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := letterOf(c.attempt)
			if l.HasOlderKey != c.older || !l.UseBy.Equal(c.useBy.Time()) || !l.Expires.Equal(c.expires.Time()) {
				t.Errorf("%+v", l)
			}
			text, err := parseText("")
			if err != nil {
				t.Fatal(err)
			}
			out, err := render(text, l)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out, "keeps working until the new key is first used") != c.older {
				t.Errorf("of the older key: %s", out)
			}
			if strings.Contains(out, "works until "+c.expires.Time().Format("2006-01-02 15:04")) != (c.expires != 0) {
				t.Errorf("of the end: %s", out)
			}
		})
	}
}

// attemptTo is one to that account.
func attemptTo(a keystore.Account) *keystore.MailAttempt {
	return &keystore.MailAttempt{
		Mail: keystore.Mail{ID: "id", Attempts: 1}, Account: &a,
		Issued: keystore.Issued{Credential: &keystore.Credential{}, Key: keystore.KeyStatus{Key: &keystore.Key{}}, Text: "key_text"},
	}
}

// TestTheEncoding goes over the wire: the server parses what it got.
func TestTheEncoding(t *testing.T) {
	long := strings.Repeat("x", 998)
	for _, c := range []struct{ name, template, encoding string }{
		{"ASCII", "key\n{{.Key}}\n", "7bit"},
		{"ASCII with equal signs, tabs and dots", "a=b=20\n.\n..\n\tkey\n{{.Key}}", "7bit"},
		{"a line as long as SMTP lets it be", long + "\n{{.Key}}\n", "7bit"},
		{"a longer line", long + "x\n{{.Key}}\n", "quoted-printable"},
		{"more than ASCII", "Schlüssel für {{.Company}} ☃\n.\n{{.Key}}\nEnde = gut", "quoted-printable"},
		{"line ends of Windows", "key\r\n{{.Key}}\r\n", "7bit"},
		{"a byte order mark", byteOrderMark + "key\n{{.Key}}\n", "7bit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mail := receive(t, Options{Template: c.template}, keystore.Account{Company: "Bücher {{.Key}} {env.HOME}"})
			m := mail.parse(t)
			if got := m.Header.Get("Content-Transfer-Encoding"); got != c.encoding {
				t.Errorf("encoded as %s", got)
			}
			key := keyIn(t, mail)
			want := strings.NewReplacer("{{.Key}}", key, "{{.Company}}", "Bücher {{.Key}} {env.HOME}", "\r\n", "\n", byteOrderMark, "").Replace(c.template)
			if got := bodyOf(t, mail.parse(t)); got != strings.TrimRight(want, "\n")+"\n" {
				t.Errorf("the text is %q, want %q", got, want)
			}
			if !strings.Contains(string(mail.raw), "\r\n"+key+"\r\n") {
				t.Errorf("the key is broken in %q", mail.raw)
			}
			for line := range bytes.SplitSeq(mail.raw, []byte("\r\n")) {
				if len(line) > 998 || bytes.ContainsAny(line, "\r\n") || !isASCII(string(line)) {
					t.Errorf("line %q", line)
				}
			}
		})
	}
}

func TestTheSubjectIsReadAsItWasWritten(t *testing.T) {
	for _, subject := range []string{
		"Key", "Ihr neuer Schlüssel ☃", strings.Repeat("Schlüssel ", 19) + "s", strings.Repeat("a word ", 28) + "s",
		"two  spaces", strings.Repeat("x", 200),
	} {
		mail := receive(t, Options{Subject: subject}, keystore.Account{})
		got, err := new(mime.WordDecoder).DecodeHeader(mail.parse(t).Header.Get("Subject"))
		if err != nil || got != subject {
			t.Errorf("%q came as %q, error %v", subject, got, err)
		}
		head, _, _ := bytes.Cut(mail.raw, []byte("\r\n\r\n"))
		for line := range strings.SplitSeq(string(head), "\r\n") {
			if strings.TrimSpace(line) == "" || !isASCII(line) || len(line) > 78 && !strings.Contains(line, strings.Repeat("x", 100)) {
				t.Errorf("%q: header line %q", subject, line)
			}
		}
	}
}

// TestNobodyStartsAHeader tries what an account's owner, or a careless operator of
// another program that writes the store, could hide in a record.
func TestNobodyStartsAHeader(t *testing.T) {
	const evil = "x\r\nBcc: all@example.com\r\n\r\nbody"
	sender, err := NewSender(Options{Server: "127.0.0.1:25", TLS: NoTLS, From: "keys@sender.example", Template: "{{.FirstName}}{{.LastName}}{{.Company}}\n{{.Key}}"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		account keystore.Account
		refused bool
	}{
		"in the name":                  {keystore.Account{Email: "a@b.example", FirstName: evil, LastName: evil, Company: evil}, false},
		"in the id":                    {keystore.Account{ID: evil, Email: "a@b.example"}, false},
		"in the address":               {keystore.Account{Email: "a@b.example\r\nBcc: all@example.com"}, true},
		"in the local part":            {keystore.Account{Email: "\"a\r\nBcc: all\"@b.example"}, true},
		"two addresses":                {keystore.Account{Email: "a@b.example, c@d.example"}, true},
		"an address with a name":       {keystore.Account{Email: "x <a@b.example>"}, true},
		"an address in brackets":       {keystore.Account{Email: "<a@b.example>"}, true},
		"a group":                      {keystore.Account{Email: "g: a@b.example;"}, true},
		"an address with parameters":   {keystore.Account{Email: "a@b.example> NOTIFY=SUCCESS <"}, true},
		"no address":                   {keystore.Account{}, true},
		"an address with a line of u.": {keystore.Account{Email: "a\u2028@b.example"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := sender.compose(attemptTo(c.account), time.Now())
			if (err != nil) != c.refused {
				t.Fatalf("error %v", err)
			}
			if c.refused {
				return
			}
			if headers := headersOf(t, m.data); len(headers) != 9 || strings.Contains(strings.Join(headers, "\n"), "Bcc") {
				t.Errorf("headers %q", headers)
			}
			if m.to != "<a@b.example>" || strings.ContainsAny(m.to+m.from, "\r\n") {
				t.Errorf("envelope %q", m.to)
			}
		})
	}
}

func TestAnAddressBeyondASCIINeedsAServerThatTakesIt(t *testing.T) {
	for _, takes := range []bool{true, false} {
		o, s := newOffice(t), serve(t, func(s *server) { s.smtp.EnableSMTPUTF8 = takes })
		o.account(keystore.Account{Email: "jürgen@bücher.example"})
		o.request("jürgen@bücher.example")
		o.account(keystore.Account{})
		o.request("ada@example.com")
		o.start(Options{Server: s.addr}, func(w *Worker) { w.mail = backoff{25 * time.Hour, 25 * time.Hour} })
		o.done()
		mails, sessions := s.came()
		if want := map[bool]int{true: 2, false: 1}[takes]; mails != want || sessions != 1 {
			t.Errorf("SMTPUTF8 %v: %d mails in %d sessions", takes, mails, sessions)
		}
		for i := range mails {
			if mail := s.next(i + 1); mail.utf8 == isASCII(mail.to) || !strings.Contains(string(mail.raw), "To: <"+mail.to+">\r\n") {
				t.Errorf("SMTPUTF8 %v: to %q with utf8 %v", takes, mail.to, mail.utf8)
			}
		}
		if !takes {
			o.tells("the server does not take addresses beyond ASCII")
		}
	}
}
