package keystore

import "testing"

// FuzzMistypedToken: a token of which one character is another, which misses one, or
// of which two neighbours changed places, is refused without a look-up, or is of
// another shape.
func FuzzMistypedToken(f *testing.F) {
	token := newSecret(Package{}.withDefaults("key")).text
	f.Add("key", 5, byte('x'))
	f.Add("a1", 54, byte('0'))
	f.Add("abcdefghijklmnop", 3, byte('_'))
	f.Fuzz(func(t *testing.T, prefix string, at int, other byte) {
		if ValidPrefix(prefix) {
			token = newSecret(Package{Format: FormatToken, Prefix: prefix}).text
		}
		if !tokenShaped(token) || !plausible(token) {
			t.Fatalf("%q is no token", token)
		}
		at = max(at%len(token), 0)
		swapped := []byte(token)
		if at > 0 {
			swapped[at], swapped[at-1] = swapped[at-1], swapped[at]
		}
		for _, mistyped := range []string{token[:at] + string([]byte{other}) + token[at+1:], token[:at] + token[at+1:], string(swapped)} {
			if mistyped != token && tokenShaped(mistyped) && plausible(mistyped) {
				t.Errorf("%q passes for a token, mistyped from %q", mistyped, token)
			}
		}
	})
}

// FuzzChecksum: reading a checksum and writing it agree on every text.
func FuzzChecksum(f *testing.F) {
	f.Add("key_", "000000")
	f.Add("x", checksum("x"))
	f.Add("", "zzzzzz")
	f.Fuzz(func(t *testing.T, head, tail string) {
		if len(tail) != crcLength {
			tail = checksum(head)
		}
		if fits := checksumFits(head + tail); fits != (tail == checksum(head)) {
			t.Errorf("%q fits %q: %t; its checksum is %q", tail, head, fits, checksum(head))
		}
	})
}
