package rest

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// readQuery refuses parameters that the call does not know, or that are there
// more than once.
func (c *call) readQuery(known []string) (err error) {
	if c.query, err = url.ParseQuery(c.URL.RawQuery); err != nil {
		return refuse(errParameter, "", "the query is not well-formed")
	}
	for _, name := range slices.Sorted(maps.Keys(c.query)) {
		if !slices.Contains(known, name) {
			return refuse(errParameter, name, "is not known here; "+allowedParameters(known))
		}
		if len(c.query[name]) > 1 {
			return refuse(errParameter, name, "is there more than once")
		}
	}
	return nil
}

func allowedParameters(known []string) string {
	if len(known) == 0 {
		return "this call has no parameters"
	}
	return "what can be given: " + strings.Join(known, ", ")
}

// limit is how many items a list may have.
func (c *call) limit() (int, error) {
	if !c.query.Has("limit") {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(c.query.Get("limit"))
	if err != nil || n < 1 || n > maxLimit {
		return 0, refuse(errParameter, "limit", "must be a number from 1 to "+strconv.Itoa(maxLimit))
	}
	return n, nil
}

// after is the id behind which a list begins, empty for its begin.
func (c *call) after() (string, error) {
	if !c.query.Has("after") {
		return "", nil
	}
	id := c.query.Get("after")
	if !keystore.ValidID(id) {
		return "", errCursor
	}
	return id, nil
}

var errCursor = refuse(errParameter, "after", "must be the member next of an earlier answer")

// answerPage answers a part of a list. It reads one record more than it shows,
// to know whether more follow.
func answerPage[T any, R resource](c *call, read func(keystore.Page) ([]T, error), show func(T) R) (reply, error) {
	limit, err := c.limit()
	if err != nil {
		return reply{}, err
	}
	after, err := c.after()
	if err != nil {
		return reply{}, err
	}
	records, err := read(keystore.Page{Limit: limit + 1, After: after})
	if after != "" && errors.Is(err, keystore.ErrNotFound) {
		return reply{}, errCursor
	}
	if err != nil {
		return reply{}, err
	}
	out := list[R]{Items: make([]R, 0, min(limit, len(records)))}
	for _, record := range records[:min(limit, len(records))] {
		out.Items = append(out.Items, show(record))
	}
	if len(records) > limit {
		out.Next = text(out.Items[limit-1].cursor())
	}
	return ok(out)
}

// storable reports whether a store can be asked for s.
func storable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
