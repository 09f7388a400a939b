package mail

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func TestOptionsThatCanNotWorkAreRefused(t *testing.T) {
	const secret = "open sesame"
	for name, c := range map[string]struct {
		change func(*Options)
		says   []string
	}{
		"no server":                       {func(o *Options) { o.Server = "" }, []string{"smtp", "missing", "<host:port>"}},
		"no port":                         {func(o *Options) { o.Server = "mail.example.com" }, []string{"smtp", `"mail.example.com"`, ":587"}},
		"no host":                         {func(o *Options) { o.Server = ":587" }, []string{"smtp", "<host:port>"}},
		"a port by name":                  {func(o *Options) { o.Server = "mail.example.com:smtp" }, []string{"smtp", "<host:port>"}},
		"port 0":                          {func(o *Options) { o.Server = "mail.example.com:0" }, []string{"smtp", "<host:port>"}},
		"a port that is too high":         {func(o *Options) { o.Server = "mail.example.com:65536" }, []string{"smtp", "<host:port>"}},
		"a URL":                           {func(o *Options) { o.Server = "smtp://mail.example.com:587" }, []string{"smtp", "<host:port>"}},
		"unknown TLS":                     {func(o *Options) { o.TLS = "maybe" }, []string{"tls", `"maybe"`, "starttls, implicit or off"}},
		"a password for nobody":           {func(o *Options) { o.Username = "" }, []string{"password", "without username"}},
		"a name without a password":       {func(o *Options) { o.Password = "" }, []string{"username", "without password"}},
		"a password in clear":             {func(o *Options) { o.TLS = NoTLS }, []string{"mail.example.com", "in clear", "tls starttls"}},
		"a password in clear, by address": {func(o *Options) { o.TLS, o.Server = NoTLS, "192.0.2.1:25" }, []string{"192.0.2.1", "in clear"}},
		"a password in clear to a host that pretends": {func(o *Options) { o.TLS, o.Server = NoTLS, "localhost.example.com:25" }, []string{"in clear"}},
		"no sender":                                      {func(o *Options) { o.From = "" }, []string{"from", "missing"}},
		"a sender that is no address":                    {func(o *Options) { o.From = "keys" }, []string{"from", `"keys"`, "one address"}},
		"two senders":                                    {func(o *Options) { o.From = "a@b.example, c@d.example" }, []string{"from", "one address"}},
		"a sender with a line end":                       {func(o *Options) { o.From = "a@b.example\r\nBcc: c@d.example" }, []string{"from", "one address"}},
		"a sender beyond ASCII":                          {func(o *Options) { o.From = "schlüssel@b.example" }, []string{"from", "one address"}},
		"a subject of two lines":                         {func(o *Options) { o.Subject = "a\r\nBcc: c@d.example" }, []string{"subject", "one line"}},
		"a subject with a line separator":                {func(o *Options) { o.Subject = "a\u2028b" }, []string{"subject", "one line"}},
		"a subject that is no UTF-8":                     {func(o *Options) { o.Subject = "a\xff" }, []string{"subject", "one line"}},
		"a subject that is too long":                     {func(o *Options) { o.Subject = strings.Repeat("a", 201) }, []string{"subject", "200"}},
		"a template without the key":                     {func(o *Options) { o.Template = "Hello" }, []string{"template", "0 times", "exactly once"}},
		"a template with two keys":                       {func(o *Options) { o.Template = "{{.Key}} {{.Key}}" }, []string{"template", "2 times", "exactly once"}},
		"a template with a key for some":                 {func(o *Options) { o.Template = "{{if .HasOlderKey}}{{.Key}}{{end}}" }, []string{"template", "0 times"}},
		"a template with a key for those without a name": {func(o *Options) { o.Template = "{{if not .FirstName}}{{.Key}}{{end}}" }, []string{"template", "0 times"}},
		"a template with an unknown field":               {func(o *Options) { o.Template = "{{.Key}}{{.Password}}" }, []string{"template", "mail:1", "Password", "the fields are AccountID, Number, Email, FirstName, ", ", HasOlderKey"}},
		"an unknown field for some":                      {func(o *Options) { o.Template = "{{.Key}}{{if .Company}}{{.Password}}{{end}}" }, []string{"template", "Password"}},
		"a template that does not parse":                 {func(o *Options) { o.Template = "{{.Key}" }, []string{"template", "mail:1"}},
		"a template with an unknown function":            {func(o *Options) { o.Template = "{{shout .Key}}" }, []string{"template", `"shout"`}},
		"a template without an end":                      {func(o *Options) { o.Template = "{{if .Key}}{{.Key}}" }, []string{"template", "unexpected EOF"}},
		"a template that is no UTF-8":                    {func(o *Options) { o.Template = "{{.Key}}\xff" }, []string{"template", "UTF-8"}},
		"a template with control characters":             {func(o *Options) { o.Template = "{{.Key}}\x1b[2J" }, []string{"template", "control characters"}},
		"a template with line ends of old Macs":          {func(o *Options) { o.Template = "a\r{{.Key}}" }, []string{"template", "control characters"}},
		"a template that is too large":                   {func(o *Options) { o.Template = "{{.Key}}" + strings.Repeat("x", MaxTemplate) }, []string{"template", "65536"}},
		"a template of nothing but a byte order mark":    {func(o *Options) { o.Template = byteOrderMark }, []string{"template", "0 times"}},
		"a template that calls itself":                   {func(o *Options) { o.Template = `{{define "a"}}{{template "a"}}{{end}}{{template "a"}}{{.Key}}` }, []string{"template", "depth"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Server: "mail.example.com:587", Username: "ada", Password: secret, From: "Keys <keys@example.com>"}
			c.change(&o)
			_, err := NewSender(o)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("the error does not say %q: %v", says, err)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func TestOptionsThatCanWorkAreTaken(t *testing.T) {
	for name, o := range map[string]Options{
		"the least":                    {Server: "mail.example.com:587", From: "keys@example.com"},
		"a name beyond ASCII":          {Server: "mail.example.com:587", From: "Schlüssel <keys@example.com>"},
		"a name in quotes":             {Server: "mail.example.com:587", From: `"Keys, Inc." <keys@example.com>`},
		"IPv6":                         {Server: "[2001:db8::1]:587", From: "keys@example.com"},
		"a password to localhost":      {Server: "localhost:25", TLS: NoTLS, Username: "u", Password: "p", From: "keys@example.com"},
		"a password to 127.0.0.2":      {Server: "127.0.0.2:25", TLS: NoTLS, Username: "u", Password: "p", From: "keys@example.com"},
		"a password to ::1":            {Server: "[::1]:25", TLS: NoTLS, Username: "u", Password: "p", From: "keys@example.com"},
		"off without a password":       {Server: "relay.example.com:25", TLS: NoTLS, From: "keys@example.com"},
		"a template of the whole size": {Server: "relay.example.com:25", From: "keys@example.com", Template: "{{.Key}}" + strings.Repeat("x", MaxTemplate-8)},
	} {
		if _, err := NewSender(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheDocumentedTemplateIsOne reads it where it is shown.
func TestTheDocumentedTemplateIsOne(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "docs", "caddyfile.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(document), "```\nHello {{")
	text, _, closed := strings.Cut("Hello {{"+rest, "```")
	if !found || !closed {
		t.Fatal("no template is shown")
	}
	if _, err := parseText(text); err != nil {
		t.Error(err)
	}
}

// TestEveryFieldIsDocumented holds the list of what a template can say to the
// type.
func TestEveryFieldIsDocumented(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "docs", "caddyfile.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[Letter]().NumField() {
		if name := reflect.TypeFor[Letter]().Field(i).Name; !strings.Contains(string(document), "`{{."+name+"}}`") {
			t.Errorf("%s is not documented", name)
		}
	}
}

// TestTheWayToTheServer tries what servers offer against what is demanded. Where
// the server can't be used, no key is made.
func TestTheWayToTheServer(t *testing.T) {
	const password = "open sesame"
	right, roots := certificate(t)
	wrong, wrongRoots := certificate(t, "other.example")
	offers := func(c tls.Certificate) func(*server) {
		return func(s *server) { s.smtp.TLSConfig = &tls.Config{Certificates: []tls.Certificate{c}} }
	}
	login := func(change func(*server)) func(*server) {
		return func(s *server) {
			s.login, s.smtp.AllowInsecureAuth = password, false
			change(s)
		}
	}
	only := func(mechanism string, c tls.Certificate) func(*server) {
		return func(s *server) {
			s.mechanisms = []string{mechanism}
			offers(c)(s)
		}
	}
	for _, c := range []struct {
		name   string
		listen func() net.Listener
		server func(*server)
		o      Options
		roots  string
		tells  string
	}{
		{"STARTTLS", nil, offers(right), Options{}, "right", ""},
		{"STARTTLS and PLAIN", nil, login(offers(right)), Options{Username: "ada", Password: password}, "right", ""},
		{"no STARTTLS", nil, nil, Options{}, "right", "the server does not offer STARTTLS: use another port, or tls off for a server on this machine"},
		{"an unknown certificate", nil, offers(right), Options{}, "wrong", "STARTTLS: tls: failed to verify certificate"},
		{"a certificate for another host", nil, offers(wrong), Options{}, "wrong", "STARTTLS: tls: failed to verify certificate"},
		{"TLS from the start", func() net.Listener { return listenTLS(t, right) }, nil, Options{TLS: ImplicitTLS}, "right", ""},
		{"TLS from the start and PLAIN", func() net.Listener { return listenTLS(t, right) }, login(func(*server) {}), Options{TLS: ImplicitTLS, Username: "ada", Password: password}, "right", ""},
		{"TLS from the start with an unknown certificate", func() net.Listener { return listenTLS(t, right) }, nil, Options{TLS: ImplicitTLS}, "wrong", "TLS: tls: failed to verify certificate"},
		{"TLS from the start where there is none", nil, nil, Options{TLS: ImplicitTLS}, "right", "TLS: tls: first record does not look like a TLS handshake: use tls starttls"},
		{"in clear", nil, nil, Options{TLS: NoTLS}, "right", ""},
		{"PLAIN in clear on this machine", nil, func(s *server) { s.login = password }, Options{TLS: NoTLS, Username: "ada", Password: password}, "right", ""},
		{"LOGIN", nil, login(only(sasl.Login, right)), Options{Username: "ada", Password: password}, "right", ""},
		{"CRAM-MD5", nil, login(only("CRAM-MD5", right)), Options{Username: "ada", Password: password}, "right", ""},
		{"CRAM-MD5 with a wrong password", nil, login(only("CRAM-MD5", right)), Options{Username: "ada", Password: "guessed secret"}, "right", "AUTH CRAM-MD5: the server answered 535 5.7.8"},
		{"LOGIN with a wrong password", nil, login(only(sasl.Login, right)), Options{Username: "ada", Password: "guessed secret"}, "right", "AUTH LOGIN: the server answered 535 5.7.8"},
		{"no known mechanism", nil, login(only("XOAUTH2", right)), Options{Username: "ada", Password: password}, "right", "the server offers no way to log in"},
		{"a wrong password", nil, login(offers(right)), Options{Username: "ada", Password: "guessed secret"}, "right", "AUTH PLAIN: the server answered 535 5.7.8"},
		{"a password, and no AUTH", nil, offers(right), Options{Username: "ada", Password: password}, "right", "the server offers no way to log in"},
		{"AUTH is demanded", nil, login(offers(right)), Options{}, "right", "MAIL: the server answered 502 5.7.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOffice(t)
			var s *server
			if c.listen != nil {
				s = serveOn(t, c.listen(), c.server)
			} else {
				s = serve(t, c.server)
			}
			older := o.ada()
			c.o.Server = s.addr
			if c.o.TLS == "" {
				c.o.TLS = StartTLS
			}
			o.start(c.o, func(w *Worker) {
				w.sender.roots = roots
				if c.roots == "wrong" {
					w.sender.roots = wrongRoots
				}
			})
			if c.tells == "" {
				o.want(keyIn(t, s.next(1)), keystore.OK)
				o.done()
				return
			}
			until(t, "a failure", func() bool { return o.counted(CountUnreachable)+o.counted(CountRefused) > 1 })
			o.tells(c.tells)
			o.silent(password, c.o.Password+"\x00", "guessed secret", "Z3Vlc3NlZCBzZWNyZXQ")
			if made := len(o.keys(older.Credential.ID)) - 1; (made > 0) != (o.counted(CountRefused) > 0) {
				t.Errorf("%d keys were made", made)
			}
			o.want(older.Text, keystore.OK)
		})
	}
}
