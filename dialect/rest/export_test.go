package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// exported is what the operator gets, line by line.
func (g *gateway) exported() []string {
	g.Helper()
	a := g.operator().do("GET", "/export", "").want(200)
	if a.header.Get("Content-Type") != NDJSON || !strings.HasSuffix(a.header.Get("Content-Disposition"), `.ndjson"`) {
		g.Errorf("headers are %v", a.header)
	}
	return strings.SplitAfter(strings.TrimSuffix(a.body, "\n"), "\n")
}

// house is a store with everything that one can have.
type house struct {
	*gateway
	// texts and verdicts are those of its keys, by what they are.
	texts    map[string]string
	verdicts map[string]keystore.Verdict
}

func newHouse(g *gateway) *house {
	t, h := g.T, &house{g, map[string]string{}, map[string]keystore.Verdict{}}
	h.newAccount(`{"id":"acme","email":"Ops@acme.example","roles":["vip"],"first_name":"Ada","last_name":"Lovelace","company":"\"Engines\" & <Sons>",
		"phone":"+33","address":"1, rue de l'Été","siren":"732829320","attributes":{"plan":"gold","日本":"語\u2028"}}`)
	h.newAccount(`{"id":"closed","email":"left@acme.example"}`)
	active := h.issue("active", "acme", keystore.OK)
	if _, v, err := h.keyring.Accept(t.Context(), h.texts["active"], keystore.Request{Requirement: &keystore.Requirement{}}); v != keystore.OK {
		t.Fatal(v, err)
	}
	h.rotate(h.issue("retiring", "acme", keystore.OK), "successor", keystore.Overlap{For: time.Hour})
	h.rotate(h.issue("stopped by the first use of another", "acme", keystore.ExpiredKey), "in use", keystore.Overlap{UntilFirstUse: true})
	if _, v, err := h.keyring.Accept(t.Context(), h.texts["in use"], keystore.Request{Requirement: &keystore.Requirement{}}); v != keystore.OK {
		t.Fatal(v, err)
	}
	h.rotate(h.issue("until the first use of another", "acme", keystore.OK), "unused", keystore.Overlap{UntilFirstUse: true})
	h.rotate(h.issue("revoked by a rotation", "acme", keystore.RevokedKey), "its successor", keystore.Overlap{})
	h.do("POST", "/keys/"+h.issue("revoked", "acme", keystore.RevokedKey).Key.ID+"/revoke", `{"reason":"found on the web"}`)
	h.do("PATCH", "/credentials/"+h.issue("inactive", "acme", keystore.Inactive).Credential.ID,
		`{"active":false,"allowed_ips":["192.0.2.7","2001:db8::/32"],"expires_at":"2099-01-01T00:00:00Z"}`)
	buried := h.issue("of a deleted credential", "acme", keystore.RevokedKey).Credential.ID
	h.issue("of a deleted account", "closed", keystore.RevokedKey)
	h.brought("pending", keystore.PendingKey, `{"credential_id":"%s","secret":"%s","activates_at":"2099-01-01T00:00:00Z","mailed":true}`, active.Credential.ID)
	h.brought("expired", keystore.ExpiredKey, `{"credential_id":"%s","secret":"%s","expires_at":"2020-01-01T00:00:00.001Z","last_used_at":"2019-12-31T00:00:00Z"}`, active.Credential.ID)
	h.brought("expired, of a deleted credential", keystore.ExpiredKey, `{"credential_id":"%s","secret":"%s","expires_at":"2020-01-01T00:00:00Z"}`, buried)
	h.do("DELETE", "/credentials/"+buried, "")
	h.do("DELETE", "/accounts/closed", "")
	return h
}

func (h *house) do(method, path, body string) {
	h.Helper()
	if a := h.operator().do(method, path, body); a.status >= 300 {
		h.Fatal(a.status, a.body)
	}
}

func (h *house) issue(kind, account string, v keystore.Verdict) *keystore.Issued {
	h.Helper()
	issued, err := h.keyring.Issue(h.Context(), keystore.Operator(), keystore.Credential{AccountID: account, Package: "Gone",
		Roles: []string{"read", keystore.RoleSelf}, Description: kind, Metadata: map[string]string{"a": "b", "c": "d"}})
	if err != nil {
		h.Fatal(err)
	}
	h.texts[kind], h.verdicts[kind] = issued.Text, v
	return issued
}

func (h *house) rotate(old *keystore.Issued, kind string, overlap keystore.Overlap) {
	h.Helper()
	issued, err := h.keyring.Rotate(h.Context(), keystore.Operator(), keystore.Rotation{CredentialID: old.Credential.ID, Overlap: overlap})
	if err != nil {
		h.Fatal(err)
	}
	h.texts[kind], h.verdicts[kind] = issued.Text, keystore.OK
}

// brought imports a key of another shape.
func (h *house) brought(kind string, v keystore.Verdict, line, credential string) {
	h.Helper()
	h.texts[kind], h.verdicts[kind] = "in-use-elsewhere-"+strings.ReplaceAll(kind, " ", "-"), v
	h.imported(counted(1, 0, 0, 1), `{"key":`+fmt.Sprintf(line, credential, h.texts[kind])+`}`)
}

// wantsVerdicts wants that every key is worth in g what it is worth in the house.
func (h *house) wantsVerdicts(g *gateway) {
	h.Helper()
	for kind, text := range h.texts {
		if _, v, err := g.keyring.Verify(h.Context(), text); v != h.verdicts[kind] {
			h.Errorf("the key that is %s answers %v, want %v: %v", kind, v, h.verdicts[kind], err)
		}
	}
}

// records is what a store holds.
type records struct {
	pepper      []byte
	accounts    []keystore.Account
	credentials []keystore.Credential
	keys        []keystore.Key
}

func (r *records) Begin(pepper []byte) error         { r.pepper = pepper; return nil }
func (r *records) Account(a *keystore.Account) error { r.accounts = append(r.accounts, *a); return nil }
func (r *records) Credential(c *keystore.Credential) error {
	same := *c
	same.Seq = 0 // the store assigns it
	r.credentials = append(r.credentials, same)
	return nil
}
func (r *records) Key(k *keystore.Key) error {
	same := *k
	same.Seq = 0
	r.keys = append(r.keys, same)
	return nil
}
func (r *records) End(int) error { return nil }

func recordsOf(t *testing.T, kr *keystore.Keyring) *records {
	t.Helper()
	r := new(records)
	if err := kr.Export(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnExportMakesTheSameStoreOfAnEmptyOne(t *testing.T) {
	gone := []keystore.Package{{Name: "Gone"}}
	pepper, master := []byte(strings.Repeat("p", 32)), bytes.Repeat([]byte{1}, keystore.MasterKeySize)
	plain := keystore.Config{Packages: gone}
	peppered := keystore.Config{Packages: gone, Pepper: pepper}
	recoverable := keystore.Config{Packages: gone, MasterKey: master}
	type open func(*testing.T, keystore.Config) *gateway
	for name, c := range map[string]struct {
		of   open
		from keystore.Config
		into open
		to   keystore.Config
	}{
		"as it is":                              {newGatewayOf, plain, newGatewayOf, plain},
		"under a pepper":                        {newGatewayOf, peppered, newGatewayOf, peppered},
		"recoverable":                           {newGatewayOf, recoverable, newGatewayOf, recoverable},
		"of a package that is not declared now": {newGatewayOf, plain, newGatewayOf, keystore.Config{Packages: []keystore.Package{{Name: "New"}}}},
		"from SQLite to PostgreSQL":             {newGatewayOf, recoverable, newSharedGateway, recoverable},
		"from PostgreSQL to SQLite":             {newSharedGateway, peppered, newGatewayOf, peppered},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newHouse(c.of(t, c.from)), c.into(t, c.to)
			from.wantsVerdicts(from.gateway) // the control
			lines := from.exported()
			to.imported(counted(len(lines), 2, 9, 16), strings.Join(lines, ""))
			if again := to.exported(); strings.Join(again, "") != strings.Join(lines, "") {
				t.Errorf("exported again, it is\n%s\nand was\n%s", strings.Join(again, ""), strings.Join(lines, ""))
			}
			if was, is := recordsOf(t, from.keyring), recordsOf(t, to.keyring); !reflect.DeepEqual(is, was) {
				t.Errorf("the records are\n%+v\nand were\n%+v", is, was)
			}
			from.wantsVerdicts(to)
			to.imported(counted(len(lines), 0, 0, 0), strings.Join(lines, ""))
			revealed(t, to.keyring, from.texts["active"], c.to.MasterKey != nil)
			for kind, text := range from.texts {
				if strings.Contains(strings.Join(lines, ""), text) {
					t.Errorf("it holds the text of the key that is %s", kind)
				}
			}
			goesOn(t, to)
		})
	}
}

// revealed wants that a text can, or can't, be shown again.
func revealed(t *testing.T, kr *keystore.Keyring, text string, want bool) {
	t.Helper()
	g, _, err := kr.Verify(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	k, _, err := kr.Key(t.Context(), g.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kr.Reveal(k.Key); (err == nil && got == text) != want {
		t.Errorf("revealed: %v, want %t", err, want)
	}
}

// goesOn wants that numbers and ids are not given again.
func goesOn(t *testing.T, g *gateway) {
	t.Helper()
	if a := g.operator().do("POST", "/accounts", `{}`).want(201); a.get("number") != float64(3) {
		t.Errorf("the next account has number %v", a.get("number"))
	}
	g.operator().do("POST", "/accounts", `{"id":"closed"}`).wantProblem(409, "conflict", "id")
}

func TestAnExportSaysHowManyMailsStayBehind(t *testing.T) {
	g := newGateway(t)
	g.newAccount(`{"email":"ops@acme.example"}`)
	if _, err := g.keyring.RequestMail(t.Context(), keystore.MailRequest{Address: "ops@acme.example", Every: time.Minute}); err != nil {
		t.Fatal(err)
	}
	lines := g.exported()
	if end := lines[len(lines)-1]; end != `{"end":{"accounts":1,"credentials":0,"keys":0,"waiting_mails":1}}` {
		t.Errorf("it ends with %s", end)
	}
	newGateway(t).imported(counted(len(lines), 1, 0, 0), strings.Join(lines, ""))
}

func TestAnExportThatIsNotWholeIsRefused(t *testing.T) {
	lines := newHouse(newGatewayOf(t, keystore.Config{Packages: []keystore.Package{{Name: "Gone"}}})).exported()
	in := func(t *testing.T) *gateway { return newGateway(t, keystore.Package{Name: "Gone"}) }
	for n := 1; n < len(lines); n += 5 {
		a := in(t).importing(strings.Join(lines[:n], ""))
		a.wantProblem(400, "malformed_body", "")
		if want := fmt.Sprintf("line %d: the export before this is cut off", n+1); !strings.HasPrefix(a.text("detail"), want) {
			t.Errorf("of %d lines it says %s", n, a.text("detail"))
		}
	}
	last := len(lines) - 1
	for name, c := range map[string]struct {
		lines        []string
		status       int
		code, member string
	}{
		"a key is missing":            {append(lines[:last-1:last-1], lines[last]), 422, "invalid_member", "end.keys"},
		"a line is half there":        {append(lines[:last-1:last-1], lines[last-1][:40]), 400, "malformed_body", ""},
		"another begins":              {append(lines[:last:last], lines...), 400, "malformed_body", "export"},
		"it has no beginning":         {lines[last:], 400, "malformed_body", "end"},
		"it is of a program to come":  {[]string{`{"export":{"version":2}}`}, 422, "invalid_member", "export.version"},
		"it is of no version":         {[]string{`{"export":{}}`}, 422, "invalid_member", "export.version"},
		"it has what nobody knows":    {[]string{`{"export":{"version":1,"more":1}}`}, 400, "invalid_member", "export"},
		"its end counts what is none": {[]string{`{"export":{"version":1}}`, `{"end":{"accounts":1}}`}, 422, "invalid_member", "end.accounts"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t).importing(c.lines...).wantProblem(c.status, c.code, c.member)
		})
	}
	// The control: two whole ones, with a line of another kind behind.
	in(t).imported(counted(2*len(lines)+1, 3, 10, 17), strings.Join(lines, ""), strings.Join(lines, ""), `{"grant":{"account_id":"new","package":"Gone","secret":"s"}}`)
}

func TestAnExportUnderAPepperIsRefusedWithoutItBeforeAnythingIsStored(t *testing.T) {
	lines := newHouse(newGatewayOf(t, keystore.Config{Packages: []keystore.Package{{Name: "Gone"}}, Pepper: []byte(strings.Repeat("p", 32))})).exported()
	for _, pepper := range []string{"", strings.Repeat("q", 32)} {
		g := newGatewayOf(t, keystore.Config{Packages: []keystore.Package{{Name: "Gone"}}, Pepper: []byte(pepper)})
		a := g.importing(strings.Join(lines, "")).wantProblem(422, "invalid_member", "pepper.fingerprint")
		if !strings.HasPrefix(a.text("detail"), "line 2: ") {
			t.Errorf("it says %s", a.text("detail"))
		}
		if there := recordsOf(t, g.keyring); there.accounts != nil {
			t.Errorf("stored: %+v", there)
		}
	}
}

// changing changes the store when it is handed its first account, and again with its
// first credential.
type changing struct {
	records
	change func()
}

func (c *changing) Account(a *keystore.Account) error {
	if len(c.accounts) == 0 {
		c.change()
	}
	return c.records.Account(a)
}

func (c *changing) Credential(cr *keystore.Credential) error {
	if len(c.credentials) == 0 {
		c.change()
	}
	return c.records.Credential(cr)
}

// TestAnExportIsOfOneMoment: whatever is made, rotated and revoked meanwhile.
func TestAnExportIsOfOneMoment(t *testing.T) {
	g := newGateway(t)
	h := g.newKey(g.newAccount(`{}`))
	var lines []string
	for i := range 1100 { // more than two pages
		lines = append(lines, fmt.Sprintf(`{"grant":{"account_id":"a%d","secret":"s%d"}}`, i, i))
	}
	g.imported(counted(1100, 1100, 1100, 1100), lines...)
	before := recordsOf(t, g.keyring)
	out := &changing{change: func() {
		g.newKey(g.newAccount(`{}`))
		rotated := g.operator().do("POST", "/credentials/"+h.credential+"/rotate", "").want(200)
		g.operator().do("POST", "/keys/"+rotated.text("key", "id")+"/revoke", "").want(200)
	}}
	if err := g.keyring.Export(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&out.records, before) {
		t.Error("it has what was stored meanwhile")
	}
	if after := recordsOf(t, g.keyring); len(after.keys) != len(before.keys)+4 {
		t.Errorf("there are %d keys, and were %d", len(after.keys), len(before.keys))
	}
}

// TestEveryExportIsWholeWhileKeysAreMadeAndRevoked: a rotation with overlap 0s leaves
// one key of a credential that is not revoked, at every moment.
func TestEveryExportIsWholeWhileKeysAreMadeAndRevoked(t *testing.T) {
	g := newGateway(t)
	account := g.newAccount(`{}`)
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	busy.Go(func() {
		for ctx.Err() == nil {
			issued, err := g.keyring.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: account})
			if err == nil {
				_, err = g.keyring.Rotate(t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: issued.Credential.ID})
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	for range 20 {
		r, working := recordsOf(t, g.keyring), map[string]int{}
		for _, k := range r.keys {
			if k.RevokedAt == 0 {
				working[k.CredentialID]++
			}
		}
		for _, c := range r.credentials {
			if working[c.ID] != 1 {
				t.Errorf("a credential has %d keys that work", working[c.ID])
			}
		}
		if len(working) != len(r.credentials) {
			t.Errorf("%d credentials have keys, and there are %d", len(working), len(r.credentials))
		}
	}
	stop()
	busy.Wait()
}

// TestAnExportHasNoLimit: it is read in many pages.
func TestAnExportHasNoLimit(t *testing.T) {
	g := newGateway(t)
	const n = 10_000
	var lines bytes.Buffer
	for i := range n {
		fmt.Fprintf(&lines, `{"grant":{"account_id":"a%d","secret":"key-%d"}}`+"\n", i%(n/10), i)
	}
	g.imported(counted(n, n/10, n, n), lines.String())
	out, to := g.exported(), newGateway(t)
	to.imported(counted(len(out), n/10, n, n), strings.Join(out, ""))
	if !reflect.DeepEqual(recordsOf(t, to.keyring), recordsOf(t, g.keyring)) {
		t.Error("the records are others")
	}
	if !to.works("key-0") || !to.works(fmt.Sprint("key-", n-1)) {
		t.Error("a key does not work")
	}
}

func TestTheLongestRecordsCanBeImported(t *testing.T) {
	kr, wide := newGateway(t), strings.Repeat("語", 1024)
	pairs, roles := map[string]string{}, []string{}
	for i := range 64 {
		pairs[fmt.Sprint(strings.Repeat("名", 60), 1000+i)], roles = wide, append(roles, fmt.Sprint(strings.Repeat("\U0001D54F", 124), 1000+i))
	}
	a, err := kr.keyring.CreateAccount(t.Context(), keystore.Account{Attributes: pairs, Roles: roles, Address: wide[:3*256]})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kr.keyring.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: a.ID, Metadata: pairs, Roles: roles}); err != nil {
		t.Fatal(err)
	}
	lines := kr.exported()
	newGateway(t).imported(counted(len(lines), 1, 1, 1), strings.Join(lines, ""))
}

func TestOnlyTheOperatorOfTheMachineExports(t *testing.T) {
	g := newGateway(t)
	held := g.newKey(g.newAccount(`{}`), "api_keys:operator")
	if a := g.holder(held.secret).do("GET", "/export", ""); a.status != passedOn {
		t.Errorf("a site answers %d", a.status)
	}
	g.operator().do("GET", "/export?x=1", "").wantProblem(400, "invalid_parameter", "x")
	g.operator().do("HEAD", "/export", "").want(200)
	g.broken = errBroken
	g.operator().do("GET", "/export", "").wantProblem(503, "store_unavailable", "")
}

// TestADownloadThatBreaksOffIsNotTakenForItsEnd: also one whose client takes nothing.
func TestADownloadThatBreaksOffIsNotTakenForItsEnd(t *testing.T) {
	failing := func(_ context.Context, w io.Writer) error {
		_, _ = w.Write(make([]byte, exportBuffer))
		return errBroken
	}
	endless := func(_ context.Context, w io.Writer) (err error) {
		for err == nil {
			_, err = w.Write(make([]byte, exportBuffer))
		}
		return err
	}
	for name, write := range map[string]func(context.Context, io.Writer) error{"it fails": failing, "nobody takes it": endless} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			api := New(nil, zap.NewNop())
			handler := api.download(download{name: "a test", kindOf: exportKind, patience: time.Millisecond}, write)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				handler(w, r)
			}))
			defer server.Close()
			resp, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			<-ended
			if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the client reads to %v", err)
			}
		})
	}
}

// TestEveryMemberThatIsExportedIsImported holds the two lists of members against each
// other: what is read and never written would be lost in a move.
func TestEveryMemberThatIsExportedIsImported(t *testing.T) {
	for kind, c := range map[string]struct{ in, out reflect.Type }{
		"account":    {reflect.TypeFor[accountLine](), reflect.TypeFor[exportedAccount]()},
		"credential": {reflect.TypeFor[credentialLine](), reflect.TypeFor[exportedCredential]()},
		"key":        {reflect.TypeFor[keyLine](), reflect.TypeFor[exportedKey]()},
		"pepper":     {reflect.TypeFor[pepperLine](), reflect.TypeFor[exportedPepper]()},
		"export":     {reflect.TypeFor[exportLine](), reflect.TypeFor[exportedHead]()},
		"end":        {reflect.TypeFor[endLine](), reflect.TypeFor[exportedEnd]()},
	} {
		read := map[string]bool{}
		for _, m := range members(c.in) {
			read[m] = true
		}
		delete(read, "secret") // a store has none
		for _, tag := range members(c.out) {
			m, _, _ := strings.Cut(tag, ",")
			if !read[m] {
				t.Errorf("%s.%s is written and not read", kind, m)
			}
			delete(read, m)
		}
		if len(read) > 0 {
			t.Errorf("of %s, %v are read and not written", kind, read)
		}
	}
}
