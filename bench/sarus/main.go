// Command sarus measures whether the time of an answer of the dialect sarus
// tells if an address is known: it runs a gateway with an account for every
// second address, asks for each address once, one request after the other in
// random order, and compares how long those with an account took with those
// without.
//
//	go run ./bench/sarus [-accounts 5000]
//
// The mails are really sent, to a server in this process. So that nothing of a
// mail's work shows in the request that follows either, latencies are compared by
// the address before, too.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/mailbox"
)

var accounts = flag.Int("accounts", 5000, "addresses with an account, and as many without")

func main() {
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "bench-sarus")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mails, err := mailbox.Start()
	if err != nil {
		return err
	}
	defer mails.Close()
	g, err := startGateway(dir, mails.Addr)
	if err != nil {
		return err
	}
	defer g.stop()
	probes := newProbes(*accounts)
	if err := g.fill(probes); err != nil {
		return err
	}
	if err := g.ask(probes); err != nil {
		return err
	}
	compare("its own address", probes, func(i int) bool { return probes[i].known })
	compare("the address before", probes[1:], func(i int) bool { return probes[i].known })
	fmt.Printf("%d mails were sent meanwhile\n", len(mails.Taken()))
	return nil
}

// probe is one address, and how long the request for it took.
type probe struct {
	address string
	known   bool
	took    time.Duration
}

// newProbes makes addresses that look alike, in random order.
func newProbes(n int) []probe {
	probes := make([]probe, 2*n)
	for i := range probes {
		probes[i] = probe{address: fmt.Sprintf("user-%06d@example.com", i)}
	}
	shuffle := func() {
		rand.Shuffle(len(probes), func(i, j int) { probes[i], probes[j] = probes[j], probes[i] })
	}
	shuffle()
	for i := range n {
		probes[i].known = true
	}
	shuffle()
	return probes
}

// gateway is a Caddy in a process of its own.
type gateway struct {
	addr, admin string
	process     *exec.Cmd
}

const caddyfile = `{
	admin %s
	persist_config off
	auto_https off
	log {
		output discard
	}
	api_keys {
		store sqlite %s
		mail {
			smtp %s
			tls off
			from keys@gateway.example
		}
	}
}
http://%s {
	api_keys {
		dialect sarus {
			client_limit 1000000
		}
	}
}
`

func startGateway(dir, smtp string) (*gateway, error) {
	binary, config := filepath.Join(dir, "caddy"), filepath.Join(dir, "Caddyfile")
	if out, err := exec.Command("go", "build", "-o", binary, "./cmd/caddy").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building ./cmd/caddy (run this from the repository's root): %w\n%s", err, out)
	}
	g := &gateway{addr: freeAddr(), admin: freeAddr()}
	content := fmt.Sprintf(caddyfile, g.admin, filepath.Join(dir, "store", "keys.db"), smtp, g.addr)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return nil, err
	}
	g.process = exec.Command(binary, "run", "--adapter", "caddyfile", "--config", config)
	if err := g.process.Start(); err != nil {
		return nil, err
	}
	if err := waitFor("http://" + g.admin + "/api_keys/accounts"); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

func (g *gateway) stop() {
	_ = g.process.Process.Kill()
	_ = g.process.Wait()
}

// fill creates the accounts, each with a key.
func (g *gateway) fill(probes []probe) error {
	work, failed := make(chan probe), make(chan error, len(probes))
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for p := range work {
				if err := g.createAccount(p.address); err != nil {
					failed <- err
				}
			}
		})
	}
	for _, p := range probes {
		if p.known {
			work <- p
		}
	}
	close(work)
	workers.Wait()
	close(failed)
	return <-failed
}

func (g *gateway) createAccount(address string) error {
	var account struct{ ID string }
	if err := g.post("/accounts", map[string]string{"email": address}, &account); err != nil {
		return err
	}
	return g.post("/accounts/"+account.ID+"/credentials", struct{}{}, nil)
}

// post calls the management API on the admin endpoint.
func (g *gateway) post(path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := http.Post("http://"+g.admin+"/api_keys"+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		return errors.Join(err, fmt.Errorf("POST %s: %s %s", path, resp.Status, text))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// warmUp is how many requests go before those that count.
const warmUp = 200

// ask sends the requests over one connection.
func (g *gateway) ask(probes []probe) error {
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for i := range warmUp {
		if err := (&probe{address: fmt.Sprintf("warm-%06d@example.com", i)}).ask(conn, answers); err != nil {
			return err
		}
	}
	for i := range probes {
		if err := probes[i].ask(conn, answers); err != nil {
			return err
		}
	}
	return nil
}

func (p *probe) ask(conn net.Conn, answers *bufio.Reader) error {
	request := fmt.Appendf(nil, "GET /RequestAPIKey?Email=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", p.address)
	began := time.Now()
	if _, err := conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	p.took = time.Since(began)
	text, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Contains(text, []byte(`"Result":{"Status":200`)) {
		err = fmt.Errorf("%s: %s %s", p.address, resp.Status, text)
	}
	return err
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// waitFor waits until a URL is answered with 200.
func waitFor(url string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("GET %s: %w", url, err)
		}
	}
}
