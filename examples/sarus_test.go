package examples_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/mailbox"
)

// TestSarus runs the example before a mail server of its own.
func TestSarus(t *testing.T) {
	mails, err := mailbox.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mails.Close() })
	t.Setenv("SMTP", mails.Addr)
	e := start(t, "sarus")
	e.runComments()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := mails.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.To, []string{"myemail@mydomain.com"}) || len(m.Keys()) != 1 {
		t.Fatalf("the mail to %s holds %d keys", m.To, len(m.Keys()))
	}
	mailed := m.Keys()[0]
	e.secrets = append(e.secrets, mailed)

	old := e.variables["OLD"]
	e.send("GET", "/orders", "X-API-Key", old).wants(t, 200)
	e.send("GET", "/orders", "X-API-Key", mailed).wants(t, 200)
	for key, detail := range map[string]string{old: "has expired", "": "No API key was presented"} {
		a := e.send("GET", "/orders", "X-API-Key", key)
		a.wants(t, 401)
		if !strings.Contains(string(a.body), `"Errors":{"Status":401,"Detail":"`) || !strings.Contains(string(a.body), detail) {
			t.Errorf("%s", a.body)
		}
	}
	if more := mails.Taken(); len(more) != 0 {
		t.Errorf("%d more mails were sent", len(more))
	}
	e.checkLog()
}
