//go:build steppedclock

// Command steppedclock is cmd/caddy on a machine whose wall clock is off by as
// many seconds as the last line on its standard input says, none at first. It is
// built with a package time that adds WallStep to what [time.Now] reads of the
// wall clock, and to nothing else: see clocks_process_test.go.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-apikeys/caddy-apikeys"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	step(lines) // the first before anything reads the time
	go func() {
		for step(lines) {
		}
	}()
	caddycmd.Main()
}

// step sets the wall clock as the next line says, and answers with its time.
func step(lines *bufio.Scanner) bool {
	if !lines.Scan() {
		return false
	}
	seconds, err := strconv.ParseInt(lines.Text(), 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	time.WallStep.Store(seconds)
	fmt.Println(time.Now().Unix())
	return true
}
