package adyen

import (
	"testing"
	"unicode/utf8"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// FuzzMemberNames: what is repeated of a body is short, printable as JSON, and no
// key.
func FuzzMemberNames(f *testing.F) {
	for _, body := range []string{`{}`, `{"a":1}`, `{"a":{"b":[]},"c":"d"}`, `{"a":1,"a":2}`, `[]`, `{"a"`, `{"a":}`, "{\"\xff\":1}", `{"\ud800":1}`,
		`{"key_0Ab1Cd2Ef3Gh_Zq9Xw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe1D2c3B":"x"}`, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		names := memberNames(body)
		if len(names) > maxMembers {
			t.Errorf("%d names", len(names))
		}
		for _, name := range names {
			if !utf8.ValidString(name) || len(name) > maxMemberName+len("…") || dialect.Redact(name) != name {
				t.Errorf("%q: name %q can't be shown", body, name)
			}
		}
	})
}
