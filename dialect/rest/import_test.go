package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// importing sends lines where every caller is the operator.
func (g *gateway) importing(lines ...string) answer {
	g.Helper()
	return g.operator().do("POST", "/import", strings.Join(lines, "\n"), "Content-Type", NDJSON)
}

// imported wants the lines stored, and so many new things counted.
func (g *gateway) imported(want string, lines ...string) {
	g.Helper()
	if got := g.importing(lines...).want(200).body; got != want {
		g.Errorf("got %s, want %s", got, want)
	}
}

func counted(lines, accounts, credentials, keys int) string {
	return fmt.Sprintf(`{"lines":%d,"accounts":%d,"credentials":%d,"keys":%d}`, lines, accounts, credentials, keys)
}

func (g *gateway) works(text string) bool {
	g.Helper()
	_, v, err := g.keyring.Verify(g.Context(), text)
	if err != nil {
		g.Fatal(err)
	}
	return v == keystore.OK
}

func TestADigestIsTakenInEveryUsualForm(t *testing.T) {
	g := newGateway(t)
	// The digest of this text has what tells the alphabets of base64 apart.
	text, sum := "", [32]byte{}
	for i := 0; !strings.Contains(base64.StdEncoding.EncodeToString(sum[:]), "+") || !strings.Contains(base64.StdEncoding.EncodeToString(sum[:]), "/"); i++ {
		text = fmt.Sprint("in use elsewhere ", i)
		text = strings.ReplaceAll(text, " ", "-")
		sum = sha256.Sum256([]byte(text))
	}
	first := true
	for _, digest := range []string{hex.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:])),
		base64.StdEncoding.EncodeToString(sum[:]), base64.RawStdEncoding.EncodeToString(sum[:]),
		base64.URLEncoding.EncodeToString(sum[:]), base64.RawURLEncoding.EncodeToString(sum[:])} {
		want := counted(1, 0, 0, 0) // the same record again
		if first {
			want, first = counted(1, 1, 1, 1), false
		}
		g.imported(want, `{"grant":{"account_id":"acme","digest":"`+digest+`"}}`)
	}
	if !g.works(text) {
		t.Error("the key does not work")
	}
}

func TestRecordsAreImportedWithAllTheirMembers(t *testing.T) {
	g := newGateway(t)
	const credential, key = "019a0000-0000-7000-8000-000000000001", "0123456789ab"
	lines := []string{
		`{"account":{"id":"acme","number":41,"email":"Ops@acme.example","active":true,"roles":["vip"],"first_name":"Ada","last_name":null,"attributes":{"plan":"gold"},"created_at":"2020-01-02T03:04:05.678Z","updated_at":"2021-01-01T00:00:00Z"}}`,
		``,
		`{"credential":{"id":"` + credential + `","account_id":"acme","package":null,"roles":["api_keys:operator"],"active":false,"description":"old","allowed_ips":["192.0.2.7"],"metadata":{"a":"b"},"expires_at":"2099-01-01T00:00:00Z","created_at":"2020-02-02T00:00:00Z"}}`,
		` {"key":{"id":"` + key + `","credential_id":"` + credential + `","digest":"` + strings.Repeat("ab", 32) + `","digest_kind":"sha256","hint":"…wxyz","format":"other","sealed":"AAEC","mailed":true,"created_at":"2020-03-03T00:00:00Z","expires_at":"2030-01-01T00:00:00Z","revoked_at":"2024-01-01T00:00:00Z","revoked_reason":"leaked","superseded_by":"ba9876543210","superseded_at":"2023-01-01T00:00:00Z","stops_on_use_of":null,"first_used_at":"2021-01-01T00:00:00Z","last_used_at":"2022-01-01T00:00:00Z"}} `,
	}
	g.imported(counted(4, 1, 1, 1), lines...)
	g.imported(counted(4, 0, 0, 0), lines...)
	account := g.operator().do("GET", "/accounts/acme", "").want(200).body
	for _, want := range []string{`"number":41`, `"email":"Ops@acme.example"`, `"last_name":null`, `"created_at":"2020-01-02T03:04:05.678Z"`, `"updated_at":"2021-01-01T00:00:00.000Z"`} {
		if !strings.Contains(account, want) {
			t.Errorf("%s is not in %s", want, account)
		}
	}
	shown := g.operator().do("GET", "/credentials/"+credential, "").want(200).body
	for _, want := range []string{`"active":false`, `"allowed_ips":["192.0.2.7/32"]`, `"expires_at":"2099-01-01T00:00:00.000Z"`} {
		if !strings.Contains(shown, want) {
			t.Errorf("%s is not in %s", want, shown)
		}
	}
	k := g.operator().do("GET", "/keys/"+key, "").want(200).body
	for _, want := range []string{`"state":"revoked"`, `"format":"other"`, `"revoked_reason":"leaked"`, `"superseded_by":"ba9876543210"`, `"last_used_at":"2022-01-01T00:00:00.000Z"`} {
		if !strings.Contains(k, want) {
			t.Errorf("%s is not in %s", want, k)
		}
	}
}

func TestABadLineIsNamedAndThoseBeforeItStay(t *testing.T) {
	const secret = "sk-live-0123456789-secret"
	good := `{"grant":{"account_id":"good","secret":"works"}}`
	for name, c := range map[string]struct {
		line, code, member, says string
		status                   int
	}{
		"no JSON":              {`{"grant":{"secret":"` + secret + `"`, "malformed_body", "", `one JSON object`, 400},
		"no object":            {`"` + secret + `"`, "malformed_body", "", "one JSON object", 400},
		"two members":          {`{"account":{"id":"a"},"key":{}}`, "malformed_body", "", "one member", 400},
		"another member":       {`{"` + secret + `":{}}`, "malformed_body", "", "grant", 400},
		"no member":            {`{}`, "malformed_body", "", "grant", 400},
		"null":                 {`{"key":null}`, "invalid_member", "key", "must be an object", 400},
		"an unknown member":    {`{"grant":{"` + secret + `":"x"}}`, "invalid_member", "grant", "account_id", 400},
		"a member twice":       {`{"grant":{"secret":"` + secret + `","secret":"` + secret + `"}}`, "invalid_member", "grant", "more than once", 400},
		"a wrong type":         {`{"grant":{"roles":"` + secret + `"}}`, "invalid_member", "grant.roles", "array of strings", 400},
		"no account":           {`{"grant":{"secret":"` + secret + `"}}`, "invalid_member", "grant.account_id", "required", 422},
		"a digest that's none": {`{"grant":{"account_id":"a","digest":"` + secret + `"}}`, "invalid_member", "grant.digest", "32 bytes", 422},
		"a time that is none":  {`{"grant":{"account_id":"a","secret":"` + secret + `","expires_at":"soon"}}`, "invalid_member", "grant.expires_at", "RFC 3339", 422},
		"a secret of no key":   {`{"grant":{"account_id":"a","secret":"` + secret + ` "}}`, "invalid_member", "grant.secret", "visible ASCII", 422},
		"no owner":             {`{"key":{"credential_id":"019a0000-0000-7000-8000-0000000000ff","secret":"` + secret + `"}}`, "invalid_member", "key.credential_id", "line before", 422},
		"a conflict":           {`{"grant":{"account_id":"good","secret":"works","roles":["more"]}}`, "conflict", "grant.roles", "changes nothing that exists", 409},
		"a pepper":             {`{"key":{"credential_id":"019a0000-0000-7000-8000-0000000000ff","digest":"` + strings.Repeat("ab", 32) + `","digest_kind":"hmac-sha256"}}`, "invalid_member", "key.digest_kind", "pepper", 422},
		"a long line":          {`{"grant":{"secret":"` + strings.Repeat(secret, maxLine/len(secret)) + `"}}`, "body_too_large", "", "524288", 413},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t)
			a := g.importing(good, "", c.line, `{"grant":{"account_id":"behind","secret":"behind"}}`)
			a.wantProblem(c.status, c.code, c.member)
			detail := a.text("detail")
			if !strings.HasPrefix(detail, "line 3: ") || !strings.Contains(detail, c.says) || !strings.Contains(detail, "first 2 lines are imported") {
				t.Errorf("it says %s", detail)
			}
			if strings.Contains(a.body, "sk-live") || logsHold(g, "sk-live") {
				t.Errorf("the key is repeated: %s", a.body)
			}
			if !g.works("works") || g.works("behind") {
				t.Errorf("the line before: %t, that behind: %t", g.works("works"), g.works("behind"))
			}
		})
	}
}

func logsHold(g *gateway, text string) bool {
	for _, entry := range g.logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), text) {
			return true
		}
	}
	return false
}

func TestAnImportHasNoLimitButThatOfALine(t *testing.T) {
	g := newGateway(t)
	const n = 3*importBatch + 7
	var lines bytes.Buffer
	for i := range n {
		fmt.Fprintf(&lines, `{"grant":{"account_id":"a%d","secret":"key-%d","description":"%s"}}`+"\r\n", i%100, i, strings.Repeat("x", 200))
	}
	g.imported(counted(n, 100, n, n), lines.String())
	if !g.works("key-0") || !g.works(fmt.Sprint("key-", n-1)) {
		t.Error("a key does not work")
	}
	g.imported(counted(n, 0, 0, 0), lines.String())
}

// TestAnEarlyRefusalReachesTheClient: it is answered long before the client has
// sent everything.
func TestAnEarlyRefusalReachesTheClient(t *testing.T) {
	g := newGateway(t)
	endless := io.MultiReader(strings.NewReader("no line\n"), &repeated{text: []byte(`{"grant":{"account_id":"a","secret":"b"}}` + "\n")})
	req, err := http.NewRequestWithContext(t.Context(), "POST", g.admin.URL+base+"/import", endless)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", NDJSON)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 400 || !strings.Contains(string(body), "line 1: ") {
		t.Errorf("%d, %s, %v", resp.StatusCode, body, err)
	}
}

// TestAnEarlyRefusalReachesAClientThatWaits: a client that has sent a bad line and
// then nothing is not waited for.
func TestAnEarlyRefusalReachesAClientThatWaits(t *testing.T) {
	g := newGateway(t)
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = io.WriteString(w, "no line\n") }()
	req, err := http.NewRequestWithContext(t.Context(), "POST", g.admin.URL+base+"/import", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", NDJSON)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 400 || !strings.Contains(string(body), "line 1: ") {
		t.Errorf("%d, %s, %v", resp.StatusCode, body, err)
	}
}

// repeated has no end.
type repeated struct {
	text []byte
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		m := copy(p[n:], r.text[r.at:])
		n, r.at = n+m, (r.at+m)%len(r.text)
	}
	return n, nil
}

// TestABodyThatBreaksOffIsNotTakenForItsEnd: what was whole of it stays, and the
// line that was not is none.
func TestABodyThatBreaksOffIsNotTakenForItsEnd(t *testing.T) {
	g := newGateway(t)
	sent := `{"grant":{"account_id":"a","secret":"whole"}}` + "\n" + `{"grant":{"account_id":"a","secret":"half"}}`
	r := &lineReader{keyring: g.keyring, lines: newLines(io.MultiReader(strings.NewReader(sent), iotest.ErrReader(io.ErrUnexpectedEOF)))}
	b := r.next()
	if len(b.records) != 1 || b.err == nil || b.err == io.EOF {
		t.Errorf("%d records, %v", len(b.records), b.err)
	}
	// The control: the same, whole.
	r = &lineReader{keyring: g.keyring, lines: newLines(strings.NewReader(sent))}
	if b := r.next(); len(b.records) != 2 || b.err != io.EOF {
		t.Errorf("%d records, %v", len(b.records), b.err)
	}
}

func TestOnlyTheOperatorOfTheMachineImports(t *testing.T) {
	g := newGateway(t)
	held := g.newKey(g.newAccount(`{}`), "api_keys:operator")
	if a := g.holder(held.secret).do("POST", "/import", "{}", "Content-Type", NDJSON); a.status != passedOn {
		t.Errorf("a site answers %d", a.status)
	}
	g.operator().do("POST", "/import", "{}").wantProblem(415, "unsupported_media_type", "")
	g.operator().do("POST", "/import", "{}", "Content-Type", "").wantProblem(415, "unsupported_media_type", "")
	g.imported(counted(0, 0, 0, 0))
}

// FuzzImportLine: a line is a record or an error, never a panic, and the error does
// not repeat what may be a key.
func FuzzImportLine(f *testing.F) {
	for _, line := range []string{`{"grant":{"account_id":"a","secret":"b"}}`, `{"key":{"digest":"00"}}`, `{"account":{"id":"a"}}`,
		`{"credential":{"id":"019a0000-0000-7000-8000-000000000001","account_id":"a"}}`, `{"pepper":{"fingerprint":""}}`, `{"export":{"version":1}}`, `{"end":{"keys":0}}`, `{"grant":{"secret":"key_0123456789ab_"}}`} {
		f.Add(line)
	}
	store, err := sqlstore.OpenSQLite(f.Context(), filepath.Join(f.TempDir(), "keys", "keys.db"))
	if err != nil {
		f.Fatal(err)
	}
	vault, err := keystore.OpenVault(f.Context(), store, keystore.MinCacheSize, func(string, error) {})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = vault.Close() })
	keyring, err := keystore.NewKeyring(f.Context(), vault, keystore.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r := &lineReader{keyring: keyring}
		kind, record, err := r.record([]byte(line))
		if err == nil && record == nil && !slices.Contains([]string{"pepper", "export", "end"}, kind) {
			t.Errorf("%q is %s, and neither a record nor an error", line, kind)
		}
	})
}
