//go:build unix

package sqlstore_test

import (
	"syscall"
	"testing"
)

// lax sets a umask that forbids nothing, for the time of the test.
func lax(t *testing.T) {
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
}
