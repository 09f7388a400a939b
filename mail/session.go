package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// session is a conversation with the SMTP server, past TLS and AUTH.
type session struct {
	client *smtp.Client
	conn   net.Conn
	unhook func() bool
	// broken says that nothing more can be said.
	broken bool
}

// connect dials the server and does what it takes to be ready for a mail. It
// gives up when ctx ends; when life ends, so does the session.
func (s *Sender) connect(ctx, life context.Context) (*session, error) {
	deadline := time.Now().Add(s.connectTimeout)
	dialing, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(dialing, "tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		return nil, said("connect", err)
	}
	hangUp := func() { _ = conn.Close() }
	c := &session{conn: conn, unhook: context.AfterFunc(ctx, hangUp)}
	if err = conn.SetDeadline(deadline); err == nil {
		err = s.greet(c)
	}
	// If this was too late to unhook, the connection is closed, and the first
	// command says so.
	c.unhook()
	if err != nil {
		hangUp()
		return nil, err
	}
	c.unhook = context.AfterFunc(life, hangUp)
	return c, nil
}

// greet leads the session from the first byte to where a mail can begin.
func (s *Sender) greet(c *session) (err error) {
	config := &tls.Config{ServerName: s.host, RootCAs: s.roots, MinVersion: tls.VersionTLS12}
	conn := c.conn
	if s.tls == ImplicitTLS {
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			return clearHint(said("TLS", err))
		}
		conn = secure
	}
	if c.client, err = smtp.NewClient(conn, s.host); err != nil {
		return s.noGreeting(err)
	}
	if err := c.client.Hello(helloName(conn)); err != nil {
		return said("EHLO", err)
	}
	if s.tls == StartTLS {
		if offered, _ := c.client.Extension("STARTTLS"); !offered {
			return errors.New("the server does not offer STARTTLS: use another port, or tls off for a server on this machine")
		}
		if err := c.client.StartTLS(config); err != nil {
			return said("STARTTLS", err)
		}
	}
	return s.login(c)
}

// clearHint adds what to do where TLS was spoken to a port that begins in clear.
func clearHint(err error) error {
	var inClear tls.RecordHeaderError
	if errors.As(err, &inClear) {
		return fmt.Errorf("%w: use tls starttls, which begins in clear", err)
	}
	return err
}

// noGreeting tells why there was none. A server that waits for TLS is silent, hangs
// up after a while, or sends an alert.
func (s *Sender) noGreeting(err error) error {
	var reply *textproto.Error
	told := said("greeting", err)
	if s.tls == ImplicitTLS || errors.As(err, &reply) || errors.Is(err, net.ErrClosed) {
		return told
	}
	return fmt.Errorf("%w: use tls implicit if this port speaks TLS from the start", told)
}

// helloName is the name of this machine if it is a whole one, else its address,
// which is how RFC 5321 wants it.
func helloName(conn net.Conn) string {
	if name, err := os.Hostname(); err == nil && strings.Contains(name, ".") && hostName.MatchString(name) {
		return name
	}
	host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	if strings.Contains(host, ":") {
		host = "IPv6:" + host
	}
	return "[" + host + "]"
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9.-]{1,255}$`)

// mechanisms are the ways to log in, the best first. Those that show the password
// are used under TLS, or on this machine. CRAM-MD5 comes last, because servers
// offer it that can't do it.
var mechanisms = []struct {
	name string
	auth func(username, password, host string) smtp.Auth
}{
	{"SCRAM-SHA-256", func(u, p, _ string) smtp.Auth { return smtp.ScramSHA256Auth(u, p) }},
	{"SCRAM-SHA-1", func(u, p, _ string) smtp.Auth { return smtp.ScramSHA1Auth(u, p) }},
	{"PLAIN", func(u, p, host string) smtp.Auth { return smtp.PlainAuth("", u, p, host, isLoopback(host)) }},
	{"LOGIN", func(u, p, host string) smtp.Auth { return smtp.LoginAuth(u, p, host, isLoopback(host)) }},
	{"CRAM-MD5", func(u, p, _ string) smtp.Auth { return smtp.CRAMMD5Auth(u, p) }},
}

func (s *Sender) login(c *session) error {
	if s.username == "" {
		return nil
	}
	_, offered := c.client.Extension("AUTH")
	names := strings.Fields(offered)
	for _, m := range mechanisms {
		if slices.Contains(names, m.name) {
			return said("AUTH "+m.name, c.client.Auth(m.auth(s.username, s.password, s.host)))
		}
	}
	return errors.New("the server offers no way to log in that is known here: remove username and password if it needs none")
}

// deliver hands a mail in, and tells what became of it. The error says why, and
// is nil if the server took it.
func (c *session) deliver(m *message, timeout time.Duration) (keystore.MailOutcome, error) {
	c.broken = true
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return keystore.MailRefused, said("connection", err)
	}
	if offered, _ := c.client.Extension("SMTPUTF8"); m.utf8 && !offered {
		c.broken = false
		return keystore.MailRefused, errors.New("the server does not take addresses beyond ASCII (SMTPUTF8)")
	}
	c.client.SkipSMTPUTF8(!m.utf8)
	w, step, err := c.envelope(m)
	if err != nil {
		c.broken = !isReply(err)
		return keystore.MailRefused, said(step, err)
	}
	// From here on the server may have the mail. If writing fails, its answer may
	// still come, and says more than the failure.
	_, _ = w.Write(m.data)
	err = w.Close()
	c.broken = !isReply(err)
	outcome := outcomeOf(err)
	if outcome == keystore.MailSent {
		return outcome, nil
	}
	return outcome, said("end of data", err)
}

// envelope says everything up to the text, which goes into the writer.
func (c *session) envelope(m *message) (w io.WriteCloser, step string, err error) {
	if err := c.client.Mail(m.from); err != nil {
		return nil, "MAIL", err
	}
	if err := c.client.Rcpt(m.to); err != nil {
		return nil, "RCPT", err
	}
	w, err = c.client.Data()
	return w, "DATA", err
}

// outcomeOf reads the answer to a whole mail.
func outcomeOf(err error) keystore.MailOutcome {
	var reply *textproto.Error
	switch {
	case err == nil || (errors.As(err, &reply) && reply.Code/100 == 2):
		return keystore.MailSent
	case reply != nil && (reply.Code/100 == 4 || reply.Code/100 == 5):
		return keystore.MailRefused
	}
	return keystore.MailUnknown
}

// isReply reports whether the server answered, so that the session can go on.
func isReply(err error) bool {
	var reply *textproto.Error
	return err == nil || (errors.As(err, &reply) && reply.Code != 421)
}

// ready reports whether the session can take another mail.
func (c *session) ready(timeout time.Duration) bool {
	return !c.broken && c.conn.SetDeadline(time.Now().Add(timeout)) == nil && c.client.Reset() == nil
}

// close says goodbye, if that makes sense, and closes the connection. No session
// needs none.
func (c *session) close() {
	if c == nil {
		return
	}
	if !c.broken && c.conn.SetDeadline(time.Now().Add(quitTimeout)) == nil {
		_ = c.client.Quit()
	}
	c.unhook()
	_ = c.conn.Close()
}

// said tells a failed step without the words of the server, which repeat
// addresses, and could repeat a password. Its code is enough to look it up in the
// log of the server.
func said(step string, err error) error {
	var reply *textproto.Error
	var nonsense textproto.ProtocolError
	var network *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, net.ErrClosed):
		// Nobody else closes it, see connect.
		return fmt.Errorf("%s: the gateway was stopped or reloaded before the server answered", step)
	case errors.As(err, &nonsense):
		return fmt.Errorf("%s: the server does not speak SMTP as it should", step)
	case errors.As(err, &reply):
		return fmt.Errorf("%s: the server answered %s", step, code(reply))
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: the server does not answer in time", step)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the server closed the connection", step)
	case errors.As(err, &network), step == "TLS", step == "STARTTLS":
		return fmt.Errorf("%s: %w", step, err)
	}
	return fmt.Errorf("%s: the server does not speak SMTP as it should", step)
}

// enhanced is the status code of RFC 3463 that begins an answer's text.
var enhanced = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)

func code(reply *textproto.Error) string {
	return strings.TrimSpace(fmt.Sprint(reply.Code, " ", enhanced.FindString(reply.Msg)))
}
