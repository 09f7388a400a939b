//go:build reliability

package reliability

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/internal/attack"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/internal/mailbox"
)

// canarySite has everything that can see a key, with every log at DEBUG. The second
// site forwards keys to a handler that panics with the request, and to a backend
// that is down.
const canarySite = `{
	admin {admin}
	auto_https off
	metrics
	debug
	log {
		level DEBUG
		output file {dir}/default.log {
			roll_disabled
		}
		format {format}
	}
	events {
		on * canary
	}
	api_keys {
		store sqlite {store}
		pepper "a pepper that is no key"
		{recoverable}
		mail {
			smtp {smtp}
			tls off
			from keys@gateway.example
		}
		package Account {
			format alphanumeric 62
			roles reader
		}
		package Coverage {
			format token
			roles reader
		}
		package Uuid {
			format uuid
			roles reader
		}
	}
}
http://{addr} {
	log {
		level DEBUG
		output file {dir}/access.log {
			roll_disabled
		}
		format {format}
	}
	api_keys {
		dialect rest /keys-api
		dialect sarus /sarus {
			package Coverage
			client_limit 100000
		}
		dialect single_invoice /invoice {
			account_package Account
		}
		dialect adyen /v3 {
			role reader
		}
		dialect exorde /exorde
		from bearer
		from header X-API-Key
		from header X-Other-Key
		from query api_key
		from cookie session_key
		require any
	}
	error /missing* "nothing here" 404
	reverse_proxy /down* 127.0.0.1:1
	reverse_proxy {upstream}
}
http://{addr2} {
	log {
		level DEBUG
		output file {dir}/access2.log {
			roll_disabled
		}
		format {format}
	}
	api_keys {
		from bearer
		from header X-API-Key
		from query api_key
		from cookie session_key
		require any
		forward_key
	}
	canary_panic /panic*
	reverse_proxy 127.0.0.1:1
}
`

// canaries is a gateway in which keys are looked for.
type canaries struct {
	*livetest.Gateway
	second string // the address of the second site
	mails  *mailbox.Server
	// texts are the keys to look for, and answers what was answered, other than
	// the answers that are there to tell a key.
	texts, answers map[string]string
}

func startCanaries(t *testing.T, format, recoverable string) *canaries {
	t.Helper()
	mails, err := mailbox.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mails.Close() })
	events.take()
	c := &canaries{mails: mails, second: livetest.FreeAddr(t), texts: map[string]string{}, answers: map[string]string{}}
	c.Gateway = livetest.StartWith(t, strings.NewReplacer("{format}", format, "{recoverable}", recoverable, "{smtp}", mails.Addr,
		"{addr2}", c.second).Replace(canarySite))
	return c
}

// call sends a request as it is written, and reads the answer. A server that
// panics gives none.
func (c *canaries) call(addr, method, target, body string, headers ...string) (status int, text string) {
	c.T.Helper()
	request := method + " " + target + " HTTP/1.1\r\nHost: " + addr + "\r\nConnection: close\r\n"
	for i := 0; i < len(headers); i += 2 {
		request += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	if body != "" {
		request += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	answer, err := attack.Ask(addr, request+"\r\n"+body, false)
	if err != nil {
		c.T.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	if err != nil {
		return 0, answer
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(resp.Body)
	if resp.Header.Get("X-Upstream") != "" {
		return resp.StatusCode, "" // the upstream echoes what it got, which is its own to see
	}
	return resp.StatusCode, fmt.Sprint(resp.Header) + string(content)
}

// must is call for what has to succeed; it returns the answer's object.
func (c *canaries) must(addr, method, target, body string, headers ...string) (object map[string]any) {
	c.T.Helper()
	status, text := c.call(addr, method, target, body, headers...)
	begin := strings.Index(text, "{")
	if status < 200 || status > 299 || begin < 0 {
		c.T.Fatalf("%s %s: %d %s", method, target, status, text)
	}
	if err := json.Unmarshal([]byte(text[begin:]), &object); err != nil {
		c.T.Fatal(err)
	}
	return object
}

// events are what happened, as an operator's event handler sees it.
var events eventLog

type eventLog struct {
	mu  sync.Mutex
	all []string
}

func (l *eventLog) add(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, event)
}

func (l *eventLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.all = nil }()
	return strings.Join(l.all, "\n")
}

type eventCanary struct{}

func (eventCanary) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.canary", New: func() caddy.Module { return new(eventCanary) }}
}

func (*eventCanary) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (eventCanary) Handle(_ context.Context, e caddy.Event) error {
	events.add(fmt.Sprintf("%s %+v", e.Name(), e.Data))
	return nil
}

// panicCanary panics with all it knows of a request.
type panicCanary struct{}

func (panicCanary) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.canary_panic", New: func() caddy.Module { return new(panicCanary) }}
}

func (panicCanary) ServeHTTP(_ http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	panic(fmt.Sprintf("%s %v: %v", r.Method, r.URL, r.Header))
}

func init() {
	caddy.RegisterModule(eventCanary{})
	caddy.RegisterModule(panicCanary{})
	httpcaddyfile.RegisterHandlerDirective("canary_panic", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return panicCanary{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("canary_panic", httpcaddyfile.Before, "reverse_proxy")
}
