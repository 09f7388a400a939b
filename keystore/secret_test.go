package keystore

import (
	"crypto/sha256"
	"hash/crc32"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var tokenPattern = regexp.MustCompile(`^[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$`)

func TestTokenHasTheDocumentedShape(t *testing.T) {
	s := newSecret(Package{}.withDefaults("key"))
	if !tokenPattern.MatchString(s.text) || len(s.text) != 55 {
		t.Errorf("text %q has the wrong shape", s.text)
	}
	if !strings.HasPrefix(s.text, "key_"+s.id+"_") {
		t.Errorf("text %q does not carry its id %q", s.text, s.id)
	}
	head, crc := s.text[:len(s.text)-6], s.text[len(s.text)-6:]
	if want := slowBase62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(head))))); crc != want {
		t.Errorf("checksum %q, want %q", crc, want)
	}
}

// slowBase62 is the checksum's encoding, written another way.
func slowBase62(crc *big.Int) string {
	// math/big counts 0-9a-zA-Z; ours is 0-9A-Za-z.
	swapped := strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 32
		case 'A' <= c && c <= 'Z':
			return c + 32
		}
		return c
	}, crc.Text(62))
	return strings.Repeat("0", 6-len(swapped)) + swapped
}

func TestChecksumFitsAsItIsWrittenOnly(t *testing.T) {
	for _, head := range []string{"a", "key_", randomBase62(49), randomBase62(100)} {
		written := checksum(head)
		for at := range written {
			for c := range 256 {
				tail := written[:at] + string([]byte{byte(c)}) + written[at+1:]
				if fits := checksumFits(head + tail); fits != (tail == written) {
					t.Errorf("%q fits %q: %t; its checksum is %q", tail, head, fits, written)
				}
			}
		}
	}
}

func TestChecksumDoesNotFitBeyondItsRange(t *testing.T) {
	const head = "key_000000000000_"
	beyond := big.NewInt(1<<32 + int64(crc32.ChecksumIEEE([]byte(head))))
	if tail := slowBase62(beyond); len(tail) != crcLength || checksumFits(head+tail) {
		t.Errorf("%q fits %q, of which it is the checksum and 2^32", tail, head)
	}
}

// What is no digit counts for 255 in the table, which is four times 62 and 7.
func TestChecksumDoesNotFitInOtherCharacters(t *testing.T) {
	for i := range 10_000 {
		head := "key_" + strconv.Itoa(i)
		written := checksum(head)
		if at := strings.IndexByte(written[1:], '7'); at >= 0 && written[at] >= '4' && written[at] <= '9' {
			if tail := written[:at] + string(written[at]-4) + "!" + written[at+2:]; checksumFits(head + tail) {
				t.Errorf("%q fits %q; its checksum is %q", tail, head, written)
			}
			return
		}
	}
	t.Fatal("no checksum to begin with")
}

func TestFormats(t *testing.T) {
	for _, c := range []struct {
		name, pattern, hint string
		p                   Package
	}{
		{"token with the package's prefix", `^cov1_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$`, `^cov1_[0-9A-Za-z]{12}$`, Package{Prefix: "cov1"}},
		{"uuid of version 4 in lower case", `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, `^…[0-9a-f]{4}$`, Package{Format: FormatUUID}},
		{"long alphanumeric", `^[0-9A-Za-z]{62}$`, `^[0-9A-Za-z]{6}…[0-9A-Za-z]{6}$`, Package{Format: FormatAlphanumeric, Length: 62}},
		{"short alphanumeric", `^[0-9A-Za-z]{22}$`, `^…[0-9A-Za-z]{4}$`, Package{Format: FormatAlphanumeric, Length: 22}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.p.withDefaults("key")
			s := newSecret(p)
			if !regexp.MustCompile(c.pattern).MatchString(s.text) {
				t.Errorf("text %q does not match %s", s.text, c.pattern)
			}
			if hint := hintOf(s, p.Format); !regexp.MustCompile(c.hint).MatchString(hint) {
				t.Errorf("hint %q does not match %s", hint, c.hint)
			}
			if len(s.id) != 12 || !isBase62(s.id) {
				t.Errorf("id %q is not 12 base62 characters", s.id)
			}
			if !plausible(s.text) {
				t.Error("a made text must be plausible")
			}
		})
	}
}

func TestRandomCharactersAreFair(t *testing.T) {
	counts := map[byte]int{}
	const n = 62 * 2000
	for _, c := range []byte(randomBase62(n)) {
		counts[c]++
	}
	for _, c := range []byte(base62) {
		if counts[c] < 1700 || counts[c] > 2300 { // 6.7 standard deviations
			t.Errorf("%q came %d times of %d", c, counts[c], n)
		}
	}
}

func TestPlausibleTexts(t *testing.T) {
	token := newSecret(Package{}.withDefaults("key")).text
	flipped := []byte(token)
	flipped[20] = base62[(strings.IndexByte(base62, flipped[20])+1)%62]
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"token with a right checksum", token, true},
		{"token with one character changed", string(flipped), false},
		{"token with a changed prefix", "kex" + token[3:], false},
		{"token with an upper-case prefix is another shape", "KEY" + token[3:], true},
		{"token cut short is another shape", token[:54], true},
		{"imported key of any shape", "hunter2!", true},
		{"one character", "x", true},
		{"512 characters", strings.Repeat("x", 512), true},
		{"513 characters", strings.Repeat("x", 513), false},
		{"empty", "", false},
		{"space", "a b", false},
		{"tab", "a\tb", false},
		{"NUL", "a\x00b", false},
		{"DEL", "a\x7fb", false},
		{"not ASCII", "clé", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := plausible(c.text); got != c.want {
				t.Errorf("plausible(%q) = %v", c.text, got)
			}
		})
	}
}

func TestUUIDsMeanTheSameInEitherCase(t *testing.T) {
	const lower = "123e4567-e89b-42d3-a456-426655440000"
	if canonical(strings.ToUpper(lower)) != lower {
		t.Error("an upper-case UUID is not lower-cased")
	}
	for _, other := range []string{"ABC", strings.ToUpper(lower)[:35], "G" + strings.ToUpper(lower)[1:], "{" + strings.ToUpper(lower) + "}"} {
		if canonical(other) != other {
			t.Errorf("%q is no UUID and must stay as it is", other)
		}
	}
}

func TestPepperChangesDigestAndKind(t *testing.T) {
	plain, a, b := newHasher(nil), newHasher([]byte("pepper a")), newHasher([]byte("pepper b"))
	if plain.digest("x") != sha256.Sum256([]byte("x")) || plain.kind() != DigestSHA256 || plain.fingerprint() != nil {
		t.Error("without a pepper the digest is SHA-256")
	}
	again := newHasher([]byte("pepper a"))
	if a.digest("x") == plain.digest("x") || a.digest("x") == b.digest("x") || a.digest("x") != again.digest("x") {
		t.Error("digests must differ by pepper and by nothing else")
	}
	if a.kind() != DigestHMACSHA256 || string(a.fingerprint()) == string(b.fingerprint()) {
		t.Error("peppers are told apart by kind and fingerprint")
	}
}

func FuzzTokenShape(f *testing.F) {
	f.Add(newSecret(Package{}.withDefaults("key")).text)
	f.Add("a_b_c")
	f.Add(strings.Repeat("a", 54))
	f.Fuzz(func(t *testing.T, text string) {
		if got, want := tokenShaped(text), tokenPattern.MatchString(text) && !strings.HasSuffix(text, "\n"); got != want {
			t.Errorf("tokenShaped(%q) = %v, want %v", text, got, want)
		}
		plausible(canonical(text))
	})
}
