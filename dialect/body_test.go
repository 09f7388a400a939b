package dialect

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadNoBodyTakesNothingAndAnEmptyObject(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       error
	}{
		{"nothing", "", nil},
		{"an empty object", "{}", nil},
		{"an empty object with space", " \r\n{\t } ", nil},
		{"as much space as is read", "{}" + strings.Repeat(" ", MaxBody-2), nil},
		{"one byte more", "{}" + strings.Repeat(" ", MaxBody-1), ErrBodyTooLarge},
		{"much more", strings.Repeat("x", 10*MaxBody), ErrBodyTooLarge},
		{"space only", " ", ErrBodyNotObject},
		{"what others take for space", "\v{}", ErrBodyNotObject},
		{"a byte order mark", "\ufeff{}", ErrBodyNotObject},
		{"text", "no", ErrBodyNotObject},
		{"an array", "[]", ErrBodyNotObject},
		{"null", "null", ErrBodyNotObject},
		{"an object that is not closed", "{", ErrBodyNotObject},
		{"two objects", "{}{}", ErrBodyNotObject},
		{"a comma", "{,}", ErrBodyNotObject},
		{"a comment", "{/* */}", ErrBodyNotObject},
		{"a member twice", `{"a":1,"a":1}`, ErrBodyNotObject},
		{"text that is not UTF-8", "{\"\xff\":1}", ErrBodyNotObject},
		{"a member", `{"a":1}`, ErrBodyUnexpected},
		{"a member without a name", ` {"":{}} `, ErrBodyUnexpected},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := readNoBody(c.body)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if (err == nil || err == ErrBodyUnexpected) && string(body) != c.body {
				t.Errorf("read %q", body)
			}
		})
	}
}

func TestABodyThatBreaksOffIsBroken(t *testing.T) {
	for _, begun := range []string{"", "{", "{}"} {
		r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(begun), iotest.ErrReader(io.ErrUnexpectedEOF)))
		if _, err := ReadNoBody(httptest.NewRecorder(), r); err != ErrBodyBroken {
			t.Errorf("%q: %v", begun, err)
		}
	}
}

func TestReadBodyReadsWhatWasSent(t *testing.T) {
	r := httptest.NewRequest("POST", "/", strings.NewReader("\x00 any"))
	if body, err := ReadBody(httptest.NewRecorder(), r); err != nil || string(body) != "\x00 any" {
		t.Errorf("%q, %v", body, err)
	}
}

func readNoBody(body string) ([]byte, error) {
	return ReadNoBody(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)))
}

// FuzzReadNoBody holds what is taken for an empty object, for one with members
// and for none against another reader of JSON. That one is less strict: it takes
// a member twice, and text that is not UTF-8.
func FuzzReadNoBody(f *testing.F) {
	for _, seed := range []string{"", "{}", " {\n} ", `{"a":1}`, "[]", "null", "{", "{}{}", "\v{}", `{"a":1,"a":2}`, "{\"\xff\":1}", "\ufeff{}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		body, err := readNoBody(string(sent))
		var members map[string]json.RawMessage
		isObject := json.Unmarshal(sent, &members) == nil && members != nil
		switch {
		case len(sent) > MaxBody:
			if err != ErrBodyTooLarge {
				t.Errorf("%d bytes: %v", len(sent), err)
			}
		case err == nil:
			if !bytes.Equal(body, sent) || len(sent) > 0 && !(isObject && len(members) == 0) {
				t.Errorf("%q is taken for empty: %q", sent, body)
			}
		case err == ErrBodyUnexpected:
			if !bytes.Equal(body, sent) || !isObject || len(members) == 0 {
				t.Errorf("%q is taken for an object with members", sent)
			}
		case err == ErrBodyNotObject:
			if len(sent) == 0 || isObject && len(members) == 0 {
				t.Errorf("%q is taken for no object", sent)
			}
		default:
			t.Errorf("%q: %v", sent, err)
		}
	})
}
