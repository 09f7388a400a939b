package exorde

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// What can be wrong with a call whose caller is known, beside its body.
var (
	errVersion  = errors.New("unknown version of the API")
	errTooOften = errors.New("too many calls")
)

// tooSoon is a refusal that ends by itself.
type tooSoon struct {
	cause error
	after time.Duration
}

func (e *tooSoon) Error() string { return e.cause.Error() }

// Unwrap returns the reason.
func (e *tooSoon) Unwrap() error { return e.cause }

// seconds is the wait in whole seconds, at least one.
func (e *tooSoon) seconds() int { return max(1, int((e.after+time.Second-1)/time.Second)) }

// outcome is how an error of a kind is answered.
type outcome struct {
	kind    error
	code    int
	message string
}

// outcomes is the one table of what an error means on the wire; the first kind
// that fits decides.
var outcomes = []outcome{
	{errVersion, http.StatusBadRequest, "The header " + versionHeader + " must be " + version + ", once, or missing."},
	{dialect.ErrBodyTooLarge, http.StatusRequestEntityTooLarge, "The body is larger than " + strconv.Itoa(dialect.MaxBody) + " bytes; this call takes none."},
	{dialect.ErrBodyBroken, http.StatusBadRequest, "The body could not be read to its end; this call takes none."},
	{dialect.ErrBodyNotObject, http.StatusBadRequest, "This call takes no body."},
	{dialect.ErrBodyUnexpected, http.StatusBadRequest, "This call takes no body, or an empty object."},
	{errTooOften, http.StatusTooManyRequests, "The API key was replaced too often; wait as long as Retry-After says."},
	{keystore.ErrKeyLimit, http.StatusTooManyRequests, "There are as many working API keys as there may be; wait until an older one stops."},
	{keystore.ErrKeyStopped, http.StatusUnauthorized, "The API key has stopped working."},
	{keystore.ErrNotFound, http.StatusUnauthorized, "The API key has stopped working."}, // the credential was deleted meanwhile
	{keystore.ErrForbidden, http.StatusForbidden, "The API key may not be replaced by its holder."},
	{keystore.ErrConflict, http.StatusForbidden, "The API key can't be replaced any more."}, // the credential expired meanwhile
	{keystore.ErrUnavailable, http.StatusServiceUnavailable, ""},
	{keystore.ErrDamaged, http.StatusServiceUnavailable, ""},
	{context.Canceled, http.StatusServiceUnavailable, ""},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, ""},
}

func outcomeOf(err error) outcome {
	for _, o := range outcomes {
		if errors.Is(err, o.kind) {
			return o
		}
	}
	return outcome{code: http.StatusInternalServerError}
}

// fail answers an error of a call whose caller is known.
func (d *Dialect) fail(w http.ResponseWriter, r *http.Request, grant *keystore.Grant, err error) {
	if refused, ok := errors.AsType[*dialect.RefusedError](err); ok {
		d.Refuse(w, r, refused.Refusal)
		return
	}
	o := outcomeOf(err)
	switch o.code {
	case http.StatusInternalServerError:
		id := dialect.RequestID(r)
		d.logCause(r, id, err)
		write(w, o.code, undone{id})
		return
	case http.StatusServiceUnavailable:
		d.logCause(r, dialect.RequestID(r), err)
		d.Refuse(w, r, dialect.RefusalOf(keystore.StoreUnavailable, nil, d.finder))
		return
	case http.StatusUnauthorized:
		refusal := dialect.RefusalOf(keystore.RevokedKey, grant, d.finder)
		refusal.Detail = o.message
		d.Refuse(w, r, refusal)
		return
	}
	if wait, ok := errors.AsType[*tooSoon](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(wait.seconds()))
	}
	d.writeError(w, r, o.code, o.message, grant)
}

// logCause writes why a call could not be answered. That the client went away is
// no fault of the store's.
func (d *Dialect) logCause(r *http.Request, id string, err error) {
	level := zap.ErrorLevel
	if r.Context().Err() != nil {
		level = zap.DebugLevel
	}
	if entry := d.gateway.Logger.Check(level, "an API key could not be replaced"); entry != nil {
		entry.Write(zap.String("request_id", id), zap.Error(err))
	}
}

// notAllowed answers other methods on the route; the header Allow is set.
func (d *Dialect) notAllowed(w http.ResponseWriter, r *http.Request) {
	d.writeError(w, r, http.StatusMethodNotAllowed, "This path takes "+w.Header().Get("Allow")+" only.", nil)
}
