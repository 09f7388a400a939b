package singleinvoice

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

// FuzzPackageIn: a body names a package that Go's own decoder finds in it, too, or
// is refused in words that can be shown.
func FuzzPackageIn(f *testing.F) {
	for _, body := range []string{`{"package":"Coverage"}`, ` {"package" : "\u0043"} `, `{}`, `null`, `[]`, `"package"`, `{"package":null}`, `{"package":""}`, `{"package":"a","package":"b"}`,
		`{"Package":"a"}`, `{"package":"a","x":{"y":[1,2]}}`, `{"package":"a"}}`, `{"package":"a"} x`, "{\"package\":\"\xff\"}", `{"package":"\ud800"}`, `{"key_0Ab1Cd2Ef3Gh_Zq9Xw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe1D2c3B":1}`, `{`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		name, err := packageIn(body)
		if err == nil {
			var plain map[string]string
			if json.Unmarshal(body, &plain) != nil || plain["package"] != name || len(plain) != 1 || name == "" {
				t.Errorf("%q names the package %q", body, name)
			}
			return
		}
		wrong, ok := err.(modelState)
		if !ok || len(wrong) == 0 || name != "" {
			t.Fatalf("%q: %q, %#v", body, name, err)
		}
		for member := range wrong {
			if !utf8.ValidString(member) || len(member) > maxShown+len("…")+len("\uFFFD") || dialect.Redact(member) != member && !strings.HasSuffix(member, "…") {
				t.Errorf("%q: member %q can't be shown", body, member)
			}
		}
	})
}
