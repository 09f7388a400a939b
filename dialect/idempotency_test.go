package dialect

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var errNoStore = errors.New("no store")

// storeless is a gateway whose store can't be had, so that a request that comes
// as far as that is told from one that is refused.
func storeless() Gateway {
	return Gateway{Keyring: func(context.Context) (*keystore.Keyring, error) { return nil, errNoStore }}
}

func TestTheIdempotencyKeyIsOneOfPrintableASCII(t *testing.T) {
	for _, c := range []struct {
		name string
		keys []string
		want error
	}{
		{"none", nil, nil},
		{"one character", []string{"x"}, keystore.ErrUnavailable},
		{"the first and the last that are allowed", []string{"!~"}, keystore.ErrUnavailable},
		{"64 characters", []string{strings.Repeat("x", 64)}, keystore.ErrUnavailable},
		{"65 characters", []string{strings.Repeat("x", 65)}, ErrIdempotencyKey},
		{"an empty one", []string{""}, ErrIdempotencyKey},
		{"two", []string{"a", "b"}, ErrIdempotencyKey},
		{"one twice", []string{"a", "a"}, ErrIdempotencyKey},
		{"spaces between others", []string{"a  b c"}, keystore.ErrUnavailable},
		{"a space", []string{" "}, ErrIdempotencyKey},
		{"a space before others", []string{" a"}, ErrIdempotencyKey},
		{"a space behind others", []string{"a "}, ErrIdempotencyKey},
		{"a tab", []string{"a\tb"}, ErrIdempotencyKey},
		{"DEL", []string{"a\x7f"}, ErrIdempotencyKey},
		{"other than ASCII", []string{"é"}, ErrIdempotencyKey},
		{"no UTF-8", []string{"\xff"}, ErrIdempotencyKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request("/", "X-Api-Key", "K")
			if c.keys != nil {
				r.Header[IdempotencyHeader] = c.keys
			}
			once, err := storeless().Once(r, everywhere(t), nil)
			if !errors.Is(err, c.want) || once != nil {
				t.Errorf("got %v, %v, want %v", once, err, c.want)
			}
		})
	}
}

func TestAnIdempotencyKeyNeedsAPresentedKey(t *testing.T) {
	for _, headers := range [][]string{nil, {"X-Api-Key", "K", "Authorization", "Bearer K"}} {
		once, err := storeless().Once(request("/", append(headers, IdempotencyHeader, "x")...), everywhere(t), nil)
		if err == nil || errors.Is(err, errNoStore) || once != nil {
			t.Errorf("with %q: %v, %v", headers, once, err)
		}
	}
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"", "x", "!~", "a b", " ", " a", "a ", "é", "\x7f", "\xff", strings.Repeat("x", 64), strings.Repeat("x", 65)} {
		f.Add(seed)
	}
	allowed := regexp.MustCompile(`^[!-~](?:[ -~]{0,62}[!-~])?\z`)
	finder := everywhere(f)
	f.Fuzz(func(t *testing.T, key string) {
		r := request("/", "X-Api-Key", "K")
		r.Header[IdempotencyHeader] = []string{key}
		_, err := storeless().Once(r, finder, nil)
		if taken := errors.Is(err, errNoStore); taken != allowed.MatchString(key) || taken == errors.Is(err, ErrIdempotencyKey) {
			t.Errorf("%q: %v", key, err)
		}
	})
}

func TestADigestTellsRequestsApart(t *testing.T) {
	seen := map[keystore.Digest]string{}
	for _, c := range []struct{ method, target, body string }{
		{"POST", "/a", ""}, {"PUT", "/a", ""}, {"POST", "/b", ""}, {"POST", "/a", "b"}, {"POST", "/a", "bb"},
		{"POST", "/ab", ""}, {"POST", "/ab", "b"}, {"POST", "/%61", ""},
	} {
		d := digestOf(httptest.NewRequest(c.method, c.target, nil), []byte(c.body))
		name := c.method + " " + c.target + " " + c.body
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q are the same", name, other)
		}
		seen[d] = name
		for _, query := range []string{"", "?", "?api_key=K"} {
			if again := digestOf(httptest.NewRequest(c.method, c.target+query, nil), []byte(c.body)); again != d {
				t.Errorf("%q is another the second time, with %q", name, query)
			}
		}
	}
}

func TestAReplyIsSentAsItIs(t *testing.T) {
	out := Reply{Status: 201, Header: http.Header{"Location": {"/a"}, "Link": {"b", "c"}}, Body: []byte("\x00\xff{}")}
	for sent, want := range map[string]string{"": "", "x": "x"} {
		r := request("/")
		if sent != "" {
			r.Header.Set(IdempotencyHeader, sent)
		}
		w := httptest.NewRecorder()
		w.Header().Set("Cache-Control", "no-store")
		out.Write(w, r)
		if w.Code != 201 || w.Body.String() != "\x00\xff{}" || strings.Join(w.Header()["Link"], " ") != "b c" ||
			w.Header().Get("Location") != "/a" || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get(IdempotencyHeader) != want {
			t.Errorf("with %q: %d %v %q", sent, w.Code, w.Header(), w.Body)
		}
	}
}

func TestWithoutAnIdempotencyKeyNothingIsRecorded(t *testing.T) {
	never := func(string) (Reply, error) {
		t.Error("a reply is made")
		return Reply{}, nil
	}
	if err := Record(nil, never)(nil, "made"); err != nil {
		t.Error(err)
	}
	if err := (Reply{}).RecordAlone(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if out, ok := Recorded(nil); ok {
		t.Errorf("%+v is answered", out)
	}
}
