//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The load and the upstream share the processors with the proxies. They speak just as
// much HTTP as these here need, because net/http would take longer than a proxy does.

// hello is the body of the upstream's answer.
const hello = "hello\n"

// serveUpstream answers every request, which has no body, with hello.
func serveUpstream(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go answerAll(conn)
	}
}

func answerAll(conn net.Conn) {
	defer conn.Close()
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(hello), hello)
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(line) > len("\r\n") {
			continue
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// load sends n requests over all connections, from the one of that number on, and
// returns how long each took, in order.
func load(ctx context.Context, addr string, from source, first, n, status int) ([]time.Duration, error) {
	var next atomic.Int64
	each := make([][]time.Duration, *connections)
	errs := make([]error, *connections)
	var clients sync.WaitGroup
	for i := range *connections {
		clients.Go(func() {
			each[i], errs[i] = client(addr, status, func(into []byte) []byte {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return nil
				}
				return from(first+i, into)
			})
		})
	}
	clients.Wait()
	latencies := slices.Concat(each...)
	slices.Sort(latencies)
	return latencies, errors.Join(append(errs, ctx.Err())...)
}

// client sends one request after the other, until there is none, and demands that all
// are answered with status.
func client(addr string, status int, next func(into []byte) []byte) (latencies []time.Duration, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil { // a round takes a second
		return nil, err
	}
	in := bufio.NewReader(conn)
	var request []byte
	for {
		if request = next(request[:0]); request == nil {
			return latencies, nil
		}
		sent := time.Now()
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		got, err := readAnswer(in)
		if err != nil {
			return nil, err
		}
		if got != status {
			return nil, fmt.Errorf("answered %d, and not %d", got, status)
		}
		latencies = append(latencies, time.Since(sent))
	}
}

// ask sends one request and returns the status of the answer.
func ask(addr string, request []byte) (status int, err error) {
	conn, err := send(addr, request)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return readAnswer(bufio.NewReader(conn))
}

// answerOf is the whole answer to a request, but for its date.
func answerOf(addr string, request []byte) (string, error) {
	conn, err := send(addr, request)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	answer.Header.Del("Date")
	whole, err := httputil.DumpResponse(answer, true)
	return string(whole), err
}

// send sends a request over a connection of its own.
func send(addr string, request []byte) (net.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err = conn.SetDeadline(time.Now().Add(10 * time.Second)); err == nil {
		_, err = conn.Write(request)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// readAnswer reads an answer, whose length must be said, and returns its status. A
// 200 must be as long as the upstream's, because a proxy says 200 of its own accord
// where nothing is configured.
func readAnswer(in *bufio.Reader) (status int, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(line, []byte(" "))
	if len(rest) < 3 {
		return 0, fmt.Errorf("%q is no answer", line)
	}
	if status, err = strconv.Atoi(string(rest[:3])); err != nil {
		return 0, fmt.Errorf("%q is no answer: %w", line, err)
	}
	length := -1
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			break
		}
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 || status == http.StatusOK && length != len(hello) {
		return 0, fmt.Errorf("an answer %d has a body of length %d, which is not the upstream's", status, length)
	}
	_, err = in.Discard(length)
	return status, err
}
