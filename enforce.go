package apikeys

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// noticeHeader tells the owner of a key when it stops.
const noticeHeader = "Api-Key-Expires"

// enforce lets the request through or refuses it. Whatever it decides, no
// identity that a client claims stays in the request; and whenever the request
// goes on, no key does.
func (h *Handler) enforce(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.identity.scrub(r)
	if h.EnforceOff || (!h.PreflightEnforce && isPreflight(r)) {
		h.strip(r)
		return next.ServeHTTP(w, r)
	}
	text, verdict := h.finder.Find(r)
	if verdict == keystore.MissingKey && h.AnonymousAllow {
		verdicts[verdict].Inc()
		h.strip(r)
		return next.ServeHTTP(w, r)
	}
	if verdict != keystore.OK {
		return h.refuse(w, r, nil, verdict)
	}
	request := keystore.Request{Requirement: &h.requirement, ClientIP: dialect.ClientIP(r)}
	keyring, err := h.app.Keyring(r.Context())
	if err != nil {
		return h.refuseUnavailable(w, r, err)
	}
	grant, verdict, err := keyring.Accept(r.Context(), text, request)
	switch verdict {
	case keystore.OK:
	case keystore.StoreUnavailable:
		return h.refuseUnavailable(w, r, err)
	default:
		return h.refuse(w, r, grant, verdict)
	}
	verdicts[keystore.OK].Inc()
	if stop := grant.Notice(keyring.Now()); stop != 0 {
		w.Header().Set(noticeHeader, stop.Time().Format(http.TimeFormat))
	}
	h.strip(r)
	h.identity.attach(r, grant)
	if isStream(r) {
		var done func()
		r, done = streams.watch(r, &stream{keyring: keyring, grant: grant, request: request})
		defer done()
	}
	return next.ServeHTTP(w, r)
}

// judged notes a verdict on the caller of a management route.
func judged(r *http.Request, grant *keystore.Grant, v keystore.Verdict) {
	verdicts[v].Inc()
	if v == keystore.OK {
		tellLog(r, grant)
	}
}

// strip takes the key out of a request that goes on, and the wish for a tunnel in
// which others would follow.
func (h *Handler) strip(r *http.Request) {
	if asked := r.Header["Upgrade"]; len(asked) > 0 && slices.ContainsFunc(asked, carriesRequests) {
		delete(r.Header, "Upgrade")
	}
	if !h.ForwardKey {
		h.finder.Strip(r)
	}
}

// carriesRequests reports whether a value of Upgrade names a protocol in which the
// client sends HTTP requests: HTTP/2 in clear (RFC 7540, 3.2), another version, or
// TLS (RFC 2817). A backend that agreed would get them past the gate, with any
// identity. A server may ignore an Upgrade (RFC 9110, 7.8).
func carriesRequests(upgrade string) bool {
	for protocol := range strings.SplitSeq(upgrade, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(protocol), "/")
		switch strings.ToLower(name) {
		case "h2c", "h2", "http", "tls":
			return true
		}
	}
	return false
}

// isPreflight reports whether the request is a CORS preflight (Fetch standard,
// 3.2.2), which browsers send without credentials. None asks for an upgrade:
// that would be a tunnel to the upstream, in which anything can follow.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Upgrade"]) == 0 &&
		r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// refuse answers in the manner of the chosen dialect. It writes the answer
// itself: an error handed to Caddy costs more, and error routes could let the
// request through.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, g *keystore.Grant, v keystore.Verdict) error {
	verdicts[v].Inc()
	if c := h.logger.Check(zap.DebugLevel, "refused"); c != nil {
		c.Write(zap.Stringer("verdict", v))
	}
	h.refuser.Refuse(w, r, dialect.RefusalOf(v, g, h.finder))
	return nil
}

func (h *Handler) refuseUnavailable(w http.ResponseWriter, r *http.Request, cause error) error {
	if r.Context().Err() == nil { // else the client left, and nothing is wrong
		h.logger.Error("the store could not give a verdict", zap.Error(cause))
	}
	return h.refuse(w, r, nil, keystore.StoreUnavailable)
}
