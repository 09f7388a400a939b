package apikeys

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestAStreamEndsWithItsStore: after a reload to another store, nobody could
// revoke the key of a stream that goes on.
func TestAStreamEndsWithItsStore(t *testing.T) {
	up := newEventUpstream(t)
	conf := strings.Replace(streaming, "{upstream}", up, 1)
	g := start(t, conf)
	mine := g.issue(keystore.Credential{})
	receive := openEvents(t, g, mine.Text)
	if err := receive(); err != nil {
		t.Fatal(err)
	}
	g.load(strings.Replace(conf, "{store}", "{dir}/other/keys.db", 1))
	ended := make(chan error, 1)
	go func() {
		for {
			if err := receive(); err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(4 * time.Second):
		t.Error("the stream goes on, though no store knows its key any more")
	}
}
