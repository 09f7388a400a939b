// Package badnet is a network that fails on demand: a TCP proxy on 127.0.0.1 that
// a test puts before a server, and then cuts, silences or slows.
package badnet

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy passes connections on to a server until told otherwise. Its methods may be
// called from any goroutine, and hold for connections that are open as for new ones.
type Proxy struct {
	t      testing.TB
	addr   string
	target string
	// running are the goroutines, which the end of the test waits for.
	running sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener  // nil while cut
	silent   chan struct{} // nil but in a black hole, and closed at its end
	delay    time.Duration
	trigger  *trigger
	links    map[*link]bool
}

// trigger says at which piece from the client its connection breaks.
type trigger struct {
	match func([]byte) bool
	reply bool // after the server has got the piece, rather than before
}

// Listen starts a proxy before the server at target, a host and a port. It ends with
// the test. A server that can't be reached shows as a connection that is reset.
func Listen(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := listen()
	if err != nil {
		t.Fatalf("listening for a proxy before %s: %v", target, err)
	}
	p := &Proxy{
		t: t, addr: listener.Addr().String(), target: target,
		listener: listener, links: map[*link]bool{},
	}
	p.running.Go(func() { p.accept(listener) })
	t.Cleanup(func() {
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Addr is where the proxy listens. It stays the same over Cut and Heal.
func (p *Proxy) Addr() string { return p.addr }

// Cut resets all connections and refuses new ones, until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for l := range p.links {
		l.end(reset)
	}
}

// BlackHole lets nothing pass any more, until Heal: connections stay open, new ones
// are accepted, and neither side hears of the other, not even that it has hung up.
// What was sent meanwhile arrives after Heal, as it does where packets were lost.
func (p *Proxy) BlackHole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent == nil {
		p.silent = make(chan struct{})
	}
}

// Delay keeps back each piece, in both directions, for so long.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// CutBeforeRequest resets the connection over which the next piece comes that match
// accepts: the server never sees that piece. A piece is what one read returned, most
// often one write of the client. Other connections and later pieces pass.
func (p *Proxy) CutBeforeRequest(match func(piece []byte) bool) { p.arm(&trigger{match, false}) }

// CutBeforeReply is as [Proxy.CutBeforeRequest], but the server gets the piece and
// answers it, and it is the answer that is lost.
func (p *Proxy) CutBeforeReply(match func(piece []byte) bool) { p.arm(&trigger{match, true}) }

func (p *Proxy) arm(t *trigger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trigger = t
}

// Heal undoes all of the above.
func (p *Proxy) Heal() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay, p.trigger = 0, nil
	if p.silent != nil {
		close(p.silent)
		p.silent = nil
	}
	if p.listener != nil {
		return
	}
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Errorf("healing the proxy before %s: %v", p.target, err)
		return
	}
	p.listener = listener
	p.running.Go(func() { p.accept(listener) })
}

// weather is how the network is at the moment.
func (p *Proxy) weather() (silent chan struct{}, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent, p.delay
}

// spring says whether the connection breaks at this piece, and how. A trigger
// springs once.
func (p *Proxy) spring(piece []byte) *trigger {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trigger
	if t == nil || !t.match(piece) {
		return nil
	}
	p.trigger = nil
	return t
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		l := &link{proxy: p, client: client.(*net.TCPConn), closed: make(chan struct{})}
		p.mu.Lock()
		if p.listener == listener {
			p.links[l] = true
			p.running.Go(l.run)
		} else { // accepted while the proxy was cut
			l.end(reset)
		}
		p.mu.Unlock()
	}
}

// link is one client's connection, and its counterpart to the server.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	closed chan struct{}

	mu     sync.Mutex
	server *net.TCPConn // nil until there was weather to connect
	over   bool
	doomed bool // what the server says next breaks the connection
}

// run connects to the server and passes bytes until both sides are done.
func (l *link) run() {
	defer func() {
		l.proxy.mu.Lock()
		delete(l.proxy.links, l)
		l.proxy.mu.Unlock()
	}()
	if !l.clear() || !l.connect() {
		l.end(reset)
		return
	}
	var requests sync.WaitGroup
	requests.Go(func() { l.pump(l.server, l.client, l.request) })
	l.pump(l.client, l.server, l.reply)
	requests.Wait()
	l.end(farewell)
}

// connect opens the connection to the server.
func (l *link) connect() bool {
	server, err := net.DialTimeout("tcp", l.proxy.target, 10*time.Second)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = server.(*net.TCPConn)
	if l.over {
		_ = server.Close()
	}
	return !l.over
}

// How a link ends: a farewell still delivers what was sent, a reset does not.
const (
	farewell = -1
	reset    = 0
)

// end closes both connections: whoever reads or writes learns it at once.
func (l *link) end(linger int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over = true
	close(l.closed)
	for _, conn := range []*net.TCPConn{l.client, l.server} {
		if conn != nil {
			_ = conn.SetLinger(linger)
			_ = conn.Close()
		}
	}
}

// pump passes on what comes from one side, piece by piece, and then that it has hung
// up. A side that can't be reached any more ends both directions.
func (l *link) pump(to, from *net.TCPConn, pass func(to io.Writer, piece []byte) bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !l.clear() || n > 0 && !pass(to, buffer[:n]) {
			l.end(reset)
			return
		}
		if err == io.EOF {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			l.end(reset)
			return
		}
	}
}

// request passes on a piece from the client, and says whether the link still holds.
func (l *link) request(server io.Writer, piece []byte) bool {
	if t := l.proxy.spring(piece); t != nil {
		if !t.reply {
			return false
		}
		l.mu.Lock()
		l.doomed = true
		l.mu.Unlock()
	}
	_, err := server.Write(piece)
	return err == nil
}

// reply passes on a piece from the server, and says whether the link still holds.
func (l *link) reply(client io.Writer, piece []byte) bool {
	l.mu.Lock()
	doomed := l.doomed
	l.mu.Unlock()
	if doomed {
		return false
	}
	_, err := client.Write(piece)
	return err == nil
}

// clear waits as long as the weather asks for, and says whether the link still is
// there then.
func (l *link) clear() bool {
	silent, delay := l.proxy.weather()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-l.closed:
			return false
		}
		silent, _ = l.proxy.weather()
	}
	for silent != nil {
		select {
		case <-silent:
		case <-l.closed:
			return false
		}
		silent, _ = l.proxy.weather()
	}
	return true
}
