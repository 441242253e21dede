// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"math"
	"math/rand/v2"
	"testing"
)

// lives draws times with ties, some censored.
func lives(rng *rand.Rand, n int) []Life {
	out := make([]Life, n)
	span := 1 + rng.IntN(30)
	for i := range out {
		out[i] = Life{T: float64(1 + rng.IntN(span)), Event: rng.IntN(3) > 0}
	}
	return out
}

// slowSurvival gives each life the same weight, and spreads the weight of one that
// is censored evenly over those that are watched for longer: the estimate of
// Kaplan and Meier is what is left of the weights (Efron).
func slowSurvival(ls []Life, at float64) float64 {
	weight := make([]float64, len(ls))
	for i := range weight {
		weight[i] = 1 / float64(len(ls))
	}
	later := func(i, j int) bool { // is j watched for longer than i, which is censored?
		return ls[j].T > ls[i].T
	}
	for t := 0.0; t <= at; t++ {
		for i, l := range ls {
			if l.Event || l.T != t {
				continue
			}
			n := 0
			for j := range ls {
				if later(i, j) {
					n++
				}
			}
			if n == 0 {
				continue // the last: its weight is of those who are left
			}
			for j := range ls {
				if later(i, j) {
					weight[j] += weight[i] / float64(n)
				}
			}
			weight[i] = 0
		}
	}
	left := 0.0
	for i, l := range ls {
		if l.T > at || !l.Event {
			left += weight[i]
		}
	}
	return left
}

func TestKaplanMeier(t *testing.T) {
	rounds(t, 300, func(rng *rand.Rand) {
		ls := lives(rng, 1+rng.IntN(25))
		s := KaplanMeier(ls)
		area, median := 0.0, math.NaN()
		for at := 0.0; at <= s.Watched; at++ {
			want := slowSurvival(ls, at)
			if got := s.At(at); !near(got, want, 1e-9) {
				t.Errorf("%v: at %v %v, want %v", ls, at, got, want)
			}
			if math.IsNaN(median) && want <= 0.5+1e-9 {
				median = at
			}
			if got := s.RestrictedMean(at); !near(got, area, 1e-9) {
				t.Errorf("%v: restricted mean up to %v: %v, want %v", ls, at, got, area)
			}
			area += want // the curve changes at whole numbers only
		}
		if got := s.Median(); !near(got, median, 0) {
			t.Errorf("%v: median %v, want %v", ls, got, median)
		}
		if !math.IsNaN(s.At(s.Watched + 1)) {
			t.Errorf("%v: a share beyond what was watched", ls)
		}
	})
}

func TestSurvivalOfNothing(t *testing.T) {
	s := KaplanMeier(nil)
	if !math.IsNaN(s.Median()) || !math.IsNaN(s.At(0)) || !math.IsNaN(s.RestrictedMean(1)) {
		t.Error("nobody was watched, and there are numbers")
	}
	s = KaplanMeier([]Life{{5, false}, {7, false}})
	if !math.IsNaN(s.Median()) || s.At(6) != 1 || s.RestrictedMean(7) != 7 || !math.IsNaN(s.RestrictedMean(8)) {
		t.Errorf("nothing happened: median %v, at 6 %v, mean %v", s.Median(), s.At(6), s.RestrictedMean(7))
	}
	if m := KaplanMeier([]Life{{5, true}}).RestrictedMean(100); m != 5 {
		t.Errorf("all is over at 5: restricted mean %v", m)
	}
	if m, i := MedianTime(1, []Life{{5, false}}); !math.IsNaN(m) || i.Valid() {
		t.Errorf("one that is censored: median %v in %v", m, i)
	}
	if _, p := LogRank(); !math.IsNaN(p) {
		t.Errorf("no groups: p %v", p)
	}
	if _, p := LogRank(Pair{[]Life{{1, true}}, nil}); !math.IsNaN(p) {
		t.Errorf("one group is empty: p %v", p)
	}
}

// slowLogRank is mean and variance of the number of events in A at each time, over
// all ways to draw who of those at risk had the events.
func slowLogRank(p Pair) (excess, variance float64) {
	times := map[float64]bool{}
	for _, g := range [][]Life{p.A, p.B} {
		for _, l := range g {
			times[l.T] = true
		}
	}
	atRisk := func(g []Life, t float64) (n, events int) {
		for _, l := range g {
			if l.T >= t {
				n++
			}
			if l.T == t && l.Event {
				events++
			}
		}
		return n, events
	}
	for t := range times {
		na, ea := atRisk(p.A, t)
		nb, eb := atRisk(p.B, t)
		n, e := na+nb, ea+eb
		var ways, sum, squares float64
		for set := range 1 << n { // who had an event; the first na are A
			a, all := 0, 0
			for i := range n {
				if set>>i&1 == 1 {
					all++
					if i < na {
						a++
					}
				}
			}
			if all == e {
				ways++
				sum += float64(a)
				squares += float64(a * a)
			}
		}
		mean := sum / ways
		excess += float64(ea) - mean
		variance += squares/ways - mean*mean
	}
	return excess, variance
}

func TestLogRank(t *testing.T) {
	rounds(t, 120, func(rng *rand.Rand) {
		p := Pair{lives(rng, rng.IntN(6)), lives(rng, rng.IntN(6))}
		gotE, gotV := logRank(p)
		wantE, wantV := slowLogRank(p)
		if !near(gotE, wantE, 1e-9) || !near(gotV, wantV, 1e-9) {
			t.Errorf("%v: %v %v, want %v %v", p, gotE, gotV, wantE, wantV)
		}
		// The other way round it is the same.
		e, prob := LogRank(p)
		f, same := LogRank(Pair{p.B, p.A})
		if !near(e, -f, 1e-9) || !near(prob, same, 1e-9) {
			t.Errorf("%v: %v %v, and with the groups changed %v %v", p, e, prob, f, same)
		}
	})
}

// Under no difference few tests say that there is one; where there is one, most do.
func TestLogRankTells(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func(mean float64, n int) (ls []Life) {
		for range n {
			x := rng.ExpFloat64() * mean
			ls = append(ls, Life{min(x, 10), x < 10})
		}
		return ls
	}
	share := func(mean float64) float64 {
		small := 0
		for range 400 {
			var pairs []Pair
			for k := range 5 { // pairs differ much from each other
				scale := math.Pow(3, float64(k-1))
				pairs = append(pairs, Pair{draw(scale, 5), draw(mean*scale, 5)})
			}
			if _, p := LogRank(pairs...); p < 0.05 {
				small++
			}
		}
		return float64(small) / 400
	}
	if s := share(1); s > 0.09 {
		t.Errorf("without a difference, %v of the tests find one", s)
	}
	if s := share(4); s < 0.7 {
		t.Errorf("of a difference of four times, %v of the tests tell", s)
	}
}

func TestMedianTimeAndDifference(t *testing.T) {
	var fast, slow []Life
	for i := range 30 {
		fast = append(fast, Life{float64(i + 1), true})
		slow = append(slow, Life{min(float64(4*i+1), 60), 4*i+1 < 60})
	}
	m, i := MedianTime(3, fast)
	if m != 15 || i.Lo > m || i.Hi < m || i.Hi > 25 {
		t.Errorf("median %v in %v", m, i)
	}
	if _, i := MedianTime(3, slow); !math.IsInf(i.Hi, 1) {
		t.Errorf("half are censored, and the interval ends at %v", i.Hi)
	}
	d, iv := RestrictedMeanDifference(3, 60, []Pair{{slow, fast}, {slow, fast}, {fast, fast}})
	one := KaplanMeier(slow).RestrictedMean(60) - KaplanMeier(fast).RestrictedMean(60)
	if !near(d, one*2/3, 1e-9) || iv.Lo != 0 || !near(iv.Hi, one, 1e-9) {
		t.Errorf("difference %v in %v, one pair differs by %v", d, iv, one)
	}
	if d, iv := RestrictedMeanDifference(3, 60, nil); !math.IsNaN(d) || iv.Valid() {
		t.Errorf("no pairs differ by %v in %v", d, iv)
	}
}
