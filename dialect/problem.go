package dialect

import (
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
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
	w.Header()["Content-Type"] = []string{"application/problem+json"}
	w.WriteHeader(p.Status)
	const names = len(`{"type":"","title":"","status":000,"detail":"","instance":"","code":"","member":""}`)
	size := names + len(p.Type) + len(p.Title) + len(p.Detail) + len(p.Instance) + len(p.Code) + len(p.Member)
	_, _ = w.Write(p.appendJSON(make([]byte, 0, size))) // some characters take more
}

// appendJSON appends what encoding the problem by its tags gives, for a third of the
// time: a flood of refusals is mostly this.
func (p Problem) appendJSON(b []byte) []byte {
	b = appendMember(b, `{"type":`, p.Type)
	b = appendMember(b, `,"title":`, p.Title)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(p.Status), 10)
	b = appendMember(b, `,"detail":`, p.Detail)
	b = appendMember(b, `,"instance":`, p.Instance)
	b = appendMember(b, `,"code":`, p.Code)
	if p.Member != "" {
		b = appendMember(b, `,"member":`, p.Member)
	}
	return append(b, '}')
}

func appendMember(b []byte, name, value string) []byte {
	b, _ = jsontext.AppendQuote(append(b, name...), value) // what is not UTF-8 becomes U+FFFD
	return b
}
