package apikeys

// Under which names requests carry keys, so that logs can do without what stands there.

import (
	"maps"
	"sync/atomic"
)

// redactNames are the names under which requests carry keys, folded by foldRedactName. A value is never changed, only
// replaced.
type redactNames struct {
	headers, queries, cookies map[string]bool

	// pairs has the names that stand before a `=`: headers and queries. fields has all.
	pairs, fields map[string]bool

	// lengths has bit n set if a name has n bytes, and bit 63 for all longer ones: most names are told apart from
	// these by their length alone.
	lengths uint64
}

// secretNames are those of the whole process: Caddy opens its logs before it provisions the handlers that know the
// names, and the logs of a reload overlap. So names are only ever added, and the default ones are there from the start.
var secretNames atomic.Pointer[redactNames]

func init() {
	secretNames.Store(new(redactNames))
	for _, name := range []string{"X-API-Key", "Authorization", "apikey", "Api-Key"} {
		redactHeader(name)
	}
	// A parameter named `key` is too common to be hidden unless it is configured.
	for _, name := range []string{"apikey", "api_key", "api-key", "access_token"} {
		redactQuery(name)
	}
}

// redactHeader hides the values of a header in all logs from now on.
func redactHeader(name string) { addRedactNames(redactSet(name), nil, nil) }

// redactQuery hides the values of a query parameter in all logs from now on.
func redactQuery(name string) { addRedactNames(nil, redactSet(name), nil) }

// redactCookie hides the values of a cookie in all logs from now on.
func redactCookie(name string) { addRedactNames(nil, nil, redactSet(name)) }

// redactSet returns the set of this one name, or no set if it is empty.
func redactSet(name string) map[string]bool {
	if name == "" {
		return nil
	}
	return map[string]bool{string(foldRedactName(nil, name)): true}
}

// addRedactNames replaces the names by a larger copy, so that no reader needs a lock.
func addRedactNames(headers, queries, cookies map[string]bool) {
	for {
		old := secretNames.Load()
		names := &redactNames{
			headers: joinRedactSets(old.headers, headers),
			queries: joinRedactSets(old.queries, queries),
			cookies: joinRedactSets(old.cookies, cookies),
		}
		names.pairs = joinRedactSets(names.headers, names.queries)
		names.fields = joinRedactSets(names.pairs, names.cookies)
		for name := range names.fields {
			names.lengths |= 1 << min(len(name), 63)
		}
		if secretNames.CompareAndSwap(old, names) {
			return
		}
	}
}

func joinRedactSets(a, b map[string]bool) map[string]bool {
	all := make(map[string]bool, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// hides reports whether a field of this name holds a key.
func (l *redactNames) hides(field string) bool {
	return l.hasLength(len(field)) && l.has(l.fields, field)
}

// has reports whether name, in any spelling, is in one of the sets of l.
func (l *redactNames) has(set map[string]bool, name string) bool {
	var buf [64]byte
	folded := foldRedactName(buf[:0], name)
	return l.hasLength(len(folded)) && set[string(folded)]
}

func (l *redactNames) hasLength(n int) bool { return l.lengths>>min(n, 63)&1 != 0 }

// foldRedactName appends name to buf in the form in which names are compared: in lower case, without escapes, and with `-`
// for `_` and `.`, which gateways and CGI take for one another.
func foldRedactName(buf []byte, name string) []byte {
	for i := 0; i < len(name); {
		c, width := charAt(name, i)
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == '_' || c == '.':
			c = '-'
		case c == '+':
			c = ' '
		}
		buf = append(buf, c)
		i += width
	}
	return buf
}
