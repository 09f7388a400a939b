package apikeys

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// identityFields are what identity headers hold, with their default names.
var identityFields = []struct {
	field, header string
	value         func(*keystore.Grant) string
}{
	{"account_id", "X-Account-Id", func(g *keystore.Grant) string { return g.AccountID }},
	{"credential_id", "X-Credential-Id", func(g *keystore.Grant) string { return g.CredentialID }},
	{"key_id", "X-Key-Id", func(g *keystore.Grant) string { return g.KeyID }},
	{"package", "X-Key-Package", func(g *keystore.Grant) string { return g.Package }},
	{"roles", "X-Key-Roles", func(g *keystore.Grant) string { return headerRoles(g.Roles) }},
}

// identity tells the upstream who called, and keeps clients from telling it.
type identity struct {
	// headers are the canonical names by the index of identityFields; nil if off.
	headers []string
	// guarded are the names that no client may send; lengths has a bit for the
	// length of each.
	guarded []string
	lengths uint64
	// keys are the canonical names of headers with keys, which are no trailers.
	keys []string
}

// maxHeaderName is the longest name of an identity header: lengths has 64 bits.
const maxHeaderName = 63

// newIdentity checks the names of identity headers.
func newIdentity(names map[string]string, off bool, keys *dialect.Finder) (identity, error) {
	if off && len(names) > 0 {
		return identity{}, errors.New("identity_headers off: remove it, or remove identity_header")
	}
	for field, name := range names {
		if err := checkIdentityHeader(field, name); err != nil {
			return identity{}, err
		}
	}
	var id identity
	for _, f := range identityFields {
		name := f.header
		if chosen, ok := names[f.field]; ok {
			name = chosen
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case slices.Contains(keys.Headers(), name):
			return identity{}, fmt.Errorf("identity_header %s %s: clients present their key in this header; use another name", f.field, name)
		case slices.Contains(id.headers, name):
			return identity{}, fmt.Errorf("identity_header %s %s: another identity header has this name; use another", f.field, name)
		}
		id.headers = append(id.headers, name)
		id.guarded = append(id.guarded, name)
		id.lengths |= 1 << len(name)
	}
	if off {
		id.headers = nil
	}
	return id, nil
}

// checkIdentityHeader reports why the name can't be that of the header with the
// field.
func checkIdentityHeader(field, name string) error {
	switch {
	case !slices.Contains(fieldNames(), field):
		return fmt.Errorf("identity_header %q: use one of: %s", field, strings.Join(fieldNames(), ", "))
	case len(name) > maxHeaderName:
		return fmt.Errorf("identity_header %s: the name has %d characters; use at most %d", field, len(name), maxHeaderName)
	}
	if err := dialect.ValidateHeaderName(name); err != nil {
		return fmt.Errorf("identity_header %s %w", field, err)
	}
	return nil
}

func fieldNames() []string {
	names := make([]string, len(identityFields))
	for i, f := range identityFields {
		names[i] = f.field
	}
	return names
}

// fold spells a byte of a header name as servers behind a gateway may read it:
// in lower case, with '_' and '.' like '-'.
func fold(c byte) byte {
	switch {
	case c == '_' || c == '.':
		return '-'
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}

// sameFolded reports whether two header names of equal length are the same to
// some server.
func sameFolded(a, b string) bool {
	for i := range len(a) {
		if fold(a[i]) != fold(b[i]) {
			return false
		}
	}
	return true
}

// guards reports whether a header of this name is ours alone to send.
func (id *identity) guards(name string) bool {
	if len(name) > maxHeaderName || id.lengths&(1<<len(name)) == 0 {
		return false
	}
	for _, guarded := range id.guarded {
		if len(guarded) == len(name) && sameFolded(guarded, name) {
			return true
		}
	}
	return false
}

// scrub deletes identity that the client claims: headers in any spelling,
// trailers, and names in Connection lists, which would make reverse_proxy drop
// our headers as hop-by-hop (RFC 9110, 7.6.1).
func (id *identity) scrub(r *http.Request) {
	for name := range r.Header {
		if id.guards(name) {
			delete(r.Header, name)
		}
	}
	if values := r.Header["Connection"]; len(values) > 0 {
		id.scrubConnection(r.Header, values)
	}
	if r.Trailer != nil {
		id.scrubTrailer(r.Trailer)
		if r.Body != nil {
			r.Body = &trailerGuard{r.Body, id, r.Trailer}
		}
	}
}

func (id *identity) scrubConnection(h http.Header, values []string) {
	names := func(list string) bool {
		for token := range strings.SplitSeq(list, ",") {
			if id.guards(textproto.TrimString(token)) {
				return true
			}
		}
		return false
	}
	if !slices.ContainsFunc(values, names) {
		return
	}
	var kept []string
	for token := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if token = textproto.TrimString(token); token != "" && !id.guards(token) {
			kept = append(kept, token)
		}
	}
	if len(kept) == 0 {
		delete(h, "Connection")
		return
	}
	h["Connection"] = []string{strings.Join(kept, ", ")}
}

func (id *identity) scrubTrailer(trailer http.Header) {
	for name := range trailer {
		if id.guards(name) || slices.Contains(id.keys, name) {
			delete(trailer, name)
		}
	}
}

// trailerGuard deletes identity from trailers as they arrive: net/http fills
// the map at the end of the body, with names that were not announced too.
type trailerGuard struct {
	io.ReadCloser
	identity *identity
	trailer  http.Header
}

// Read scrubs the trailer when the body ends.
func (g *trailerGuard) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	if err != nil {
		g.identity.scrubTrailer(g.trailer)
	}
	return n, err
}

// attach tells the next handlers, the upstream and the access log who called.
func (id *identity) attach(r *http.Request, g *keystore.Grant) {
	tellLog(r, g)
	// Every request needs slices of its own: Caddy's header replacements write
	// into them. One array holds them all.
	values := make([]string, 0, len(identityFields))
	for i, name := range id.headers {
		if value := identityFields[i].value(g); value != "" {
			values = append(values, value)
			r.Header[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
}

// tellLog tells placeholders and the access log who called.
func tellLog(r *http.Request, g *keystore.Grant) {
	ctx := r.Context()
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(func(key string) (any, bool) { return placeholder(g, key) })
	}
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && srv != nil && srv.Logs != nil {
		if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
			extra.Add(zap.Inline(logFields{g}))
		}
	}
}

// logFields are what the access log says of an accepted request, beside the
// user_id that Caddy takes from the placeholder.
type logFields struct{ *keystore.Grant }

// MarshalLogObject adds the ids.
func (f logFields) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("api_key_id", f.KeyID)
	enc.AddString("api_credential_id", f.CredentialID)
	return nil
}

const placeholderPrefix = "http.auth.user."

// placeholder is the value of a placeholder about the caller.
func placeholder(g *keystore.Grant, key string) (any, bool) {
	field, ok := strings.CutPrefix(key, placeholderPrefix)
	if !ok {
		return nil, false
	}
	switch field {
	case "id", "account_id":
		return g.AccountID, true
	case "credential_id":
		return g.CredentialID, true
	case "key_id":
		return g.KeyID, true
	case "package":
		return g.Package, true
	case "roles":
		return strings.Join(g.Roles, ","), true
	case "email":
		return g.AccountEmail, true
	case "number":
		return strconv.FormatInt(g.AccountNumber, 10), true
	}
	return nil, false
}

// headerRoles joins roles for a header; other than printable ASCII is
// percent-encoded.
func headerRoles(roles []string) string {
	joined := strings.Join(roles, ",")
	i := strings.IndexFunc(joined, func(c rune) bool { return c > '~' })
	if i < 0 {
		return joined
	}
	var out strings.Builder
	for _, b := range []byte(joined) {
		if b <= '~' {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}
