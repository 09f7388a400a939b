package dialect

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// reached answers with a name, and the value of {a}.
func reached(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(name + " " + r.PathValue("a"))) }
}

// testRoutes has a path for reading, one whose GET does more, and one for both.
func testRoutes() *Routes {
	routes := NewRoutes("/base", reached("not allowed"))
	routes.Handle("GET /read/{a}", reached("read"))
	routes.HandleOnly("GET /do", reached("do"))
	routes.HandleOnly("GET /both", reached("get"))
	routes.Handle("POST /both", reached("post"))
	return routes
}

func TestRoutes(t *testing.T) {
	routes := testRoutes()
	for _, c := range []struct {
		name, method, target string
		want, allow          string
	}{
		{"GET is answered", "GET", "/base/read/1", "read 1", ""},
		{"and so is HEAD", "HEAD", "/base/read/1", "read 1", ""},
		{"but no other method", "PUT", "/base/read/1", "not allowed 1", "GET, HEAD"},
		{"a GET alone is answered", "GET", "/base/do", "do ", ""},
		{"but HEAD is not", "HEAD", "/base/do", "not allowed ", "GET"},
		{"nor any other method", "OPTIONS", "/base/do", "not allowed ", "GET"},
		{"a GET beside a POST", "GET", "/base/both", "get ", ""},
		{"a POST beside a GET", "POST", "/base/both", "post ", ""},
		{"HEAD of both", "HEAD", "/base/both", "not allowed ", "GET, POST"},
		{"a method in lower case", "get", "/base/do", "not allowed ", "GET"},
		{"a value is unescaped", "GET", "/base/read/a%2Fb%20c", "read a/b c", ""},
		{"a query does not matter", "GET", "/base/do?x=/y", "do ", ""},
		{"a path that is not below the base", "GET", "/do", "", ""},
		{"a base that goes on", "GET", "/basement/do", "", ""},
		{"an empty value", "GET", "/base/read/", "", ""},
		{"a path that goes on", "GET", "/base/do/", "", ""},
		{"an escaped spelling", "GET", "/base/d%6F", "", ""},
		{"two slashes", "GET", "/base//do", "", ""},
		{"the base alone", "GET", "/base", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.target, nil)
			h := routes.Find(r)
			if (h == nil) != (c.want == "") {
				t.Fatalf("found: %t", h != nil)
			}
			if h == nil {
				return
			}
			w := httptest.NewRecorder()
			h(w, r)
			if got := w.Body.String(); got != c.want || w.Header().Get("Allow") != c.allow {
				t.Errorf("answers %q, Allow %q", got, w.Header().Get("Allow"))
			}
		})
	}
}

func TestFindingNoRouteDoesNotAllocate(t *testing.T) {
	routes := testRoutes()
	r := httptest.NewRequest("GET", "/base/some/other/path", nil)
	if n := testing.AllocsPerRun(100, func() { routes.Find(r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
