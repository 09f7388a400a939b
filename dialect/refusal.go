package dialect

import (
	"net/http"
	"strconv"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Refusal is the answer to a request that is not let through.
type Refusal struct {
	Verdict keystore.Verdict
	// Grant is that of the presented key, nil unless the key is known.
	Grant *keystore.Grant
	// Status is the HTTP status.
	Status int
	// Detail is a sentence for the client.
	Detail string
	// Challenge is the value of WWW-Authenticate, empty where none is sent.
	Challenge string
	// RetryAfter is in seconds, zero where no Retry-After is sent.
	RetryAfter int
}

// refusals is the one table of what a verdict means on the wire. The error
// codes of the challenge are those of RFC 6750, section 3.1.
var refusals = [keystore.Verdicts]struct {
	status int
	error  string
	detail string
}{
	keystore.MissingKey:       {401, "", "No API key was presented."},
	keystore.AmbiguousKey:     {400, "invalid_request", "More than one API key was presented; present exactly one, once."},
	keystore.InvalidKey:       {401, "invalid_token", "The API key is not valid."},
	keystore.PendingKey:       {401, "invalid_token", "The API key is not active yet."},
	keystore.ExpiredKey:       {401, "invalid_token", "The API key has expired."},
	keystore.RevokedKey:       {401, "invalid_token", "The API key has been revoked."},
	keystore.Inactive:         {403, "", "The account or the credential of this API key is deactivated."},
	keystore.WrongPackage:     {403, "insufficient_scope", "The API key is of a package that does not open this route."},
	keystore.MissingRole:      {403, "insufficient_scope", "The API key lacks a role that this route requires."},
	keystore.IPNotAllowed:     {403, "", "The API key may not be used from this client address."},
	keystore.StoreUnavailable: {503, "", "The API key can't be checked at the moment; try again."},
}

const (
	realm = `realm="api_keys"`

	// StoreRetryAfter is what a client should wait while the store is away, in
	// seconds.
	StoreRetryAfter = 5
)

// RefusalOf is what a verdict on a grant, nil if the key is not known, means to
// clients that present keys where the finder looks.
func RefusalOf(v keystore.Verdict, g *keystore.Grant, from *Finder) Refusal {
	refusal := from.refusals[v]
	refusal.Grant = g
	return refusal
}

// newRefusals writes the table for one choice of key locations.
func newRefusals(scheme string) (out [keystore.Verdicts]Refusal) {
	for v, row := range refusals {
		out[v] = Refusal{Verdict: keystore.Verdict(v), Status: row.status, Detail: row.detail}
		if row.status == http.StatusUnauthorized || row.error != "" {
			out[v].Challenge = scheme + " " + realm
		}
		if row.error != "" {
			out[v].Challenge += `, error="` + row.error + `"`
		}
		if row.status == http.StatusServiceUnavailable {
			out[v].RetryAfter = StoreRetryAfter
		}
	}
	return out
}

// WriteHeaders sets the headers that every refusal carries. Their values share one
// piece of memory, which is this response's alone, for others may write into it.
func (f Refusal) WriteHeaders(h http.Header) {
	values := [...]string{"no-store", f.Challenge, ""}
	h["Cache-Control"] = values[0:1:1]
	if f.Challenge != "" {
		h["Www-Authenticate"] = values[1:2:2]
	}
	if f.RetryAfter > 0 {
		values[2] = strconv.Itoa(f.RetryAfter)
		h["Retry-After"] = values[2:3:3]
	}
}
