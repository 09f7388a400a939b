//go:build reliability && linux

package reliability

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// holder is a client that holds a connection: it sends a request as slowly as it
// can, or nothing.
type holder func(addr, key string) []byte

// holders are the ways of holding a connection that are tried.
var holders = map[string]holder{
	"headers that do not end": func(addr, _ string) []byte {
		return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nX-Slow: ", addr)
	},
	"a body that does not end": func(addr, key string) []byte {
		return fmt.Appendf(nil, "POST /keys-api/accounts HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{\"company\":\"", addr, key)
	},
}

// drip sends one more byte on each connection, again and again until done.
func drip(conns []net.Conn, done chan struct{}) {
	for {
		for i, conn := range conns {
			select {
			case <-done:
				return
			default:
			}
			_, _ = conn.Write([]byte("x"))
			if i%50 == 0 {
				time.Sleep(5 * time.Millisecond) // as slow clients do
			}
		}
	}
}

// impatient is a client of good requests, also to management routes, that gives up
// after the first that is not answered within its patience, and counts it.
func (s *served) impatient(key string, requests int) (failed int) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := 0; i < requests && failed == 0; i++ {
		method, path, body, want := http.MethodGet, "/", "", http.StatusOK
		if i%5 == 0 {
			method, path, body, want = http.MethodPost, "/keys-api/accounts", "{}", http.StatusCreated
		}
		r, err := http.NewRequest(method, s.site+path, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		r.Header.Set("X-API-Key", key)
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		if err != nil {
			failed++
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			failed++
		}
	}
	return failed
}

// operatorKey is a key that opens management routes.
func (s *served) operatorKey() string {
	s.t.Helper()
	var account struct{ ID string }
	s.operate(http.MethodPost, "/accounts", map[string]any{}, http.StatusCreated, &account)
	var made madeKey
	s.operate(http.MethodPost, "/accounts/"+account.ID+"/credentials",
		map[string]any{"roles": []string{"api_keys:operator"}}, http.StatusCreated, &made)
	return made.Key.Secret
}

// hold holds so many connections in that way while good requests are sent, and
// returns how many of these failed.
func (s *served) hold(way holder, n, requests int) (failed int) {
	s.t.Helper()
	key := s.operatorKey()
	before := s.resident()
	conns := openIdle(s.t, s.addr, n)
	defer closeAll(conns)
	for _, conn := range conns {
		if _, err := conn.Write(way(s.addr, key)); err != nil {
			s.t.Fatal(err)
		}
	}
	done, dripped := make(chan struct{}), make(chan struct{})
	go func() {
		drip(conns, done)
		close(dripped)
	}()
	began := time.Now()
	failed = s.impatient(key, requests)
	took := time.Since(began)
	close(done)
	<-dripped
	s.t.Logf("%d slow clients: %d good requests in %v, %d failed, %d KiB a connection",
		n, requests, took.Round(time.Millisecond), failed, (s.resident()-before)>>10/int64(n))
	return failed
}

// TestSlowClientsHoldNobodyElseUp sends headers and bodies that do not end, beside
// good requests to the site and to management routes.
func TestSlowClientsHoldNobodyElseUp(t *testing.T) {
	for name, way := range holders {
		t.Run(name, func(t *testing.T) {
			s := startServed(t, strings.Replace(floodedSite, "{before}", "", 1)).ready()
			if failed := s.hold(way, size(300, 3000), size(200, 2000)); failed != 0 {
				t.Error("a good request fails")
			}
		})
	}
}

// TestControlAGatewayThatWaits is the control: one that lets other requests wait
// while it reads a body.
func TestControlAGatewayThatWaits(t *testing.T) {
	s := startServed(t, strings.Replace(floodedSite, "{before}", "broken waits", 1)).ready()
	if failed := s.hold(holders["a body that does not end"], 20, 1000); failed == 0 {
		t.Error("a gateway that waits for slow clients goes unnoticed")
	}
}

// TestIdleConnectionsHoldNobodyUp opens connections on which nothing comes, or
// nothing any more. The control is a gateway that may open too few files.
func TestIdleConnectionsHoldNobodyUp(t *testing.T) {
	site := strings.Replace(floodedSite, "{before}", "", 1)
	s := startServed(t, site).ready()
	key := s.operatorKey()
	before, n := s.resident(), size(2000, 10_000)
	conns := openIdle(t, s.addr, n)
	for _, conn := range conns[:n/2] { // these have been used once
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write(asking(s.addr, key)); err != nil {
			t.Fatal(err)
		}
		if status, err := readStatus(bufio.NewReader(conn)); err != nil || status != http.StatusOK {
			t.Fatalf("answered %d, %v", status, err)
		}
	}
	latencies := probe{s.addr, key, 200}.run(t, size(time.Second, 10*time.Second))
	if failed := s.impatient(key, 50); failed != 0 {
		t.Error("a good request fails")
	}
	t.Logf("%d idle connections: %d KiB each, p99 of good requests %v",
		n, (s.resident()-before)>>10/int64(n), quantile(latencies, 0.99))
	closeAll(conns)

	few := startServed(t, site, serveFiles+"=200").ready()
	key = few.operatorKey()
	openIdle(t, few.addr, 300)
	if failed := few.impatient(key, 100); failed == 0 {
		t.Error("a gateway that has no file left goes unnoticed")
	}
}

// TestHugeHeadersAreRefused sends headers of any size: Caddy refuses the huge ones,
// and the gateway goes on. The control is a large one, which is served.
func TestHugeHeadersAreRefused(t *testing.T) {
	s := startServed(t, strings.Replace(floodedSite, "{before}", "", 1)).ready()
	key := s.operatorKey()
	for _, name := range []string{"X-API-Key", "X-Other", "Cookie", "Authorization"} {
		for bytes, want := range map[int]string{100: "HTTP/1.1 ", 8 << 10: "HTTP/1.1 ", 64 << 10: "HTTP/1.1 431", 4 << 20: "HTTP/1.1 431"} {
			got := s.rawAnswer(fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n%s: %s\r\nConnection: close\r\n\r\n", s.addr, name, strings.Repeat("k", bytes)))
			if refused := strings.HasPrefix(got, "HTTP/1.1 431"); !strings.HasPrefix(got, want) || (refused && len(want) < 12) {
				t.Errorf("%s of %d bytes is answered %.40q, want %s", name, bytes, got, want)
			}
		}
	}
	if failed := s.impatient(key, 10); failed != 0 {
		t.Error("afterwards a good request fails")
	}
	if strings.Contains(s.logged(), "panic") {
		t.Errorf("the log: %s", s.logged())
	}
}

// rawAnswer sends bytes and returns what comes back, also if the gateway stops
// reading before they end.
func (s *served) rawAnswer(request string) string {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }()
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}
