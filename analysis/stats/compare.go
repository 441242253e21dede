// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"math"
	"sort"

	"gonum.org/v1/gonum/stat/distuv"
)

// Estimate is a statistic of some units and how far chance may have moved it.
type Estimate struct {
	Value float64
	// Var is its variance as estimated from the units, with DF degrees of freedom.
	Var, DF float64
	// Known is a further variance that is not estimated, that of rounding: units that
	// agree to the last digit would otherwise prove any difference.
	Known float64
}

// Difference is b - a with its interval, and the probability that two estimates
// of one and the same thing differ as much (two-sided).  It is Welch's test with
// the degrees of freedom of Satterthwaite, in which a known variance has infinitely
// many.
func Difference(a, b Estimate) (d float64, i Interval, p float64) {
	d = b.Value - a.Value
	v := a.Var + a.Known + b.Var + b.Known
	if math.IsNaN(d) || math.IsNaN(v) || a.DF < 1 || b.DF < 1 || v < 0 {
		return d, NoInterval, math.NaN()
	}
	if v == 0 {
		if d == 0 {
			return d, Interval{0, 0}, 1
		}
		return d, Interval{d, d}, 0
	}
	df := 1e6 // as good as the normal distribution
	if e := a.Var*a.Var/a.DF + b.Var*b.Var/b.DF; e > 0 {
		df = min(df, v*v/e)
	}
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: df}
	se := math.Sqrt(v)
	half := t.Quantile(1-(1-Level)/2) * se
	return d, Interval{d - half, d + half}, 2 * t.CDF(-math.Abs(d)/se)
}

// FalseDiscovery turns p-values into q-values (Benjamini and Hochberg): of all
// with a q of at most x, a share of at most x is expected to be there by chance;
// and where there is nothing to be found, the probability that any has a q of at
// most x is at most x.  NaN stays NaN and does not count.
func FalseDiscovery(p []float64) []float64 {
	q := make([]float64, len(p))
	var order []int
	for i, v := range p {
		q[i] = math.NaN()
		if !math.IsNaN(v) {
			order = append(order, i)
		}
	}
	sort.SliceStable(order, func(i, j int) bool { return p[order[i]] < p[order[j]] })
	least := 1.0
	for k := len(order) - 1; k >= 0; k-- {
		least = min(least, p[order[k]]*float64(len(order))/float64(k+1))
		q[order[k]] = least
	}
	return q
}
