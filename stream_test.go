package apikeys

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// streamLimit is within what time a stream ends after its key stopped.
const streamLimit = time.Second

// openStream opens a stream with a key. Receive blocks until something comes,
// or answers the error with which the stream ended.
type openStream func(t *testing.T, g *gateway, key string) (receive func() error)

// TestStreamsEndWithTheirKey holds each kind of stream to ending within a second
// of its key's revocation or expiry, while the stream of another key goes on.
func TestStreamsEndWithTheirKey(t *testing.T) {
	for name, kind := range map[string]struct {
		upstream func(*testing.T) string
		open     openStream
	}{
		"server-sent events": {newEventUpstream, openEvents},
		"WebSocket":          {newWebSocketUpstream, openWebSocket},
		"gRPC":               {newGRPCUpstream, openGRPC},
	} {
		for end, stop := range map[string]func(*gateway, *keystore.Issued){
			"revocation": func(g *gateway, i *keystore.Issued) { g.revoke(i.Key.ID) },
			"expiry":     func(g *gateway, i *keystore.Issued) { g.rotate(i.Credential.ID, "1ms") },
			"deactivation": func(g *gateway, i *keystore.Issued) {
				g.edit(i.Credential.ID, func(c *keystore.Credential) { c.Active = false })
			},
			"deletion": func(g *gateway, i *keystore.Issued) {
				if err := g.keyring().DeleteAccount(context.Background(), i.Credential.AccountID); err != nil {
					g.t.Fatal(err)
				}
			},
		} {
			t.Run(name+" at "+end, func(t *testing.T) {
				g := start(t, strings.Replace(streaming, "{upstream}", kind.upstream(t), 1))
				mine, other := g.issue(keystore.Credential{}), g.issue(keystore.Credential{})
				receive, others := kind.open(t, g, mine.Text), kind.open(t, g, other.Text)
				for _, r := range []func() error{receive, others} {
					if err := r(); err != nil {
						t.Fatalf("the stream does not open: %v", err)
					}
				}
				stop(g, mine)
				stopped := time.Now()
				for receive() == nil {
				}
				if took := time.Since(stopped); took > streamLimit {
					t.Errorf("the stream ended after %v", took)
				}
				for range 3 {
					if err := others(); err != nil {
						t.Errorf("the stream of another key ended: %v", err)
					}
				}
			})
		}
	}
}

const streaming = `{
	admin off
	persist_config off
	servers {
		protocols h1 h2c
	}
	api_keys {
		store sqlite {store}
	}
}
http://{addr} {
	api_keys
	reverse_proxy {upstream}
}
`

// serve runs an upstream that ends its connections when the test is over.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() {
			select {
			case <-done:
				cancel()
			case <-ctx.Done():
			}
		}()
		h(w, r.WithContext(ctx))
	}))
	t.Cleanup(func() {
		close(done)
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

// beat calls send every few milliseconds until the request ends.
func beat(ctx context.Context, send func() error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for send() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func newEventUpstream(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		beat(r.Context(), func() error {
			if _, err := io.WriteString(w, "data: x\n\n"); err != nil {
				return err
			}
			return http.NewResponseController(w).Flush()
		})
	})
}

func openEvents(t *testing.T, g *gateway, key string) func() error {
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+g.addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("X-API-Key", key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewReader(resp.Body)
	return func() error {
		line, err := lines.ReadString('\n')
		if err == nil && line != "\n" && line != "data: x\n" {
			return fmt.Errorf("got %q", line)
		}
		return err
	}
}

func newWebSocketUpstream(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		ctx := c.CloseRead(r.Context())
		beat(ctx, func() error { return c.Write(ctx, websocket.MessageText, []byte("x")) })
	})
}

func openWebSocket(t *testing.T, g *gateway, key string) func() error {
	header := http.Header{"X-Api-Key": {key}}
	c, _, err := websocket.Dial(t.Context(), "ws://"+g.addr+"/", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return func() error {
		_, _, err := c.Read(t.Context())
		return err
	}
}

// newGRPCUpstream serves the health service, whose Watch is a stream: the status
// changes all the time.
func newGRPCUpstream(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	ctx, cancel := context.WithCancel(context.Background())
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		status := grpc_health_v1.HealthCheckResponse_SERVING
		beat(ctx, func() error {
			status = 3 - status
			h.SetServingStatus("x", status)
			return nil
		})
	}()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() {
		cancel()
		<-beating
		s.Stop()
	})
	return "h2c://" + l.Addr().String()
}

func openGRPC(t *testing.T, g *gateway, key string) func() error {
	conn, err := grpc.NewClient("passthrough:///"+g.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-api-key", key)
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "x"})
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		_, err := watch.Recv()
		return err
	}
}

func TestPlainRequestsAreNotWatched(t *testing.T) {
	plain, err := http.NewRequest("GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	plain.Header = http.Header{"Accept": {"*/*"}, "Content-Type": {"application/json"}, "Connection": {"keep-alive"}}
	if isStream(plain) || testing.AllocsPerRun(100, func() { isStream(plain) }) != 0 {
		t.Error("a plain request must cost nothing")
	}
	for name, header := range map[string]http.Header{
		"upgrade":            {"Upgrade": {"websocket"}},
		"events":             {"Accept": {"text/html, Text/Event-Stream;q=0.9"}},
		"events in a second": {"Accept": {"text/html", "text/event-stream"}},
		"gRPC":               {"Content-Type": {"application/grpc+proto"}},
		"gRPC-Web":           {"Content-Type": {"application/grpc-web"}},
	} {
		if !isStream(&http.Request{Method: "GET", Header: header}) {
			t.Errorf("%s is no stream", name)
		}
	}
	if !isStream(&http.Request{Method: "CONNECT", Header: http.Header{}}) {
		t.Error("extended CONNECT is no stream")
	}
}
