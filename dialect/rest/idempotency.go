package rest

import (
	"errors"
	"net/http"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file has a POST that is sent twice under one Idempotency-Key done once.
// Whoever calls without a key can't be told from another caller, so there the
// header is refused.

// errNoIdempotency: the caller presents no key under which the answer could be
// recorded.
var errNoIdempotency = errors.New("no idempotency here")

// begin looks for an answer that was given before. The body is part of what
// makes a request the same, so it is read here.
func (c *call) begin() (err error) {
	if !c.isIdempotent() {
		return nil
	}
	if c.caller.once == nil {
		return refuse(errNoIdempotency, dialect.IdempotencyHeader,
			"is honoured only where the caller presents an API key, under which the answer is kept: leave it out here")
	}
	if c.sent, err = c.readBody(); err != nil {
		return err
	}
	c.once, err = c.caller.once(c.Context(), c.sent)
	return err
}

// isIdempotent reports whether the call has an Idempotency-Key that counts.
func (c *call) isIdempotent() bool {
	return c.Method == http.MethodPost && len(c.Header[dialect.IdempotencyHeader]) > 0
}

// recorded is what a change does beside, so that its answer can be given again.
func recorded[T any](c *call, answer func(T) (reply, error)) keystore.Also[T] {
	return dialect.Record(c.once, func(made T) (dialect.Reply, error) {
		out, err := answer(made)
		if err != nil {
			return dialect.Reply{}, err
		}
		return out.encode()
	})
}

// recordAlone records the answer of a call that changes nothing.
func (c *call) recordAlone(out reply) (reply, error) {
	encoded, err := out.encode()
	if err == nil {
		err = encoded.RecordAlone(c.Context(), c.once)
	}
	return out, err
}
