package exorde

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/dialect"
)

const (
	defaultOverlap = "0s"
	defaultRate    = "10/1m"
	maxRequests    = 1000
	maxWindow      = 24 * time.Hour
	maxMessage     = 1000
)

// UnmarshalCaddyfile reads
//
//	exorde [<base path>] {
//	    overlap <duration>|until_first_use
//	    rate <n>/<duration>
//	    deprecation <date> <message>
//	}
func (d *Dialect) UnmarshalCaddyfile(tokens *caddyfile.Dispenser) error {
	return dialect.ParseOptions(tokens, name, map[string]dialect.Option{
		"overlap":     dialect.WordOption("<duration>|until_first_use", &d.Overlap),
		"rate":        dialect.WordOption("<n>/<duration>", &d.Rate),
		"deprecation": d.parseDeprecation,
	})
}

func (d *Dialect) parseDeprecation(tokens *caddyfile.Dispenser) error {
	args := tokens.RemainingArgs()
	if len(args) != 2 {
		return tokens.Errf(`deprecation: got %d arguments; use: deprecation <date> "<message>"`, len(args))
	}
	d.Deprecation = &Deprecation{ShutdownDate: args[0], Message: args[1]}
	return nil
}

// readOptions checks the options and makes of them what calls need.
func (d *Dialect) readOptions() (err error) {
	if d.Overlap == "" {
		d.Overlap = defaultOverlap
	}
	if d.overlap, err = dialect.ParseOverlap(d.Overlap); err != nil {
		return err
	}
	if d.Rate == "" {
		d.Rate = defaultRate
	}
	requests, window, err := parseRate(d.Rate)
	if err != nil {
		return fmt.Errorf("rate %q: %w", d.Rate, err)
	}
	d.limiter = dialect.NewLimiter(requests, window)
	if d.Deprecation == nil {
		return nil
	}
	if d.status.Notice, err = d.Deprecation.notice(); err != nil {
		return fmt.Errorf("deprecation %w", err)
	}
	return nil
}

func parseRate(rate string) (requests int, window time.Duration, err error) {
	count, span, _ := strings.Cut(rate, "/")
	requests, err = strconv.Atoi(count)
	if err == nil {
		window, err = caddy.ParseDuration(span)
	}
	if err != nil || requests < 1 || requests > maxRequests || window < time.Second || window > maxWindow {
		return 0, 0, fmt.Errorf("use a number of 1 to %d and a duration of 1s to 24h, such as %s", maxRequests, defaultRate)
	}
	return requests, window, nil
}

// shutdownFormat is how the API writes times: in UTC, with milliseconds.
const shutdownFormat = "2006-01-02T15:04:05.000Z"

func (d *Deprecation) notice() (*notice, error) {
	shutdown, err := time.Parse(time.DateOnly, d.ShutdownDate)
	if err != nil {
		shutdown, err = time.Parse(time.RFC3339, d.ShutdownDate)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: use an RFC 3339 date, such as 2030-02-02, or date and time, such as 2030-02-02T12:00:00Z", d.ShutdownDate)
	}
	n := utf8.RuneCountInString(d.Message)
	if n == 0 || n > maxMessage || !utf8.ValidString(d.Message) || strings.ContainsFunc(d.Message, unicode.IsControl) {
		return nil, errors.New("message: use 1 to " + strconv.Itoa(maxMessage) + " characters without control characters")
	}
	return &notice{Message: d.Message, ShutdownDate: shutdown.UTC().Format(shutdownFormat)}, nil
}
