package rest

import (
	"slices"
	"strconv"
	"testing"
)

func TestAnAccountShowsEveryMember(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	bare := op.do("POST", "/accounts", "").want(201)
	for _, member := range []string{"email", "first_name", "last_name", "company", "phone", "address", "siren"} {
		if v := bare.get(member); v != nil {
			t.Errorf("%s is %v, want null", member, v)
		}
	}
	full := op.do("POST", "/accounts", `{"id":"acme:1","email":"Ada@Example.com","active":true,"roles":["vip"],"first_name":"Ada",
		"last_name":"Lovelace","company":"Acme","phone":"+33 1","address":"1 rue","siren":"123456789","attributes":{"a":"b"}}`).want(201)
	if got := full.header.Get("Location"); got != base+"/accounts/acme:1" {
		t.Errorf("Location is %q", got)
	}
	if full.text("email") != "Ada@Example.com" || full.get("number") != 2.0 || full.text("attributes", "a") != "b" {
		t.Errorf("got %s", full.body)
	}
	if shown := op.do("GET", "/accounts/acme:1", "").want(200); shown.body != full.body {
		t.Errorf("shown: %s\nmade:  %s", shown.body, full.body)
	}
}

func TestAPatchChangesWhatItNamesAndNullClears(t *testing.T) {
	g := newGateway(t)
	id := g.newAccount(`{"email":"ada@example.com","company":"Acme","roles":["a"],"attributes":{"a":"b"}}`)
	op := g.operator()
	changed := op.do("PATCH", "/accounts/"+id, `{"company":null,"first_name":"Ada","roles":null,"attributes":{"c":"d"},"active":false}`).want(200)
	if changed.get("company") != nil || changed.text("first_name") != "Ada" || changed.text("email") != "ada@example.com" ||
		changed.get("active") != false || changed.text("attributes", "c") != "d" || changed.get("attributes", "a") != nil ||
		len(changed.get("roles").([]any)) != 0 {
		t.Errorf("got %s", changed.body)
	}
	for _, body := range []string{"{}", ""} {
		if same := op.do("PATCH", "/accounts/"+id, body).want(200); same.body != changed.body {
			t.Errorf("%q changes %s to %s", body, changed.body, same.body)
		}
	}
	if cleared := op.do("PATCH", "/accounts/"+id, `{"email":null,"attributes":null}`).want(200); cleared.get("email") != nil {
		t.Errorf("got %s", cleared.body)
	}
}

func TestAnAddressAndAnIDAreGivenOnce(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	g.newAccount(`{"id":"one","email":"ada@example.com"}`)
	g.newAccount(`{"id":"two"}`)
	op.do("POST", "/accounts", `{"email":"ADA@example.com"}`).wantProblem(409, "conflict", "email")
	op.do("POST", "/accounts", `{"id":"one"}`).wantProblem(409, "conflict", "id")
	op.do("PATCH", "/accounts/two", `{"email":"ada@EXAMPLE.com"}`).wantProblem(409, "conflict", "email")
	op.do("DELETE", "/accounts/one", "").want(204)
	op.do("POST", "/accounts", `{"id":"one"}`).wantProblem(409, "conflict", "id")
	op.do("PATCH", "/accounts/two", `{"email":"ada@EXAMPLE.com"}`).want(200)
}

func TestADeletedAccountIsGoneWithItsKeys(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	h := g.newKey(g.newAccount(""), "api_keys:self")
	g.holder(h.secret).do("GET", "/self", "").want(200)
	if a := op.do("DELETE", "/accounts/"+h.account, "").want(204); a.body != "" {
		t.Errorf("204 has a body: %s", a.body)
	}
	g.holder(h.secret).do("GET", "/self", "").wantProblem(401, "revoked_key", "")
	for _, path := range []string{"/accounts/" + h.account, "/accounts/" + h.account + "/credentials",
		"/credentials/" + h.credential, "/credentials/" + h.credential + "/keys", "/keys/" + h.key} {
		op.do("GET", path, "").wantProblem(404, "not_found", "")
	}
}

func TestAListIsReadPageByPage(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	var made []string
	for i := range 5 {
		made = append(made, g.newAccount(`{"id":"account-`+strconv.Itoa(i)+`"}`))
	}
	h := g.newKey(made[0])
	for range 4 {
		op.do("POST", "/credentials/"+h.credential+"/rotate", `{"overlap":"1h"}`).want(200)
		g.newKey(made[0])
	}
	for _, path := range []string{"/accounts", "/accounts/" + made[0] + "/credentials", "/credentials/" + h.credential + "/keys"} {
		all := op.do("GET", path, "").want(200)
		if all.get("next") != nil || len(all.items()) != 5 {
			t.Fatalf("%s: %s", path, all.body)
		}
		var read []string
		query := "?limit=2"
		for pages := 1; ; pages++ {
			page := op.do("GET", path+query, "").want(200)
			read = append(read, page.items()...)
			if page.get("next") == nil {
				if pages != 3 {
					t.Errorf("%s: %d pages", path, pages)
				}
				break
			}
			query = "?limit=2&after=" + page.text("next")
		}
		if !slices.Equal(read, all.items()) {
			t.Errorf("%s: pages have %v, want %v", path, read, all.items())
		}
		if page := op.do("GET", path+"?limit=5", "").want(200); page.get("next") != nil {
			t.Errorf("%s: a full last page names a next one: %s", path, page.body)
		}
	}
}

func TestAnAccountIsFoundByAddress(t *testing.T) {
	g := newGateway(t)
	op := g.operator()
	id := g.newAccount(`{"email":"ada@example.com"}`)
	g.newAccount("")
	for query, want := range map[string][]string{
		"?email=ADA@example.com":         {id},
		"?email=ada%40example.com":       {id},
		"?email=bob@example.com":         nil,
		"?email=":                        nil,
		"?limit=1&email=ada@example.com": {id},
	} {
		a := op.do("GET", "/accounts"+query, "").want(200)
		if !slices.Equal(a.items(), want) || a.get("next") != nil {
			t.Errorf("%s: %s", query, a.body)
		}
	}
}
