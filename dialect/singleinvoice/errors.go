package singleinvoice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// refused is the body of every answer but 200.
type refused struct {
	Message    string     `json:"Message"`
	ModelState modelState `json:"ModelState,omitempty"`
}

const (
	messageInvalid   = "The request is invalid."
	messageDenied    = "Authorization has been denied for this request."
	messageTooLarge  = "The request entity is too large."
	messageUndone    = "An error has occurred."
	messageNotMethod = "The requested resource does not support http method '%s'."
)

// messages says what a status means to the API's clients.
var messages = map[int]string{
	http.StatusBadRequest:            messageInvalid,
	http.StatusUnauthorized:          messageDenied,
	http.StatusRequestEntityTooLarge: messageTooLarge,
	http.StatusInternalServerError:   messageUndone,
	http.StatusServiceUnavailable:    messageUndone,
}

// outcomes is the one table of what an error means on the wire; the first kind
// that fits decides.
var outcomes = []struct {
	kind   error
	status int
}{
	{dialect.ErrBodyTooLarge, http.StatusRequestEntityTooLarge},
	{dialect.ErrBodyBroken, http.StatusBadRequest},
	{keystore.ErrInvalid, http.StatusBadRequest},
	{keystore.ErrForbidden, http.StatusUnauthorized},
	{keystore.ErrNotFound, http.StatusUnauthorized}, // the account was deleted meanwhile
	{keystore.ErrUnavailable, http.StatusServiceUnavailable},
	{keystore.ErrDamaged, http.StatusServiceUnavailable},
	{context.Canceled, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable},
}

func statusOf(err error) int {
	if _, ok := errors.AsType[modelState](err); ok {
		return http.StatusBadRequest
	}
	for _, o := range outcomes {
		if errors.Is(err, o.kind) {
			return o.status
		}
	}
	return http.StatusInternalServerError
}

// fail answers an error of a call whose caller is known.
func (d *Dialect) fail(w http.ResponseWriter, r *http.Request, grant *keystore.Grant, err error) {
	if refused, ok := errors.AsType[*dialect.RefusedError](err); ok {
		refuse(w, refused.Refusal, d.finder)
		return
	}
	status := statusOf(err)
	body := refused{Message: messages[status]}
	switch status {
	case http.StatusBadRequest:
		body.ModelState = stateOf(err)
	case http.StatusUnauthorized:
		d.logDenied(grant, err)
		refuse(w, dialect.RefusalOf(keystore.InvalidKey, grant, d.finder), d.finder)
		return
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(dialect.StoreRetryAfter))
	}
	if status >= http.StatusInternalServerError {
		d.logCause(r, grant, err)
	}
	write(w, status, body)
}

// stateOf says in the API's way which member is wrong, and why.
func stateOf(err error) modelState {
	if state, ok := errors.AsType[modelState](err); ok {
		return state
	}
	if e, ok := errors.AsType[*keystore.Error](err); ok && e.Member != "" {
		return modelState{e.Member: {"The " + e.Member + " " + e.Detail + "."}}
	}
	return modelState{member: {broken}}
}

// logDenied says which rule denied what the client is told nothing of.
func (d *Dialect) logDenied(grant *keystore.Grant, err error) {
	d.gateway.Logger.Warn("a key was not made: its maker may not", zap.Error(err),
		zap.String("account_id", grant.AccountID), zap.String("credential_id", grant.CredentialID))
}

// logCause writes why a call could not be answered. That the client went away is
// no fault of the store's.
func (d *Dialect) logCause(r *http.Request, grant *keystore.Grant, err error) {
	level := zap.ErrorLevel
	if r.Context().Err() != nil {
		level = zap.DebugLevel
	}
	if entry := d.gateway.Logger.Check(level, "a key could not be made"); entry != nil {
		entry.Write(zap.Error(err), zap.String("account_id", grant.AccountID))
	}
}

// refuse answers a request that is not let through. From is where its keys were
// looked for.
func refuse(w http.ResponseWriter, f dialect.Refusal, from *dialect.Finder) {
	if f.Status == http.StatusForbidden {
		// To RFC 6750 a token that a 401 refuses is invalid, "for other reasons".
		f.Status, f.Challenge = http.StatusUnauthorized, dialect.RefusalOf(keystore.InvalidKey, nil, from).Challenge
	}
	f.WriteHeaders(w.Header())
	write(w, f.Status, refused{Message: messages[f.Status]})
}

// notAllowed answers other methods on the route; the header Allow is set.
func notAllowed(w http.ResponseWriter, r *http.Request) {
	write(w, http.StatusMethodNotAllowed, refused{Message: fmt.Sprintf(messageNotMethod, presentable(r.Method))})
}

// write sends an answer. What it writes can always be written as JSON: text that
// somebody put into the store by hand and that is not UTF-8 is mended.
func write(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
