package main

import (
	"slices"
	"time"
)

// sample is sorted durations.
type sample []time.Duration

// at returns the duration that a share of them does not exceed.
func (s sample) at(share float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	return s[min(int(share*float64(len(s))), len(s)-1)].Round(time.Microsecond / 10)
}

// measure does something n times.
func measure(n int, do func() error) (sample, error) {
	s := make(sample, 0, n)
	for range n {
		begin := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		s = append(s, time.Since(begin))
	}
	slices.Sort(s)
	return s, nil
}
