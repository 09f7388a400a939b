//go:build linux

// Command proxy measures what the check of keys adds to a proxied request: in Caddy
// with api_keys, and for comparison in nginx and HAProxy, each against itself without
// the check. All run on loopback before the same upstream, in processes of their own,
// and take the same requests in turns.
//
//	go run ./bench/proxy [-rounds 30] [-requests 4000] [-only one,many] [-store <file>]
//
// It prints its tables and writes them into bench/README.md, unless -only leaves
// scenarios out. nginx and HAProxy are run if they are installed. On a noisy machine
// only the ratios of one run mean something.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

var (
	rounds      = flag.Int("rounds", 30, "rounds of each scenario, each of which measures both sides once")
	requests    = flag.Int("requests", 4000, "requests in a round")
	connections = flag.Int("connections", 64, "keep-alive connections")
	keys        = flag.Int("keys", 10_000, "how many keys are in use where it is not one")
	stored      = flag.Int("stored", 1_000_000, "how many keys are stored where unknown ones are refused")
	store       = flag.String("store", "", "the file of that store: made there if it is missing, so that the next run need not; default: a temporary one")
	only        = flag.String("only", "", "run these `scenarios` alone, with commas between: "+strings.Join(scenarioNames(), ", "))
	gc          = flag.String("gc", "default,equal", "settings of Caddy's garbage collector: default (or what GOGC says), equal (it runs at 128 MiB)")
	readme      = flag.String("readme", "bench/README.md", "where the tables are written; empty: nowhere")
	serve       = flag.String("serve-upstream", "", "serve as the upstream at this address (used by the command itself)")
)

func main() {
	flag.Parse()
	if *serve != "" {
		log.Fatal(serveUpstream(*serve))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	chosen, err := choose()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-proxy")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{ctx: ctx, dir: dir, upstream: freeAddr()}
	machine, err := describeMachine(ctx) // now, before the machine is busy with this
	if err != nil {
		return err
	}
	if err := b.build(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var helpers children
	defer helpers.end()
	if _, err := helpers.start(filepath.Join(dir, "upstream.log"), nil, self, "-serve-upstream", b.upstream); err != nil {
		return err
	}
	if err := b.makeKeys(); err != nil {
		return err
	}
	for _, s := range chosen {
		if err := b.runScenario(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	report := machine + "\n\n" + b.report()
	fmt.Println(report)
	if *readme == "" || *only != "" {
		return nil
	}
	return rewrite(*readme, report)
}

// choose returns the scenarios that the flags ask for.
func choose() ([]scenario, error) {
	for name := range strings.SplitSeq(*gc, ",") {
		if !slices.Contains([]string{"default", "equal"}, name) {
			return nil, fmt.Errorf("-gc %q: there are default and equal", name)
		}
	}
	if *rounds < 1 || *requests < 1 || *connections < 1 || *keys < 1 || *stored < 1 {
		return nil, errors.New("-rounds, -requests, -connections, -keys and -stored must be at least 1")
	}
	if *only == "" {
		return scenarios, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(*only, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %q: there are %s", name, strings.Join(scenarioNames(), ", "))
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}

// bench is a run.
type bench struct {
	ctx      context.Context
	dir      string
	caddy    string // with api_keys
	plain    string // without
	upstream string
	seed     string   // a store of the keys in use, copied for each process
	texts    []string // of the keys in use
	sent     int      // requests so far, so that no two rounds ask for the same unknown key
	pairs    []*pair
	skipped  []string
	extents  []extent // what is measured in bytes
}

// plainMain is a Caddy as it comes, to compare with ./cmd/caddy.
const plainMain = `package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
`

// build builds both Caddys, from the same modules.
func (b *bench) build() error {
	if err := os.WriteFile(b.plainSource(), []byte(plainMain), 0o600); err != nil {
		return err
	}
	b.caddy, b.plain = filepath.Join(b.dir, "caddy"), filepath.Join(b.dir, "plain-caddy")
	return errors.Join(b.goBuild(b.caddy, "./cmd/caddy"), b.goBuild(b.plain, b.plainSource()))
}

func (b *bench) plainSource() string { return filepath.Join(b.dir, "plain.go") }

func (b *bench) goBuild(to, from string, flags ...string) error {
	args := append([]string{"build", "-buildvcs=false", "-o", to}, flags...)
	if out, err := exec.CommandContext(b.ctx, "go", append(args, from)...).CombinedOutput(); err != nil {
		return fmt.Errorf("building %s (run this from the repository's root): %w\n%s", from, err, out)
	}
	return nil
}
