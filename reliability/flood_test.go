//go:build reliability && linux

package reliability

import (
	"crypto/rand"
	"fmt"
	"hash/crc32"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// floodedSite answers by itself, so that the gateway is what is measured. {before}
// is a control's handler, or nothing.
const floodedSite = `{
	admin {admin}
	persist_config off
	auto_https off
	metrics
	log {
		level ERROR
	}
	api_keys {
		store sqlite {dir}/store/keys.db
	}
}
http://{addr} {
	route {
		{before}
		api_keys {
			dialect rest /keys-api
		}
		respond "let through"
	}
}
`

const tokenLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// randomToken is the text of a key that was never made, with the right checksum.
func randomToken() string {
	text := make([]byte, 0, 55)
	text = append(text, "key_"...)
	for i := range 45 {
		if i == 12 {
			text = append(text, '_')
			continue
		}
		text = append(text, tokenLetters[mrand.N(62)])
	}
	crc, sum := crc32.ChecksumIEEE(text), [6]byte{}
	for i := 5; i >= 0; i-- {
		sum[i], crc = tokenLetters[crc%62], crc/62
	}
	return string(append(text, sum[:]...))
}

// mistyped changes the last character.
func mistyped(token string) string {
	last := len(token) - 1
	return token[:last] + string(tokenLetters[(strings.IndexByte(tokenLetters, token[last])+1)%62])
}

// floods are the keys that attackers present.
var floods = map[string]func() string{
	"random texts":        rand.Text,
	"wrong checksums":     func() string { return mistyped(randomToken()) },
	"keys never made":     randomToken,
	"a mix of all":        nil, // set below, of the others
	"one key, never made": func() string { return neverMade },
}

var neverMade = randomToken()

func init() {
	kinds := []func() string{floods["random texts"], floods["wrong checksums"], floods["keys never made"]}
	floods["a mix of all"] = func() string { return kinds[mrand.N(3)]() }
}

// floodRate is how many keys a second the attackers present, if the machine makes
// as many.
const floodRate = 10_000

// outcome is what a flood did to good requests. Times are medians of rounds, so
// that a round in which another program took the processors counts for one.
type outcome struct {
	flooded, calm p99s    // beside a flood, and beside as many other good requests
	rate          float64 // of the flood, as it was answered, a second
	used, usedBy  float64 // processors that the gateway used, beside a flood and beside good ones
}

// p99s are those of the latencies of good requests, one a round.
type p99s []time.Duration

func (o outcome) ratio() float64 {
	return float64(quantile(o.flooded, 0.5)) / float64(max(quantile(o.calm, 0.5), time.Nanosecond))
}

func (o outcome) String() string {
	return fmt.Sprintf("%.0f/s; p99 of good requests %v, beside as many good ones %v (x%.2f); the gateway used %.2f and %.2f processors",
		o.rate, quantile(o.flooded, 0.5), quantile(o.calm, 0.5), o.ratio(), o.used, o.usedBy)
}

// measure sends good requests at a low rate, in turns beside a flood and beside as
// many other good requests: so both share the processors with as much, and what
// else the machine does meets both.
func measure(t *testing.T, s *served, good []string, kind func() string, rounds int, round time.Duration) (o outcome) {
	t.Helper()
	p := probe{s.addr, good[0], 400}
	run := func(f *flood, into *p99s) (rate, used float64) {
		before, began := s.processorTime(), time.Now()
		f.start(t)
		*into = append(*into, quantile(p.run(t, round), 0.99))
		answered := f.halt()
		took := time.Since(began).Seconds() * float64(rounds)
		return float64(answered) / took, (s.processorTime() - before).Seconds() / took
	}
	for range rounds {
		rate, used := run(&flood{addr: s.addr, rate: floodRate, key: kind, want: 401}, &o.flooded)
		o.rate, o.used = o.rate+rate, o.used+used
		goodKey := func() string { return good[mrand.N(len(good))] }
		_, used = run(&flood{addr: s.addr, rate: floodRate, key: goodKey, want: 200}, &o.calm)
		o.usedBy += used
	}
	return o
}

// manyGood are keys that work.
func (s *served) manyGood(n int) (keys []string) {
	for range n {
		keys = append(keys, s.expiring("").text)
	}
	return keys
}

// TestFloodsOfKeysDoNotHurtGoodOnes floods a gateway with each kind of bad keys: the
// p99 of good requests less than doubles, and memory grows by less than 64 MiB. On
// a machine on which others compute, a round that they disturbed is repeated.
func TestFloodsOfKeysDoNotHurtGoodOnes(t *testing.T) {
	s := startServed(t, strings.Replace(floodedSite, "{before}", "", 1)).ready()
	good := s.manyGood(100)
	measure(t, s, good, randomToken, 1, size(300*time.Millisecond, 5*time.Second)) // warm
	resident, live := s.resident(), s.live()
	for _, name := range []string{"random texts", "wrong checksums", "keys never made"} {
		for try := 1; ; try++ {
			o := measure(t, s, good, floods[name], size(5, 60), size(250*time.Millisecond, time.Second))
			t.Logf("%s: %v", name, o)
			if o.ratio() < 2 {
				break
			}
			if try == size(5, 3) {
				t.Errorf("%s: the p99 of good requests grew by a factor of %.2f", name, o.ratio())
				break
			}
		}
	}
	grownResident, grownLive := s.resident()-resident, s.live()-live
	t.Logf("memory: resident %+d KiB, live %+d KiB", grownResident>>10, grownLive>>10)
	if grownResident > 64<<20 {
		t.Errorf("the process grew by %d MiB", grownResident>>20)
	}
	if grownLive > maxGrown() {
		t.Errorf("what it can't give back grew by %d KiB", grownLive>>10)
	}
}

// maxGrown is by how much the live heap may grow: what caches and buffers take once.
func maxGrown() int64 { return size[int64](6<<20, 16<<20) }

// TestControlAGatewayThatHashes is the control for latency: one that hashes unknown
// keys as slowly as passwords.
func TestControlAGatewayThatHashes(t *testing.T) {
	s := startServed(t, strings.Replace(floodedSite, "{before}", "broken hashes", 1)).ready()
	o := measure(t, s, s.manyGood(10), randomToken, size(5, 20), size(250*time.Millisecond, time.Second))
	t.Log(o)
	if o.ratio() < 2 {
		t.Errorf("a gateway that hashes slowly goes unnoticed: the p99 grew by a factor of %.2f", o.ratio())
	}
}

// TestControlAGatewayThatRemembers is the control for memory: one that remembers
// every key that it refused.
func TestControlAGatewayThatRemembers(t *testing.T) {
	s := startServed(t, strings.Replace(floodedSite, "{before}", "broken remembers", 1)).ready()
	good := s.manyGood(10)
	measure(t, s, good, randomToken, 1, 300*time.Millisecond)
	before := s.live()
	measure(t, s, good, randomToken, size(4, 20), size(250*time.Millisecond, 3*time.Second))
	grown := s.live() - before
	t.Logf("memory: live %+d KiB", grown>>10)
	if grown <= maxGrown() {
		t.Errorf("a gateway that remembers refused keys goes unnoticed: it grew by %d KiB", grown>>10)
	}
}

// TestFloodedKeysAreWhatTheyAreMeantToBe sees, in the count of look-ups that asked
// the store, that wrong checksums do not get there and the others do.
func TestFloodedKeysAreWhatTheyAreMeantToBe(t *testing.T) {
	g := newKeyringGate(t, openStore(t)).(keyringGate)
	for name, want := range map[string]uint64{"random texts": 100, "wrong checksums": 0, "keys never made": 100, "one key, never made": 100} {
		before := g.vault.Misses()
		for range 100 {
			if v := g.judge(floods[name]()); v != keystore.InvalidKey {
				t.Errorf("%s: %v", name, v)
			}
		}
		if got := g.vault.Misses() - before; got != want {
			t.Errorf("%s: %d of 100 asked the store, want %d", name, got, want)
		}
	}
}

// medians keeps a log short: of many counts, the least, the middle and the most.
func medians(counts []int64) string {
	slices.Sort(counts)
	return fmt.Sprintf("%d to %d, mostly %d", counts[0], counts[len(counts)-1], counts[len(counts)/2])
}
