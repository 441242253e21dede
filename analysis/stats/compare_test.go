// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Of two means it is Welch's test as it is in the books.
func TestDifferenceOfMeans(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	estimate := func(v []float64) Estimate {
		return Estimate{Value: stat.Mean(v, nil), Var: stat.Variance(v, nil) / float64(len(v)), DF: float64(len(v) - 1)}
	}
	for range 50 {
		a, b := make([]float64, 2+rng.IntN(8)), make([]float64, 2+rng.IntN(8))
		for i := range a {
			a[i] = rng.NormFloat64()
		}
		for i := range b {
			b[i] = 3*rng.NormFloat64() + 1
		}
		d, i, p := Difference(estimate(a), estimate(b))
		na, nb := float64(len(a)), float64(len(b))
		va, vb := stat.Variance(a, nil), stat.Variance(b, nil)
		df := math.Pow(va/na+vb/nb, 2) / (va*va/na/na/(na-1) + vb*vb/nb/nb/(nb-1))
		tt := (stat.Mean(b, nil) - stat.Mean(a, nil)) / math.Sqrt(va/na+vb/nb)
		student := distuv.StudentsT{Sigma: 1, Nu: df}
		if want := 2 * (1 - student.CDF(math.Abs(tt))); math.Abs(p-want) > 1e-9 {
			t.Errorf("p = %v, want %v", p, want)
		}
		if math.Abs((i.Lo+i.Hi)/2-d) > 1e-9 || (p < 0.05) != (i.Lo > 0 || i.Hi < 0) {
			t.Errorf("interval %v of %v with p = %v", i, d, p)
		}
	}
}

func TestDifferenceOfLittle(t *testing.T) {
	if _, i, p := Difference(Estimate{Value: 1}, Estimate{Value: 9, DF: 3}); !math.IsNaN(p) || i.Valid() {
		t.Error("a single unit was judged")
	}
	if _, _, p := Difference(Estimate{Value: 1, DF: 1}, Estimate{Value: 1, DF: 1}); p != 1 {
		t.Errorf("equal to the last digit: p = %v", p)
	}
	// Two units that agree say little of a difference of the size of the rounding,
	// much of one that is large.
	at := func(v float64) Estimate { return Estimate{Value: v, DF: 1, Known: 1} }
	if _, _, p := Difference(at(0), at(1)); p < 0.3 {
		t.Errorf("one rounding apart: p = %v", p)
	}
	if _, _, p := Difference(at(0), at(10)); p > 1e-6 {
		t.Errorf("ten roundings apart: p = %v", p)
	}
}

// Second implementation: the procedure itself, for every level.
func TestFalseDiscovery(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 30 {
		p := make([]float64, 1+rng.IntN(12))
		m := 0
		for i := range p {
			if p[i] = math.Pow(rng.Float64(), 3); rng.IntN(6) == 0 {
				p[i] = math.NaN()
			} else {
				m++
			}
		}
		q := FalseDiscovery(p)
		for level := 0.0003; level < 1; level += 0.0077 {
			// The greatest p that is at most its rank's share of the level.
			limit := -1.0
			for _, v := range p {
				rank := 0
				for _, w := range p {
					if w <= v {
						rank++
					}
				}
				if !math.IsNaN(v) && v <= level*float64(rank)/float64(m) {
					limit = max(limit, v)
				}
			}
			for i, v := range p {
				if math.IsNaN(v) {
					if !math.IsNaN(q[i]) {
						t.Error("NaN became a number")
					}
				} else if (q[i] <= level) != (v <= limit) {
					t.Errorf("p = %v, q = %v at level %v: limit %v of %v", v, q[i], level, limit, p)
				}
			}
		}
	}
}
