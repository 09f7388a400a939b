package examples_test

import (
	"regexp"
	"testing"
)

func TestAdyen(t *testing.T) {
	e := start(t, "adyen")
	e.runComments()
	keys, shop, credential := e.variables["KEYS"], e.variables["SHOP"], e.variables["CREDENTIAL"]
	e.send("GET", "/payments", "X-API-Key", shop).wants(t, 200, "credential_id", credential, "account_id", "TestCompany")

	path := "/v3/merchants/TestCompany/apiCredentials/" + credential + "/generateApiKey"
	first := e.send("POST", path, "X-API-Key", keys, "Idempotency-Key", "rotation-1")
	again := e.send("POST", path, "X-API-Key", keys, "Idempotency-Key", "rotation-1")
	other := e.send("POST", path, "X-API-Key", keys, "Idempotency-Key", "rotation-2")
	if string(first.body) != string(again.body) || string(first.body) == string(other.body) {
		t.Errorf("answers are %s, %s and, under another Idempotency-Key, %s", first.body, again.body, other.body)
	}
	generated, _ := first.json(t)["apiKey"].(string)
	e.secrets = append(e.secrets, generated)
	e.send("GET", "/payments", "X-API-Key", generated).wants(t, 200, "credential_id", credential)

	for path, status := range map[string]int{"/payments": 401, path: 401} {
		a := e.send("POST", path)
		a.wants(t, status, "type", "https://docs.adyen.com/errors/unauthorized", "errorCode", "00_401")
		if id, _ := a.json(t)["requestId"].(string); !regexp.MustCompile(`"uuid":\s*"` + id + `"`).MatchString(e.logged()) {
			t.Errorf("the access log does not have the id of %s", a.body)
		}
	}
	e.checkLog()
}
