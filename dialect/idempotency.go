package dialect

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// IdempotencyHeader lets a client send a request twice and have it done once
// (draft-ietf-httpapi-idempotency-key-header).
const IdempotencyHeader = "Idempotency-Key"

// maxIdempotencyKey is the longest key, in characters.
const maxIdempotencyKey = 64

// ErrIdempotencyKey means that the header is not one key of 1 to 64 characters of
// printable ASCII, with spaces between others only.
var ErrIdempotencyKey = errors.New("invalid Idempotency-Key")

// Once begins to answer a request that may have an Idempotency-Key; without one,
// the result is nil, which is of use all the same. It is called once the caller
// is known and may do what is asked. Body is the whole body of the request. The
// error is ErrIdempotencyKey or one of [keystore.Keyring.Once].
func (g Gateway) Once(r *http.Request, from *Finder, body []byte) (*keystore.Once, error) {
	sent := r.Header[IdempotencyHeader]
	if len(sent) == 0 {
		return nil, nil
	}
	if len(sent) > 1 || !validIdempotencyKey(sent[0]) {
		return nil, ErrIdempotencyKey
	}
	text, verdict := from.Find(r)
	if verdict != keystore.OK {
		return nil, errors.New("an Idempotency-Key without a presented key")
	}
	kr, err := g.Keyring(r.Context())
	if err != nil {
		return nil, errors.Join(keystore.ErrUnavailable, err)
	}
	once, err := kr.Once(r.Context(), text, sent[0], digestOf(r, body))
	if err != nil {
		return nil, err
	}
	if first, ok := Recorded(once); ok && first.Ends {
		if err := once.Settle(r.Context()); err != nil {
			once.End()
			return nil, err
		}
	}
	return once, nil
}

func validIdempotencyKey(key string) bool {
	// A space at an end reaches us over some versions of HTTP only.
	if key == "" || len(key) > maxIdempotencyKey || key[0] == ' ' || key[len(key)-1] == ' ' {
		return false
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return false
		}
	}
	return true
}

// digestOf is the digest of what makes a request the same: method, path, body. The
// query is none of it: there may be nothing in it but the presented key.
func digestOf(r *http.Request, body []byte) (d keystore.Digest) {
	h := sha256.New()
	for _, part := range []string{r.Method, r.URL.EscapedPath(), string(body)} {
		_ = binary.Write(h, binary.BigEndian, int64(len(part)))
		h.Write([]byte(part))
	}
	return keystore.Digest(h.Sum(nil))
}

// Reply is an answer that can be recorded and given again.
type Reply struct {
	Status int
	// Header are the headers that belong to the answer, beside those that every
	// answer has.
	Header http.Header
	Body   []byte
	// Ends says that something ended by the change that is reported. That the request
	// came first may not be long ago, and the change hold on some nodes only: before the
	// reply is given again, [Gateway.Once] waits for the others.
	Ends bool `json:",omitempty"`
}

// Record is what a change does beside so that the reply to it can be given again:
// for the parameter "also" of the keyring's methods.
func Record[T any](once *keystore.Once, reply func(T) (Reply, error)) keystore.Also[T] {
	return func(tx keystore.Tx, made T) error {
		if once == nil {
			return nil
		}
		out, err := reply(made)
		if err != nil {
			return err
		}
		return once.Record(tx, out.pack())
	}
}

// RecordAlone records the reply to a request that changed nothing.
func (out Reply) RecordAlone(ctx context.Context, once *keystore.Once) error {
	if once == nil {
		return nil
	}
	return once.RecordAlone(ctx, out.pack())
}

func (out Reply) pack() []byte {
	packed, err := json.Marshal(out)
	if err != nil { // there is nothing in it that could not be written
		panic(err)
	}
	return packed
}

// Recorded returns what was answered when the request came first, false if it did
// not.
func Recorded(once *keystore.Once) (out Reply, ok bool) {
	packed := once.Reply()
	if packed == nil {
		return Reply{}, false
	}
	if err := json.Unmarshal(packed, &out); err != nil {
		panic(err) // it was sealed by pack
	}
	return out, true
}

// Write sends the reply, and the request's Idempotency-Key with it.
func (out Reply) Write(w http.ResponseWriter, r *http.Request) {
	if sent := r.Header.Get(IdempotencyHeader); sent != "" {
		w.Header().Set(IdempotencyHeader, sent)
	}
	for name, values := range out.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(out.Status)
	_, _ = w.Write(out.Body)
}
