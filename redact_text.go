package apikeys

// What is a key text, and how one is found in a string.

import (
	"strings"
)

// redactedText stands where a key stood; Caddy itself writes the same word.
const redactedText = "REDACTED"

// redactText returns s without the keys in it: the values of known headers, query parameters and cookies that are
// written out in s, what follows the word Bearer, and whatever has the shape of a token. A string without any of
// these is returned as it is, and costs no allocation.
func redactText(s string) string { return redactString(s, false) }

// redactString is redactText for a string that is, if cookie says so, the value of a Cookie or Set-Cookie header.
func redactString(s string, cookie bool) string {
	if !mayHoldKey(s) {
		return s
	}
	scan := redactScanner{text: s, names: secretNames.Load(), bareURI: isBareURI(s), cookieField: cookie, cookie: cookie}
	return scan.run()
}

// isCookieHeader reports whether a field of this name holds cookies.
func isCookieHeader(field string) bool {
	return strings.EqualFold(field, "Cookie") || strings.EqualFold(field, "Set-Cookie")
}

// A token is `<prefix>_<id>_<secret>`. Mistyped ones are hidden too: what counts is an id of about the
// right length before a long secret, in either case.
const (
	tokenMinID, tokenMaxID = 10, 14
	tokenMinSecret         = 30
)

// The classes of characters that the scanner tells apart.
const (
	charAlnum   = 1 << iota // what a token is made of, with `_`
	charName                // can stand in a name without ambiguity
	charGap                 // can stand between a name and its `:` or `=`
	charHard                // separates query parameters, or words
	charTrigger             // without one of these, there is no name with a value in a string
)

var charClass = func() (class [256]uint8) {
	mark := func(chars string, bits uint8) {
		for _, c := range []byte(chars) {
			class[c] |= bits
		}
	}
	mark("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", charAlnum|charName)
	mark("_-.~", charName)
	mark("\"'`\\ ", charGap)
	mark("?&;=\"'`\x7f", charHard)
	mark("=:%\\", charTrigger)
	for c := range ' ' + 1 {
		class[c] |= charHard
	}
	return class
}()

// mayHoldKey reports whether the scanner could find a key in s. It decides most strings of an access log.
func mayHoldKey(s string) bool {
	run := 0
	for i := range len(s) {
		class := charClass[s[i]]
		switch {
		case class&charAlnum != 0:
			if run++; run == tokenMinSecret {
				return true
			}
		case class&charTrigger != 0, isBearer(s[i-run : i]):
			return true
		default:
			run = 0
		}
	}
	return false
}

func isBearer(word string) bool {
	return len(word) == len("bearer") && strings.EqualFold(word, "bearer")
}

// charAt returns the character at s[i] and its width. A percent-encoded one, even if encoded more than once, and
// the `\u0026` of JSON count as what they stand for: links are logged inside of links and JSON inside of text.
func charAt(s string, i int) (c byte, width int) {
	if s[i] != '%' && s[i] != '\\' {
		return s[i], 1
	}
	return escapedAt(s, i)
}

func escapedAt(s string, i int) (c byte, width int) {
	hex := i + 1
	if s[i] == '\\' {
		if !strings.HasPrefix(s[hex:], "u00") {
			return s[i], 1
		}
		hex += len("u00")
	}
	for s[i] == '%' && strings.HasPrefix(s[hex:], "25") && isHex(s, hex+2) {
		hex += len("25")
	}
	if !isHex(s, hex) {
		return s[i], 1
	}
	return unhex[s[hex]]<<4 | unhex[s[hex+1]], hex + 2 - i
}

// unhex holds the values of hexadecimal digits.
var unhex = func() (value [256]uint8) {
	for i, c := range []byte("0123456789abcdef0123456789ABCDEF") {
		value[c] = uint8(i % 16)
	}
	return value
}()

// isHex reports whether two hexadecimal digits stand at s[i].
func isHex(s string, i int) bool {
	digit := func(c byte) bool { return c == '0' || unhex[c] != 0 }
	return i+1 < len(s) && digit(s[i]) && digit(s[i+1])
}

// redactScanner goes through a string once, and copies it without keys when it finds the first. Clients choose the
// strings, of up to a megabyte: no step may look twice at more than a few characters.
type redactScanner struct {
	text    string
	names   *redactNames
	bareURI bool
	out     []byte
	done    int // text[:done] is in out, or dropped

	// The name that ends here, if it does: after the last separator of query parameters, after the last character
	// that is in doubt, and, if only quotes and spaces came since, the one before.
	hard, soft         int
	quoted, quotedUpTo int

	// The word that ends here, and the lengths of its last two parts between underscores.
	word, part, partBefore int
	token                  bool

	// Whether cookies are listed here, because the whole string is such a list or follows `Cookie:`.
	cookieField, cookie bool
	pair                int
}

func (s *redactScanner) run() string {
	for i := 0; i < len(s.text); {
		c, width := charAt(s.text, i)
		class := charClass[c]
		if class&charAlnum != 0 || c == '_' {
			s.extendWord(c)
			i += width
			continue
		}
		start, end := s.keyAt(i, c, width)
		s.separate(i, c, width)
		i += width
		if end > start {
			s.cut(start, end)
			// The key is scanned, too: the `Bearer` of `api_key=Bearer ...` announces what follows.
			i = start
			s.restart(i)
		}
	}
	s.endWord(len(s.text))
	if s.out == nil {
		return s.text
	}
	return string(append(s.out, s.text[s.done:]...))
}

// keyAt returns where the key begins and ends that the character at i announces.
func (s *redactScanner) keyAt(i int, c byte, width int) (start, end int) {
	word := s.text[s.word:i]
	s.endWord(i)
	switch {
	case isBearer(word):
		return s.bearerValue(i)
	case c == '=' && s.cookie && s.names.has(s.names.cookies, strings.Trim(s.text[s.pair:i], " \t[\"'`\\")):
		return i + width, s.cookieEnd(i + width)
	case c == '=' && s.namesKey(i):
		return i + width, s.pairEnd(i+width, width)
	case c == ':' && s.namesHeader(i, width):
		if width > 1 {
			return i + width, s.pairEnd(i+width, 1)
		}
		return s.headerValue(i + 1)
	}
	return i, i
}

// cut drops text[start:end]. What overlaps with the last cut becomes one with it.
func (s *redactScanner) cut(start, end int) {
	switch {
	case start < s.done:
		s.done = max(s.done, end)
	case s.text[start:end] != redactedText:
		s.out = append(append(s.out, s.text[s.done:start]...), redactedText...)
		s.done = end
	}
}

// restart forgets every name and word before i.
func (s *redactScanner) restart(i int) {
	s.hard, s.soft, s.word = i, i, i
	s.quoted, s.quotedUpTo = i, i
	s.part, s.partBefore, s.token = 0, 0, false
}

// extendWord adds c to the word, which is a token once two parts of it have the lengths of one.
func (s *redactScanner) extendWord(c byte) {
	if c == '_' {
		s.partBefore, s.part = s.part, 0
		return
	}
	s.part++
	if s.part == tokenMinSecret && s.partBefore >= tokenMinID && s.partBefore <= tokenMaxID {
		s.token = true
	}
}

// endWord cuts the word before i out if it is a token.
func (s *redactScanner) endWord(i int) {
	if s.token {
		s.cut(s.word, i)
	}
	s.part, s.partBefore, s.token = 0, 0, false
}

// separate moves the beginnings of names behind the character at i, as far as it ends them.
func (s *redactScanner) separate(i int, c byte, width int) {
	next, class := i+width, charClass[c]
	s.word = next
	if class&charName != 0 {
		return
	}
	switch {
	case class&charGap == 0:
		s.quotedUpTo = s.quoted
	case s.soft < i:
		s.quoted, s.quotedUpTo = s.soft, i
	}
	s.soft = next
	if class&charHard != 0 && width == 1 {
		s.hard = next
	}
	switch {
	case c == ';', c == '=':
		s.pair = next
	case c == '\n' && !s.cookieField:
		s.cookie = false
	}
}

// name returns the name that ends before i, with any quotes after it left out.
func (s *redactScanner) name(i int) string {
	if s.soft == i {
		return s.text[s.quoted:s.quotedUpTo]
	}
	return s.text[s.soft:i]
}

// namesKey reports whether the name before the `=` at i is that of a header or parameter with a key.
func (s *redactScanner) namesKey(i int) bool {
	return s.names.has(s.names.pairs, s.name(i)) || s.hard < s.soft && s.names.has(s.names.pairs, s.text[s.hard:i])
}

// namesHeader reports whether the name before the `:` at i is that of a header with a key, or of
// any location if a list of values follows, as where Go prints a map.
func (s *redactScanner) namesHeader(i, width int) bool {
	name := s.name(i)
	if isCookieHeader(name) {
		s.cookie, s.pair = true, i+width
		return false
	}
	if strings.HasPrefix(s.text[i+width:], "[") {
		return s.names.has(s.names.fields, name)
	}
	return s.names.has(s.names.headers, name)
}

// valueFrom returns from where on the end of a value is looked for that begins at i: behind what is cut out already,
// and behind quotes and brackets, which close nothing at the very beginning.
func (s *redactScanner) valueFrom(i int) int {
	for i = max(i, s.done); i < len(s.text) && strings.IndexByte("\"'`]})>", s.text[i]) >= 0; {
		i++
	}
	return i
}

// pairEnd returns where the value of a query parameter ends that begins at i. In a query inside of another one,
// separators are as wide as the encoded `=` was; what is encoded once more is part of the value. So is whatever is in
// doubt: `#`, which a request's URI may hold, `;` unless a parameter follows, and quotes in a URI that stands alone.
func (s *redactScanner) pairEnd(i, separatorWidth int) int {
	for i = s.valueFrom(i); i < len(s.text); {
		c, width := charAt(s.text, i)
		escaped := width > separatorWidth && (s.text[i] == '%' || s.bareURI)
		switch {
		case escaped:
		case c == '&', c == ';' && pairFollows(s.text[i+width:]):
			return i
		case width == 1 && (c <= ' ' || c == 0x7f), width == 1 && !s.bareURI && closesQuote(s.text, i):
			return i
		}
		i += width
	}
	return i
}

// cookieEnd returns where the value of a cookie ends that begins at i.
func (s *redactScanner) cookieEnd(i int) int {
	for i = s.valueFrom(i); i < len(s.text); i++ {
		if strings.IndexByte(";\r\n", s.text[i]) >= 0 || !s.cookieField && closesQuote(s.text, i) {
			break
		}
	}
	return i
}

// bearerValue returns where the value begins and ends that follows the word Bearer at i.
func (s *redactScanner) bearerValue(i int) (start, end int) {
	start, encoded := i, false
	for separators := " \t+:="; start < len(s.text); separators = " \t" { // a key may begin with the others
		c, width := charAt(s.text, start)
		if strings.IndexByte(separators, c) < 0 {
			break
		}
		encoded = encoded || width > 1 || c == '+'
		start += width
	}
	if start == i {
		return i, i
	}
	for end = s.valueFrom(start); end < len(s.text); end++ {
		c := s.text[end]
		if c <= ' ' || encoded && c == '&' || closesQuote(s.text, end) {
			break
		}
	}
	return start, end
}

// headerValue returns where the value begins and ends of a header written as text: the rest of the line, unless
// brackets or quotes close it, as in `map[X-Api-Key:[...]]`, `{"X-Api-Key":["..."]}` and `-H 'X-Api-Key: ...'`.
func (s *redactScanner) headerValue(i int) (start, end int) {
	for start = i; start < len(s.text) && strings.IndexByte(" \t", s.text[start]) >= 0; start++ {
	}
	if start < len(s.text) && s.text[start] == '[' { // one only: a key may begin with others
		start++
	}
	quote := openingQuote(s.text[start:])
	switch {
	case strings.Contains(s.text[i:start], "["):
		return start + len(quote), s.closing(start+len(quote), quote, "]")
	case quote != "":
		return start + len(quote), s.closing(start+len(quote), quote, "")
	case s.soft > 0 && s.soft < i-1: // the name has no quotes of its own, but may share those around the header
		quote = openingQuote(s.text[s.soft-1:])
	}
	return start, s.closing(start, quote, "")
}

// openingQuote returns the quote with which s begins, escaped or not, if any.
func openingQuote(s string) string {
	n := 0
	if strings.HasPrefix(s, "\\") {
		n = 1
	}
	if n < len(s) && isQuote(s[n]) {
		return s[:n+1]
	}
	return ""
}

// closing returns where a value that begins at i is closed by quote and bracket, if these stand before a delimiter,
// or where its line ends.
func (s *redactScanner) closing(i int, quote, bracket string) int {
	closable := quote != "" || bracket != ""
	for i = s.valueFrom(i); i < len(s.text) && s.text[i] != '\r' && s.text[i] != '\n'; i++ {
		rest, quoted := strings.CutPrefix(s.text[i:], quote)
		rest, closed := strings.CutPrefix(rest, bracket)
		escaped := len(quote) == 1 && s.text[i-1] == '\\'
		if closable && quoted && closed && !escaped && delimits(rest, 0) {
			break
		}
	}
	return i
}

// closesQuote reports whether the character at s[i] is a quote that ends a value rather than one inside of it.
func closesQuote(s string, i int) bool {
	return isQuote(s[i]) && (i == 0 || s[i-1] != '\\') && delimits(s, i+1)
}

func isQuote(c byte) bool { return c == '"' || c == '\'' || c == '`' }

// delimits reports whether nothing of a value follows at s[i].
func delimits(s string, i int) bool {
	return i >= len(s) || s[i] <= ' ' || strings.IndexByte(",:;)]}>\\\"'", s[i]) >= 0
}

// pairFollows reports whether s begins with the name of a parameter and `=`.
func pairFollows(s string) bool {
	for i := range len(s) {
		if s[i] == '=' {
			return i > 0
		}
		if class := charClass[s[i]]; class&charName == 0 && s[i] != '%' {
			return false
		}
	}
	return false
}

// isBareURI reports whether s is a URI or query and nothing else: then no quote or bracket around it ends a value.
func isBareURI(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' {
			return false
		}
	}
	return s != "" && strings.IndexByte("\"'`([{<", s[0]) < 0
}
