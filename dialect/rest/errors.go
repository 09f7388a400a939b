package rest

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// Kinds of refusal by the API itself, beside those of the domain. All are
// carried by a [keystore.Error].
var (
	// errMalformed: the body is not a JSON object.
	errMalformed = errors.New("malformed body")
	// errMember: a member is unknown, repeated or of the wrong type.
	errMember = errors.New("invalid member")
	// errParameter: a parameter of the query is not allowed.
	errParameter = errors.New("invalid parameter")
	errTooLarge  = errors.New("body too large")
	errMediaType = errors.New("unsupported media type")
	errMethod    = errors.New("method not allowed")
)

func refuse(kind error, member, detail string) error {
	return &keystore.Error{Kind: kind, Member: member, Detail: detail}
}

// outcome is how an error of a kind is answered. Detail is for errors that
// bring no sentence of their own.
type outcome struct {
	kind   error
	status int
	code   string
	detail string
}

const (
	noSuch      = "there is nothing at this path that the caller could see"
	unavailable = "the store of keys can't answer at the moment; whether a change was made is not known"
)

// outcomes is the one table of what an error means on the wire; the first kind
// that fits decides.
var outcomes = []outcome{
	{errMalformed, http.StatusBadRequest, "malformed_body", ""},
	{errMember, http.StatusBadRequest, "invalid_member", ""},
	{errParameter, http.StatusBadRequest, "invalid_parameter", ""},
	{errNoIdempotency, http.StatusBadRequest, "invalid_idempotency_key", ""},
	{dialect.ErrIdempotencyKey, http.StatusBadRequest, "invalid_idempotency_key", "the header Idempotency-Key must be given once, with 1 to 64 characters of printable ASCII"},
	{errMethod, http.StatusMethodNotAllowed, "method_not_allowed", ""},
	{errTooLarge, http.StatusRequestEntityTooLarge, "body_too_large", ""},
	{errMediaType, http.StatusUnsupportedMediaType, "unsupported_media_type", ""},
	{keystore.ErrInvalid, http.StatusUnprocessableEntity, "invalid_member", "a value is not allowed"},
	{keystore.ErrForbidden, http.StatusForbidden, "forbidden", "the caller may not do this"},
	{keystore.ErrInProgress, http.StatusConflict, "request_in_progress", "a request with this Idempotency-Key is being answered; send it again later"},
	{keystore.ErrOtherRequest, http.StatusUnprocessableEntity, "idempotency_key_reused", "this Idempotency-Key was used for a request with another path or body; use a new one"},
	{keystore.ErrKeyLimit, http.StatusConflict, "key_limit", "the credential has as many live keys as it may"},
	{keystore.ErrConflict, http.StatusConflict, "conflict", "the change contradicts what exists"},
	{keystore.ErrNotFound, http.StatusNotFound, "not_found", noSuch},
	{keystore.ErrUnavailable, http.StatusServiceUnavailable, "store_unavailable", unavailable},
	{keystore.ErrDamaged, http.StatusServiceUnavailable, "store_unavailable", unavailable},
	{context.Canceled, http.StatusServiceUnavailable, "store_unavailable", unavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "store_unavailable", unavailable},
}

// unforeseen is the outcome of what is in no row.
var unforeseen = outcome{nil, http.StatusInternalServerError, "internal_error", "something went wrong; the log of the gateway says what"}

func outcomeOf(err error) outcome {
	for _, o := range outcomes {
		if errors.Is(err, o.kind) {
			return o
		}
	}
	return unforeseen
}

// fail answers an error: the client gets the safe sentence, the log the cause.
func (api *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if refused, ok := errors.AsType[*dialect.RefusedError](err); ok {
		writeRefusal(w, r, refused.Refusal)
		return
	}
	o := outcomeOf(err)
	p := dialect.NewProblem(o.status, o.code, o.detail, dialect.Instance(r))
	if shown, ok := errors.AsType[*keystore.Error](err); ok && o.status < 500 {
		p.Detail, p.Member = presentable(shown.Error()), presentable(shown.Member)
	}
	p.Detail = place(err, p.Detail)
	if o.status >= 500 {
		api.logCause(r, o, err)
	}
	if o.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(dialect.StoreRetryAfter))
	}
	w.Header().Set("Cache-Control", "no-store")
	p.Write(w)
}

// logCause writes why a call could not be answered. That the client went away
// is no fault of the store's.
func (api *API) logCause(r *http.Request, o outcome, err error) {
	level := zap.ErrorLevel
	if r.Context().Err() != nil {
		level = zap.DebugLevel
	}
	if entry := api.logger.Check(level, "a management call could not be answered"); entry != nil {
		entry.Write(zap.String("code", o.code), zap.String("method", r.Method), zap.Error(err))
	}
}

// notAllowed answers other methods on the paths of routes; the header Allow is
// set.
func (api *API) notAllowed(w http.ResponseWriter, r *http.Request) {
	api.fail(w, r, refuse(errMethod, "", "this path takes "+w.Header().Get("Allow")))
}

// maxShown bounds what is repeated of the client's own words, in bytes.
const maxShown = 400

// presentable makes a text that may hold the client's own words fit for a
// response: it is short, valid UTF-8, and holds no key.
func presentable(s string) string {
	s = dialect.Redact(s)
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
