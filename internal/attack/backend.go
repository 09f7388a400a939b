package attack

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
)

// Backend is a server that keeps the bytes of what reaches it. It agrees to every
// upgrade, and then keeps the bytes of the tunnel.
type Backend struct {
	Addr string

	listener net.Listener
	serving  sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool
	arrivals []*Arrival
}

// Arrival is one request as it came.
type Arrival struct {
	// Head is all up to the empty line, which is not part of it.
	Head string
	// Body is the body as it came, with the framing of its pieces and trailers; or
	// what came through the tunnel.
	Body string
	// Broken says that it can't be read as a request.
	Broken bool
}

// StartBackend starts one on a port of its own.
func StartBackend() (*Backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &Backend{Addr: l.Addr().String(), listener: l, conns: map[net.Conn]bool{}}
	b.serving.Go(b.accept)
	return b, nil
}

// Close stops the server and waits until it has stopped.
func (b *Backend) Close() {
	_ = b.listener.Close()
	b.mu.Lock()
	for conn := range b.conns {
		_ = conn.Close()
	}
	b.mu.Unlock()
	b.serving.Wait()
}

// Taken returns what arrived since the last call.
func (b *Backend) Taken() []Arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := make([]Arrival, len(b.arrivals))
	for i, a := range b.arrivals {
		taken[i] = *a
	}
	b.arrivals = nil
	return taken
}

func (b *Backend) accept() {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.conns[conn] = true
		b.mu.Unlock()
		b.serving.Go(func() {
			defer func() {
				b.mu.Lock()
				delete(b.conns, conn)
				b.mu.Unlock()
				_ = conn.Close()
			}()
			in := bufio.NewReader(conn)
			for b.serve(conn, in) {
			}
		})
	}
}

// arrive notes that something came, before it is known what.
func (b *Backend) arrive() *Arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := new(Arrival)
	b.arrivals = append(b.arrivals, a)
	return a
}

// serve answers one request, and reports whether another may follow.
func (b *Backend) serve(conn net.Conn, in *bufio.Reader) bool {
	begin, err := in.Peek(1)
	if err != nil {
		return false
	}
	a := b.arrive()
	if begin[0] == fastCGI {
		a.Broken = true
		return false
	}
	head, ok := readHead(in)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n")))
	b.mu.Lock()
	a.Head, a.Broken = head, !ok || err != nil
	b.mu.Unlock()
	if a.Broken {
		return false
	}
	body := io.TeeReader(in, &bodyRecorder{b, a})
	if upgrade := r.Header.Get("Upgrade"); upgrade != "" {
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+upgrade+"\r\nX-Backend: reached\r\n\r\n")
		_, _ = io.Copy(io.Discard, body)
		return false
	}
	readBody(body, r)
	length := "2\r\n\r\nok"
	if r.Method == http.MethodHead {
		length = "2\r\n\r\n"
	}
	_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-Backend: reached\r\nContent-Length: "+length)
	return err == nil
}

// maxHead is more than any server lets through.
const maxHead = 1 << 21

// fastCGI is how a record of that protocol begins.
const fastCGI = 1

// readHead reads up to the empty line.
func readHead(in *bufio.Reader) (string, bool) {
	var head strings.Builder
	for head.Len() < maxHead {
		line, err := in.ReadString('\n')
		if err != nil {
			return head.String() + line, false
		}
		if line == "\r\n" {
			return strings.TrimSuffix(head.String(), "\r\n"), true
		}
		head.WriteString(line)
	}
	return head.String(), false
}

// readBody reads the body as the head of the request frames it.
func readBody(in io.Reader, r *http.Request) {
	if len(r.TransferEncoding) == 0 {
		_, _ = io.CopyN(io.Discard, in, max(r.ContentLength, 0))
		return
	}
	pieces := bufio.NewReaderSize(oneByte{in}, 16) // it must not read what follows
	_, _ = io.Copy(io.Discard, httputil.NewChunkedReader(pieces))
	for {
		line, err := pieces.ReadString('\n')
		if err != nil || line == "\r\n" {
			return
		}
	}
}

// oneByte reads a byte at a time.
type oneByte struct{ io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.Reader.Read(p[:min(len(p), 1)]) }

// bodyRecorder keeps what is read of a body.
type bodyRecorder struct {
	backend *Backend
	arrival *Arrival
}

func (a *bodyRecorder) Write(p []byte) (int, error) {
	a.backend.mu.Lock()
	defer a.backend.mu.Unlock()
	a.arrival.Body += string(p)
	return len(p), nil
}
