//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// children are processes that end together.
type children struct {
	running []*exec.Cmd
}

// start starts a process in a group of its own, so that its workers end with it and
// an interrupt at the terminal leaves the ending to this command. What it says goes to
// a file.
func (c *children) start(output string, env []string, name string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.running = append(c.running, cmd)
	return cmd, nil
}

// end asks all processes to end, waits for them, and kills those that don't.
func (c *children) end() {
	for _, cmd := range c.running {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may have ended
	}
	for _, cmd := range c.running {
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
	}
	c.running = nil
}

// wait tries for half a minute.
func wait(ctx context.Context, try func() error) (err error) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return errors.Join(err, ctx.Err())
}

// listening waits until a process listens at addr.
func listening(ctx context.Context, addr, output string) error {
	err := wait(ctx, func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		said, _ := os.ReadFile(output) // it is only there to explain
		return fmt.Errorf("nothing listens: %w\n%s", err, said)
	}
	return nil
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}
