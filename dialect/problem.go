package dialect

import (
	"net/http"
	"net/url"
	"regexp"

	"github.com/go-json-experiment/json"
)

// Problem is an error in the format of RFC 9457, with the project's member
// code. Its type is always about:blank: the code says which error it is.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Instance is the path of the request, empty where it may not be repeated.
	Instance string `json:"instance"`
	Code     string `json:"code"`
	// Member names the member of the body, or the parameter, that is wrong.
	Member string `json:"member,omitzero"`
}

// NewProblem makes a problem whose title is that of its status.
func NewProblem(status int, code, detail, instance string) Problem {
	return Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: detail, Instance: instance, Code: code,
	}
}

// keyShape finds what may be the text of a key of the token format, also with
// escaped underscores. It is wider than the format: a mistyped key is nearly
// one.
var keyShape = regexp.MustCompile(`[A-Za-z][a-z0-9]{1,15}(?:_|%5[Ff])[0-9A-Za-z]{12}(?:_|%5[Ff])[0-9A-Za-z]{30,}`)

const (
	redacted = "REDACTED"
	// minKeyShape is the length of the shortest text that keyShape matches.
	minKeyShape = 2 + 1 + 12 + 1 + 30
)

// Redact replaces what may be the text of a key. It costs nothing where the
// text is too short to hold one.
func Redact(text string) string {
	if len(text) < minKeyShape {
		return text
	}
	return keyShape.ReplaceAllLiteralString(text, redacted)
}

// Instance is the path of a request as its client sent it, for a problem's
// member of that name. A key that the client put into its path is not repeated,
// however it is escaped.
func Instance(r *http.Request) string {
	sent := r.URL.EscapedPath()
	if len(sent) < minKeyShape {
		return sent
	}
	sent = Redact(sent)
	if plain, err := url.PathUnescape(sent); err != nil || keyShape.MatchString(plain) {
		return "/" + redacted
	}
	return sent
}

// Write sends the problem.
func (p Problem) Write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // only text that is not UTF-8 could do it, and there is none
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
