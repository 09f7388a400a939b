package keystore

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"strings"
	"sync"
	"unsafe"

	"github.com/google/uuid"
)

// This file is the one place that makes, reads and digests the text of a key.

// Digest is the SHA-256 or HMAC-SHA-256 of a key's text.
type Digest [sha256.Size]byte

// equal compares in constant time.
func (d *Digest) equal(other *Digest) bool {
	var different uint64
	for i := 0; i < len(d); i += 8 {
		different |= binary.LittleEndian.Uint64(d[i:]) ^ binary.LittleEndian.Uint64(other[i:])
	}
	return different == 0
}

// DigestKind says how a digest was computed from a key's text.
type DigestKind string

// The digest kinds. Every record names its own, so that keys imported without
// a pepper stay valid under one.
const (
	DigestSHA256     DigestKind = "sha256"
	DigestHMACSHA256 DigestKind = "hmac-sha256"
)

// Format is the shape of the key texts that are made for a package.
type Format string

// The formats of key texts.
const (
	// FormatToken is <prefix>_<id>_<secret><crc>, with 12, 32 and 6 base62
	// characters after the prefix: 190 bits of secret, and a CRC-32 of all that
	// precedes it, so that a mistyped key is refused without a look-up.
	FormatToken Format = "token"
	// FormatUUID is a UUID of version 4 in lower case (RFC 9562).
	FormatUUID Format = "uuid"
	// FormatAlphanumeric is base62 characters, as many as the package says.
	FormatAlphanumeric Format = "alphanumeric"
	// FormatOther is that of keys that were made elsewhere: any 1 to 512 visible
	// ASCII characters. No key is made in it.
	FormatOther Format = "other"
)

const (
	// DefaultPrefix begins token keys where nothing else is configured.
	DefaultPrefix = "key"
	// MinAlphanumeric and MaxAlphanumeric bound the length of alphanumeric
	// keys, in characters; 22 carry 131 bits.
	MinAlphanumeric = 22
	MaxAlphanumeric = 256
	// MaxText is the longest text, in characters, that is looked up.
	MaxText = 512

	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

	idLength     = 12
	secretLength = 32
	crcLength    = 6
	tailLength   = secretLength + crcLength
	minPrefix    = 2
	maxPrefix    = 16
)

// base62Digits is the value of each byte as a digit of base62, or notBase62.
var base62Digits = func() (digits [256]uint8) {
	for i := range digits {
		digits[i] = notBase62
	}
	for i := range len(base62) {
		digits[base62[i]] = uint8(i)
	}
	return digits
}()

const notBase62 = 0xff

// secret is a key's text before its record exists.
type secret struct {
	id   string
	text string
}

// newSecret makes a key text of the package's format from crypto/rand.
func newSecret(p Package) secret {
	id := randomBase62(idLength)
	switch p.Format {
	case FormatUUID:
		return secret{id, uuid.NewString()}
	case FormatAlphanumeric:
		return secret{id, randomBase62(p.Length)}
	}
	head := p.Prefix + "_" + id + "_" + randomBase62(secretLength)
	return secret{id, head + checksum(head)}
}

// randomBase62 draws n characters, each of the 62 equally likely.
func randomBase62(n int) string {
	const fair = 256 - 256%len(base62) // a byte above would favour some characters
	text := make([]byte, 0, n)
	var draw [64]byte
	for {
		_, _ = rand.Read(draw[:]) // it never fails: crypto/rand ends the process instead
		for _, b := range draw {
			if int(b) >= fair {
				continue
			}
			if text = append(text, base62[int(b)%len(base62)]); len(text) == n {
				return string(text)
			}
		}
	}
}

// checksum is the CRC-32 (IEEE) of head in base62, zero padded.
func checksum(head string) string {
	var out [crcLength]byte
	crc := crc32.ChecksumIEEE(bytesOf(head))
	for i := crcLength - 1; i >= 0; i-- {
		out[i] = base62[crc%uint32(len(base62))]
		crc /= uint32(len(base62))
	}
	return string(out[:])
}

// hintOf is what may be shown of a text: enough for its owner to recognise it.
func hintOf(s secret, f Format) string {
	switch {
	case f == FormatToken:
		return s.text[:len(s.text)-tailLength-1]
	case f == FormatAlphanumeric && len(s.text) >= 40:
		return s.text[:6] + "…" + s.text[len(s.text)-6:]
	}
	return "…" + s.text[len(s.text)-4:]
}

// plausible reports whether text can be the text of a key at all: 1 to 512
// visible ASCII characters, and if it has the shape of a token, with the right
// checksum. Nothing else is worth a look-up.
//
// A right checksum is looked at before the shape: what has it is looked up
// whatever its shape, and it is what nearly all texts have.
func plausible(text string) bool {
	if text == "" || len(text) > MaxText || !visible(text) {
		return false
	}
	tail := len(text) - tailLength - 1
	isToken := tail >= minPrefix && text[tail] == '_'
	return !isToken || checksumFits(text) || !tokenShaped(text)
}

// checksumFits reports whether text, which is longer than a checksum, ends in that
// of what precedes it.
func checksumFits(text string) bool {
	body := len(text) - crcLength
	var written uint64
	for i := body; i < len(text); i++ {
		digit := base62Digits[text[i]]
		if digit == notBase62 {
			return false
		}
		written = written*uint64(len(base62)) + uint64(digit)
	}
	return written == uint64(crc32.ChecksumIEEE(bytesOf(text[:body])))
}

// visible reports whether all of text is visible ASCII, '!' to '~'. It looks at
// eight characters at a time: in a word without a character outside the range,
// none of the three terms has the high bit of any byte set.
func visible(text string) bool {
	const each = 0x0101010101010101
	var outside uint64
	rest := bytesOf(text)
	for ; len(rest) >= 8; rest = rest[8:] {
		w := binary.LittleEndian.Uint64(rest)
		outside |= w | (w + each) | ((w - '!'*each) &^ w)
	}
	for _, c := range rest {
		if c < '!' || c > '~' {
			return false
		}
	}
	return outside&(0x80*each) == 0
}

// tokenShaped reports whether text matches
// ^[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$.
func tokenShaped(text string) bool {
	prefix := len(text) - idLength - tailLength - 2
	if prefix < minPrefix || prefix > maxPrefix {
		return false
	}
	id := prefix + 1
	tail := id + idLength + 1
	return ValidPrefix(text[:prefix]) && text[prefix] == '_' && isBase62(text[id:tail-1]) &&
		text[tail-1] == '_' && isBase62(text[tail:])
}

func isBase62(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// uuidShaped reports whether text is 8-4-4-4-12 hexadecimal digits.
func uuidShaped(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		c := text[i] | 0x20
		switch i {
		case 8, 13, 18, 23:
			if text[i] != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') || text[i] < '0' {
				return false
			}
		}
	}
	return true
}

// canonical is the text whose digest is stored: a UUID means the same in upper
// and lower case, any other text is itself.
func canonical(text string) string {
	if uuidShaped(text) {
		return strings.ToLower(text)
	}
	return text
}

// plainDigest is the SHA-256 of a canonical text.
func plainDigest(text string) Digest { return sha256.Sum256(bytesOf(text)) }

// derived is the key that HKDF (RFC 5869) derives from a presented text and a
// salt, for one purpose.
func derived(text, salt, purpose string) Digest {
	key, err := hkdf.Key(sha256.New, []byte(canonical(text)), []byte(salt), purpose, sha256.Size)
	if err != nil { // only a length out of range could do it
		panic(err)
	}
	return Digest(key)
}

// hasher digests key texts under an optional pepper. Without one its digest is
// the plain one.
type hasher struct {
	macs *sync.Pool // of *macState; nil without a pepper
}

type macState struct {
	mac hash.Hash
	sum []byte
}

func newHasher(pepper []byte) hasher {
	if len(pepper) == 0 {
		return hasher{}
	}
	return hasher{&sync.Pool{New: func() any {
		return &macState{hmac.New(sha256.New, pepper), make([]byte, 0, sha256.Size)}
	}}}
}

func (h hasher) peppered() bool { return h.macs != nil }

// kind is the digest kind of the keys that are made now.
func (h hasher) kind() DigestKind {
	if h.peppered() {
		return DigestHMACSHA256
	}
	return DigestSHA256
}

// digest is the digest of a canonical text, of kind h.kind().
func (h hasher) digest(text string) Digest {
	if !h.peppered() {
		return plainDigest(text)
	}
	s := h.macs.Get().(*macState)
	defer h.macs.Put(s)
	s.mac.Reset()
	s.mac.Write(bytesOf(text))
	return Digest(s.mac.Sum(s.sum[:0]))
}

// fingerprint identifies the pepper without giving it away; nil without one.
func (h hasher) fingerprint() []byte {
	if !h.peppered() {
		return nil
	}
	d := h.digest("api_keys pepper fingerprint")
	return d[:16]
}

// bytesOf is the text as bytes that nobody may write, without a copy: a
// conversion would allocate at each verdict.
func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }
