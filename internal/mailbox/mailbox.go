// Package mailbox is a mail server that keeps what it is sent, for tests and
// benchmarks: SMTP on a port of its own of the loopback interface, without TLS.
package mailbox

import (
	"context"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"regexp"
	"strings"
	"sync"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Server is the mail server.
type Server struct {
	// Addr is where it listens, host:port.
	Addr string

	options Options
	smtp    *smtp.Server
	served  chan error
	mu      sync.Mutex
	mails   []Mail
	arrived chan struct{} // has a value if mails came since it was last read
}

// Mail is one that arrived.
type Mail struct {
	// To are the addresses to which it was sent, as the client gave them.
	To      []string
	Subject string
	// Body is the text, decoded.
	Body string
}

// Options change what a server does. The zero value takes every mail at once.
type Options struct {
	// Username and Password are demanded of whoever hands mails in. Default: no
	// login.
	Username, Password string
	// Hold is told of each mail that was handed in whole. The mail is kept and
	// answered when it returns. Default: at once.
	Hold func()
}

// Start starts a mail server.
func Start() (*Server, error) { return StartWith(Options{}) }

// StartWith starts a mail server with options.
func StartWith(options Options) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{options: options, Addr: l.Addr().String(), served: make(chan error, 1), arrived: make(chan struct{}, 1)}
	s.smtp = smtp.NewServer(smtp.BackendFunc(s.session))
	s.smtp.AllowInsecureAuth = true
	s.smtp.Domain = "mailbox.invalid"
	s.smtp.ErrorLog = log.New(io.Discard, "", 0) // a client that goes away is none
	go func() { s.served <- s.smtp.Serve(l) }()
	return s, nil
}

// Close stops the server.
func (s *Server) Close() error {
	err := s.smtp.Close()
	<-s.served
	return err
}

// Taken returns the mails that arrived since the last call, and were not
// returned by Next.
func (s *Server) Taken() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.mails = nil }()
	return s.mails
}

// Next waits for the next mail.
func (s *Server) Next(ctx context.Context) (Mail, error) {
	for {
		if m, ok := s.first(); ok {
			return m, nil
		}
		select {
		case <-s.arrived:
		case <-ctx.Done():
			return Mail{}, fmt.Errorf("waiting for a mail: %w", ctx.Err())
		}
	}
}

func (s *Server) first() (Mail, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mails) == 0 {
		return Mail{}, false
	}
	m := s.mails[0]
	s.mails = s.mails[1:]
	return m, true
}

func (s *Server) keep(m Mail) {
	s.mu.Lock()
	s.mails = append(s.mails, m)
	s.mu.Unlock()
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

var key = regexp.MustCompile(`\b[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}\b`)

// Keys are the texts in the mail that have the shape of a token key.
func (m Mail) Keys() []string { return key.FindAllString(m.Body, -1) }

func (s *Server) session(*smtp.Conn) (smtp.Session, error) {
	if s.options.Username == "" {
		return &session{server: s}, nil
	}
	return &loginSession{session{server: s, locked: true}}, nil
}

// session is one connection of a client.
type session struct {
	server *Server
	locked bool // a login is demanded
	to     []string
}

func (s *session) Reset()        { s.to = nil }
func (s *session) Logout() error { return nil }

func (s *session) Mail(string, *smtp.MailOptions) error {
	if s.locked {
		return smtp.ErrAuthRequired
	}
	return nil
}

// loginSession is a session that offers PLAIN. Only a type with these methods
// offers a login.
type loginSession struct{ session }

func (s *loginSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *loginSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if o := s.server.options; username != o.Username || password != o.Password {
			return smtp.ErrAuthFailed
		}
		s.locked = false
		return nil
	}), nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	received, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	body := received.Body
	if strings.EqualFold(received.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(received.Header.Get("Subject"))
	if err != nil {
		return err
	}
	if s.server.options.Hold != nil {
		s.server.options.Hold()
	}
	s.server.keep(Mail{To: s.to, Subject: subject, Body: string(text)})
	return nil
}
