//go:build linux

package main

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"
)

func TestReadAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		wrong  bool
	}{
		"the upstream's answer is taken":                {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n", 200, false},
		"the name of a header is taken in any case":     {"HTTP/1.1 200 OK\r\ncontent-length:6\r\n\r\nhello\n", 200, false},
		"a refusal has a body of any length":            {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", 401, false},
		"a 200 that is not the upstream's is none":      {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, true},
		"an answer of unsaid length can't be taken":     {"HTTP/1.1 401 Unauthorized\r\n\r\n", 401, true},
		"what is not HTTP is no answer":                 {"hello\r\n\r\n", 0, true},
		"an answer that ends before its body does not":  {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n", 401, true},
		"an answer that ends before its headers is not": {"HTTP/1.1 200 OK\r\nContent-Le", 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := bufio.NewReader(strings.NewReader(c.answer))
			status, err := readAnswer(in)
			if (err != nil) != c.wrong || !c.wrong && status != c.status {
				t.Fatalf("status %d, error %v", status, err)
			}
			if _, err := in.ReadByte(); !c.wrong && !errors.Is(err, io.EOF) {
				t.Error("something is left of the answer")
			}
		})
	}
}

func TestLoadAsksTheUpstreamJustAsOftenAsItShould(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			go answerAll(conn)
		}
	}()
	addr := l.Addr().String()
	latencies, err := load(t.Context(), addr, rotating([]string{"one", "two"}), 0, 1000, 200)
	if err != nil || len(latencies) != 1000 {
		t.Errorf("%d answers, error %v", len(latencies), err)
	}
	if _, err := load(t.Context(), addr, rotating([]string{"one"}), 0, 100, 401); err == nil {
		t.Error("an answer of another status is taken")
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	// The last six characters are the CRC-32 of those before, by the zlib of Python.
	if got, want := token(7), "key_000000000007_0000000000000000000000000000000725YktB"; got != want {
		t.Errorf("token 7 is %s, want %s", got, want)
	}
	if token(7) == token(8) {
		t.Error("two keys are the same")
	}
	for _, right := range []string{"key_0", "key_1"} {
		asked := string(mistyped(right)(0, nil))
		if strings.Contains(asked, right) {
			t.Errorf("%s is not mistyped", right)
		}
	}
}

func TestRatios(t *testing.T) {
	p := new(pair)
	for i := range 5 { // the machine gets slower, and its second last round is an outlier
		slow := float64(i + 1)
		p.base.samples = append(p.base.samples, sample{perSecond: 100 / slow, cpu: time.Duration(10 * slow * 1e3)})
		p.with.samples = append(p.with.samples, sample{perSecond: 90 / slow, cpu: time.Duration(11 * slow * 1e3)})
	}
	p.with.samples[3].perSecond = 1
	for name, c := range map[string]struct{ got, want float64 }{
		"the ratio of neighbouring rounds": {p.ratio(requestsPerSecond), 0.9},
		"the ratio of CPU":                 {p.ratio(cpuMicroseconds), 1.1},
		"the median of a difference":       {p.cpuAdded(), 3},
		"the median of a side":             {median(p.base.samples, cpuMicroseconds), 30},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, c.got, c.want)
		}
	}
}

func TestTargets(t *testing.T) {
	of := func(perSecond float64, cpu time.Duration) side {
		return side{samples: []sample{{perSecond: perSecond, cpu: cpu}}}
	}
	for name, c := range map[string]struct {
		with side
		want string
	}{
		"what costs nothing meets all":    {of(100, 50e3), "met; met; met"},
		"what is slow misses the first":   {of(97, 50e3), "missed; met; met"},
		"what takes 3 µs misses a second": {of(100, 53e3), "met; missed; met"},
		"what takes 5 µs misses a third":  {of(100, 55e3), "met; missed; missed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pair{base: of(100, 50e3), with: c.with, targets: proxied}
			var got []string
			for judged := range strings.SplitSeq(p.judgement(), "; ") {
				got = append(got, judged[strings.LastIndex(judged, " ")+1:])
			}
			if strings.Join(got, "; ") != c.want {
				t.Error(p.judgement())
			}
		})
	}
}

func TestTheReportStandsBetweenItsMarkers(t *testing.T) {
	text := "before\n" + beginMark + "\nold\n" + endMark + "\nafter\n"
	got, err := between(text, "new")
	if want := "before\n" + beginMark + "\nnew\n" + endMark + "\nafter\n"; err != nil || got != want {
		t.Errorf("%q, error %v", got, err)
	}
	for _, unmarked := range []string{"", "before", beginMark, endMark + "\n" + beginMark} {
		if got, err := between(unmarked, "new"); err == nil {
			t.Errorf("%q becomes %q", unmarked, got)
		}
	}
}
