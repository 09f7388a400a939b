package sarus

import (
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// beat is on what the answers leave that could tell whether an address is known,
// counted from the request. The store does the same for both, but a record that it
// finds costs it some microseconds more, which ExecutionTime would show without
// the noise of a network.
const beat = 20 * time.Millisecond

func awaitBeat(since time.Time) { time.Sleep(beat - time.Since(since)%beat) }

// requestKey answers the route. What comes after the arguments takes the same
// way, and the same time, whether the address is known or not.
func (d *Dialect) requestKey(w http.ResponseWriter, r *http.Request) {
	if _, err := dialect.ReadNoBody(w, r); err != nil {
		refuseBody(w, r, err)
		return
	}
	address, wrong := readAddress(r.URL.RawQuery)
	if wrong != "" {
		fail(w, r, http.StatusBadRequest, wrong)
		return
	}
	if wait := d.limiter.Allow(clientOf(dialect.ClientIP(r))); wait > 0 {
		tooMany(w, r, wait)
		return
	}
	d.requestMail(w, r, address)
}

func (d *Dialect) requestMail(w http.ResponseWriter, r *http.Request, address string) {
	began := time.Now()
	kr, err := d.gateway.Keyring(r.Context())
	if err != nil {
		d.unavailable(w, r, err)
		return
	}
	requested, err := kr.RequestMail(r.Context(), keystore.MailRequest{
		Address: address, Package: d.Package, Every: time.Duration(d.Throttle),
	})
	switch {
	case err != nil:
		d.unavailable(w, r, err)
	case requested.ThrottledUntil != 0:
		tooMany(w, r, requested.ThrottledUntil.Time().Sub(kr.Now().Time()))
	case requested.Inactive && !d.Uniform:
		fail(w, r, http.StatusForbidden, inactive)
	default:
		awaitBeat(began)
		succeed(w, r, sent)
	}
}

// refuseBody tells a client what is wrong with its body.
func refuseBody(w http.ResponseWriter, r *http.Request, err error) {
	status, detail := http.StatusBadRequest, "The body could not be read to its end. Send none."
	switch {
	case errors.Is(err, dialect.ErrBodyTooLarge):
		status, detail = http.StatusRequestEntityTooLarge, "The body is too large. Send none."
	case errors.Is(err, dialect.ErrBodyNotObject):
		detail = "The body is not a JSON object. Send none."
	case errors.Is(err, dialect.ErrBodyUnexpected):
		detail = "The body has members. Send none; the address is the argument Email of the query."
	}
	fail(w, r, status, detail)
}

// unavailable answers a request that the store or the outbox did not take, and
// logs the cause. That the client went away is no fault of theirs.
func (d *Dialect) unavailable(w http.ResponseWriter, r *http.Request, cause error) {
	level := zap.ErrorLevel
	if r.Context().Err() != nil {
		level = zap.DebugLevel
	}
	if entry := d.gateway.Logger.Check(level, "a key could not be requested by e-mail"); entry != nil {
		entry.Write(zap.Error(cause))
	}
	w.Header().Set("Retry-After", strconv.Itoa(dialect.StoreRetryAfter))
	fail(w, r, http.StatusInternalServerError, maintenance)
}

// clientNetwork is how many bits of an IPv6 address name a client, who has all
// addresses of such a network.
const clientNetwork = 64

// clientOf is by what requests of a client address are counted.
func clientOf(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ip
	}
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, clientNetwork).Masked().String()
}
