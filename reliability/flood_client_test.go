//go:build reliability && linux

package reliability

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The attackers share the processors with the gateway, so they are made to cost
// little: requests are bytes, sent in batches, and answers are read as far as is
// needed to find where they end.

// asking is the bytes of a request with a key.
func asking(addr, key string) []byte {
	return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n\r\n", addr, key)
}

// readStatus reads one answer to its end and returns its status.
func readStatus(r *bufio.Reader) (int, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, fmt.Errorf("no answer: %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) == 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	_, err = r.Discard(length)
	return status, err
}

// flood sends requests with keys at a fixed rate, over connections that wait for
// no answer, until it is stopped.
type flood struct {
	addr string
	rate int           // a second
	key  func() string // of the next request; several call it at once
	want int           // what they are answered

	answered atomic.Int64
	stop     chan struct{}
	done     sync.WaitGroup
}

// connections of a flood, and how often each sends a batch.
const (
	floodConnections = 4
	floodTick        = 4 * time.Millisecond
)

// start starts the flood. It goes on until halt.
func (f *flood) start(t *testing.T) {
	f.stop = make(chan struct{})
	for range floodConnections {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		f.done.Go(func() { f.send(conn) })
		f.done.Go(func() {
			defer conn.Close()
			if err := f.receive(conn); err != nil {
				t.Error(err)
			}
		})
	}
}

// halt stops the flood, waits for its answers and returns how many came.
func (f *flood) halt() int64 {
	close(f.stop)
	f.done.Wait()
	return f.answered.Load()
}

// send sends as many requests as the time that has passed asks for. If the gateway
// does not read them, it waits.
func (f *flood) send(conn net.Conn) {
	tick := time.NewTicker(floodTick)
	defer tick.Stop()
	began, sent := time.Now(), 0
	var batch bytes.Buffer
	for {
		select {
		case <-f.stop: // the gateway closes when it has answered all
			last := bytes.Replace(asking(f.addr, f.key()), []byte("\r\n"), []byte("\r\nConnection: close\r\n"), 1)
			_, _ = conn.Write(last)
			return
		case now := <-tick.C:
			due := int(now.Sub(began).Seconds() * float64(f.rate) / floodConnections)
			// What was missed is not made up for at once: that would be another rate.
			for n := min(due-sent, 3*f.rate*int(floodTick)/int(time.Second)/floodConnections+1); n > 0; n-- {
				batch.Write(asking(f.addr, f.key()))
			}
			sent = due
			if _, err := batch.WriteTo(conn); err != nil {
				return
			}
			batch.Reset()
		}
	}
}

func (f *flood) receive(conn net.Conn) error {
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		status, err := readStatus(r)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case status != f.want:
			return fmt.Errorf("the flood is answered %d, want %d", status, f.want)
		}
		f.answered.Add(1)
	}
}

// probe is good requests at a fixed rate, whose latencies count from when they
// were due.
type probe struct {
	addr, key string
	rate      int
}

const probeConnections = 8

// run sends requests for so long and returns their latencies.
func (p probe) run(t *testing.T, d time.Duration) []time.Duration {
	var mu sync.Mutex
	var latencies []time.Duration
	due := make(chan time.Time)
	var clients sync.WaitGroup
	for range probeConnections {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			defer conn.Close()
			request, r := asking(p.addr, p.key), bufio.NewReader(conn)
			for at := range due {
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, err := conn.Write(request)
				status := 0
				if err == nil {
					status, err = readStatus(r)
				}
				took := time.Since(at)
				if err != nil || status != 200 {
					t.Errorf("a good key is answered %d, %v", status, err)
					return
				}
				mu.Lock()
				latencies = append(latencies, took)
				mu.Unlock()
			}
		})
	}
	began := time.Now()
	step := time.Second / time.Duration(p.rate)
	for at := began; at.Sub(began) < d && !t.Failed(); at = at.Add(step) {
		time.Sleep(time.Until(at))
		due <- at
	}
	close(due)
	clients.Wait()
	return latencies
}

// quantile is the value below which that part of the values is.
func quantile(values []time.Duration, part float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(part*float64(len(values))))]
}
