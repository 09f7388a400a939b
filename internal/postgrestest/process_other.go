//go:build !linux

package postgrestest

import (
	"os"
	"syscall"
)

// attributes are none: a server outlives tests that are killed.
func attributes() *syscall.SysProcAttr { return nil }

// own has nothing to do: only on Linux root may run the tests.
func own(string) error { return nil }

// killAll kills the first process. The others end when they next look for it.
func killAll(parent *os.Process) error { return parent.Kill() }

// removeSharedMemory leaves what a killed server left behind.
func removeSharedMemory(string) {}
