package examples_test

import (
	"encoding/json"
	"testing"
)

func TestSingleInvoice(t *testing.T) {
	e := start(t, "single_invoice")
	e.runComments()
	account := e.variables["ACCOUNT"]

	a := e.sendBody("POST", "/account/key", `{"package":"Coverage"}`, "apikey", account)
	a.wants(t, 200, "Email", "test@example.com", "FirstName", "Test", "LastName", "Example", "Company", "Example.com", "Roles", "User")
	var made struct{ APIKeys []string }
	if err := json.Unmarshal(a.body, &made); err != nil {
		t.Fatal(err)
	}
	keys := made.APIKeys
	if len(keys) != 5 { // one by the operator first, two by the comments, one by the operator after them
		t.Fatalf("ApiKeys are %q", keys)
	}
	if want := account[:6] + "…" + account[56:]; keys[0] != want {
		t.Errorf("the oldest key is %q, want %q", keys[0], want)
	}
	coverage := keys[4]
	e.secrets = append(e.secrets, coverage)
	e.send("GET", "/coverage/search", "apikey", coverage).wants(t, 200, "package", "Coverage", "apikey", "")
	e.send("GET", "/status", "apikey", coverage).wants(t, 200, "package", "Coverage")

	const denied = "Authorization has been denied for this request."
	for _, c := range []struct{ method, path, key string }{
		{"GET", "/coverage/search", account},
		{"GET", "/claim/list", account},
		{"GET", "/status", account},
		{"GET", "/account", account},
		{"GET", "/claim/list", coverage},
		{"POST", "/account/key", coverage},
		{"POST", "/account/key", ""},
		{"GET", "/coverage/search", ""},
	} {
		e.send(c.method, c.path, "apikey", c.key).wants(t, 401, "Message", denied)
	}
	e.checkLog()
}
