package rest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// slowly sends a request whose body comes late. Meanwhile is run when the server
// reads the body.
func (c client) slowly(method, path, body string, meanwhile func(), headers ...string) (status int, text string) {
	c.Helper()
	host := strings.TrimPrefix(c.url, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\nConnection: close\r\n", method, base+path, host, c.key, len(body))
	for i := 0; i < len(headers); i += 2 {
		head += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	answers := bufio.NewReader(conn)
	if _, err := io.WriteString(conn, head+"\r\n"+body[:1]); err != nil {
		c.Fatal(err)
	}
	for line := ""; line != "\r\n"; {
		if line, err = answers.ReadString('\n'); err != nil || line != "\r\n" && !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			c.Fatalf("%q: %v", line, err)
		}
	}
	meanwhile()
	if _, err := io.WriteString(conn, body[1:]); err != nil {
		c.Fatal(err)
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

// A client can take as long as it likes to send a body.
func TestTheCallerIsJudgedAgainOnceTheBodyIsThere(t *testing.T) {
	const self, operator = keystore.RoleSelf, keystore.RoleOperator
	for _, c := range []struct {
		name         string
		roles        []string
		method, path string
		body         string
		change       string // of the caller's credential
		status       int
		code         string
	}{
		{"an operator is none any more: an account", []string{operator}, "POST", "/accounts", `{"company":"A"}`, `{"roles":["api_keys:self"]}`, 403, "forbidden"},
		{"an operator is none any more: a change", []string{operator}, "PATCH", "/credentials/{other}", `{"roles":[]}`, `{"roles":["api_keys:self"]}`, 403, "forbidden"},
		{"an operator is none any more: another's key", []string{operator}, "POST", "/keys/{otherKey}/revoke", `{"reason":"x"}`, `{"roles":["api_keys:self"]}`, 404, "not_found"},
		{"an operator is none any more: another's credential", []string{operator, self}, "POST", "/credentials/{other}/rotate", `{"overlap":"1h"}`, `{"roles":["api_keys:self"]}`, 404, "not_found"},
		{"a role is taken away", []string{self, "read"}, "POST", "/credentials/{sibling}/rotate", `{"overlap":"1h"}`, `{"roles":["api_keys:self"]}`, 403, "forbidden"},
		{"the role for the API is taken away", []string{self}, "POST", "/self/rotate", `{"overlap":"1h"}`, `{"roles":[]}`, 403, "missing_role"},
		{"the address is not allowed any more", []string{self}, "POST", "/self/rotate", `{"overlap":"1h"}`, `{"allowed_ips":["192.0.2.1"]}`, 403, "ip_not_allowed"},
		{"it is deactivated", []string{self}, "POST", "/self/rotate", `{"overlap":"1h"}`, `{"active":false}`, 403, "inactive"},
		{"a role is given", []string{self}, "POST", "/credentials/{sibling}/rotate", `{"overlap":"1h"}`, `{"roles":["api_keys:self","read"]}`, 200, ""},
		{"a role is given, for itself", []string{self}, "POST", "/self/rotate", `{"overlap":"1h"}`, `{"roles":["api_keys:self","read"]}`, 200, ""},
	} {
		for name, headers := range map[string][]string{c.name: nil, c.name + ", with an Idempotency-Key": {"Idempotency-Key", "once"}} {
			t.Run(name, func(t *testing.T) {
				g := newGateway(t)
				own := g.newKey(g.newAccount(""), c.roles...)
				sibling, other := g.newKey(own.account, "read"), g.newKey(g.newAccount(""))
				path := strings.NewReplacer("{sibling}", sibling.credential, "{otherKey}", other.key, "{other}", other.credential).Replace(c.path)
				var before string
				status, body := g.holder(own.secret).slowly(c.method, path, c.body, func() {
					g.operator().do("PATCH", "/credentials/"+own.credential, c.change).want(200)
					before = g.everything(own, sibling, other)
				}, headers...)
				if status != c.status || !strings.Contains(body, c.code) {
					t.Errorf("answered %d %s", status, body)
				}
				if after := g.everything(own, sibling, other); c.status != 200 && after != before {
					t.Errorf("something changed:\n%s\n%s", before, after)
				}
			})
		}
	}
}
