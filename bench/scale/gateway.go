package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/manykeys"
)

// gateway is a Caddy in a process of its own.
type gateway struct {
	site, admin string
	process     *exec.Cmd
	ended       bool
}

// serve starts Caddy over the store.
func (b *bench) serve() (*gateway, error) {
	g := &gateway{site: freeAddr(), admin: freeAddr()}
	config := filepath.Join(b.dir, "Caddyfile")
	caddyfile := fmt.Sprintf(`{
	admin %s
	persist_config off
	log default {
		output file %s
		level WARN
		format api_keys
	}
	api_keys {
		store sqlite %s
	}
}
http://%s {
	api_keys
	respond ok
}
`, g.admin, filepath.Join(b.dir, "log"), b.store, g.site)
	if err := os.WriteFile(config, []byte(caddyfile), 0o600); err != nil {
		return nil, err
	}
	g.process = exec.Command(b.caddy, "run", "--config", config, "--adapter", "caddyfile")
	g.process.Env = append(os.Environ(), "XDG_DATA_HOME="+b.dir, "XDG_CONFIG_HOME="+b.dir)
	if err := g.process.Start(); err != nil {
		return nil, err
	}
	err := wait(func() error {
		resp, err := http.Get("http://" + g.admin + "/api_keys/accounts?limit=1")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK { // the admin endpoint is there before the rest
			return fmt.Errorf("the admin endpoint answers %s", resp.Status)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, g.end())
	}
	return g, nil
}

// wait tries for a minute.
func wait(try func() error) (err error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return err
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// end stops Caddy, and waits for it.
func (g *gateway) end() error {
	if g.ended {
		return nil
	}
	g.ended = true
	if err := g.process.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return g.process.Wait()
}

// waitFor waits until a key is accepted.
func (g *gateway) waitFor(key string) error {
	return wait(func() error {
		req, err := http.NewRequest(http.MethodGet, "http://"+g.site, nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-API-Key", key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("a key is answered with %s", resp.Status)
		}
		return nil
	})
}

// memory is what the kernel says of the process, in bytes.
func (g *gateway) memory() (now, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.process.Process.Pid))
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &now)
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	return now << 10, peak << 10, err
}

// cpu is what the kernel counted for the process.
func (g *gateway) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, fields, _ := strings.Cut(string(stat), ") ")
	var user, system int64 // in hundredths of a second
	_, err = fmt.Sscan(strings.Join(strings.Fields(fields)[11:13], " "), &user, &system)
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

// issueFor issues a key every 20 ms as long as something is done.
func (g *gateway) issueFor(do func() error) (sample, error) {
	account := fmt.Sprintf("issuer-%d", time.Now().UnixNano())
	if err := g.post("/accounts", "application/json", strings.NewReader(`{"id":"`+account+`"}`)); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	var took sample
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			slices.Sort(took)
			return took, err
		case <-tick.C:
		}
		begin := time.Now()
		if err := g.post("/accounts/"+account+"/credentials", "application/json", nil); err != nil {
			return nil, errors.Join(err, <-done)
		}
		took = append(took, time.Since(begin))
	}
}

func (g *gateway) post(path, contentType string, body io.Reader) error {
	resp, err := http.Post("http://"+g.admin+"/api_keys"+path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s: %s", path, resp.Status, answer)
	}
	return err
}

// importLines imports n keys, written while they are sent.
func (g *gateway) importLines(n int) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(manykeys.Write(w, n, *per)) }() // the pipe's other end says what is wrong
	return g.post("/import", "application/x-ndjson", r)
}
