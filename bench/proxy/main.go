// Command proxy measures what the gateway adds to a proxied request: it runs
// plain Caddy and Caddy with api_keys side by side before the same upstream, on
// loopback, sends both the same requests in turns, and prints the medians.
//
//	go run ./bench/proxy [-rounds 15] [-requests 20000] [-connections 64] [-keys 1]
//
// The CPU per request is what the kernel counted for the proxy's process. On a
// noisy machine only the ratios of one run mean something.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	rounds      = flag.Int("rounds", 15, "rounds, each of which measures every proxy once")
	requests    = flag.Int("requests", 20000, "requests in a round")
	connections = flag.Int("connections", 64, "keep-alive connections")
	keys        = flag.Int("keys", 1, "how many keys the requests use in turn")
	serve       = flag.String("serve-upstream", "", "serve as the upstream at this address (used by the command itself)")
)

func main() {
	flag.Parse()
	if *serve != "" {
		log.Fatal(http.ListenAndServe(*serve, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello\n")
		})))
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// proxy is a process under measurement.
type proxy struct {
	name    string
	addr    string
	process *os.Process
	samples []sample
}

// sample is what one round showed.
type sample struct {
	perSecond float64
	cpu       time.Duration // per request
	p99       time.Duration
}

func run() error {
	dir, err := os.MkdirTemp("", "bench-proxy")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	b := &bench{ctx: ctx, dir: dir, caddy: filepath.Join(dir, "caddy")}
	defer b.end()
	if err := b.start(); err != nil {
		return err
	}
	for round := -1; round < *rounds; round++ { // the first only warms up
		order := slices.Clone(b.proxies)
		if round%2 == 0 { // whoever comes second gets a machine that is warm, or tired
			slices.Reverse(order)
		}
		for _, p := range order {
			s, err := b.measure(p)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if round >= 0 {
				p.samples = append(p.samples, s)
			}
		}
	}
	b.print(os.Stdout)
	return nil
}

type bench struct {
	ctx      context.Context
	dir      string
	caddy    string
	upstream string
	proxies  []*proxy
	children []*exec.Cmd
	wire     [][]byte // requests, one for each key
}

// start builds Caddy, starts the upstream and the proxies, and issues the keys.
func (b *bench) start() error {
	if out, err := exec.Command("go", "build", "-o", b.caddy, "./cmd/caddy").CombinedOutput(); err != nil {
		return fmt.Errorf("building ./cmd/caddy (run this from the repository's root): %w\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.upstream = freeAddr()
	if _, err := b.spawn(self, "-serve-upstream", b.upstream); err != nil {
		return err
	}
	if err := b.startProxy("plain Caddy", "", ""); err != nil {
		return err
	}
	admin := freeAddr()
	store := fmt.Sprintf("api_keys {\n store sqlite %s\n }", filepath.Join(b.dir, "store", "keys.db"))
	if err := b.startProxy("with api_keys", "admin "+admin+"\n"+store, "api_keys"); err != nil {
		return err
	}
	return b.issue(admin)
}

func (b *bench) startProxy(name, global, directive string) error {
	if global == "" {
		global = "admin off"
	}
	p := &proxy{name: name, addr: freeAddr()}
	caddyfile := filepath.Join(b.dir, strings.ReplaceAll(name, " ", "-"))
	content := fmt.Sprintf("{\n %s\n persist_config off\n auto_https off\n log {\n output discard\n }\n}\nhttp://%s {\n %s\n reverse_proxy %s\n}\n",
		global, p.addr, directive, b.upstream)
	if err := os.WriteFile(caddyfile, []byte(content), 0o600); err != nil {
		return err
	}
	cmd, err := b.spawn(b.caddy, "run", "--adapter", "caddyfile", "--config", caddyfile)
	if err != nil {
		return err
	}
	p.process = cmd.Process
	b.proxies = append(b.proxies, p)
	return waitFor(p.addr)
}

func (b *bench) spawn(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Stderr = io.Discard
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.children = append(b.children, cmd)
	return cmd, nil
}

func (b *bench) end() {
	for _, c := range b.children {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// issue makes the keys over the admin endpoint and writes the requests.
func (b *bench) issue(admin string) error {
	if err := waitFor(admin); err != nil {
		return err
	}
	post := func(path string, into any) error {
		resp, err := http.Post("http://"+admin+"/api_keys"+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			return fmt.Errorf("%s answered %s", path, resp.Status)
		}
		return json.NewDecoder(resp.Body).Decode(into)
	}
	var account struct{ ID string }
	if err := post("/accounts", &account); err != nil {
		return err
	}
	for range *keys {
		var issued struct{ Key struct{ Secret string } }
		if err := post("/accounts/"+account.ID+"/credentials", &issued); err != nil {
			return err
		}
		b.wire = append(b.wire, fmt.Appendf(nil,
			"GET /v1/things?page=2 HTTP/1.1\r\nHost: api.example\r\nUser-Agent: bench/1\r\nAccept: application/json\r\nX-API-Key: %s\r\n\r\n", issued.Key.Secret))
	}
	return nil
}

// measure sends one round of requests to a proxy.
func (b *bench) measure(p *proxy) (sample, error) {
	before, err := cpuTime(p.process.Pid)
	if err != nil {
		return sample{}, err
	}
	started := time.Now()
	latencies, err := b.load(p.addr)
	took := time.Since(started)
	if err != nil {
		return sample{}, err
	}
	after, err := cpuTime(p.process.Pid)
	if err != nil {
		return sample{}, err
	}
	slices.Sort(latencies)
	n := len(latencies)
	return sample{float64(n) / took.Seconds(), (after - before) / time.Duration(n), latencies[n*99/100]}, nil
}

// load sends the requests of a round over all connections.
func (b *bench) load(addr string) ([]time.Duration, error) {
	var next atomic.Int64
	each := make([][]time.Duration, *connections)
	errs := make([]error, *connections)
	var wg sync.WaitGroup
	for i := range *connections {
		wg.Go(func() { each[i], errs[i] = b.client(addr, &next) })
	}
	wg.Wait()
	return slices.Concat(each...), errors.Join(errs...)
}

func (b *bench) client(addr string, next *atomic.Int64) (latencies []time.Duration, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		n := next.Add(1)
		if n > int64(*requests) {
			return latencies, nil
		}
		sent := time.Now()
		if _, err := conn.Write(b.wire[int(n)%len(b.wire)]); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("answered %s, %v", resp.Status, err)
		}
		latencies = append(latencies, time.Since(sent))
	}
}

// print writes the table of medians, with ratios to the first proxy.
func (b *bench) print(w io.Writer) {
	fmt.Fprintf(w, "%d rounds of %d requests, %d connections, %d keys; medians\n\n", *rounds, *requests, *connections, *keys)
	fmt.Fprintln(w, "| | requests/s | CPU per request | p99 | requests/s ratio | CPU ratio (median of pairs) |")
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|---:|")
	base := b.proxies[0]
	for _, p := range b.proxies {
		fmt.Fprintf(w, "| %s | %.0f | %.1f µs | %.2f ms | %.3f | %.3f |\n", p.name,
			median(p, func(s sample) float64 { return s.perSecond }),
			median(p, func(s sample) float64 { return float64(s.cpu) / 1e3 }),
			median(p, func(s sample) float64 { return float64(s.p99) / 1e6 }),
			ratio(p, base, func(s sample) float64 { return s.perSecond }),
			ratio(p, base, func(s sample) float64 { return float64(s.cpu) }))
	}
}

func median(p *proxy, of func(sample) float64) float64 {
	values := make([]float64, len(p.samples))
	for i, s := range p.samples {
		values[i] = of(s)
	}
	return middle(values)
}

// ratio is the median of the ratios of neighbouring rounds, in which drift of
// the machine's speed cancels out.
func ratio(p, base *proxy, of func(sample) float64) float64 {
	values := make([]float64, len(p.samples))
	for i := range p.samples {
		values[i] = of(p.samples[i]) / of(base.samples[i])
	}
	return middle(values)
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// cpuTime is what the threads of a process have run, from /proc.
func cpuTime(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("no CPU times in /proc for process %d: this command needs Linux", pid)
	}
	for _, path := range threads {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		nanoseconds, _, _ := bytes.Cut(content, []byte(" "))
		n, err := strconv.ParseInt(string(nanoseconds), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// waitFor waits until something listens at addr.
func waitFor(addr string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing listens at %s: %w", addr, err)
		}
	}
}
