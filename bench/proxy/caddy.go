//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/manykeys"
)

// collector is a setting of Go's garbage collector, the same for both Caddys.
type collector struct {
	name string
	env  []string
}

func collectors() (all []collector) {
	for name := range strings.SplitSeq(*gc, ",") {
		switch set := os.Getenv("GOGC"); {
		case name == "equal":
			all = append(all, collector{name, []string{"GOGC=off", "GOMEMLIMIT=128MiB"}})
		case set != "":
			all = append(all, collector{"`GOGC=" + set + "`", nil})
		default:
			all = append(all, collector{name, nil})
		}
	}
	return all
}

// proxy is a process under measurement, with its workers.
type proxy struct {
	addr  string
	admin string // of a Caddy with api_keys
	pid   int
}

// caddyfile takes the admin endpoint, global options, the site's port and directives.
// The site is for any host: one for 127.0.0.1 alone would answer 200 to all else.
const caddyfile = `{
	admin %s
	persist_config off
	auto_https off
	log {
		output discard
	}
	%s
}
http://:%s {
	bind 127.0.0.1
	%s
}
`

// startCaddy starts a Caddy with these global options and directives.
func (b *bench) startCaddy(k *children, gc collector, binary, admin, global, directives string) (*proxy, error) {
	p := &proxy{addr: freeAddr(), admin: admin}
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "caddy-")
	if err != nil {
		return nil, err
	}
	config, output := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "output")
	if err := os.WriteFile(config, fmt.Appendf(nil, caddyfile, admin, global, port, directives), 0o600); err != nil {
		return nil, err
	}
	env := append([]string{"XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}, gc.env...)
	cmd, err := k.start(output, env, binary, "run", "--adapter", "caddyfile", "--config", config)
	if err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, listening(b.ctx, p.addr, output)
}

// reverseProxy keeps as many connections to the upstream as there are: with the 32 of
// default, chance decides how many are made anew.
func (b *bench) reverseProxy() string {
	return fmt.Sprintf("reverse_proxy %s {\n\t\ttransport http {\n\t\t\tkeepalive_idle_conns_per_host %d\n\t\t}\n\t}", b.upstream, *connections)
}

// startPlain starts a Caddy without the module.
func (b *bench) startPlain(k *children, gc collector, directives string) (*proxy, error) {
	return b.startCaddy(k, gc, b.plain, "off", "", directives)
}

// startGated starts a Caddy with api_keys before the upstream, over a store.
func (b *bench) startGated(k *children, gc collector, store string) (*proxy, error) {
	global := fmt.Sprintf("api_keys {\n\t\tstore sqlite %q\n\t}", store)
	p, err := b.startCaddy(k, gc, b.caddy, freeAddr(), global, "api_keys\n\t"+b.reverseProxy())
	if err != nil {
		return nil, err
	}
	return p, b.refuses(p)
}

// refuses waits until an unknown key is refused: that a check is there is not believed.
func (b *bench) refuses(p *proxy) error {
	return wait(b.ctx, func() error {
		status, err := ask(p.addr, unknown(0, nil))
		if err == nil && status != http.StatusUnauthorized {
			err = fmt.Errorf("an unknown key is answered %d", status)
		}
		return err
	})
}

// makeKeys makes a store of the keys in use, which every Caddy gets a copy of. Each
// was used before, for the first use of a key is written where no later one is.
func (b *bench) makeKeys() error {
	b.seed = filepath.Join(b.dir, "seed", "keys.db")
	b.texts = make([]string, *keys)
	var k children
	defer k.end()
	p, err := b.startGated(&k, collector{}, b.seed)
	if err != nil {
		return err
	}
	account, err := newAccount(p.admin)
	if err != nil {
		return err
	}
	issuers, ctx := errgroup.WithContext(b.ctx)
	issuers.SetLimit(16)
	for i := range b.texts {
		issuers.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			key, err := issue(p.admin, account)
			b.texts[i] = key.Secret
			return err
		})
	}
	if err := issuers.Wait(); err != nil {
		return err
	}
	_, err = load(b.ctx, p.addr, rotating(b.texts), 0, len(b.texts), http.StatusOK)
	return err
}

// copySeed copies the store of the keys in use.
func (b *bench) copySeed() (string, error) {
	dir, err := os.MkdirTemp(b.dir, "store-")
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "keys.db")
	return to, copyFile(b.seed, to)
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// manyStored returns a store of many keys, and makes it if it is not there.
func (b *bench) manyStored() (string, error) {
	if *store != "" {
		if _, err := os.Stat(*store); !errors.Is(err, os.ErrNotExist) {
			return *store, err
		}
	}
	made := filepath.Join(b.dir, "many", "keys.db") // there only the whole of it arrives
	if _, err := os.Stat(made); err == nil {
		return made, nil
	}
	if err := b.importKeys(filepath.Join(b.dir, "import", "keys.db")); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(b.dir, "import"), filepath.Dir(made)); err != nil {
		return "", err
	}
	if *store == "" {
		return made, nil
	}
	if err := os.MkdirAll(filepath.Dir(*store), 0o700); err != nil {
		return "", err
	}
	return *store, copyFile(made, *store)
}

// importKeys fills an empty store.
func (b *bench) importKeys(store string) error {
	var k children
	defer k.end()
	p, err := b.startGated(&k, collector{}, store)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(manykeys.Write(w, *stored, 10)) }()
	req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, "http://"+p.admin+"/api_keys/import", r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the import answers %s: %s", resp.Status, answer)
	}
	return err
}

// admins is the client of the admin endpoints.
var admins = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: time.Minute}

// post calls the admin endpoint.
func post(admin, path string, into any) error {
	resp, err := admins.Post("http://"+admin+"/api_keys"+path, "application/json", strings.NewReader("{}"))
	if err != nil {
		return err
	}
	return decode(resp, path, into)
}

// decode reads an answer of the admin endpoint.
func decode(resp *http.Response, path string, into any) error {
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s answers %s: %s", path, resp.Status, answer)
	}
	return json.Unmarshal(answer, into)
}

func newAccount(admin string) (string, error) {
	var account struct{ ID string }
	err := post(admin, "/accounts", &account)
	return account.ID, err
}

// key is an issued key.
type key struct{ ID, Secret string }

func issue(admin, account string) (key, error) {
	var issued struct{ Key key }
	err := post(admin, "/accounts/"+account+"/credentials", &issued)
	return issued.Key, err
}

// writer issues and revokes keys, one call after the other over one connection. Like the
// load it shares the processors with what is measured, and speaks just as much HTTP as it
// needs: net/http's client takes a third of what a call takes.
type writer struct {
	admin, account string
	conn           net.Conn
	in             *bufio.Reader
	calls          int
	took           time.Duration
}

func newWriter(admin string) (*writer, error) {
	account, err := newAccount(admin)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", admin)
	if err != nil {
		return nil, err
	}
	return &writer{admin: admin, account: account, conn: conn, in: bufio.NewReader(conn)}, nil
}

func (w *writer) close() { _ = w.conn.Close() }

// rate is how many calls were answered in a second.
func (w *writer) rate() float64 { return float64(w.calls) / w.took.Seconds() }

// write writes until it is told to stop.
func (w *writer) write(ctx context.Context) error {
	begin := time.Now()
	defer func() { w.took += time.Since(begin) }()
	for ; ctx.Err() == nil; w.calls += 2 {
		var issued struct{ Key key }
		if err := w.post("/accounts/"+w.account+"/credentials", &issued); err != nil {
			return err
		}
		var revoked struct{}
		if err := w.post("/keys/"+issued.Key.ID+"/revoke", &revoked); err != nil {
			return err
		}
	}
	return nil
}

// post calls the admin endpoint.
func (w *writer) post(path string, into any) error {
	if err := w.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w.conn, "POST /api_keys%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", path, w.admin)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	return decode(resp, path, into)
}
