package dialect

import (
	"net/http/httptest"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestAProblemIsWrittenAsItsTagsSay(t *testing.T) {
	for _, p := range []Problem{
		{},
		NewProblem(401, "invalid_key", "The key is not valid.", "/v1/things"),
		NewProblem(422, "invalid", `"a" & <b> \ é ☃ 𝄞`, "/"+string(rune(0))+"\n\t\x7f\u2028"),
		{Type: "about:blank", Status: -1, Member: "metadata.a\"b"},
	} {
		want, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.appendJSON(nil); string(got) != string(want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	w := httptest.NewRecorder()
	NewProblem(401, "invalid_key", "\xff", "/").Write(w)
	if err := json.Unmarshal(w.Body.Bytes(), new(Problem)); err != nil || w.Code != 401 {
		t.Errorf("what is not UTF-8 is answered %d %s: %v", w.Code, w.Body, err)
	}
}
