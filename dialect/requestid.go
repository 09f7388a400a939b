package dialect

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"
)

// RequestID is the UUID by which Caddy knows the request, for an answer that
// names it. It stands in the access log as the field uuid, and is the value of
// the placeholder {http.request.uuid}.
func RequestID(r *http.Request) string {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if id, ok := repl.GetString("http.request.uuid"); ok && id != "" {
			return id
		}
	}
	return uuid.NewString()
}
