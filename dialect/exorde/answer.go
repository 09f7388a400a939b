package exorde

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// replaced is the answer to a call that replaced the key.
type replaced struct {
	APIKey string `json:"apikey"`
	Status status `json:"status"`
}

// status stands in every body but that of an internal error.
type status struct {
	// Cost of the call in credits. Management is free.
	Cost   int     `json:"cost"`
	Notice *notice `json:"apiDeprecationNotice,omitempty"`
}

type notice struct {
	Message      string `json:"message"`
	ShutdownDate string `json:"shutdownDate"`
}

// refused is the answer to a call that was not done.
type refused struct {
	Error  problem `json:"error"`
	Status status  `json:"status"`
}

type problem struct {
	Message string `json:"message"`
	// Code is the HTTP status.
	Code int `json:"code"`
	// UserID is the account's id, if the caller is known and it is a UUID.
	UserID    string `json:"userId,omitempty"`
	RequestID string `json:"requestId"`
}

// undone is the answer to a call that failed for no reason of the client's.
type undone struct {
	RequestID string `json:"requestId"`
}

func (d *Dialect) writeError(w http.ResponseWriter, r *http.Request, code int, message string, caller *keystore.Grant) {
	p := problem{Message: message, Code: code, RequestID: dialect.RequestID(r)}
	if caller != nil && isUUID(caller.AccountID) {
		p.UserID = caller.AccountID
	}
	write(w, code, refused{p, d.status})
}

// isUUID reports whether s is a UUID in its usual spelling.
func isUUID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }

// write sends an answer. What it writes can always be written as JSON.
func write(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}
