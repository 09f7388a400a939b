package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a server that runs, with all the processes it made. No goroutine waits
// for it, so that tests may look for goroutines left behind while it runs.
type process struct {
	cmd *exec.Cmd
	// alive is a pipe whose other end each process of the server holds: reading it
	// ends when the last of them has.
	alive *os.File
}

// command is a program as a server's user may run it, in the server's directory.
func command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	// None of the PG variables of whoever runs the tests; English messages.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = attributes()
	return cmd
}

// run starts a server that writes to a log.
func run(log string, cmd *exec.Cmd) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	alive, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.ExtraFiles = []*os.File{held}
	if err := cmd.Start(); err != nil {
		_ = alive.Close()
		return nil, err
	}
	return &process{cmd: cmd, alive: alive}, nil
}

// ready waits until the probe succeeds, and fails when the server ends before.
func (p *process) ready(probe func() error) error {
	for begin := time.Now(); ; {
		err := probe()
		if err == nil {
			return nil
		}
		if time.Since(begin) > patience {
			return fmt.Errorf("not ready after %s: %w", patience, err)
		}
		if p.ended(10 * time.Millisecond) {
			return errors.New("the server has ended")
		}
	}
}

// ended waits until no process of the server is left, for as long as told.
func (p *process) ended(within time.Duration) bool {
	_ = p.alive.SetReadDeadline(time.Now().Add(within))
	_, err := p.alive.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// stop sends a signal to the first process, which ends the others, and waits for all.
func (p *process) stop(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.reap()
}

// kill ends all processes at once.
func (p *process) kill() error {
	if err := killAll(p.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.reap()
}

// reap waits until all have ended.
func (p *process) reap() error {
	if !p.ended(patience) {
		return fmt.Errorf("still running after %s", patience)
	}
	_ = p.cmd.Wait() // how it ended is in its log
	return p.alive.Close()
}
