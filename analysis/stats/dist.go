// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// Point is a value and how often it occurs.
type Point struct {
	V float64
	N int64
}

// Dist is an empirical distribution: points in increasing order of V.
type Dist []Point

// NewDist sorts and merges points.
func NewDist(points []Point) Dist {
	p := slices.Clone(points)
	slices.SortFunc(p, func(a, b Point) int { return cmp.Compare(a.V, b.V) })
	d := p[:0]
	for _, q := range p {
		if k := len(d) - 1; k >= 0 && d[k].V == q.V {
			d[k].N += q.N
		} else if q.N > 0 {
			d = append(d, q)
		}
	}
	return Dist(d)
}

// Merge pools distributions. They are sorted, so nothing is sorted again: a report
// that is compared with another pools some ten thousand times.
func Merge(ds ...Dist) Dist {
	switch len(ds) {
	case 0:
		return nil
	case 1:
		return ds[0]
	}
	half := len(ds) / 2
	a, b := Merge(ds[:half]...), Merge(ds[half:]...)
	out := make(Dist, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].V < b[0].V:
			out, a = append(out, a[0]), a[1:]
		case a[0].V > b[0].V:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, Point{a[0].V, a[0].N + b[0].N}), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// N is the number of values.
func (d Dist) N() (n int64) {
	for _, p := range d {
		n += p.N
	}
	return n
}

// Quantile is as the function Quantile, of the values that d stands for.
func (d Dist) Quantile(p float64) float64 {
	n := d.N()
	if n == 0 || p < 0 || p > 1 {
		return math.NaN()
	}
	k := rank(p, n)
	for _, q := range d {
		if k -= q.N; k <= 0 {
			return q.V
		}
	}
	return math.NaN()
}

// rank of the quantile p of n values, from 1. Decimal shares such as 0.999 are
// not exact in binary, so a product that ought to be whole may come out a hair
// above and the ceiling one too high.
func rank(p float64, n int64) int64 {
	x := p * float64(n)
	if r := math.Round(x); math.Abs(x-r) <= 1e-12*x {
		x = r
	}
	return max(1, int64(math.Ceil(x)))
}

// Max is the greatest value.
func (d Dist) Max() float64 {
	if len(d) == 0 {
		return math.NaN()
	}
	return d[len(d)-1].V
}

// Above is the share of values greater than v.
func (d Dist) Above(v float64) float64 {
	i := sort.Search(len(d), func(i int) bool { return d[i].V > v })
	return float64(d[i:].N()) / float64(d.N())
}

// table is the union of the values of several distributions, greatest first, and
// per unit how many of its values are at least each: a quantile of a resample is
// one binary search, and nothing is sorted or walked 2000 times.
type table struct {
	values  []float64
	atLeast [][]int64 // [unit][value]
}

func newTable(units []Dist) table {
	t := table{}
	for _, p := range Merge(units...) {
		t.values = append(t.values, p.V)
	}
	slices.Reverse(t.values)
	for _, d := range units {
		c := make([]int64, len(t.values))
		var sum int64
		j := len(d) - 1
		for i, v := range t.values {
			if j >= 0 && d[j].V == v {
				sum += d[j].N
				j--
			}
			c[i] = sum
		}
		t.atLeast = append(t.atLeast, c)
	}
	return t
}

// quantiles of the pooled units.
func (t table) quantiles(units []int, shares []float64) []float64 {
	out := make([]float64, len(shares))
	pooled := func(i int) (n int64) {
		for _, u := range units {
			n += t.atLeast[u][i]
		}
		return n
	}
	var n int64
	if len(t.values) > 0 {
		n = pooled(len(t.values) - 1)
	}
	for k, p := range shares {
		if out[k] = math.NaN(); n == 0 {
			continue
		}
		// The value of rank r is the greatest that n-r+1 values are not below.
		need := n - rank(p, n) + 1
		out[k] = t.values[sort.Search(len(t.values), func(i int) bool { return pooled(i) >= need })]
	}
	return out
}

// Quantiles of the pooled units with bootstrap intervals over the units.
func Quantiles(r Resampling, units []Dist, shares []float64) ([]float64, []Interval) {
	t := newTable(units)
	point := t.quantiles(all(len(units)), shares)
	resampled := resample(r, len(units), func(idx []int) []float64 { return t.quantiles(idx, shares) }, len(shares))
	return point, resampled
}

// QuantileRatios are the ratios of quantiles of a to those of b, with intervals.
// If paired, unit i of a and unit i of b are the same boot and are resampled
// together, which takes the boot's luck out of the ratio.
func QuantileRatios(r Resampling, a, b []Dist, paired bool, shares []float64) ([]float64, []Interval) {
	ta, tb := newTable(a), newTable(b)
	ratio := func(ia, ib []int) []float64 {
		x, y := ta.quantiles(ia, shares), tb.quantiles(ib, shares)
		for i := range x {
			x[i] /= y[i]
		}
		return x
	}
	point := ratio(all(len(a)), all(len(b)))
	if paired {
		return point, resample(r, min(len(a), len(b)), func(i []int) []float64 { return ratio(i, i) }, len(shares))
	}
	rng := rand.New(rand.NewPCG(r.Seed, 1))
	ib := make([]int, len(b))
	if len(b) < 2 {
		return point, resample(r, 0, nil, len(shares))
	}
	return point, resample(r, len(a), func(ia []int) []float64 {
		draw(rng, ib)
		return ratio(ia, ib)
	}, len(shares))
}

// resample is Bootstrap for several statistics at once.
func resample(r Resampling, n int, statistics func([]int) []float64, m int) []Interval {
	out := make([]Interval, m)
	if n < 2 {
		for i := range out {
			out[i] = NoInterval
		}
		return out
	}
	rows := make([][]float64, 0, r.Times)
	rng := rand.New(rand.NewPCG(r.Seed, uint64(n)))
	units := make([]int, n)
	for range r.Times {
		draw(rng, units)
		rows = append(rows, statistics(units))
	}
	for i := range out {
		row := -1
		out[i] = percentileInterval(r.Times, func() float64 { row++; return rows[row][i] })
	}
	return out
}

func all(n int) []int {
	idx := make([]int, n)
	for i := range idx {
		idx[i] = i
	}
	return idx
}
