package badnet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// silence is how long a test listens to what should stay silent.
const silence = 50 * time.Millisecond

// echo is a server that sends back what it gets, and keeps it.
type echo struct {
	net.Listener
	mu    sync.Mutex
	got   strings.Builder
	ended chan struct{} // gets one for each connection that ended
	conns sync.WaitGroup
}

func startEcho(t *testing.T) *echo {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{Listener: listener, ended: make(chan struct{}, 100)}
	e.conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.conns.Go(func() { e.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		e.conns.Wait()
	})
	return e
}

func (e *echo) serve(conn net.Conn) {
	defer func() { e.ended <- struct{}{} }()
	defer conn.Close()
	for buffer := make([]byte, 1024); ; {
		n, err := conn.Read(buffer)
		e.mu.Lock()
		e.got.Write(buffer[:n])
		e.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (e *echo) received() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.String()
}

// client is a connection through the proxy.
type client struct {
	*testing.T
	net.Conn
}

func dial(t *testing.T, p *Proxy) client {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return client{t, conn}
}

func (c client) send(text string) {
	c.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.Fatal(err)
	}
}

// hears waits for the text.
func (c client) hears(text string) {
	c.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c.Conn, got); err != nil || string(got) != text {
		c.Fatalf("got %q and %v, not %q", got, err, text)
	}
}

// hearsNothing listens for a while.
func (c client) hearsNothing() {
	c.Helper()
	_ = c.SetReadDeadline(time.Now().Add(silence))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.Fatalf("%d bytes and %v came where nothing should", n, err)
	}
}

// isReset waits for the end of the connection, before which nothing may come.
func (c client) isReset() {
	c.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
		c.Fatalf("got %d bytes and %v, not a reset", n, err)
	}
}

func TestAHealthyNetworkPassesEverything(t *testing.T) {
	server := startEcho(t)
	c := dial(t, Listen(t, server.Addr().String()))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = c.Write(sent)
		_ = c.Conn.(*net.TCPConn).CloseWrite()
	}()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes of %d came back, %v", len(got), len(sent), err)
	}
}

func TestACutResetsConnectionsAndRefusesNewOnesUntilHealed(t *testing.T) {
	server := startEcho(t)
	p := Listen(t, server.Addr().String())
	c := dial(t, p)
	c.send("before")
	c.hears("before")
	p.Cut()
	c.isReset()
	<-server.ended
	if conn, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dialling while cut gave %v and %v", conn, err)
	}
	p.Heal()
	c = dial(t, p)
	c.send("after")
	c.hears("after")
}

func TestInABlackHoleNothingPassesUntilHealed(t *testing.T) {
	server := startEcho(t)
	p := Listen(t, server.Addr().String())
	old, hangsUp := dial(t, p), dial(t, p)
	for _, c := range []client{old, hangsUp} {
		c.send("1")
		c.hears("1")
	}
	p.BlackHole()
	late := dial(t, p)
	old.send("2")
	late.send("3")
	_ = hangsUp.Close()
	old.hearsNothing()
	late.hearsNothing()
	if got := server.received(); got != "11" || len(server.ended) > 0 {
		t.Fatalf("the server got %q and heard of %d ends", got, len(server.ended))
	}
	p.Heal()
	old.hears("2")
	late.hears("3")
	<-server.ended
}

func TestABlackHoleCanBeCut(t *testing.T) {
	p := Listen(t, startEcho(t).Addr().String())
	p.BlackHole()
	c := dial(t, p)
	c.send("1")
	c.hearsNothing() // by now it is accepted
	p.Cut()
	c.isReset()
}

func TestADelayHoldsBackBothDirections(t *testing.T) {
	p := Listen(t, startEcho(t).Addr().String())
	c := dial(t, p)
	c.send("1")
	c.hears("1")
	p.Delay(silence)
	begin := time.Now()
	c.send("2")
	c.hears("2")
	if took := time.Since(begin); took < 2*silence {
		t.Fatalf("there and back took %s", took)
	}
	p.Delay(time.Hour)
	c.send("3")
	c.hearsNothing() // and the end of the test does not wait for the hour
}

func TestAConnectionBreaksAtTheChosenPiece(t *testing.T) {
	commit := func(piece []byte) bool { return bytes.Contains(piece, []byte("commit")) }
	tests := []struct {
		name     string
		arm      func(p *Proxy)
		received string
	}{
		{"before the request arrives", func(p *Proxy) { p.CutBeforeRequest(commit) }, "begin"},
		{"before the reply comes back", func(p *Proxy) { p.CutBeforeReply(commit) }, "begincommit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startEcho(t)
			p := Listen(t, server.Addr().String())
			tt.arm(p)
			c, other := dial(t, p), dial(t, p)
			c.send("begin")
			c.hears("begin")
			c.send("commit")
			c.isReset()
			<-server.ended
			if got := server.received(); got != tt.received {
				t.Errorf("the server got %q, not %q", got, tt.received)
			}
			other.send("commit, later")
			other.hears("commit, later")
		})
	}
}

func TestHealingDisarms(t *testing.T) {
	p := Listen(t, startEcho(t).Addr().String())
	p.CutBeforeReply(func([]byte) bool { return true })
	p.Delay(time.Hour)
	p.Heal()
	c := dial(t, p)
	c.send("1")
	c.hears("1")
}

func TestAServerThatIsDownShowsAsAReset(t *testing.T) {
	addr, err := FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", Listen(t, addr).Addr())
	if err == nil { // the reset may come before Dial returns, or after
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v, not a reset", err)
	}
}
