package sarus

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"
)

// What the API says, whatever the reason.
const (
	sent        = "If the address belongs to an account, a new API key has been requested and will be sent to it."
	inactive    = "The account is not active."
	maintenance = "Server may be down for maintenance."
)

// answer is the body of every response: the case of its names and their order
// are the API's.
type answer struct {
	ServerDateTime string
	// TimeStamp is the Julian date of ServerDateTime.
	TimeStamp float64
	// ExecutionTime is in milliseconds.
	ExecutionTime float64
	// Exactly one of these is set.
	Result *outcome `json:",omitzero"`
	Errors *outcome `json:",omitzero"`
}

type outcome struct {
	Status int
	Detail string
}

func succeed(w http.ResponseWriter, r *http.Request, detail string) {
	a := newAnswer(r)
	a.Result = &outcome{http.StatusOK, detail}
	a.write(w, http.StatusOK)
}

// fail answers with an error. With a fault of the server's, the client learns
// that there is one.
func fail(w http.ResponseWriter, r *http.Request, status int, detail string) {
	if status >= http.StatusInternalServerError {
		detail = maintenance
	}
	a := newAnswer(r)
	a.Errors = &outcome{status, detail}
	a.write(w, status)
}

// tooMany answers a request that is to wait.
func tooMany(w http.ResponseWriter, r *http.Request, wait time.Duration) {
	minutes, unit := roundUp(wait, time.Minute), "minutes"
	if minutes == 1 {
		unit = "minute"
	}
	w.Header().Set("Retry-After", strconv.Itoa(roundUp(wait, time.Second)))
	fail(w, r, http.StatusTooManyRequests,
		"Requested too many times. You may retry in "+strconv.Itoa(minutes)+" "+unit+".")
}

// roundUp is how many units a wait lasts, 1 at least.
func roundUp(wait, unit time.Duration) int { return max(1, int((wait+unit-1)/unit)) }

// notAllowed answers other methods; the header Allow is set.
func notAllowed(w http.ResponseWriter, r *http.Request) {
	fail(w, r, http.StatusMethodNotAllowed, "Method ["+shown(r.Method)+"] not allowed.")
}

const (
	// unixJulian is the Julian date at which Unix time begins.
	unixJulian  = 2440587.5
	millisInDay = 24 * 60 * 60 * 1000
)

func newAnswer(r *http.Request) answer {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return answer{
		ServerDateTime: now.Format("2006-01-02T15:04:05.000Z"),
		TimeStamp:      float64(now.UnixMilli())/millisInDay + unixJulian,
		ExecutionTime:  float64(taken(r).Microseconds()) / 1000,
	}
}

// taken is the time since Caddy began to work on the request.
func taken(r *http.Request) time.Duration {
	began, ok := caddyhttp.GetVar(r.Context(), "start_time").(time.Time)
	if !ok {
		return 0
	}
	return time.Since(began)
}

func (a answer) write(w http.ResponseWriter, status int) {
	body, err := json.Marshal(a)
	if err != nil { // only text that is not UTF-8 could do it, and there is none
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
