package adyen_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const (
	otherRequest = "This Idempotency-Key was used for another request; use a new one."
	inProgress   = "A request with this Idempotency-Key is being processed; try again later."
)

// wantAgain checks that an answer is the first one, byte for byte.
func (g gateway) wantAgain(again, first livetest.Answer, idempotencyKey string) {
	g.T.Helper()
	if again.StatusCode != first.StatusCode || again.Text != first.Text {
		g.T.Errorf("answered %d %s, at first %d %s", again.StatusCode, again.Text, first.StatusCode, first.Text)
	}
	for _, a := range []livetest.Answer{first, again} {
		wantHeaders(g.T, a, "Idempotency-Key", idempotencyKey, "Content-Type", "application/json; charset=utf-8", "Cache-Control", "no-store")
	}
}

func TestARequestThatIsSentAgainGetsTheSameAnswer(t *testing.T) {
	g := start(t, "", "")
	for _, idempotencyKey := range []string{"x", "!~", "a b", strings.Repeat("x", 64), "6b5c4f0e-9d35-4b6e-9a43-0f7f4f9d3c11"} {
		own := g.holder("", role)
		first := g.generate(1, me, own.key, "Idempotency-Key", idempotencyKey)
		key := g.wantKey(first)
		for _, version := range versions {
			g.wantAgain(g.generate(version, me, own.key, "idempotency-key", idempotencyKey), first, idempotencyKey)
		}
		if err := g.Reload("", block("", "")); err != nil {
			t.Fatal(err)
		}
		g.wantAgain(g.generate(1, me, own.key, "Idempotency-Key", idempotencyKey), first, idempotencyKey)

		// The store is closed, and opened again.
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := g.Reload("", block("", "")); err != nil {
			t.Fatal(err)
		}
		g.wantAgain(g.generate(2, me, own.key, "Idempotency-Key", idempotencyKey), first, idempotencyKey)
		g.wantKeys(own.credential, 2)

		if g.wantKey(g.generate(1, me, key, "Idempotency-Key", idempotencyKey)) == key {
			t.Error("another presented key, of the same credential, gets the same answer")
		}
		if g.wantKey(g.generate(1, me, own.key, "Idempotency-Key", idempotencyKey[1:]+"y")) == key {
			t.Error("another Idempotency-Key gets the same answer")
		}
		if g.wantKey(g.generate(1, me, own.key)) == key {
			t.Error("a request without an Idempotency-Key gets the same answer")
		}
		g.wantKeys(own.credential, 5)
	}
}

func TestAnIdempotencyKeyIsOfOneRequest(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	other := g.holder(own.account)
	target := company(own.account, other.credential)
	first := g.generate(1, target, own.key, "Idempotency-Key", "once")
	g.wantKey(first)
	for _, version := range versions {
		for name, a := range map[string]livetest.Answer{
			"another path": g.generate(version, me, own.key, "Idempotency-Key", "once"),
			"another form": g.generate(version, merchant(own.account, other.credential), own.key, "Idempotency-Key", "once"),
			"another body": g.Do(version, "POST", target, "{}", "X-API-Key", own.key, "Idempotency-Key", "once"),
		} {
			t.Run(name, func(t *testing.T) {
				g := g
				g.T = t
				g.wantError(a, 422, otherRequest, [3]string{"Idempotency-Key", "", otherRequest})
			})
		}
	}
	g.wantAgain(g.generate(2, target, own.key, "Idempotency-Key", "once"), first, "once")
	g.wantAgain(g.generate(1, target+"?a", own.key, "Idempotency-Key", "once"), first, "once")
	g.wantKeys(own.credential, 1)
	g.wantKeys(other.credential, 2)
}

// TestTheCallerIsJudgedBeforeAnAnswerIsGivenAgain takes away, one after the
// other, each thing that the caller needs.
func TestTheCallerIsJudgedBeforeAnAnswerIsGivenAgain(t *testing.T) {
	keep := func(*testing.T, gateway, holder, holder) {}
	edit := func(of func(own, other holder) string, change func(*keystore.Credential)) func(*testing.T, gateway, holder, holder) {
		return func(_ *testing.T, g gateway, own, other holder) { g.update(of(own, other), change) }
	}
	callers := func(own, _ holder) string { return own.credential }
	targets := func(_, other holder) string { return other.credential }
	for _, c := range []struct {
		name   string
		change func(*testing.T, gateway, holder, holder)
		status int
		detail string
	}{
		{"nothing", keep, 200, ""},
		{"the caller's role", edit(callers, func(c *keystore.Credential) { c.Roles = nil }), 403, lacksRole},
		{"the caller's activity", edit(callers, func(c *keystore.Credential) { c.Active = false }), 403, deactivated},
		{"the caller's key", func(_ *testing.T, g gateway, own, _ holder) { g.revoke(own.keyID) }, 401, "The API key has been revoked."},
		{"a role that the caller holds", edit(targets, func(c *keystore.Credential) { c.Roles = []string{"more"} }), 403, notYours},
		{"the credential", func(t *testing.T, g gateway, _, other holder) {
			if err := g.Keyring().DeleteCredential(context.Background(), other.credential); err != nil {
				t.Fatal(err)
			}
		}, 403, notYours},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, "", "")
			own := g.holder("", role)
			other := g.holder(own.account)
			target := company(own.account, other.credential)
			first := g.generate(1, target, own.key, "Idempotency-Key", "once")
			g.wantKey(first)
			c.change(t, g, own, other)
			for _, version := range versions {
				again := g.generate(version, target, own.key, "Idempotency-Key", "once")
				if c.status == 200 {
					g.wantAgain(again, first, "once")
					continue
				}
				g.wantError(again, c.status, c.detail)
			}
		})
	}
}

// TestManyAtOnceMakeOneKey sends the same request many times at once.
func TestManyAtOnceMakeOneKey(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	for round, idempotencyKey := range []string{"a", "b", "c"} {
		var sent sync.WaitGroup
		answers := make([]livetest.Answer, 24)
		for i := range answers {
			sent.Go(func() { answers[i] = g.generate(1+i%2, me, own.key, "Idempotency-Key", idempotencyKey) })
		}
		sent.Wait()
		last := g.generate(1, me, own.key, "Idempotency-Key", idempotencyKey)
		g.wantKey(last)
		for _, a := range answers {
			if a.StatusCode == 409 {
				g.wantError(a, 409, inProgress)
				continue
			}
			g.wantAgain(a, last, idempotencyKey)
		}
		g.wantKeys(own.credential, 2+round)
	}
}

func TestARequestThatIsBeingAnsweredIsAConflict(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	running, err := g.Keyring().Once(t.Context(), own.key, "once", keystore.Digest(sha256.Sum256(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		g.wantError(g.generate(version, me, own.key, "Idempotency-Key", "once"), 409, inProgress)
		g.wantKey(g.generate(version, me, own.key, "Idempotency-Key", "other"))
	}
	running.End()
	g.wantKey(g.generate(1, me, own.key, "Idempotency-Key", "once"))
	g.wantKeys(own.credential, 3)
}

func TestARefusalIsNotRecorded(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	other := g.holder(own.account, "more")
	target := company(own.account, other.credential)
	g.wantError(g.generate(1, target, own.key, "Idempotency-Key", "once"), 403, notYours)
	g.update(other.credential, func(c *keystore.Credential) { c.Roles = nil })
	g.wantKey(g.generate(1, target, own.key, "Idempotency-Key", "once"))
}

// TestTheStoreAloneOpensNothing looks for the key and the Idempotency-Key in all
// files of the store, while it is open and after it was closed.
func TestTheStoreAloneOpensNothing(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	const idempotencyKey = "a-very-distinctive-idempotency-key"
	key := g.wantKey(g.generate(1, me, own.key, "Idempotency-Key", idempotencyKey))
	check := func() {
		t.Helper()
		stored := storedIn(t, filepath.Dir(g.StorePath()))
		if !bytes.Contains(stored, []byte(own.credential)) {
			t.Fatal("the store does not have the credential, so that looking for more proves nothing")
		}
		for _, secret := range []string{key, own.key, idempotencyKey, `{"apiKey"`} {
			if bytes.Contains(stored, []byte(secret)) {
				t.Errorf("%d characters beginning with %q are in the store", len(secret), secret[:4])
			}
		}
	}
	check()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	check()
}

func storedIn(t *testing.T, dir string) (all []byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all = append(all, content...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestABodyThatIsSlowIsNoWayAround revokes a key while its holder sends the body
// of a request that was answered before. The server asks for the body when the
// caller is known.
func TestABodyThatIsSlowIsNoWayAround(t *testing.T) {
	g := start(t, "", "")
	own := g.holder("", role)
	g.wantKey(g.Do(1, "POST", me, "{}", "X-API-Key", own.key, dialect.IdempotencyHeader, "once"))

	conn, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "POST "+me+" HTTP/1.1\r\nHost: "+g.Addr+"\r\nX-API-Key: "+own.key+
		"\r\nIdempotency-Key: once\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	answer := bufio.NewReader(conn)
	if line, err := answer.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("the server says %q (%v)", line, err)
	}
	g.revoke(own.keyID)
	if _, err := io.WriteString(conn, "{}"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(answer)
	if err != nil || !bytes.Contains(rest, []byte("HTTP/1.1 401 ")) || !bytes.Contains(rest, []byte("The API key has been revoked.")) {
		t.Errorf("answered %s (%v)", rest, err)
	}
}
