package rest

import (
	"net/http"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func listKeys(c *call) (reply, error) {
	return answerPage(c, func(page keystore.Page) ([]keystore.KeyStatus, error) {
		return c.keyring.Keys(c.Context(), c.PathValue("credential"), page)
	}, keyOf)
}

func showKey(c *call) (reply, error) {
	k, _, err := c.keyring.Key(c.Context(), c.PathValue("key"))
	if err != nil {
		return reply{}, err
	}
	return ok(keyOf(k))
}

// keyMembers are what can be decided about a key.
type keyMembers struct {
	ExpiresAt field[string] `json:"expires_at"`
}

func updateKey(c *call, in keyMembers) (reply, error) {
	if isEmpty(in) {
		return showKey(c)
	}
	var at keystore.Instant
	if err := setParsed(in.ExpiresAt, &at, parseExpiry); err != nil {
		return reply{}, err
	}
	k, err := c.keyring.SetKeyExpiry(c.Context(), c.caller.actor(), c.PathValue("key"), at)
	if err != nil {
		return reply{}, err
	}
	return ok(keyOf(k))
}

type revocationMembers struct {
	Reason field[string] `json:"reason"`
}

func revokeKey(c *call, in revocationMembers) (reply, error) {
	answer := func(k keystore.KeyStatus) (reply, error) { return ended(revoked{keyOf(k), effective(c.keyring)}) }
	k, err := c.keyring.RevokeKey(c.Context(), c.PathValue("key"), in.Reason.value, recorded(c, answer))
	if err != nil {
		return reply{}, err
	}
	return answer(k)
}

// verification is a body that holds a key: it is neither logged nor repeated.
type verification struct {
	Key field[string] `json:"key"`
}

func verifyKey(c *call, in verification) (reply, error) {
	var text string
	if !in.Key.present {
		return reply{}, refuse(keystore.ErrInvalid, "key", "is required")
	}
	if err := in.Key.setRequired("key", &text); err != nil {
		return reply{}, err
	}
	grant, v, err := c.keyring.Verify(c.Context(), text)
	if err != nil {
		return reply{}, err
	}
	return c.recordAlone(reply{status: http.StatusOK, body: verdictOf(grant, v)})
}
