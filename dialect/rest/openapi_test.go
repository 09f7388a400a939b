package rest

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// described is the document, as tools read it.
type described struct {
	validator.Validator
	// methods are the documented ones by path.
	methods map[string][]string
}

var describe = sync.OnceValues(func() (*described, error) {
	doc, err := libopenapi.NewDocument(document)
	if err != nil {
		return nil, err
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		return nil, err
	}
	d := &described{methods: map[string][]string{}}
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		d.methods[path] = methodsOf(item)
	}
	d.Validator = validator.NewValidatorFromV3Model(&model.Model, config.WithFormatAssertions(), config.WithoutSecurityValidation())
	d.SetDocument(doc)
	return d, nil
})

func methodsOf(item *v3.PathItem) (methods []string) {
	for method := range item.GetOperations().FromOldest() {
		methods = append(methods, strings.ToUpper(method))
	}
	slices.Sort(methods)
	return methods
}

// pathOf finds the documented path of a request by its segments.
func (d *described) pathOf(escaped string) string {
	for _, path := range slices.Sorted(maps.Keys(d.methods)) { // "/keys/verify" before "/keys/{key}"
		if matches(path, escaped) {
			return path
		}
	}
	return ""
}

func matches(path, escaped string) bool {
	want, got := strings.Split(path, "/"), strings.Split(escaped, "/")
	if len(want) != len(got) {
		return false
	}
	for i, segment := range want {
		if !strings.HasPrefix(segment, "{") && segment != got[i] {
			return false
		}
	}
	return true
}

// checkDocumented fails the test if the document does not know the answer: its
// status, headers and every member. A request that was answered with success
// must be one that the document allows.
func checkDocumented(t *testing.T, req *http.Request, body string, resp *http.Response, got []byte) {
	t.Helper()
	d, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	path := d.pathOf(strings.TrimPrefix(req.URL.EscapedPath(), base))
	if path == "" {
		t.Fatalf("%s is not documented", req.URL.Path)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control is %q", resp.Header.Get("Cache-Control"))
	}
	method := req.Method
	if resp.StatusCode == http.StatusMethodNotAllowed {
		checkAllow(t, d.methods[path], resp.Header.Get("Allow"))
		method = d.methods[path][0]
	}
	if method == http.MethodHead {
		if len(got) != 0 {
			t.Errorf("HEAD has a body: %s", got)
		}
		return
	}
	// Ids stand for any text, so that odd ones do not puzzle the validator.
	plain := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x")
	like := httptest.NewRequest(method, plain+"?"+req.URL.RawQuery, strings.NewReader(body))
	like.Header = req.Header.Clone()
	if resp.StatusCode < 300 && body != "" && req.Header.Get("Content-Type") == "application/json" {
		if ok, errs := d.GetRequestBodyValidator().ValidateRequestBody(like); !ok {
			t.Errorf("%s %s succeeds, but its body is not as documented: %s\n%v", req.Method, path, body, errs)
		}
	}
	ok, errs := d.ValidateHttpResponse(like, resp)
	for _, e := range errs {
		t.Errorf("%s %s answers %d, which is not as documented: %s: %s %v\n%s", req.Method, path, resp.StatusCode, e.Message, e.Reason, e.SchemaValidationErrors, got)
	}
	if !ok && len(errs) == 0 {
		t.Errorf("%s %s answers %d, which is not as documented", req.Method, path, resp.StatusCode)
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
}

func checkAllow(t *testing.T, documented []string, allow string) {
	t.Helper()
	want := slices.Clone(documented)
	if slices.Contains(want, "GET") {
		want = append(want, "HEAD")
	}
	slices.Sort(want)
	if allow != strings.Join(want, ", ") {
		t.Errorf("Allow is %q, documented are %q", allow, want)
	}
}

func TestTheDocumentIsValidOpenAPI(t *testing.T) {
	d, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	if ok, errs := d.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("%s: %s %v", e.Message, e.Reason, e.SchemaValidationErrors)
		}
	}
}

func TestEveryRouteIsDocumentedAndEveryDocumentedRouteExists(t *testing.T) {
	d, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, methods := range d.methods {
		for _, method := range methods {
			documented = append(documented, method+" "+path)
		}
	}
	routed := []string{"GET /backup", "GET /export", "GET /openapi.yaml"}
	for _, rt := range slices.Concat(everywhere, withKey, onAdmin) {
		routed = append(routed, rt.pattern)
	}
	slices.Sort(documented)
	slices.Sort(routed)
	if !slices.Equal(documented, routed) {
		t.Errorf("documented:\n%s\nrouted:\n%s", strings.Join(documented, "\n"), strings.Join(routed, "\n"))
	}
}

func TestTheDocumentHoldsNoKey(t *testing.T) {
	if redacted := dialect.Redact(string(document)); redacted != string(document) {
		t.Error("the document holds what looks like a key")
	}
}

func TestTheDocumentNeedsNoKey(t *testing.T) {
	g := newGateway(t)
	for _, c := range []client{g.operator(), g.holder("")} {
		a := c.do("GET", "/openapi.yaml", "").want(200)
		if a.header.Get("Content-Type") != "application/yaml" || a.body != string(document) {
			t.Errorf("got %s, %d bytes", a.header.Get("Content-Type"), len(a.body))
		}
	}
}

// A validator that lets everything pass would make every other test weaker.
func TestTheValidatorNoticesWhatIsNotDocumented(t *testing.T) {
	d, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	rules := []struct {
		name, path string
		status     int
		body       string
	}{
		{"an unknown status", "/keys/verify", 418, `{}`},
		{"a missing member", "/keys/verify", 200, `{"active":true}`},
		{"an unknown member", "/keys/verify", 200, `{"active":true,"code":"ok","key_id":"a","credential_id":"a","account_id":"a","package":null,"roles":[],"expires_at":null,"digest":"x"}`},
		{"a wrong type", "/keys/verify", 200, `{"active":"yes","code":"ok","key_id":"a","credential_id":"a","account_id":"a","package":null,"roles":[],"expires_at":null}`},
		{"a time without milliseconds", "/keys/verify", 200, `{"active":true,"code":"ok","key_id":"a","credential_id":"a","account_id":"a","package":null,"roles":[],"expires_at":"2030-01-01T00:00:00Z"}`},
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			resp := &http.Response{
				StatusCode: rule.status, Header: http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}},
				Body: io.NopCloser(strings.NewReader(rule.body)),
			}
			if ok, _ := d.ValidateHttpResponse(httptest.NewRequest("POST", rule.path, nil), resp); ok {
				t.Error("it passes")
			}
		})
	}
}
