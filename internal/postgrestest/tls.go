package postgrestest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"
)

// The role that needs TLS and a password, and its password.
const (
	secureRole     = "secure"
	securePassword = "correct horse battery staple"
)

// NewSecureDatabase makes an empty database on a server with [TLS], and returns the
// DSN of its owner. That role, unlike the superuser, needs both TLS and its password
// (scram-sha-256). The DSN says sslmode=verify-full, with the certificate as
// sslrootcert; the certificate is for 127.0.0.1, and not for localhost.
func (s *Server) NewSecureDatabase(t testing.TB) string {
	t.Helper()
	if !s.tls {
		t.Fatal("a secure database needs a server that was started with postgrestest.TLS")
	}
	dsn := url.URL{
		Scheme: "postgres", Host: s.addr, Path: "/" + s.newDatabase(t, secureRole),
		User:     url.UserPassword(secureRole, securePassword),
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.path("data/server.crt")}}.Encode(),
	}
	return dsn.String()
}

// launchSecure makes the server's certificate and the role that needs it, and starts
// the server.
func (s *Server) launchSecure() error {
	certificate, key, err := selfSigned()
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	for name, text := range map[string]string{
		"data/server.crt":  certificate,
		"data/server.key":  key,
		"data/pg_hba.conf": "host all " + superuser + " 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
	} {
		if err := s.write(name, text); err != nil {
			return err
		}
	}
	if err := s.launch(); err != nil {
		return err
	}
	return s.exec("CREATE ROLE " + secureRole + " LOGIN PASSWORD '" + securePassword + "'")
}

// selfSigned makes a certificate for 127.0.0.1 that is its own root, and its key.
func selfSigned() (certificate, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "postgrestest"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return text("CERTIFICATE", signed), text("PRIVATE KEY", encoded), nil
}
