//go:build reliability

package reliability

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"
)

// threshold is the t value from which on two classes of measurements are taken for
// different, as in "dude, is my code constant time?" (Reparaz et al., 2016).
const threshold = 4.5

// asked is a request, and how long its answer took.
type asked struct {
	second bool // of the second class
	text   []byte
	took   time.Duration
}

// differ reports whether the answers to two classes of requests take different
// times, and how different. What one measurement finds, noise of the machine too, a
// second one must find again, in the same direction.
func differ(t *testing.T, addr string, first, second func() [][]byte) (bool, [2]float64) {
	t.Helper()
	var ts [2]float64
	for run := range ts {
		ts[run] = welch(interleaved(t, addr, first(), second()))
		if math.Abs(ts[run]) < threshold {
			return false, ts
		}
	}
	return math.Signbit(ts[0]) == math.Signbit(ts[1]), ts
}

// interleaved sends the requests of both classes, in random order, one after the
// other over one connection.
func interleaved(t *testing.T, addr string, first, second [][]byte) []asked {
	t.Helper()
	all := make([]asked, 0, len(first)+len(second))
	for i := range first {
		all = append(all, asked{false, first[i], 0}, asked{true, second[i], 0})
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for i := range all {
		begin := time.Now()
		if _, err := conn.Write(all[i].text); err != nil {
			t.Fatal(err)
		}
		if err := readAnswer(in); err != nil {
			t.Fatal(err)
		}
		all[i].took = time.Since(begin)
	}
	return all[len(all)/20:] // the first ones warm up
}

func readAnswer(in *bufio.Reader) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// welch is Welch's t of the two classes. A tenth of the measurements is left out,
// the longest of both classes together: they are the scheduler's and the garbage
// collector's. Where it is cut does not depend on the class, so that the cut favours
// none.
func welch(all []asked) float64 {
	slices.SortFunc(all, func(a, b asked) int { return int(a.took - b.took) })
	var n, sum, squares [2]float64
	for _, a := range all[:len(all)*9/10] {
		class := 0
		if a.second {
			class = 1
		}
		x := float64(a.took)
		n[class]++
		sum[class] += x
		squares[class] += x * x
	}
	var mean, variance [2]float64
	for c := range mean {
		mean[c] = sum[c] / n[c]
		variance[c] = (squares[c] - sum[c]*mean[c]) / (n[c] - 1)
	}
	return (mean[0] - mean[1]) / math.Sqrt(variance[0]/n[0]+variance[1]/n[1])
}

// TestTheStatistic holds it to measurements that are made up: equal ones, and some
// that differ by a hundredth of their spread and more.
func TestTheStatistic(t *testing.T) {
	made := func(apart float64) []asked {
		random := rand.New(rand.NewPCG(1, 2))
		var all []asked
		for range 20_000 {
			for _, second := range []bool{false, true} {
				took := 100_000 + 20_000*random.ExpFloat64()
				if second {
					took += apart
				}
				all = append(all, asked{second: second, took: time.Duration(took)})
			}
		}
		return all
	}
	for apart, want := range map[float64]bool{0: false, 2_000: true, -2_000: true} {
		if got := welch(made(apart)); (math.Abs(got) >= threshold) != want {
			t.Errorf("classes that are %v ns apart: t = %.1f", apart, got)
		}
	}
}

// get is a request with a key, on a connection that stays.
func get(addr, key string) []byte {
	return bytes.Join([][]byte{[]byte("GET / HTTP/1.1\r\nHost: " + addr), []byte("X-API-Key: " + key), nil, nil}, []byte("\r\n"))
}
