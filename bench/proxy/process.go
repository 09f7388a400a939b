//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// family is a process and its children, which are the workers of some proxies.
func family(pid int) []int {
	pids := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well formed
	for _, path := range lists {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		for field := range strings.FieldsSeq(string(content)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// cpuTime is what the threads of a process and of its workers have run.
func cpuTime(pid int) (sum time.Duration, err error) {
	for _, member := range family(pid) {
		t, err := cpuTimeOf(member)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

func cpuTimeOf(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("no CPU times in /proc for process %d: it ended, or the kernel keeps none", pid)
	}
	for _, path := range threads {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		nanoseconds, _, _ := bytes.Cut(content, []byte(" "))
		n, err := strconv.ParseInt(string(nanoseconds), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// memory is what a process and its workers have resident, in bytes.
func memory(pid int) (sum int64, err error) {
	for _, member := range family(pid) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", member))
		if err != nil {
			return 0, err
		}
		var kibibytes int64
		_, after, _ := bytes.Cut(status, []byte("VmRSS:"))
		if _, err := fmt.Sscan(string(after), &kibibytes); err != nil {
			return 0, fmt.Errorf("no VmRSS in /proc/%d/status: %w", member, err)
		}
		sum += kibibytes << 10
	}
	return sum, nil
}
