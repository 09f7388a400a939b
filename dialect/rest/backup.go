package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// backup answers a snapshot of the store. One that can't be made is a problem;
// one that breaks off ends the connection, so that the client can't take a part
// for the whole.
func (api *API) backup(write func(context.Context, io.Writer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		c := &call{Request: r}
		if err := c.readQuery(nil); err != nil {
			api.fail(w, r, err)
			return
		}
		out := &snapshot{w: w}
		if r.Method == http.MethodHead { // its length would take the snapshot itself
			out.begin()
			return
		}
		err := write(r.Context(), out)
		switch {
		case err == nil:
		case !out.begun:
			api.fail(w, r, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err))
		default:
			api.logger.Error("a backup broke off", zap.Error(err))
			panic(http.ErrAbortHandler)
		}
	}
}

// snapshot sends its headers with the first byte: until then an error can still
// be answered.
type snapshot struct {
	w     http.ResponseWriter
	begun bool
}

func (s *snapshot) begin() {
	h := s.w.Header()
	h.Set("Content-Type", "application/vnd.sqlite3")
	h.Set("Content-Disposition", `attachment; filename="api_keys-`+time.Now().UTC().Format("20060102T150405Z")+`.db"`)
	s.begun = true
}

// Write sends a part of the snapshot.
func (s *snapshot) Write(p []byte) (int, error) {
	if !s.begun {
		s.begin()
	}
	return s.w.Write(p)
}
