package mail

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	netmail "net/mail"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// server is a real SMTP server on a port of its own. Its functions, where set,
// decide; they are called one at a time.
type server struct {
	t    *testing.T
	addr string
	smtp *smtp.Server

	// rcpt and data answer to RCPT and to the end of a mail; conn is the
	// connection, n counts from 1.
	rcpt func(n int, to string) error
	data func(n int, conn net.Conn, r io.Reader) error
	// login is the password of ada; without one there is no AUTH. Mechanisms are
	// those offered.
	login      string
	mechanisms []string

	mu       sync.Mutex
	sessions int
	tries    int // at RCPT
	mails    []received
	news     chan struct{}
}

// received is a mail as it came in.
type received struct {
	hello    string
	from, to string
	utf8     bool
	raw      []byte
}

func (r received) parse(t *testing.T) *netmail.Message {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(r.raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// serve starts the server; change prepares it.
func serve(t *testing.T, change func(*server)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, change)
}

func serveOn(t *testing.T, l net.Listener, change func(*server)) *server {
	t.Helper()
	s := &server{t: t, addr: l.Addr().String(), news: make(chan struct{}, 1000), mechanisms: []string{"XOAUTH2", "CRAM-MD5", "LOGIN", "PLAIN"}}
	s.smtp = smtp.NewServer(smtp.BackendFunc(s.session))
	s.smtp.Domain, s.smtp.AllowInsecureAuth = "mail.test", true
	s.smtp.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(s)
	}
	served := make(chan error, 1)
	go func() { served <- s.smtp.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.smtp.Shutdown(ctx); err != nil {
			t.Errorf("the SMTP server still serves: %v", err)
		}
		<-served
	})
	return s
}

func (s *server) session(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	if s.login != "" {
		return &loginSession{talk{server: s, conn: c}}, nil
	}
	return &openSession{talk{server: s, conn: c, loggedIn: true}}, nil
}

// talk is what a client says; the types around it differ in whether AUTH is
// offered.
type (
	openSession  struct{ talk }
	loginSession struct{ talk }
)

func (s *loginSession) AuthMechanisms() []string { return s.server.mechanisms }

func (s *loginSession) Auth(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, username, password string) error { return s.check(username, password) }), nil
	case sasl.Login:
		return &loginServer{check: s.check}, nil
	case "CRAM-MD5":
		return &cramServer{s}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

func (s *loginSession) check(username, password string) error {
	if username != "ada" || password != s.server.login {
		// A server that repeats what it was told.
		return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "no such password: " + password}
	}
	s.loggedIn = true
	return nil
}

// loginServer is the server's side of LOGIN.
type loginServer struct {
	check   func(username, password string) error
	answers []string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response != nil {
		l.answers = append(l.answers, string(response))
	}
	if len(l.answers) == 2 {
		return nil, true, l.check(l.answers[0], l.answers[1])
	}
	return []byte([]string{"Username:", "Password:"}[len(l.answers)]), false, nil
}

// cramServer is the server's side of CRAM-MD5 (RFC 2195).
type cramServer struct{ session *loginSession }

func (c *cramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	const nonce = "<1.2@mail.test>"
	if response == nil {
		return []byte(nonce), false, nil
	}
	mac := hmac.New(md5.New, []byte(c.session.server.login))
	mac.Write([]byte(nonce))
	if string(response) != fmt.Sprintf("ada %x", mac.Sum(nil)) {
		return nil, true, smtp.ErrAuthFailed
	}
	c.session.loggedIn = true
	return nil, true, nil
}

type talk struct {
	server   *server
	conn     *smtp.Conn
	loggedIn bool
	mail     received
}

func (s *talk) Reset()        { s.mail = received{} }
func (s *talk) Logout() error { return nil }

func (s *talk) Mail(from string, o *smtp.MailOptions) error {
	if !s.loggedIn {
		return smtp.ErrAuthRequired
	}
	s.mail = received{hello: s.conn.Hostname(), from: from, utf8: o.UTF8}
	return nil
}

func (s *talk) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	s.server.tries++
	n := s.server.tries
	s.server.mu.Unlock()
	s.mail.to = to
	if s.server.rcpt == nil {
		return nil
	}
	err := s.server.rcpt(n, to)
	if errors.Is(err, errHangUp) {
		_ = s.conn.Conn().Close()
	}
	return err
}

func (s *talk) Data(r io.Reader) error {
	var raw bytes.Buffer
	r = io.TeeReader(r, &raw)
	var err error
	if s.server.data != nil {
		s.server.mu.Lock()
		n := s.server.tries
		s.server.mu.Unlock()
		err = s.server.data(n, s.conn.Conn(), r)
	}
	if _, copyErr := io.Copy(io.Discard, r); copyErr != nil {
		return copyErr
	}
	s.mail.raw = raw.Bytes()
	s.server.mu.Lock()
	s.server.mails = append(s.server.mails, s.mail)
	s.server.mu.Unlock()
	s.server.news <- struct{}{}
	return err
}

// next waits for the n-th mail, those that were not taken included.
func (s *server) next(n int) received {
	s.t.Helper()
	for {
		s.mu.Lock()
		mails := s.mails
		s.mu.Unlock()
		if len(mails) >= n {
			return mails[n-1]
		}
		select {
		case <-s.news:
		case <-time.After(10 * time.Second):
			s.t.Fatalf("%d mails came, want %d", len(mails), n)
		}
	}
}

func (s *server) came() (mails, sessions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mails), s.sessions
}

// errHangUp makes the server close the connection without an answer.
var errHangUp = errors.New("hang up")

// refusal is what an SMTP server says no with.
func refusal(code int) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "<ada@example.com> is not wanted"}
}

// certificate is for 127.0.0.1 unless it is for other names, and signed by itself.
func certificate(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if len(names) == 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func listenTLS(t *testing.T, certificate tls.Certificate) net.Listener {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}
