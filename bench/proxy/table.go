//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// target is what a pair is held against.
type target struct {
	is  string
	met func(*pair) bool
}

// proxied is what a check may cost where the request goes on.
var proxied = []target{
	requestsAtLeast(0.98),
	{"added CPU ≤ 2.2 µs", func(p *pair) bool { return p.cpuAdded() <= 2.2 }},
	{"CPU ratio < 1.08", func(p *pair) bool { return p.ratio(cpuMicroseconds) < 1.08 }},
}

func requestsAtLeast(share float64) target {
	return target{fmt.Sprintf("requests/s ratio ≥ %.2f", share), func(p *pair) bool { return p.ratio(requestsPerSecond) >= share }}
}

// extent is a number of bytes without the check and with it, or before and after.
type extent struct {
	what     string
	from, to int64
	limit    int64 // of the difference, 0 if there is none
}

func requestsPerSecond(s sample) float64 { return s.perSecond }
func cpuMicroseconds(s sample) float64   { return float64(s.cpu) / 1e3 }
func p99Milliseconds(s sample) float64   { return float64(s.p99) / 1e6 }

// ratio is the median of the ratios of neighbouring rounds, in which drift of the
// machine's speed cancels out.
func (p *pair) ratio(of func(sample) float64) float64 {
	return p.compare(func(with, base sample) float64 { return of(with) / of(base) })
}

// cpuAdded is the microseconds that a request takes more.
func (p *pair) cpuAdded() float64 {
	return p.compare(func(with, base sample) float64 { return cpuMicroseconds(with) - cpuMicroseconds(base) })
}

func (p *pair) compare(by func(with, base sample) float64) float64 {
	values := make([]float64, len(p.with.samples))
	for i := range values {
		values[i] = by(p.with.samples[i], p.base.samples[i])
	}
	return middle(values)
}

func median(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return middle(values)
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// report is the tables.
func (b *bench) report() string {
	var out strings.Builder
	if len(b.pairs) > 0 {
		fmt.Fprintf(&out, "Medians of %d rounds of %d requests over %d connections; without the check → with it, and the ratio:\n\n", *rounds, *requests, *connections)
		out.WriteString("| | collector | requests/s | | CPU per request | | added | p99 | | target |\n")
		out.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|---|\n")
	}
	for _, p := range b.pairs {
		out.WriteString(p.row())
	}
	if len(b.extents) > 0 {
		out.WriteString("\n| | MiB | | more | target |\n|---|---:|---:|---:|---|\n")
	}
	for _, e := range b.extents {
		out.WriteString(e.row())
	}
	for _, line := range b.skipped {
		fmt.Fprintf(&out, "\n%s\n", line)
	}
	return strings.TrimSpace(out.String())
}

func (p *pair) row() string {
	cpu := "| |"
	if p.with.beside == nil { // else the CPU of what goes on beside is in it
		cpu = fmt.Sprintf("%.1f → %.1f µs | %.3f | %+.1f µs",
			median(p.base.samples, cpuMicroseconds), median(p.with.samples, cpuMicroseconds), p.ratio(cpuMicroseconds), p.cpuAdded())
	}
	return fmt.Sprintf("| %s | %s | %.0f → %.0f | %.3f | %s | %.2f → %.2f ms | %.3f | %s |\n", p.title, p.collector,
		median(p.base.samples, requestsPerSecond), median(p.with.samples, requestsPerSecond), p.ratio(requestsPerSecond), cpu,
		median(p.base.samples, p99Milliseconds), median(p.with.samples, p99Milliseconds), p.ratio(p99Milliseconds), p.judgement())
}

// judgement says of each target whether it is met.
func (p *pair) judgement() string {
	var all []string
	for _, t := range p.targets {
		all = append(all, t.is+": "+verdict(t.met(p)))
	}
	return strings.Join(all, "; ")
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

func (e extent) row() string {
	mebibytes := func(n int64) float64 { return float64(n) / (1 << 20) }
	judgement := ""
	if e.limit > 0 {
		judgement = fmt.Sprintf("≤ %+.0f: %s", mebibytes(e.limit), verdict(e.to-e.from <= e.limit))
	}
	return fmt.Sprintf("| %s | %.1f | %.1f | %+.1f | %s |\n", e.what, mebibytes(e.from), mebibytes(e.to),
		mebibytes(e.to-e.from), judgement)
}
