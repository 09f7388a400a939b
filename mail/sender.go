// Package mail sends keys by e-mail: a [Worker] takes what is due out of the
// outbox of a keyring, and a [Sender] hands it to an SMTP server.
//
// What a mail does to keys is decided in package keystore. Here stands when a
// mail is tried, what it says, and what became of it, as exactly as SMTP tells.
package mail

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"
)

// TLS is how the connection to the SMTP server is protected.
type TLS string

const (
	// StartTLS demands STARTTLS and a certificate that is valid for the host. It
	// is the default.
	StartTLS TLS = "starttls"
	// ImplicitTLS speaks TLS from the first byte on.
	ImplicitTLS TLS = "implicit"
	// NoTLS speaks in clear.
	NoTLS TLS = "off"
)

// Options say where mails are handed in, and what they look like.
type Options struct {
	// Server is host:port of the SMTP server.
	Server string
	// TLS protects the connection. Default: [StartTLS].
	TLS TLS
	// Username and Password log in. Default: without.
	Username, Password string
	// From is one plain address, or "Name <address>".
	From string
	// Subject of the mails. Default: [DefaultSubject].
	Subject string
	// Template of the text, executed with a [Letter]. Default: [DefaultText].
	Template string
	// TemplateFile is where it comes from, for errors.
	TemplateFile string
}

const (
	// DefaultSubject is the subject of a mail.
	DefaultSubject = "Your new API key"
	// maxSubject is the length of a subject at most, in characters.
	maxSubject = 200
	// connectTimeout bounds dialling, TLS and AUTH.
	connectTimeout = 15 * time.Second
	// deliverTimeout bounds what follows, so that an attempt takes at most a
	// minute.
	deliverTimeout = 45 * time.Second
	// quitTimeout bounds the goodbye, which matters to nobody.
	quitTimeout = 2 * time.Second
)

// Sender hands mails to an SMTP server.
type Sender struct {
	host, port         string
	tls                TLS
	username, password string
	from               *netmail.Address
	subject            string
	text               *template.Template
	file               string // of the text; empty for the one that is built in

	roots                          *x509.CertPool // nil: the system's
	connectTimeout, deliverTimeout time.Duration
}

// NewSender checks the options; it opens no connection. Its errors begin with the
// name of the option and never hold the password.
func NewSender(o Options) (*Sender, error) {
	s := &Sender{
		tls: o.TLS, username: o.Username, password: o.Password,
		connectTimeout: connectTimeout, deliverTimeout: deliverTimeout,
	}
	for _, set := range []func(Options) error{s.setServer, s.setTLS, s.setLogin, s.setFrom, s.setSubject, s.setText} {
		if err := set(o); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Sender) setServer(o Options) (err error) {
	if o.Server == "" {
		return errors.New("smtp is missing: name the server with smtp <host:port>")
	}
	s.host, s.port, err = net.SplitHostPort(o.Server)
	port, portErr := strconv.ParseUint(s.port, 10, 16)
	if err != nil || portErr != nil || port == 0 || s.host == "" || strings.ContainsFunc(s.host, notInHost) {
		return fmt.Errorf("smtp %q: use <host:port>, such as mail.example.com:587", o.Server)
	}
	return nil
}

// address is host:port of the server.
func (s *Sender) address() string { return net.JoinHostPort(s.host, s.port) }

func notInHost(c rune) bool {
	return unicode.IsSpace(c) || unicode.IsControl(c) || c == '/' || c == '@'
}

func (s *Sender) setTLS(Options) error {
	if s.tls == "" {
		s.tls = StartTLS
	}
	return s.tls.Check()
}

// Check reports that t is none of the constants.
func (t TLS) Check() error {
	if t != StartTLS && t != ImplicitTLS && t != NoTLS {
		return fmt.Errorf("tls %q: use starttls, implicit or off", string(t))
	}
	return nil
}

func (s *Sender) setLogin(Options) error {
	switch {
	case s.username == "" && s.password != "":
		return errors.New("password is given without username: write both, or none")
	case s.username != "" && s.password == "":
		return errors.New("username is given without password: write both, or none")
	case s.username != "" && s.tls == NoTLS && !isLoopback(s.host):
		return fmt.Errorf("username and password would go to %s in clear: use tls starttls or tls implicit; tls off is for a server on this machine", s.host)
	}
	return nil
}

// isLoopback reports whether what is sent to host stays on this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// setFrom takes ASCII addresses only: a domain of other letters has an ASCII
// form, and not every server on the way takes the others.
func (s *Sender) setFrom(o Options) (err error) {
	if o.From == "" {
		return errors.New("from is missing: name the sender with from <address>")
	}
	s.from, err = netmail.ParseAddress(o.From)
	if err != nil || !isText(o.From) || !isASCII(s.from.Address) {
		return fmt.Errorf("from %q: use one address, such as keys@example.com or \"Example <keys@example.com>\"", o.From)
	}
	return nil
}

func (s *Sender) setSubject(o Options) error {
	s.subject = o.Subject
	if s.subject == "" {
		s.subject = DefaultSubject
	}
	if !isText(s.subject) || utf8.RuneCountInString(s.subject) > maxSubject {
		return fmt.Errorf("subject %q: use one line of at most %d characters, without control characters", s.subject, maxSubject)
	}
	return nil
}

func (s *Sender) setText(o Options) (err error) {
	s.file = o.TemplateFile
	if s.text, err = parseText(o.Template); err != nil {
		return fmt.Errorf("template %q: %w", o.TemplateFile, err)
	}
	return nil
}

// isText reports whether text can stand in a header: it can't end it.
func isText(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(c rune) bool {
		return unicode.IsControl(c) || c == '\u2028' || c == '\u2029'
	})
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c > unicode.MaxASCII })
}
