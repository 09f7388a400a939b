//go:build reliability

package reliability

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/internal/mailbox"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const mailOracleSite = `{
	admin {admin}
	persist_config off
	auto_https off
	log {
		output discard
	}
	api_keys {
		store sqlite {store}
		mail {
			smtp {smtp}
			tls off
			from keys@gateway.example
		}
	}
}
http://{addr} {
	{leak}
	api_keys {
		dialect sarus /v1 {
			client_limit 1000000
		}
	}
	respond "let through"
}
`

// mailOracle is a gateway that sends keys by e-mail.
type mailOracle struct {
	*livetest.Gateway
	asked int
}

func startMailOracle(t *testing.T, leak string) *mailOracle {
	t.Helper()
	mails, err := mailbox.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mails.Close() })
	return &mailOracle{Gateway: livetest.StartWith(t, strings.NewReplacer("{leak}", leak, "{smtp}", mails.Addr).Replace(mailOracleSite))}
}

// addresses are requests for keys, each for an address of its own, of accounts or of
// nobody.
func (o *mailOracle) addresses(known bool, n int) func() [][]byte {
	return func() (requests [][]byte) {
		for range n {
			o.asked++
			address := fmt.Sprintf("someone-%06d@example.com", o.asked)
			if known {
				o.Account(keystore.Account{Email: address})
			}
			requests = append(requests, []byte("GET /v1/RequestAPIKey?Email="+url.QueryEscape(address)+" HTTP/1.1\r\nHost: "+o.Addr+"\r\n\r\n"))
		}
		return requests
	}
}

// TestNoAddressTakesLonger asks for keys by e-mail for accounts and for nobody: the
// answers are the same, and so are their times, although the accounts do get mails
// meanwhile. The control makes the key before it answers.
func TestNoAddressTakesLonger(t *testing.T) {
	n := size(100, 2_000)
	o := startMailOracle(t, "")
	if known, unknown := o.answerTo(true), o.answerTo(false); known != unknown {
		t.Errorf("the answers differ:\n%s\n%s", known, unknown)
	}
	told, ts := differ(t, o.Addr, o.addresses(true, n), o.addresses(false, n))
	if told {
		t.Errorf("known and unknown addresses: t = %.1f", ts)
	}
	t.Logf("known and unknown addresses: t = %.1f", ts)

	o = startMailOracle(t, "leaky_mail")
	told, ts = differ(t, o.Addr, o.addresses(true, n), o.addresses(false, n))
	if !told {
		t.Errorf("control: a key that is made before the answer is not told: t = %.1f", ts)
	}
	t.Logf("control: t = %.1f", ts)
}

// answerTo is the answer to an address, without what varies.
func (o *mailOracle) answerTo(known bool) string {
	o.T.Helper()
	request := string(o.addresses(known, 1)()[0])
	answer := (&attacked{Gateway: o.Gateway}).ask(strings.Replace(request, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1), false)
	return lengthOf.ReplaceAllString(varying.ReplaceAllString(answer, "..."), "...")
}

// leakyMail makes the key of a known address before it answers.
type leakyMail struct{}

func (leakyMail) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.leaky_mail", New: func() caddy.Module { return new(leakyMail) }}
}

func (leakyMail) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	app, err := caddy.ActiveContext().App("api_keys")
	if err != nil {
		return err
	}
	kr, err := app.(keyringOwner).Keyring(r.Context())
	if err != nil {
		return err
	}
	var account *keystore.Account
	err = kr.View(r.Context(), func(stored keystore.Reader) (err error) {
		account, err = stored.AccountByEmail(r.URL.Query().Get("Email"))
		return err
	})
	if err == nil {
		if _, err := kr.Issue(r.Context(), keystore.Operator(), keystore.Credential{AccountID: account.ID}); err != nil {
			return err
		}
	}
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(leakyMail{})
	httpcaddyfile.RegisterHandlerDirective("leaky_mail", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return leakyMail{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("leaky_mail", httpcaddyfile.Before, "map")
}
