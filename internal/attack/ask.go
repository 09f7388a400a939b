package attack

import (
	"bytes"
	"io"
	"net"
	"strings"
	"time"
)

// patience is how long a server may take to answer what it can answer, and
// waiting how long it is listened to when it may wait for more.
const (
	patience = 20 * time.Second
	waiting  = 200 * time.Millisecond
)

// Fill is the message as bytes on the wire. First are header lines of the first
// request.
func (m Message) Fill(host, key, first string) string {
	return Fill(strings.ReplaceAll(m.Text, "{first}", first), host, key)
}

// Ask sends bytes over a connection of their own and returns what comes back until
// the server closes it. A server that may wait for more is left after a while of
// silence.
func Ask(addr, text string, open bool) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, text); err != nil && !open {
		return "", nil // the server closed before it had read all
	}
	var out bytes.Buffer
	for piece := make([]byte, 32<<10); ; {
		if open {
			_ = conn.SetReadDeadline(time.Now().Add(waiting))
		}
		n, err := conn.Read(piece)
		out.Write(piece[:n])
		open = open || bytes.HasPrefix(out.Bytes(), []byte("HTTP/1.1 101")) // a tunnel
		if err != nil {
			return out.String(), nil
		}
	}
}
