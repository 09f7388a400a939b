package mail

import (
	"bytes"
	"io"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// FuzzCompose: whatever stands in an account, the mail has the headers that it
// should and no others, goes to the account's address, and holds the key once.
func FuzzCompose(f *testing.F) {
	const key = "key_0Ab1Cd2Ef3Gh_Zq9Xw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe1D2c3B"
	for _, seed := range [][2]string{{"a@example.com", "Ann"}, {"a@example.com\r\nBcc: b@example.com", "x"}, {"\"a\r\n\"@example.com", "{{.Key}}"}, {"Ann <a@example.com>", key},
		{"ä@example.com", "Ä"}, {"a@[127.0.0.1]", "x\r\n.\r\nMAIL FROM:<b@example.com>"}, {"a@example.com, b@example.com", strings.Repeat("x", 1200)}, {"", ""}, {"<>", "\x00"}, {"\"a b\"@example.com", "="}} {
		f.Add(seed[0], seed[1])
	}
	s, err := NewSender(Options{Server: "127.0.0.1:25", TLS: NoTLS, From: "Keys <keys@example.com>", Template: "Dear {{.FirstName}} {{.LastName}} of {{.Company}},\n{{.Key}}\n"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, address, profile string) {
		if len(address) > 254 { // no account has one
			return
		}
		a := &keystore.MailAttempt{
			Account: &keystore.Account{ID: "a", Email: address, FirstName: profile, LastName: profile, Company: profile},
			Issued:  keystore.Issued{Credential: &keystore.Credential{}, Key: keystore.KeyStatus{Key: &keystore.Key{}}, Text: key},
		}
		m, err := s.compose(a, time.Unix(0, 0))
		if err != nil {
			return
		}
		read, err := netmail.ReadMessage(bytes.NewReader(m.data))
		if err != nil {
			t.Fatal(err)
		}
		to, err := netmail.ParseAddress(read.Header.Get("To"))
		if err != nil || to.Address != address || len(read.Header) != 9 || strings.ContainsAny(m.to, "\r\n") {
			t.Errorf("%q: to %v, %s, headers %v", address, to, m.to, read.Header)
		}
		body := read.Body
		if read.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			body = quotedprintable.NewReader(body)
		}
		text, err := io.ReadAll(body)
		if err != nil || strings.Count(string(text), key) != 1 {
			t.Errorf("%q, %q: the mail is %s, %v", address, profile, text, err)
		}
		for line := range strings.SplitSeq(string(m.data), "\r\n") {
			if len(line) > maxLine || strings.ContainsAny(line, "\r\n") {
				t.Errorf("%q, %q: a line of %d bytes: %.100q", address, profile, len(line), line)
			}
		}
	})
}
