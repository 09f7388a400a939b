package rest

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file is what is answered about where a change holds, which is a question
// where the store is shared: the other nodes go by memory for a while.

// patience is for how long a change waits for other nodes before it is answered with
// the time at which it holds on all of them.
const patience = 2 * time.Second

// Where a change holds that is answered with 200.
const (
	effectiveNode    = "node"    // on this one, and there is no other
	effectiveCluster = "cluster" // on all of those that share the store
)

func effective(kr *keystore.Keyring) string {
	if _, shared := kr.Cluster(); shared {
		return effectiveCluster
	}
	return effectiveNode
}

// notYet is the body of a reply to a change that does not hold on every node yet: that
// of the reply when it does, with the time.
type notYet struct {
	EffectiveBy instant `json:"effective_by"`
	// Effective would be taken for the answer that it does hold, and is left out.
	Effective string         `json:"effective,omitzero"`
	Rest      jsontext.Value `json:",embed"`
}

// accepted makes a reply to a change that holds everywhere into one that says by when
// it does.
func accepted(out dialect.Reply, by keystore.Instant) (dialect.Reply, error) {
	var body notYet
	if len(out.Body) > 0 {
		if err := json.Unmarshal(out.Body, &body); err != nil {
			return dialect.Reply{}, fmt.Errorf("reading an answer: %w", err)
		}
	}
	body.EffectiveBy, body.Effective = instant(by), ""
	var err error
	if out.Body, err = json.Marshal(body); err != nil {
		return dialect.Reply{}, fmt.Errorf("writing an answer: %w", err)
	}
	out.Status = http.StatusAccepted
	out.Header.Set("Content-Type", "application/json")
	return out, nil
}
