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

// download is a whole store as one body.
type download struct {
	name      string // as the log says it
	mediaType string
	extension string // of the file's name
	// patience is how long a client may take nothing. Zero is for ever.
	patience time.Duration
}

var (
	backupFile = download{name: "a backup", mediaType: "application/vnd.sqlite3", extension: ".db"}
	// The store keeps the moment of an export until the client has it.
	exportFile = download{name: "an export", mediaType: NDJSON, extension: ".ndjson", patience: time.Minute}
)

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
		out := &downloading{download: file, w: w, connection: http.NewResponseController(w)}
		if r.Method == http.MethodHead { // its length would take the body itself
			out.begin()
			return
		}
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

func (d *downloading) begin() {
	h := d.w.Header()
	h.Set("Content-Type", d.mediaType)
	h.Set("Content-Disposition", `attachment; filename="api_keys-`+time.Now().UTC().Format("20060102T150405Z")+d.extension+`"`)
	d.begun = true
}

// Write sends a part of the body.
func (d *downloading) Write(p []byte) (int, error) {
	if !d.begun {
		d.begin()
	}
	if d.patience > 0 {
		_ = d.connection.SetWriteDeadline(time.Now().Add(d.patience))
	}
	return d.w.Write(p)
}
