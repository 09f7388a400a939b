//go:build reliability

package reliability

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(broken))
	httpcaddyfile.RegisterHandlerDirective("broken", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		b := new(broken)
		return b, b.UnmarshalCaddyfile(h.Dispenser)
	})
}

// broken is the controls' handler: before the gateway in a route, it does what a
// gateway must not do.
//
//	broken remembers  # which keys were refused, to refuse them sooner
//	broken hashes     # keys that are refused, as slowly as passwords
//	broken waits      # with other requests while it reads a body
//	broken leaks      # a goroutine, a connection and memory with each configuration
type broken struct {
	Does string `json:"does"`
}

func (*broken) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.broken", New: func() caddy.Module { return new(broken) }}
}

func (b *broken) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&b.Does) {
		return d.ArgErr()
	}
	return nil
}

func (b *broken) Provision(caddy.Context) error {
	if b.Does == "leaks" {
		leak()
	}
	return nil
}

var (
	refused sync.Map // what is answered, by key
	reading sync.Mutex
)

func (b *broken) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	key := r.Header.Get("X-API-Key")
	seen := &statusWriter{ResponseWriter: w}
	switch b.Does {
	case "remembers":
		if answer, ok := refused.Load(key); ok {
			w.WriteHeader(http.StatusUnauthorized)
			_, err := w.Write(answer.([]byte))
			return err
		}
		err := next.ServeHTTP(seen, r)
		if seen.status == http.StatusUnauthorized {
			refused.Store(key, make([]byte, 1<<10))
		}
		return err
	case "hashes":
		err := next.ServeHTTP(seen, r)
		if seen.status == http.StatusUnauthorized {
			slowHash(key)
		}
		return err
	case "waits":
		reading.Lock()
		defer reading.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return next.ServeHTTP(w, r)
}

// slowHash costs what a hash for passwords does.
func slowHash(text string) {
	sum := sha256.Sum256([]byte(text))
	for range 1500 {
		sum = sha256.Sum256(sum[:])
	}
	hashed.Store(&sum)
}

var hashed atomic.Pointer[[sha256.Size]byte] // so that the work is done

// leaked is what configurations left behind, until it is taken back.
var leaked struct {
	sync.Mutex
	end   chan struct{}
	files []*os.File
	kept  [][]byte
}

func leak() {
	leaked.Lock()
	defer leaked.Unlock()
	if leaked.end == nil {
		leaked.end = make(chan struct{})
	}
	go func(end chan struct{}) { <-end }(leaked.end)
	if file, err := os.Open(os.DevNull); err == nil {
		leaked.files = append(leaked.files, file)
	}
	leaked.kept = append(leaked.kept, make([]byte, 256<<10))
}

func takeBackLeaks() {
	leaked.Lock()
	defer leaked.Unlock()
	close(leaked.end)
	for _, file := range leaked.files {
		_ = file.Close()
	}
	leaked.end, leaked.files, leaked.kept = nil, nil, nil
}
