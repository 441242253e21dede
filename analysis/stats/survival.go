// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Life is how long something was watched, and whether it happened at the end of
// that; if not, the time is censored: it would have happened later, or never.
type Life struct {
	T     float64
	Event bool
}

// Survival is a curve of Kaplan and Meier: the share of those watched to whom it
// has not happened. From T[i] on it is S[i], before T[0] it is 1.
type Survival struct {
	T, S []float64
	// Watched is the longest time that anybody was watched: nothing is known
	// beyond.
	Watched float64
	N       int
}

// KaplanMeier estimates the curve. One that is censored at the time of an event is
// taken to have been at risk then.
func KaplanMeier(lives []Life) Survival {
	sorted := slices.Clone(lives)
	slices.SortFunc(sorted, func(a, b Life) int { return cmp.Compare(a.T, b.T) })
	s := Survival{N: len(sorted), Watched: math.NaN()}
	share := 1.0
	for i := 0; i < len(sorted); {
		t := sorted[i].T
		atRisk, events := len(sorted)-i, 0
		for ; i < len(sorted) && sorted[i].T == t; i++ {
			if sorted[i].Event {
				events++
			}
		}
		if events > 0 {
			share *= 1 - float64(events)/float64(atRisk)
			s.T, s.S = append(s.T, t), append(s.S, share)
		}
		s.Watched = t
	}
	return s
}

// At is the share at a time; NaN beyond what was watched.
func (s Survival) At(t float64) float64 {
	if s.N == 0 || t > s.Watched {
		return math.NaN()
	}
	share := 1.0
	for i, at := range s.T {
		if at > t {
			break
		}
		share = s.S[i]
	}
	return share
}

// Median is the first time at which it has happened to at least half. NaN: it was
// not watched for long enough, the median is later or not at all.
func (s Survival) Median() float64 {
	for i, share := range s.S {
		// Products of fractions that are a half may come out a hair above.
		if share <= 0.5+1e-12 {
			return s.T[i]
		}
	}
	return math.NaN()
}

// RestrictedMean is the mean time to the event, where what takes longer than tau
// counts as tau: the area under the curve. NaN if it was not watched that long,
// unless nobody is left.
func (s Survival) RestrictedMean(tau float64) float64 {
	if s.N == 0 || tau < 0 {
		return math.NaN()
	}
	if tau > s.Watched && (len(s.S) == 0 || s.S[len(s.S)-1] > 1e-12) {
		return math.NaN()
	}
	area, share, from := 0.0, 1.0, 0.0
	for i, t := range s.T {
		if t >= tau {
			break
		}
		area += share * (t - from)
		share, from = s.S[i], t
	}
	return area + share*(tau-from)
}

// Pair are the lives of two groups that are to be compared with each other, and
// with no other pair: one defect under two ways of looking for it.
type Pair struct{ A, B []Life }

// LogRank asks whether it happens at the same rate in both groups of all pairs:
// the log-rank test, stratified by pair. It returns the events in A less those
// expected if there were no difference (positive: it happens earlier in A), and
// the probability of a difference at least as great then. NaN if no event tells.
func LogRank(pairs ...Pair) (excess, p float64) {
	var variance float64
	for _, pair := range pairs {
		e, v := logRank(pair)
		excess += e
		variance += v
	}
	if variance == 0 {
		return excess, math.NaN()
	}
	return excess, distuv.ChiSquared{K: 1}.Survival(excess * excess / variance)
}

func logRank(pair Pair) (excess, variance float64) {
	type life struct {
		Life
		a bool
	}
	var all []life
	atRiskA := float64(len(pair.A))
	for _, l := range pair.A {
		all = append(all, life{l, true})
	}
	for _, l := range pair.B {
		all = append(all, life{l, false})
	}
	slices.SortFunc(all, func(a, b life) int { return cmp.Compare(a.T, b.T) })
	for i := 0; i < len(all); {
		t, n := all[i].T, float64(len(all)-i)
		var events, eventsA, leaveA float64
		for ; i < len(all) && all[i].T == t; i++ {
			if all[i].a {
				leaveA++
			}
			if all[i].Event {
				events++
				if all[i].a {
					eventsA++
				}
			}
		}
		share := atRiskA / n
		excess += eventsA - events*share
		if n > 1 {
			variance += events * share * (1 - share) * (n - events) / (n - 1)
		}
		atRiskA -= leaveA
	}
	return excess, variance
}

// MedianTime is the median of KaplanMeier with a bootstrap interval. An end that
// lies beyond what was watched is +Inf: later than that, or never.
func MedianTime(seed uint64, lives []Life) (median float64, interval Interval) {
	median = KaplanMeier(lives).Median()
	interval = Bootstrap(Resampling{seed, Resamples}, len(lives), func(units []int) float64 {
		drawn := make([]Life, len(units))
		for i, u := range units {
			drawn[i] = lives[u]
		}
		if m := KaplanMeier(drawn).Median(); !math.IsNaN(m) {
			return m
		}
		return math.Inf(1)
	})
	return median, interval
}

// RestrictedMeanDifference is how much longer it takes in A than in B, on the mean
// over the pairs, where what takes longer than tau counts as tau. The interval is
// of a bootstrap over pairs: another choice of defects would have been as good.
func RestrictedMeanDifference(seed uint64, tau float64, pairs []Pair) (difference float64, interval Interval) {
	var each []float64
	for _, p := range pairs {
		if d := KaplanMeier(p.A).RestrictedMean(tau) - KaplanMeier(p.B).RestrictedMean(tau); !math.IsNaN(d) {
			each = append(each, d)
		}
	}
	mean := func(units []int) float64 {
		sum := 0.0
		for _, u := range units {
			sum += each[u]
		}
		return sum / float64(len(units))
	}
	all := make([]int, len(each))
	for i := range all {
		all[i] = i
	}
	return mean(all), Bootstrap(Resampling{seed, Resamples}, len(each), mean)
}
