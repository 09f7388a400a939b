package examples_test

import (
	"regexp"
	"strings"
	"testing"
)

func TestExorde(t *testing.T) {
	e := start(t, "exorde")
	e.runComments()
	key := e.variables["KEY"]

	next := e.replacedKey(e.send("PUT", "/user/api-key", "Authorization", "Bearer "+key))
	for _, works := range []string{key, next, strings.ToUpper(next)} {
		e.send("GET", "/posts", "Authorization", "Bearer "+works).wants(t, 200)
	}
	a := e.send("PUT", "/user/api-key")
	if id := regexp.MustCompile(`"requestId":"([0-9a-f-]{36})"`).FindSubmatch(a.body); a.StatusCode != 401 || id == nil ||
		!regexp.MustCompile(`"uuid":\s*"`+string(id[1])+`"`).MatchString(e.logged()) {
		t.Errorf("the access log does not have the id of %d %s", a.StatusCode, a.body)
	}
	e.checkLog()
}

func TestExordeWithoutOverlap(t *testing.T) {
	e := start(t, "exorde", "overlap 10m", "overlap 0s", "# deprecation", "deprecation")
	e.tool(run + "api-keys account create --id user-1")
	key, _ := e.issue(run + "api-keys issue --account user-1")
	const notice = `"status":{"cost":0,"apiDeprecationNotice":{"message":"Use PUT /v2/user/api-key.","shutdownDate":"2030-02-02T00:00:00.000Z"}}}`
	a := e.send("PUT", "/user/api-key", "Authorization", "Bearer "+key)
	next := e.replacedKey(a)
	refused := e.send("GET", "/posts", "Authorization", "Bearer "+key)
	refused.wants(t, 401)
	for _, body := range []string{string(a.body), string(refused.body)} {
		if !strings.HasSuffix(body, notice) {
			t.Errorf("there is no notice in %s", body)
		}
	}
	e.send("GET", "/posts", "Authorization", "Bearer "+next).wants(t, 200)
	e.checkLog()
}

// replacedKey is the key of an answer.
func (e *example) replacedKey(a answer) string {
	e.t.Helper()
	key, _ := a.json(e.t)["apikey"].(string)
	if a.StatusCode != 200 || len(key) != 36 {
		e.t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	e.secrets = append(e.secrets, key, strings.ToUpper(key))
	return key
}
