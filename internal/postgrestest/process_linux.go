package postgrestest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// unprivileged is who runs the servers where root runs the tests, because they refuse
// to run as root; nil elsewhere.
var unprivileged = sync.OnceValue(func() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.ParseUint(u.Uid, 10, 32)
			gid, _ := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return nil
})

// attributes make a process one of the servers' user, which stops at once, and cleans
// up, when the tests end in whatever way.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: unprivileged(), Pdeathsig: syscall.SIGQUIT}
}

// own gives a file to the servers' user.
func own(path string) error {
	if u := unprivileged(); u != nil {
		return os.Chown(path, int(u.Uid), int(u.Gid))
	}
	return nil
}

// killAll kills a process and its children. It is halted first, so that it makes no
// others meanwhile.
func killAll(parent *os.Process) error {
	if err := parent.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pids, err := children(parent.Pid)
	if err != nil {
		return err
	}
	errs := []error{parent.Kill()}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// children lists the processes that a process made.
func children(parent int) (pids []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended since
		}
		// pid (name, which may hold anything) state ppid ...
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// removeSharedMemory removes the System V segment that a killed server leaves behind:
// there are a few thousand for all of the machine. The server's pid file, which it
// leaves too, ends its seventh line with the segment's id.
func removeSharedMemory(pidFile string) {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return
	}
	if fields := strings.Fields(lines[6]); len(fields) == 2 {
		if id, err := strconv.Atoi(fields[1]); err == nil {
			_, _, _ = syscall.Syscall(syscall.SYS_SHMCTL, uintptr(id), 0 /* IPC_RMID */, 0)
		}
	}
}
