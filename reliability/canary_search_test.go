//go:build reliability

package reliability

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"unicode"
)

// What a key's text may look like where nobody thought of it.

// formsOf are the spellings of a text to look for: itself, in hexadecimal, in
// base64 of both alphabets wherever it begins in the encoded bytes, and escaped. Of
// a token it is the secret that is looked for, since its id may be shown; of texts
// that are long enough also parts, in case only some of it is shown.
func formsOf(text string) (forms map[string]string) {
	forms = map[string]string{}
	secret := text
	if parts := strings.Split(text, "_"); len(parts) == 3 {
		secret = parts[2]
	}
	forms["as it is"] = secret
	forms["in the other case"] = strings.Map(func(c rune) rune {
		if unicode.IsLower(c) {
			return unicode.ToUpper(c)
		}
		return unicode.ToLower(c)
	}, secret)
	for i := 0; i+16 <= len(secret)-6 && len(secret) != 36; i += 8 {
		forms[fmt.Sprint("a part from ", i)] = secret[i : i+16]
	}
	plain := hex.EncodeToString([]byte(secret))
	forms["in hex"], forms["in hex capitals"] = plain, strings.ToUpper(plain)
	escaped := ""
	for _, b := range []byte(secret) {
		escaped += fmt.Sprintf("%%%02X", b)
	}
	forms["escaped"], forms["escaped in lower case"] = escaped, strings.ToLower(escaped)
	forms["in a query"] = url.QueryEscape(secret)
	for offset := range 3 {
		for name, alphabet := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64 for URLs": base64.RawURLEncoding} {
			encoded := alphabet.EncodeToString([]byte(strings.Repeat("\x00", offset) + secret))
			begin, end := (offset*8+5)/6, (offset+len(secret))*8/6
			forms[fmt.Sprint(name, " from byte ", offset)] = encoded[begin:end]
		}
	}
	return forms
}

// leaks says where one of the texts stands, and how it is written there.
func leaks(places map[string]string, texts map[string]string) (found []string) {
	for name, text := range texts {
		for form, spelled := range formsOf(text) {
			for place, content := range places {
				if strings.Contains(content, spelled) {
					found = append(found, fmt.Sprintf("%s is in %s %s", name, place, form))
				}
			}
		}
	}
	return found
}

// TestTheSearchFindsEverySpelling plants keys in every spelling.
func TestTheSearchFindsEverySpelling(t *testing.T) {
	texts := map[string]string{
		"a token": "key_0Ab1Cd2Ef3Gh_Zq9Xw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe1D2c3B", "a UUID": "123e4567-e89b-42d3-a456-426655440000",
		"characters": "PsDW6Sx8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe1D2c3BZq9Xw8Vu7Ts6RqU0Wend", "another": "an+odd/Key=of~no$shape!",
	}
	for name, text := range texts {
		escaped := ""
		for _, b := range []byte(text) {
			escaped += fmt.Sprintf("%%%02x", b)
		}
		for _, planted := range []string{
			text, strings.ToUpper(text[:1]) + text[1:], hex.EncodeToString([]byte("x" + text + "yz")), strings.ToUpper(hex.EncodeToString([]byte(text))),
			base64.StdEncoding.EncodeToString([]byte(text)), base64.StdEncoding.EncodeToString([]byte(`{"key":"` + text + `"}`)),
			base64.URLEncoding.EncodeToString([]byte("a" + text)), base64.RawURLEncoding.EncodeToString([]byte("ab" + text + "c")),
			url.QueryEscape(text), escaped, strings.ToUpper(escaped),
		} {
			found := leaks(map[string]string{"the place": "before " + planted + " after"}, map[string]string{name: text})
			if len(found) == 0 && !strings.EqualFold(planted, text) {
				t.Errorf("%s is not found in %s", name, planted)
			}
		}
	}
	upper := leaks(map[string]string{"the place": strings.ToUpper(texts["a UUID"])}, texts)
	if len(upper) != 1 {
		t.Errorf("a UUID in capitals: %v", upper)
	}
	if found := leaks(map[string]string{"the place": "nothing to see: key_0Ab1Cd2Ef3Gh"}, texts); len(found) > 0 {
		t.Errorf("found where nothing is: %v", found)
	}
}
