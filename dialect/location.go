package dialect

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Location is a place in a request where clients present their key.
type Location struct {
	// In is "bearer" (the header Authorization with scheme Bearer, RFC 6750),
	// "header", "query" or "cookie".
	In string `json:"in"`
	// Name of the header, of the query parameter (case-sensitive) or of the
	// cookie. Bearer has none.
	Name string `json:"name,omitempty"`
}

// The kinds of locations.
const (
	InBearer = "bearer"
	InHeader = "header"
	InQuery  = "query"
	InCookie = "cookie"
)

// DefaultLocations are where keys are looked for if nothing is configured.
func DefaultLocations() []Location {
	return []Location{{In: InBearer}, {In: InHeader, Name: "X-API-Key"}}
}

// Validate reports what is wrong with a location, and what is allowed.
func (l Location) Validate() error {
	switch l.In {
	case InBearer:
		if l.Name != "" {
			return fmt.Errorf("bearer takes no name, but has %q", l.Name)
		}
		return nil
	case InHeader:
		return validateHeader(l.Name)
	case InQuery:
		if l.Name == "" || strings.ContainsAny(l.Name, "&;#=% \t\r\n") {
			return fmt.Errorf("query %q: use a parameter name without '&', ';', '=', '#', '%%' or spaces", l.Name)
		}
		return nil
	case InCookie:
		if !httpguts.ValidHeaderFieldName(l.Name) {
			return fmt.Errorf("cookie %q: use a cookie name (RFC 6265 token)", l.Name)
		}
		return nil
	}
	return fmt.Errorf("%q: use bearer, header <name>, query <name> or cookie <name>", l.In)
}

// validateHeader refuses what can't be a header of a key.
func validateHeader(name string) error {
	switch textproto.CanonicalMIMEHeaderKey(name) {
	case "Authorization":
		return errors.New("header Authorization: use bearer instead")
	case "Cookie":
		return errors.New("header Cookie: use cookie <name> instead")
	}
	if err := ValidateHeaderName(name); err != nil {
		return fmt.Errorf("header %w, such as X-API-Key", err)
	}
	return nil
}

// reservedHeaders are headers that mean something else to a server, or that a
// proxy drops or writes itself (RFC 9110, 7.6.1).
var reservedHeaders = []string{
	"Authorization", "Connection", "Content-Length", "Content-Type", "Cookie", "Expect", "Host", "Keep-Alive",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

// ValidateHeaderName refuses what is no name for a header of ours: one that is
// none at all, one that Caddy does not let through (it drops request headers
// whose name holds '_' or '.'), and one that means something else.
func ValidateHeaderName(name string) error {
	if !httpguts.ValidHeaderFieldName(name) || strings.ContainsAny(name, "_.") {
		return fmt.Errorf("%q: use letters, digits and '-'", name)
	}
	if slices.Contains(reservedHeaders, textproto.CanonicalMIMEHeaderKey(name)) {
		return fmt.Errorf("%s: servers give this header a meaning of its own; use another", name)
	}
	return nil
}

// Finder finds keys in requests, and takes them out.
type Finder struct {
	bearer   bool
	headers  []string // canonical
	queries  []string
	cookies  []string
	refusals [keystore.Verdicts]Refusal
}

// NewFinder prepares the search in locations. It refuses a location twice, under
// which every key would count as two.
func NewFinder(locations []Location) (*Finder, error) {
	f := &Finder{}
	seen := map[Location]bool{}
	for _, l := range locations {
		if err := l.Validate(); err != nil {
			return nil, err
		}
		same := l
		if l.In == InHeader {
			same.Name = textproto.CanonicalMIMEHeaderKey(l.Name)
		}
		if seen[same] {
			return nil, fmt.Errorf("%s: it is given twice; write it once", strings.TrimSpace(l.In+" "+l.Name))
		}
		seen[same] = true
		switch l.In {
		case InBearer:
			f.bearer = true
		case InHeader:
			f.headers = append(f.headers, textproto.CanonicalMIMEHeaderKey(l.Name))
		case InQuery:
			f.queries = append(f.queries, l.Name)
		case InCookie:
			f.cookies = append(f.cookies, l.Name)
		}
	}
	f.refusals = newRefusals(f.scheme())
	return f, nil
}

// scheme is the authentication scheme of the challenge. Keys that are not
// presented as a bearer token have no registered one.
func (f *Finder) scheme() string {
	if f.bearer {
		return "Bearer"
	}
	return "ApiKey"
}

// found collects what a search comes upon.
type found struct {
	text  string
	count int
}

func (f *found) add(text string) {
	if text != "" {
		f.text = text
		f.count++
	}
}

// Find returns the text that the request presents. The verdict is OK if there
// is exactly one; whether it is a key is not judged here. Empty values, and an
// Authorization of another scheme than Bearer, present nothing.
func (f *Finder) Find(r *http.Request) (string, keystore.Verdict) {
	var got found
	if f.bearer {
		for _, v := range r.Header["Authorization"] {
			if credentials, ok := bearerOf(v); ok {
				got.add(credentials)
			}
		}
	}
	for _, name := range f.headers {
		for _, v := range r.Header[name] {
			got.add(v)
		}
	}
	if len(f.queries) > 0 && r.URL.RawQuery != "" {
		f.findInQuery(r.URL.RawQuery, &got)
	}
	if len(f.cookies) > 0 {
		f.findInCookies(r.Header["Cookie"], &got)
	}
	switch got.count {
	case 0:
		return "", keystore.MissingKey
	case 1:
		return got.text, keystore.OK
	}
	return "", keystore.AmbiguousKey
}

// bearerOf returns the credentials of an Authorization value whose scheme is
// Bearer, in any case.
func bearerOf(value string) (string, bool) {
	value = strings.TrimSpace(value)
	scheme, credentials := value, ""
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		scheme, credentials = value[:i], strings.TrimLeft(value[i:], " \t")
	}
	return credentials, strings.EqualFold(scheme, "Bearer")
}

func (f *Finder) findInQuery(query string, got *found) {
	for query != "" {
		var pair string
		pair, query = cutPair(query)
		if value, ok := f.keyPair(pair); ok {
			got.add(value)
		}
	}
}

// cutPair takes the first pair off a query. Servers differ on whether ';'
// separates pairs; a key must be found, and taken out, for both kinds.
func cutPair(query string) (pair, rest string) {
	if i := strings.IndexAny(query, "&;"); i >= 0 {
		return query[:i], query[i+1:]
	}
	return query, ""
}

// keyPair returns the value of a pair of a query if it is a key location.
func (f *Finder) keyPair(pair string) (value string, ok bool) {
	rawName, rawValue, _ := strings.Cut(pair, "=")
	if !slices.Contains(f.queries, unescapeQuery(rawName)) {
		return "", false
	}
	return unescapeQuery(rawValue), true
}

func unescapeQuery(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

func (f *Finder) findInCookies(lines []string, got *found) {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); f.isCookie(name) {
				got.add(strings.Trim(value, `"`))
			}
		}
	}
}

func (f *Finder) isCookie(name string) bool {
	return slices.Contains(f.cookies, strings.TrimSpace(name))
}

// Strip takes every key location out of the request. Other headers, cookies and
// bytes of the query stay as they are and in their order.
func (f *Finder) Strip(r *http.Request) {
	if f.bearer {
		f.stripBearer(r.Header)
	}
	for _, name := range f.headers {
		delete(r.Header, name)
	}
	if len(f.cookies) > 0 {
		f.stripCookies(r.Header)
	}
	if len(f.queries) > 0 {
		f.stripURLs(r)
	}
}

// stripBearer deletes the header if any of its values is a bearer token: a
// request with several has none that could be trusted.
func (f *Finder) stripBearer(h http.Header) {
	for _, v := range h["Authorization"] {
		if _, ok := bearerOf(v); ok {
			delete(h, "Authorization")
			return
		}
	}
}

// stripURLs takes keys out of the query, and out of what Caddy keeps of the
// original request: placeholders such as {http.request.orig_uri}, FastCGI and
// error routes read that.
func (f *Finder) stripURLs(r *http.Request) {
	if query, stripped := f.stripQuery(r.URL.RawQuery); stripped {
		r.URL.RawQuery = query
		r.RequestURI = r.URL.RequestURI()
	}
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		return
	}
	query, stripped := f.stripQuery(original.URL.RawQuery)
	if !stripped {
		return
	}
	original.URL.RawQuery = query
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.request.orig_uri", original.URL.RequestURI())
	}
}

// stripQuery removes each pair that is a key location, with the separator that
// follows it, or, at the end, the one before it.
func (f *Finder) stripQuery(query string) (kept string, stripped bool) {
	var out strings.Builder
	for query != "" {
		pair, rest := cutPair(query)
		separator := query[len(pair) : len(query)-len(rest)]
		query = rest
		if _, isKey := f.keyPair(pair); !isKey {
			out.WriteString(pair + separator)
			continue
		}
		stripped = true
		if separator == "" && out.Len() > 0 {
			return out.String()[:out.Len()-1], true
		}
	}
	return out.String(), stripped
}

func (f *Finder) stripCookies(h http.Header) {
	lines := h["Cookie"]
	var kept []string
	stripped := false
	for _, line := range lines {
		var pairs []string
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if f.isCookie(name) {
				stripped = true
				continue
			}
			pairs = append(pairs, strings.TrimSpace(pair))
		}
		if len(pairs) > 0 {
			kept = append(kept, strings.Join(pairs, "; "))
		}
	}
	switch {
	case stripped && len(kept) == 0:
		delete(h, "Cookie")
	case stripped:
		h["Cookie"] = kept
	}
}

// Headers returns the canonical names of the headers that are key locations.
func (f *Finder) Headers() []string { return f.headers }

// FieldNames are the canonical names of all header fields in which a key can be
// presented, Authorization included.
func (f *Finder) FieldNames() []string {
	names := slices.Clone(f.headers)
	if f.bearer {
		names = append(names, "Authorization")
	}
	if len(f.cookies) > 0 {
		names = append(names, "Cookie")
	}
	return names
}
