package rest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// download is a whole store as one body.
type download struct {
	name string // as the log says it
	// kindOf tells the kind of the body by how it begins.
	kindOf func(first []byte) kind
	// patience is how long a client may take nothing. Zero is for ever.
	patience time.Duration
}

// kind is what a body is.
type kind struct {
	mediaType string
	extension string // of the file's name
}

var (
	backupFile = download{name: "a backup", kindOf: backupKind}
	// The store keeps the moment of an export until the client has it.
	exportFile = download{name: "an export", kindOf: exportKind, patience: time.Minute}
)

// backupKind is a SQLite database, or a script (RFC 6922) of a store that is in a server.
func backupKind(first []byte) kind {
	if bytes.HasPrefix(first, []byte("SQLite format 3\x00")) {
		return kind{"application/vnd.sqlite3", ".db"}
	}
	return kind{"application/sql", ".sql"}
}

func exportKind([]byte) kind { return kind{NDJSON, ".ndjson"} }

// download answers what write writes. What can't be begun is a problem; what breaks
// off ends the connection, so that the client can't take a part for the whole.
func (api *API) download(file download, write func(context.Context, io.Writer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		c := &call{Request: r}
		if err := c.readQuery(nil); err != nil {
			api.fail(w, r, err)
			return
		}
		if r.Method == http.MethodHead { // more than this takes the body itself
			return
		}
		out := &downloading{download: file, w: w, connection: http.NewResponseController(w)}
		err := write(r.Context(), out)
		switch {
		case err == nil:
		case !out.begun:
			api.fail(w, r, fmt.Errorf("%w: %w", keystore.ErrUnavailable, err))
		default:
			api.logger.Error(file.name+" broke off", zap.Error(err))
			panic(http.ErrAbortHandler)
		}
	}
}

// downloading sends its headers with the first byte: until then an error can still
// be answered.
type downloading struct {
	download
	w          http.ResponseWriter
	connection *http.ResponseController
	begun      bool
}

func (d *downloading) begin(first []byte) {
	h, is := d.w.Header(), d.kindOf(first)
	h.Set("Content-Type", is.mediaType)
	h.Set("Content-Disposition", `attachment; filename="api_keys-`+time.Now().UTC().Format("20060102T150405Z")+is.extension+`"`)
	d.begun = true
}

// Write sends a part of the body.
func (d *downloading) Write(p []byte) (int, error) {
	if !d.begun {
		d.begin(p)
	}
	if d.patience > 0 {
		_ = d.connection.SetWriteDeadline(time.Now().Add(d.patience))
	}
	return d.w.Write(p)
}
