// SPDX-License-Identifier: Apache-2.0

// Package stats has the statistics of the evaluation: pure functions from
// numbers to numbers.
//
// Two rules hold throughout.  First, a statistic of too little data is NaN, and
// an interval that cannot be given is (NaN, NaN): nothing here makes up a number,
// and nothing panics on an empty slice.  Second, everything is deterministic: the
// bootstrap takes its seed as an argument.
package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	mf "github.com/montanaflynn/stats"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Level is the confidence level of the intervals.
const Level = 0.95

// Resamples of a bootstrap: enough that the ends of a 95 % interval rest on 50
// resamples each.
const Resamples = 2000

// Resampling says which resamples a bootstrap draws: so many, from this seed.
type Resampling struct {
	Seed  uint64
	Times int
}

// Interval is a confidence interval, or (NaN, NaN) where there is none.
type Interval struct{ Lo, Hi float64 }

// NoInterval is what too little data yields.
var NoInterval = Interval{math.NaN(), math.NaN()}

// Valid says whether there is an interval.
func (i Interval) Valid() bool { return !math.IsNaN(i.Lo) && !math.IsNaN(i.Hi) }

// Hull is the smallest interval that holds both; one that is not valid does not count.
func (i Interval) Hull(o Interval) Interval {
	switch {
	case !i.Valid():
		return o
	case !o.Valid():
		return i
	}
	return Interval{min(i.Lo, o.Lo), max(i.Hi, o.Hi)}
}

// Median of the values.
func Median(values []float64) float64 {
	m, err := mf.Median(values)
	if err != nil {
		return math.NaN()
	}
	return m
}

// Quantile is the smallest value that at least the share p of the values does not
// exceed (nearest rank): always a value that was measured, never one between two.
func Quantile(values []float64, p float64) float64 {
	if p < 0 || p > 1 {
		return math.NaN()
	}
	q, err := mf.PercentileNearestRank(values, p*100)
	if err != nil {
		return math.NaN()
	}
	return q
}

// Bootstrap returns the percentile interval of statistic over the resampled
// units 0 … n-1.  Units are what was repeated independently, so a unit is a boot
// and not a request: requests of one boot share its luck.
//
// With the ten units of a full run, the interval covers somewhat less than 95 %;
// with one there is none.
func Bootstrap(r Resampling, n int, statistic func(units []int) float64) Interval {
	if n < 2 {
		return NoInterval
	}
	rng := rand.New(rand.NewPCG(r.Seed, uint64(n)))
	units := make([]int, n)
	return percentileInterval(r.Times, func() float64 {
		draw(rng, units)
		return statistic(units)
	})
}

// Bootstrap2 is Bootstrap for a statistic of two independent groups of units.
func Bootstrap2(r Resampling, n, m int, statistic func(a, b []int) float64) Interval {
	if n < 2 || m < 2 {
		return NoInterval
	}
	rng := rand.New(rand.NewPCG(r.Seed, uint64(n)<<32|uint64(m)))
	a, b := make([]int, n), make([]int, m)
	return percentileInterval(r.Times, func() float64 {
		draw(rng, a)
		draw(rng, b)
		return statistic(a, b)
	})
}

func draw(rng *rand.Rand, units []int) {
	for i := range units {
		units[i] = rng.IntN(len(units))
	}
}

func percentileInterval(times int, next func() float64) Interval {
	values := make([]float64, 0, times)
	for range times {
		if v := next(); !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	// A statistic that many resamples do not have is not one to give an interval for.
	if len(values) == 0 || len(values) < times*95/100 {
		return NoInterval
	}
	sort.Float64s(values)
	tail := (1 - Level) / 2
	return Interval{
		stat.Quantile(tail, stat.Empirical, values, nil),
		stat.Quantile(1-tail, stat.Empirical, values, nil),
	}
}

// CliffDelta is P(a > b) - P(a < b) for random members of the two groups: 1 if all
// of a exceed all of b, 0 if neither tends to, -1 if all are below.
func CliffDelta(a, b []float64) float64 {
	if len(a) == 0 || len(b) == 0 {
		return math.NaN()
	}
	s := append([]float64(nil), b...)
	sort.Float64s(s)
	var sum float64
	for _, v := range a {
		below := sort.SearchFloat64s(s, v)
		notAbove := sort.Search(len(s), func(i int) bool { return s[i] > v })
		sum += float64(below) - float64(len(s)-notAbove)
	}
	return sum / float64(len(a)) / float64(len(b))
}

// UpperRate is the exact (Clopper-Pearson) one-sided upper bound on a rate of
// which k events in n tries were seen. With k = 0 it is close to 3/n.
func UpperRate(k, n int64) float64 {
	switch {
	case n <= 0 || k < 0 || k > n:
		return math.NaN()
	case k == n:
		return 1
	}
	return distuv.Beta{Alpha: float64(k) + 1, Beta: float64(n - k)}.Quantile(Level)
}

// ClopperPearson is the exact two-sided interval of a rate.
func ClopperPearson(k, n int64) Interval {
	if n <= 0 || k < 0 || k > n {
		return NoInterval
	}
	i := Interval{0, 1}
	tail := (1 - Level) / 2
	if k > 0 {
		i.Lo = distuv.Beta{Alpha: float64(k), Beta: float64(n - k + 1)}.Quantile(tail)
	}
	if k < n {
		i.Hi = distuv.Beta{Alpha: float64(k) + 1, Beta: float64(n - k)}.Quantile(1 - tail)
	}
	return i
}

// Wilson is the score interval of a rate: narrower than ClopperPearson, for
// shares in figures rather than for safety claims.
func Wilson(k, n int64) Interval {
	if n <= 0 || k < 0 || k > n {
		return NoInterval
	}
	z := distuv.UnitNormal.Quantile(1 - (1-Level)/2)
	p, m := float64(k)/float64(n), float64(n)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return Interval{max(0, mid-half), min(1, mid+half)}
}

// Slope of log y over log x: the exponent b of y ~ x^b.
type Slope struct {
	B        float64  // exponent
	A        float64  // y at x = 1
	Interval Interval // of B, from the scatter of the points about the line; needs three points
	N        int      // points
}

// LogLogSlope fits a power law by least squares. Points that are not positive
// have no logarithm and make the result NaN: they would be errors of measurement.
func LogLogSlope(x, y []float64) Slope {
	s := Slope{B: math.NaN(), A: math.NaN(), Interval: NoInterval, N: len(x)}
	lx, ly, sxx := logs(x, y)
	if sxx == 0 {
		return s
	}
	a, b := stat.LinearRegression(lx, ly, nil, false)
	s.A, s.B = math.Exp(a), b
	if dof := len(x) - 2; dof > 0 {
		var rss float64
		for i := range lx {
			r := ly[i] - a - b*lx[i]
			rss += r * r
		}
		t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(dof)}.Quantile(1 - (1-Level)/2)
		half := t * math.Sqrt(rss/float64(dof)/sxx)
		s.Interval = Interval{b - half, b + half}
	}
	return s
}

// LinearSlope is that of the line of least squares through the points, NaN if
// there are not two places.
func LinearSlope(x, y []float64) float64 {
	if len(x) == 0 || slices.Min(x) == slices.Max(x) {
		return math.NaN()
	}
	_, b := stat.LinearRegression(x, y, nil, false)
	return b
}

// LogLogExponent is the exponent of LogLogSlope alone: what a bootstrap needs.
func LogLogExponent(x, y []float64) float64 {
	lx, ly, sxx := logs(x, y)
	if sxx == 0 {
		return math.NaN()
	}
	_, b := stat.LinearRegression(lx, ly, nil, false)
	return b
}

// logs of the points, and the scatter of x: 0 if there is no line through them.
func logs(x, y []float64) (lx, ly []float64, sxx float64) {
	if len(x) != len(y) || len(x) < 2 {
		return nil, nil, 0
	}
	lx, ly = make([]float64, len(x)), make([]float64, len(y))
	for i := range x {
		if !(x[i] > 0) || !(y[i] > 0) {
			return nil, nil, 0
		}
		lx[i], ly[i] = math.Log(x[i]), math.Log(y[i])
	}
	mx := stat.Mean(lx, nil)
	for _, v := range lx {
		sxx += (v - mx) * (v - mx)
	}
	return lx, ly, sxx
}

// WarmUp is the number of leading values that belong to the warm-up, by the MSER
// rule: it cuts where the standard error of the mean of what remains is least,
// and never more than half. It is how a warm-up is detected rather than guessed.
func WarmUp(values []float64) int {
	n := len(values)
	best, at := math.Inf(1), 0
	var sum, squares float64
	// From the end, so that each step adds one value.
	shift := Median(values) // keeps the squares small beside their sum
	for i := n - 1; i >= 0; i-- {
		v := values[i] - shift
		sum += v
		squares += v * v
		m := float64(n - i)
		if i > n/2 {
			continue
		}
		if e := (squares - sum*sum/m) / (m * m); e <= best {
			best, at = e, i
		}
	}
	return at
}

// RelativeLine is the straight line a + b*x with the least sum of squares of
// (a + b*x - y) / y: each point counts by its own size, so that the small ones
// have their say. All y must be above 0.
func RelativeLine(x, y []float64) (a, b float64) {
	if len(x) < 2 || slices.Min(x) == slices.Max(x) || slices.Min(y) <= 0 {
		return math.NaN(), math.NaN()
	}
	w := make([]float64, len(y))
	for i, v := range y {
		w[i] = 1 / (v * v)
	}
	return stat.LinearRegression(x, y, w, false)
}
