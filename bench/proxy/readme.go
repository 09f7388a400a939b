//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
)

// The markers, between which the tables are.
const (
	beginMark = "<!-- bench/proxy:begin -->"
	endMark   = "<!-- bench/proxy:end -->"
)

// rewrite puts the report between the markers of a file.
func rewrite(path, report string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed, err := between(string(content), report)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(changed), 0o644)
}

func between(text, report string) (string, error) {
	before, rest, begun := strings.Cut(text, beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !begun || !ended {
		return "", fmt.Errorf("there is no %s with a %s after it", beginMark, endMark)
	}
	return before + beginMark + "\n" + report + "\n" + endMark + after, nil
}

// describeMachine is the command of this run and what it runs on.
func describeMachine(ctx context.Context) (string, error) {
	caddy, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2").Output()
	if err != nil {
		return "", fmt.Errorf("asking for Caddy's version (run this from the repository's root): %w", err)
	}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	model := "processor of unknown model"
	if found := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(cpus); found != nil {
		model = string(found[1])
	}
	on := []string{model, fmt.Sprintf("%d processors", runtime.NumCPU()), "Linux " + strings.TrimSpace(string(kernel)),
		runtime.Version(), "Caddy " + strings.TrimSpace(string(caddy))}
	for _, peer := range []string{"nginx", "haproxy"} {
		if version := peerVersion(ctx, peer); version != "" {
			on = append(on, version)
		}
	}
	return fmt.Sprintf("`%s` on %s; load average %s before it.", command(), strings.Join(on, ", "), strings.Fields(string(load))[0]), nil
}

// peerVersion is the name and version that a program gives itself, empty if it is not
// installed.
func peerVersion(ctx context.Context, name string) string {
	binary, found := installed(name)
	if !found {
		return ""
	}
	said, err := exec.CommandContext(ctx, binary, "-v").CombinedOutput()
	if err != nil {
		return ""
	}
	version := regexp.MustCompile(`[0-9]+(\.[0-9]+)+`).Find(said)
	return strings.TrimSpace(name + " " + string(version))
}

// command is how this run was asked for.
func command() string {
	words := append([]string{"go", "run", "./bench/proxy"}, os.Args[1:]...)
	for _, name := range []string{"GOMEMLIMIT", "GOGC"} {
		if value, ok := os.LookupEnv(name); ok {
			words = append([]string{name + "=" + value}, words...)
		}
	}
	return strings.Join(words, " ")
}
