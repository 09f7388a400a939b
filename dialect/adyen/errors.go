package adyen

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// problem is the API's error object. The order of the members is that of its
// documentation.
type problem struct {
	Type          string         `json:"type"`
	Title         string         `json:"title"`
	Status        int            `json:"status"`
	Detail        string         `json:"detail"`
	ErrorCode     string         `json:"errorCode"`
	Instance      string         `json:"instance"`
	RequestID     string         `json:"requestId"`
	InvalidFields []invalidField `json:"invalidFields,omitempty"`
}

// invalidField says what is wrong with one part of a request. The clients' model
// has all three members; a value that may be a secret is left empty.
type invalidField struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Message string `json:"message"`
}

// The parts of a request, as invalidField names them.
const (
	credentialField = "apiCredentialId"
	bodyField       = "body"
)

// outcome is how an error of a kind is answered. Field is the part of the
// request that is wrong, if it is one.
type outcome struct {
	kind   error
	status int
	field  string
	detail string
}

const (
	notYours    = "The presented API key may not generate a key for this API credential, or there is no such API credential."
	unavailable = "The API keys can't be reached at the moment, and whether a key was generated is not known; try again, with the same Idempotency-Key if there was one."
)

// outcomes is the one table of what an error means on the wire; the first kind
// that fits decides. What is another's and what does not exist are one answer.
var outcomes = []outcome{
	{dialect.ErrBodyTooLarge, http.StatusRequestEntityTooLarge, "", "The request body is larger than 64 KiB."},
	{dialect.ErrBodyBroken, http.StatusBadRequest, bodyField, "The request body could not be read to its end."},
	{dialect.ErrBodyNotObject, http.StatusBadRequest, bodyField, "The request body must be empty, or an empty JSON object."},
	{dialect.ErrBodyUnexpected, http.StatusUnprocessableEntity, bodyField, "The request takes no parameters in its body."},
	{keystore.ErrForbidden, http.StatusForbidden, "", notYours},
	{keystore.ErrNotFound, http.StatusForbidden, "", notYours},
	{dialect.ErrIdempotencyKey, http.StatusBadRequest, dialect.IdempotencyHeader, "The header Idempotency-Key must be given once, with 1 to 64 characters of printable ASCII."},
	{keystore.ErrInProgress, http.StatusConflict, "", "A request with this Idempotency-Key is being processed; try again later."},
	{keystore.ErrOtherRequest, http.StatusUnprocessableEntity, dialect.IdempotencyHeader, "This Idempotency-Key was used for another request; use a new one."},
	{keystore.ErrKeyLimit, http.StatusUnprocessableEntity, credentialField, "The API credential has as many API keys as it may; try again when an older one has stopped working."},
	{keystore.ErrConflict, http.StatusUnprocessableEntity, credentialField, "The API credential can't get a new API key; it may have expired."},
	{keystore.ErrUnavailable, http.StatusServiceUnavailable, "", unavailable},
	{keystore.ErrDamaged, http.StatusServiceUnavailable, "", unavailable},
	{context.Canceled, http.StatusServiceUnavailable, "", unavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "", unavailable},
}

// unforeseen is the outcome of what is in no row.
var unforeseen = outcome{nil, http.StatusInternalServerError, "", "Something went wrong. The log of the server says what, under this requestId."}

func outcomeOf(err error) outcome {
	for _, o := range outcomes {
		if errors.Is(err, o.kind) {
			return o
		}
	}
	return unforeseen
}

// fail answers an error: the client gets the safe sentence, the log the cause.
func (d *Dialect) fail(w http.ResponseWriter, r *http.Request, to target, err error) {
	if refused, ok := errors.AsType[*dialect.RefusedError](err); ok {
		d.refuse(w, r, refused.Refusal, zap.InfoLevel)
		return
	}
	o := outcomeOf(err)
	p := newProblem(r, o.status, o.detail)
	p.InvalidFields = o.invalidFields(to, err)
	if o.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(dialect.StoreRetryAfter))
	}
	d.log(r, p, zap.InfoLevel, err)
	p.write(w)
}

func (o outcome) invalidFields(to target, err error) []invalidField {
	if members, ok := errors.AsType[*membersError](err); ok {
		return members.invalidFields()
	}
	switch o.field {
	case "":
		return nil
	case credentialField:
		return []invalidField{{o.field, to.credential, o.detail}}
	}
	return []invalidField{{Name: o.field, Message: o.detail}}
}

// Refuse answers with the error object, on proxied routes: of these the access log
// has the id.
func (d *Dialect) Refuse(w http.ResponseWriter, r *http.Request, f dialect.Refusal) {
	d.refuse(w, r, f, zap.DebugLevel)
}

// refuse answers a refusal. A request that is malformed presents more than one key.
func (d *Dialect) refuse(w http.ResponseWriter, r *http.Request, f dialect.Refusal, level zapcore.Level) {
	p := newProblem(r, f.Status, f.Detail)
	if f.Status == http.StatusBadRequest {
		p.InvalidFields = []invalidField{{Name: keyHeader, Message: f.Detail}}
	}
	f.WriteHeaders(w.Header())
	d.log(r, p, level, nil)
	p.write(w)
}

// notAllowed answers other methods on the paths of routes; the header Allow is
// set.
func (d *Dialect) notAllowed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	p := newProblem(r, http.StatusMethodNotAllowed, "This path takes "+w.Header().Get("Allow")+" only.")
	d.log(r, p, zap.InfoLevel, nil)
	p.write(w)
}

// newProblem makes the error object of a status. Each status has one page of the
// vendor's documentation and one code, both of its generic errors.
func newProblem(r *http.Request, status int, detail string) problem {
	id := dialect.RequestID(r)
	title := http.StatusText(status)
	page := strings.ReplaceAll(strings.ToLower(title), " ", "-")
	if status == http.StatusInternalServerError {
		page = "internal"
	}
	return problem{
		Type: "https://docs.adyen.com/errors/" + page, Title: title, Status: status, Detail: detail,
		ErrorCode: "00_" + strconv.Itoa(status), Instance: "urn:uuid:" + id, RequestID: id,
	}
}

// log writes one line by which the client's requestId can be found, at this level
// or as a fault of the server's. That the client went away is none.
func (d *Dialect) log(r *http.Request, p problem, level zapcore.Level, cause error) {
	if p.Status >= 500 && r.Context().Err() == nil {
		level = zap.ErrorLevel
	}
	if entry := d.gateway.Logger.Check(level, "answered with an error"); entry != nil {
		entry.Write(zap.String("request_id", p.RequestID), zap.Int("status", p.Status), zap.Error(cause))
	}
}

func (p problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // there is nothing in it that could not be written
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
