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

// memory is what a process holds of the machine's, in bytes.
type memory struct {
	// resident is all of it.
	resident int64
	// anonymous is without pages of files, the program's own above all, which the
	// system drops and reads again as it likes.
	anonymous int64
}

// memoryOf is that of a process and its workers.
func memoryOf(pid int) (sum memory, err error) {
	for _, member := range family(pid) {
		path := fmt.Sprintf("/proc/%d/status", member)
		status, err := os.ReadFile(path)
		if err != nil {
			return sum, err
		}
		for name, to := range map[string]*int64{"VmRSS:": &sum.resident, "RssAnon:": &sum.anonymous} {
			var kibibytes int64
			_, after, _ := bytes.Cut(status, []byte(name))
			if _, err := fmt.Sscan(string(after), &kibibytes); err != nil {
				return sum, fmt.Errorf("no %s in %s: %w", name, path, err)
			}
			*to += kibibytes << 10
		}
	}
	return sum, nil
}
