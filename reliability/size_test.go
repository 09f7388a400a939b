//go:build reliability

// Package reliability holds the promises of the gateway against the faults and
// attacks that real machines and the real Internet bring. Its tests take long, so
// they run with the build tag of its name only:
//
//	go test -tags reliability ./reliability/...
//
// With RELIABILITY=full in the environment they run at their full size.
package reliability

import "os"

// full says that tests run at their full size.
var full = os.Getenv("RELIABILITY") == "full"

// size is how much of something a test does: the whole package in its short
// version takes less than four minutes on two cores.
func size[T any](short, whole T) T {
	if full {
		return whole
	}
	return short
}
