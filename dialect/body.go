package dialect

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxBody is the largest body of a request that is read, in bytes.
const MaxBody = 64 << 10

// jsonSpace are the characters that JSON takes for space, and no others do.
const jsonSpace = " \t\r\n"

// What can be wrong with the body of a request.
var (
	// ErrBodyTooLarge means that it is larger than [MaxBody].
	ErrBodyTooLarge = errors.New("body too large")
	// ErrBodyBroken means that it could not be read to its end.
	ErrBodyBroken = errors.New("body could not be read to its end")
	// ErrBodyNotObject means that it is not one JSON object.
	ErrBodyNotObject = errors.New("body is not one JSON object")
	// ErrBodyUnexpected means that it is an object that has members, where the
	// call takes none.
	ErrBodyUnexpected = errors.New("body has members")
)

// ReadBody reads the whole body. The error is ErrBodyTooLarge or ErrBodyBroken.
func ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, ErrBodyTooLarge
	}
	if err != nil {
		return nil, ErrBodyBroken
	}
	return body, nil
}

// ReadNoBody reads the body of a call that takes none, as the client sent it:
// empty, or an empty JSON object. The error is one of those above; with
// ErrBodyUnexpected the body is returned, too.
func ReadNoBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := ReadBody(w, r)
	if err != nil || len(body) == 0 {
		return body, err
	}
	object := jsontext.Value(bytes.Trim(body, jsonSpace))
	switch {
	case !object.IsValid() || object.Kind() != '{':
		return nil, ErrBodyNotObject
	case len(bytes.Trim(object[1:len(object)-1], jsonSpace)) > 0:
		return body, ErrBodyUnexpected
	}
	return body, nil
}
