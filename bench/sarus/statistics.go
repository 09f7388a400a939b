package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// compare prints how latencies differ by a property of the probe.
func compare(by string, probes []probe, known func(int) bool) {
	var with, without []float64 // microseconds
	for i, p := range probes {
		took := float64(p.took) / float64(time.Microsecond)
		if known(i) {
			with = append(with, took)
		} else {
			without = append(without, took)
		}
	}
	fmt.Printf("latency by %s\n", by)
	describe("known", with)
	describe("unknown", without)
	fmt.Printf("  Welch's t %.2f, of the fastest 90 %% %.2f; Mann-Whitney z %.2f; Kolmogorov-Smirnov D %.4f (%.4f at p = 0.01)\n",
		welch(with, without), welch(fastest(with, without)), mannWhitney(with, without), kolmogorov(with, without),
		1.628*math.Sqrt(1/float64(len(with))+1/float64(len(without))))
}

func describe(name string, sample []float64) {
	sorted := slices.Sorted(slices.Values(sample))
	fmt.Printf("  %-8s %6d   p10 %4.0f µs   median %4.0f µs   p90 %4.0f µs   p99 %5.0f µs   mean %6.1f µs\n", name, len(sorted),
		quantile(sorted, .1), quantile(sorted, .5), quantile(sorted, .9), quantile(sorted, .99), mean(sorted))
}

func quantile(sorted []float64, q float64) float64 {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func mean(sample []float64) float64 {
	sum := 0.0
	for _, v := range sample {
		sum += v
	}
	return sum / float64(len(sample))
}

// welch is Welch's t: the difference of the means in units of its standard
// error. Beyond 4.5 two samples of this size are taken to be told apart.
func welch(a, b []float64) float64 {
	return (mean(a) - mean(b)) / math.Sqrt(variance(a)/float64(len(a))+variance(b)/float64(len(b)))
}

func variance(sample []float64) float64 {
	m, sum := mean(sample), 0.0
	for _, v := range sample {
		sum += (v - m) * (v - m)
	}
	return sum / float64(len(sample)-1)
}

// fastest drops what is slower than nine tenths of both samples: the slow ones
// are slow for reasons of the machine, and hide what a mean would show.
func fastest(a, b []float64) (fastA, fastB []float64) {
	limit := quantile(slices.Sorted(slices.Values(slices.Concat(a, b))), .9)
	slow := func(v float64) bool { return v > limit }
	return slices.DeleteFunc(slices.Clone(a), slow), slices.DeleteFunc(slices.Clone(b), slow)
}

// mannWhitney is the standardised rank-sum statistic U, which sees a shift that
// outliers would hide; normal if the samples are of one kind.
func mannWhitney(a, b []float64) float64 {
	type value struct {
		v   float64
		ofA bool
	}
	all := make([]value, 0, len(a)+len(b))
	for _, v := range a {
		all = append(all, value{v, true})
	}
	for _, v := range b {
		all = append(all, value{v, false})
	}
	slices.SortFunc(all, func(x, y value) int { return cmp.Compare(x.v, y.v) })
	sum := 0.0
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		for k := i; k < j; k++ { // equal values share their mean rank
			if all[k].ofA {
				sum += float64(i+j+1) / 2
			}
		}
		i = j
	}
	n, m := float64(len(a)), float64(len(b))
	u := sum - n*(n+1)/2
	return (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
}

// kolmogorov is the largest distance between the distributions of the samples.
func kolmogorov(a, b []float64) float64 {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	i, j, d := 0, 0, 0.0
	for i < len(a) && j < len(b) {
		v := min(a[i], b[j])
		for i < len(a) && a[i] == v {
			i++
		}
		for j < len(b) && b[j] == v {
			j++
		}
		d = max(d, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	return d
}
