package apikeys

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

// newTunnelUpstream switches protocols whatever the method is, as some upstreams
// do, and answers one line.
func newTunnelUpstream(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(rw, "upstream got %s", line)
		rw.Flush()
	})
}

// TestAnUpgradeIsNoPreflight: the tunnel of an upgrade carries what it likes.
func TestAnUpgradeIsNoPreflight(t *testing.T) {
	g := start(t, strings.Replace(streaming, "{upstream}", newTunnelUpstream(t), 1))
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	fmt.Fprintf(conn, "OPTIONS / HTTP/1.1\r\nHost: %s\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: GET\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n", g.addr)
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		io.WriteString(conn, "GET /secret\n")
		line, _ := br.ReadString('\n')
		t.Errorf("without a key, a tunnel to the upstream: %q", line)
	} else if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", resp.StatusCode)
	}
}
