//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/manykeys"
)

// scenario is what -only names.
type scenario struct {
	name      string
	collected bool // Caddy is on both sides: measured under each setting of its collector
	run       func(*bench, collector) error
}

var scenarios = []scenario{
	{"one", true, (*bench).one},
	{"many", true, (*bench).many},
	{"writes", true, (*bench).writes},
	{"checksum", true, (*bench).checksum},
	{"unknown", true, (*bench).unknown},
	{"nginx", false, (*bench).nginx},
	{"haproxy", false, (*bench).haproxy},
	{"size", false, (*bench).size},
}

func scenarioNames() (names []string) {
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

func (b *bench) runScenario(s scenario) error {
	if !s.collected {
		return s.run(b, collector{})
	}
	for _, gc := range collectors() {
		if err := s.run(b, gc); err != nil {
			return err
		}
	}
	return nil
}

// pair is a proxy without the check and one with it, which take the same requests.
type pair struct {
	title     string
	collector string
	targets   []target
	from      source
	status    int // of every answer
	base      side
	with      side
}

// side is a proxy and what its rounds showed.
type side struct {
	proxy   *proxy
	beside  func(context.Context) error // what goes on while it is measured
	samples []sample
}

// sample is what one round showed.
type sample struct {
	perSecond float64
	cpu       time.Duration // per request
	p99       time.Duration
	memory    memory // afterwards
}

// one is requests with one key.
func (b *bench) one(gc collector) error {
	p := &pair{title: "1 key", from: rotating(b.texts[:1]), status: http.StatusOK, targets: proxied}
	return b.proxied(p, gc)
}

// many is requests with all keys in turn, and the memory that they take.
func (b *bench) many(gc collector) error {
	p := &pair{title: fmt.Sprintf("%d keys in turn", *keys), from: rotating(b.texts), status: http.StatusOK, targets: proxied}
	if err := b.proxied(p, gc); err != nil || gc.env != nil {
		return err
	}
	add := func(what string, limit int64, of func(sample) float64) {
		b.extents = append(b.extents, extent{what, int64(median(p.base.samples, of)), int64(median(p.with.samples, of)), limit})
	}
	add(fmt.Sprintf("resident memory under the load of %d keys in turn: plain Caddy, with api_keys", *keys), 20<<20,
		func(s sample) float64 { return float64(s.memory.resident) })
	add("of which anonymous: without the pages of the program's file", 0,
		func(s sample) float64 { return float64(s.memory.anonymous) })
	return nil
}

// proxied measures plain Caddy's reverse_proxy and the same with api_keys.
func (b *bench) proxied(p *pair, gc collector) error {
	return b.measureAnew(p, func(k *children) error { return b.startSeeded(k, p, gc, b.reverseProxy()) })
}

// writes is requests with all keys in turn while others are issued and revoked, against a
// plain Caddy, and against one beside as many syncs of the disk as that takes.
func (b *bench) writes(gc collector) error {
	rate, err := b.writesBeside(gc, nil)
	if err != nil {
		return err
	}
	floor, err := newSyncer(b.dir, rate)
	if err != nil {
		return err
	}
	defer floor.close()
	_, err = b.writesBeside(gc, floor)
	return err
}

// writesBeside measures a writer's calls a second, too.
func (b *bench) writesBeside(gc collector, floor *syncer) (rate float64, err error) {
	var k children
	defer k.end()
	p := &pair{from: rotating(b.texts), status: http.StatusOK}
	if err := b.startSeeded(&k, p, gc, b.reverseProxy()); err != nil {
		return 0, err
	}
	w, err := newWriter(p.with.proxy.admin)
	if err != nil {
		return 0, err
	}
	defer w.close()
	p.with.beside = w.write
	p.title = fmt.Sprintf("%d keys in turn, while keys are issued and revoked", *keys)
	if floor == nil {
		p.targets = []target{requestsAtLeast(0.95)}
	} else {
		p.base.beside = floor.write
	}
	if err := b.measurePair(p); err != nil {
		return 0, err
	}
	p.title += fmt.Sprintf(" (%.0f calls/s)", w.rate())
	if floor != nil {
		p.title += fmt.Sprintf("; plain Caddy beside %.0f syncs/s", floor.perSecond)
	}
	return w.rate(), nil
}

// checksum is the refusal of a mistyped key, against the shortest answer there is, and
// against the same answer by Caddy's own handlers.
func (b *bench) checksum(gc collector) error {
	if err := b.mistyped(gc, "`respond 401`", "respond 401", false, requestsAtLeast(0.95)); err != nil {
		return err
	}
	return b.mistyped(gc, "`header` and `respond` with the same answer", sameRefusal, true)
}

// sameRefusal answers what a mistyped key is answered. A brace after a backslash begins
// no placeholder.
const sameRefusal = `header {
		Cache-Control no-store
		Content-Type application/problem+json
		Www-Authenticate "Bearer realm=\"api_keys\", error=\"invalid_token\""
	}
	respond <<JSON
		\{"type":"about:blank","title":"Unauthorized","status":401,"detail":"The API key is not valid.","instance":"` + requestPath + `","code":"invalid_key"}
		JSON 401`

func (b *bench) mistyped(gc collector, plain, directives string, same bool, targets ...target) error {
	p := &pair{title: "a mistyped key is refused; plain Caddy: " + plain, from: mistyped(b.texts[0]),
		status: http.StatusUnauthorized, targets: targets}
	return b.measureAnew(p, func(k *children) error {
		if err := b.startSeeded(k, p, gc, directives); err != nil || !same {
			return err
		}
		return p.answersTheSame()
	})
}

// answersTheSame compares the two answers to a request, but for their date.
func (p *pair) answersTheSame() error {
	var answers [2]string
	for i, s := range []side{p.base, p.with} {
		answer, err := answerOf(s.proxy.addr, p.from(0, nil))
		if err != nil {
			return err
		}
		answers[i] = answer
	}
	if answers[0] != answers[1] {
		return fmt.Errorf("the answers differ: %q and %q", answers[0], answers[1])
	}
	return nil
}

// unknown is the refusal of keys that nobody has, beside many that are stored, and
// whether they leave anything in memory.
func (b *bench) unknown(gc collector) error {
	var k children
	defer k.end()
	store, err := b.manyStored()
	if err != nil {
		return err
	}
	p := &pair{title: fmt.Sprintf("an unknown key is refused, %d are stored; plain Caddy: `respond 401`", *stored), from: unknown,
		status: http.StatusUnauthorized, targets: []target{requestsAtLeast(0.7)}}
	if err := b.startCaddies(&k, p, gc, "respond 401", store); err != nil {
		return err
	}
	last := request(nil, manykeys.Text(*stored-1))
	if status, err := ask(p.with.proxy.addr, last); err != nil || status != http.StatusOK {
		return errors.Join(err, fmt.Errorf("the last of %d keys is answered %d: delete %s, it is not whole", *stored, status, store))
	}
	if err := b.measurePair(p); err != nil || gc.env != nil {
		return err
	}
	first, end := p.with.samples[0], p.with.samples[*rounds-1]
	b.extents = append(b.extents, extent{
		fmt.Sprintf("resident memory beside %d stored keys: before and after %d unknown ones", *stored, (*rounds-1)**requests),
		first.memory.resident, end.memory.resident, 8 << 20})
	return nil
}

// startSeeded starts a plain Caddy with these directives, and one with api_keys over a
// copy of the store with the keys.
func (b *bench) startSeeded(k *children, p *pair, gc collector, directives string) error {
	store, err := b.copySeed()
	if err != nil {
		return err
	}
	return b.startCaddies(k, p, gc, directives, store)
}

func (b *bench) startCaddies(k *children, p *pair, gc collector, directives, store string) (err error) {
	p.collector = gc.name
	if p.base.proxy, err = b.startPlain(k, gc, directives); err != nil {
		return err
	}
	p.with.proxy, err = b.startGated(k, gc, store)
	return err
}

func (b *bench) nginx(collector) error {
	return b.peer("nginx", "nginx-light", b.startNginx)
}

func (b *bench) haproxy(collector) error {
	return b.peer("haproxy", "haproxy", b.startHAProxy)
}

// peer measures another product with a map of the keys, and without.
func (b *bench) peer(name, pkg string, start func(*children, string, bool) (*proxy, error)) (err error) {
	binary, found := installed(name)
	if !found {
		b.skipped = append(b.skipped, fmt.Sprintf("skipped: %s is not installed (apt-get install %s)", name, pkg))
		return nil
	}
	var k children
	defer k.end()
	p := &pair{title: fmt.Sprintf("%s with a map of %d keys, in turn", name, *keys), from: rotating(b.texts), status: http.StatusOK}
	if p.base.proxy, err = start(&k, binary, false); err != nil {
		return err
	}
	if p.with.proxy, err = start(&k, binary, true); err != nil {
		return err
	}
	return b.measurePair(p)
}

// size is how much larger the module makes Caddy's binary.
func (b *bench) size(collector) error {
	stripped := []string{"-ldflags", "-s -w"}
	smallCaddy, smallPlain := b.caddy+"-stripped", b.plain+"-stripped"
	if err := errors.Join(b.goBuild(smallCaddy, "./cmd/caddy", stripped...), b.goBuild(smallPlain, b.plainSource(), stripped...)); err != nil {
		return err
	}
	for _, built := range []struct{ how, plain, caddy string }{
		{"binary: plain Caddy, with api_keys", b.plain, b.caddy},
		{"the same with `-ldflags \"-s -w\"`", smallPlain, smallCaddy},
	} {
		from, err := os.Stat(built.plain)
		if err != nil {
			return err
		}
		to, err := os.Stat(built.caddy)
		if err != nil {
			return err
		}
		b.extents = append(b.extents, extent{built.how, from.Size(), to.Size(), 16 << 20})
	}
	return nil
}

// warmUp is how long a pair runs before it counts.
const warmUp = 2 * time.Second

// starts is how often measureAnew starts the sides. Where its memory happens to lie
// makes a process faster or slower by some percent for as long as it runs.
const starts = 4

// measureAnew measures the sides of a pair in turns, and has them started several times.
func (b *bench) measureAnew(p *pair, start func(*children) error) error {
	for i := range starts {
		if n := *rounds*(i+1)/starts - *rounds*i/starts; n > 0 {
			if err := b.measureStarted(p, start, n); err != nil {
				return err
			}
		}
	}
	b.pairs = append(b.pairs, p)
	return nil
}

func (b *bench) measureStarted(p *pair, start func(*children) error, n int) error {
	var k children
	defer k.end()
	if err := start(&k); err != nil {
		return err
	}
	return b.measureRounds(p, n)
}

// measurePair measures the sides of a pair in turns.
func (b *bench) measurePair(p *pair) error {
	if err := b.measureRounds(p, *rounds); err != nil {
		return err
	}
	b.pairs = append(b.pairs, p)
	return nil
}

// measureRounds adds that many rounds to what a pair showed.
func (b *bench) measureRounds(p *pair, n int) error {
	base, with := p.base.samples, p.with.samples
	for end := time.Now().Add(warmUp); time.Now().Before(end); {
		if err := b.round(p, false); err != nil {
			return err
		}
	}
	p.base.samples, p.with.samples = base, with
	for i := range n {
		if err := b.round(p, i%2 == 0); err != nil {
			return err
		}
	}
	return nil
}

// round measures both sides once. Whoever comes second gets a machine that is warm, or
// tired.
func (b *bench) round(p *pair, reversed bool) error {
	order := []*side{&p.base, &p.with}
	if reversed {
		slices.Reverse(order)
	}
	for _, s := range order {
		taken, err := b.measure(p, s)
		if err != nil {
			return err
		}
		s.samples = append(s.samples, taken)
	}
	return nil
}

// measure sends one round of requests to a proxy.
func (b *bench) measure(p *pair, to *side) (taken sample, err error) {
	ctx, stop := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	if to.beside == nil {
		ended <- nil
	} else {
		go func() { ended <- to.beside(ctx) }()
	}
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	before, err := cpuTime(to.proxy.pid)
	if err != nil {
		return taken, err
	}
	started := time.Now()
	latencies, err := load(ctx, to.proxy.addr, p.from, b.sent, *requests, p.status)
	took := time.Since(started)
	b.sent += *requests
	if err != nil {
		return taken, err
	}
	after, err := cpuTime(to.proxy.pid)
	if err != nil {
		return taken, err
	}
	held, err := memoryOf(to.proxy.pid)
	n := len(latencies)
	return sample{float64(n) / took.Seconds(), (after - before) / time.Duration(n), latencies[n*99/100], held}, err
}
