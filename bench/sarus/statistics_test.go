package main

import (
	"math"
	"testing"
)

// TestStatistics holds them against values computed by hand.
func TestStatistics(t *testing.T) {
	a, b := []float64{1, 2, 3, 4}, []float64{3, 5, 6, 8, 8}
	for name, c := range map[string]struct{ got, want float64 }{
		"mean":                  {mean(b), 6},
		"variance":              {variance(b), 4.5},
		"Welch's t":             {welch(a, b), (2.5 - 6) / math.Sqrt(5.0/3/4+4.5/5)},
		"Mann-Whitney z":        {mannWhitney(a, b), (1.5 - 10) / math.Sqrt(4*5*10.0/12)},
		"Kolmogorov-Smirnov D":  {kolmogorov(a, b), 0.8},
		"D of equal samples":    {kolmogorov(a, a), 0},
		"z of equal samples":    {mannWhitney(a, a), 0},
		"the median of sorted":  {quantile([]float64{1, 2, 3}, .5), 2},
		"the highest of sorted": {quantile([]float64{1, 2, 3}, 1), 3},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, c.got, c.want)
		}
	}
	if fastA, fastB := fastest([]float64{1, 2, 3, 4, 5}, []float64{1, 2, 3, 4, 500}); len(fastA) != 5 || len(fastB) != 5 {
		t.Errorf("of ten, %d and %d are left", len(fastA), len(fastB))
	}
}
