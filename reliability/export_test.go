//go:build reliability

package reliability

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
)

// TestASlowExportOutlastsTheTimeLimitOfTheAdminEndpoint: Caddy gives a request to its
// admin endpoint ten seconds to be read, and a large export takes longer. What is
// stored meanwhile is not in it.
func TestASlowExportOutlastsTheTimeLimitOfTheAdminEndpoint(t *testing.T) {
	g := livetest.Start(t, "", "")
	keys := size(10_000, 1_000_000)
	resp, err := http.Post("http://"+g.Admin+"/api_keys/import", "application/x-ndjson", grantLines(keys))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	// What the server has sent and nobody has read is less than the export.
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return c, err
	}}}
	defer client.CloseIdleConnections()
	resp, err = client.Get("http://" + g.Admin + "/api_keys/export")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(11 * time.Second) // the time limit itself is what is waited for
	late, err := http.Post("http://"+g.Admin+"/api_keys/import", "application/x-ndjson", strings.NewReader(`{"grant":{"account_id":"late","secret":"late"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if late.Body.Close(); late.StatusCode != http.StatusOK {
		t.Fatal(late.Status)
	}
	content, err := io.ReadAll(resp.Body)
	end := fmt.Sprintf(`{"end":{"accounts":%d,"credentials":%d,"keys":%d,"waiting_mails":0}}`+"\n", keys/10, keys, keys)
	if err != nil || !bytes.HasSuffix(content, []byte(end)) || bytes.Contains(content, []byte(`"late"`)) {
		t.Errorf("%d bytes, which end with %.200q: %v", len(content), content[max(0, len(content)-200):], err)
	}
}

// grantLines are keys with much to say of each, ten to an account.
func grantLines(keys int) io.Reader {
	r, w := io.Pipe()
	go func() {
		for i := range keys {
			_, err := fmt.Fprintf(w, `{"grant":{"account_id":"customer-%d","secret":"in-use-%d","metadata":{"about":"%s"}}}`+"\n",
				i/10, i, strings.Repeat("x", 1000))
			if err != nil {
				break
			}
		}
		w.Close()
	}()
	return r
}
