package apikeys

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestACommandSaysByWhenAChangeHoldsOnEveryNode lets a server answer as the API does
// while a node of the cluster is cut off.
func TestACommandSaysByWhenAChangeHoldsOnEveryNode(t *testing.T) {
	const (
		by    = "2030-01-31T12:00:02.345Z"
		holds = "holds on every node by " + by + "\n"
	)
	for _, rule := range []struct {
		name   string
		args   []string
		answer string
		stdout string
		stderr string
	}{
		{"a revocation", []string{"revoke", "5bR2kW0xq9Za"}, `{"effective_by":"` + by + `","key":{}}`, "", "key 5bR2kW0xq9Za is revoked\n"},
		{"a rotation", []string{"rotate", "c1"}, `{"effective_by":"` + by + `","key":{"id":"k1","secret":"new"},"previous":[]}`, "new\n", "credential c1, key k1\n"},
		{"a deactivation", []string{"account", "update", "acme", "--active=false"}, `{"effective_by":"` + by + `","id":"acme"}`, "acme", ""},
		{"a deletion", []string{"account", "delete", "acme"}, `{"effective_by":"` + by + `"}`, "", "the account is deleted"},
	} {
		t.Run(rule.name, func(t *testing.T) {
			status := http.StatusAccepted
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, rule.answer)
			}))
			defer server.Close()
			address := server.Listener.Addr().String()
			r := cli(t, address, "", rule.args...).ok()
			if !strings.Contains(r.stdout, rule.stdout) || !strings.Contains(r.stderr, rule.stderr) || !strings.HasSuffix(r.stderr, holds) {
				t.Errorf("got %q and %q", r.stdout, r.stderr)
			}
			r = cli(t, address, "", append(rule.args, "--json")...).ok()
			if r.stdout != rule.answer+"\n" || !strings.HasSuffix(r.stderr, holds) {
				t.Errorf("with --json: %q and %q", r.stdout, r.stderr)
			}
			status = http.StatusOK
			if r := cli(t, address, "", rule.args...).ok(); strings.Contains(r.stderr, by) {
				t.Errorf("of a change that holds: %q", r.stderr)
			}
		})
	}
}
