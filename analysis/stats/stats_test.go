// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// Each statistic is checked against a second implementation that is slow and
// obvious, on random inputs with ties.

func random(rng *rand.Rand, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(rng.IntN(1 + rng.IntN(100)))
	}
	return v
}

func near(a, b, tolerance float64) bool {
	if math.IsNaN(a) || math.IsNaN(b) {
		return math.IsNaN(a) && math.IsNaN(b)
	}
	return math.Abs(a-b) <= tolerance*max(1, math.Abs(a), math.Abs(b))
}

func rounds(t *testing.T, n int, f func(rng *rand.Rand)) {
	t.Helper()
	for i := range n {
		f(rand.New(rand.NewPCG(uint64(i), 42)))
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}

// slowQuantile tries each value: the smallest that enough values do not exceed.
// The share is a fraction, so that the comparison is exact.
func slowQuantile(values []float64, num, den int64) float64 {
	best := math.NaN()
	for _, v := range values {
		var n int64
		for _, w := range values {
			if w <= v {
				n++
			}
		}
		if n*den >= num*int64(len(values)) && !(best <= v) {
			best = v
		}
	}
	return best
}

func TestQuantile(t *testing.T) {
	shares := [][2]int64{{0, 1}, {1, 2}, {9, 10}, {99, 100}, {999, 1000}, {9999, 10000}, {1, 1}}
	rounds(t, 200, func(rng *rand.Rand) {
		n := rng.IntN(60)
		if rng.IntN(10) == 0 {
			n = 1000
		}
		values := random(rng, n)
		points := make([]Point, n)
		for i, v := range values {
			points[i] = Point{v, 1}
		}
		d := NewDist(points)
		if d.N() != int64(n) {
			t.Errorf("N %d, want %d", d.N(), n)
		}
		for _, s := range shares {
			p := float64(s[0]) / float64(s[1])
			want := slowQuantile(values, s[0], s[1])
			if got := Quantile(values, p); !near(got, want, 0) {
				t.Errorf("Quantile(%v, %v) = %v, want %v", values, p, got, want)
			}
			if got := d.Quantile(p); !near(got, want, 0) {
				t.Errorf("Dist.Quantile(%v) of %v = %v, want %v", p, values, got, want)
			}
		}
		if n > 0 {
			v := values[rng.IntN(n)]
			above := 0
			for _, w := range values {
				if w > v {
					above++
				}
			}
			if got := d.Above(v); !near(got, float64(above)/float64(n), 1e-12) {
				t.Errorf("Above %v", got)
			}
			if want := slowQuantile(values, 1, 1); d.Max() != want {
				t.Errorf("Max %v, want %v", d.Max(), want)
			}
		}
	})
	if !math.IsNaN(Quantile([]float64{1}, 1.5)) || !math.IsNaN(Median(nil)) || !math.IsNaN(Dist(nil).Max()) {
		t.Error("a statistic of nothing")
	}
}

func TestMedian(t *testing.T) {
	rounds(t, 100, func(rng *rand.Rand) {
		v := random(rng, 1+rng.IntN(20))
		s := append([]float64(nil), v...)
		sort.Float64s(s)
		want := (s[(len(s)-1)/2] + s[len(s)/2]) / 2
		if got := Median(v); got != want {
			t.Errorf("Median(%v) = %v, want %v", v, got, want)
		}
	})
}

func TestCliffDelta(t *testing.T) {
	rounds(t, 200, func(rng *rand.Rand) {
		a, b := random(rng, 1+rng.IntN(30)), random(rng, 1+rng.IntN(30))
		sum := 0
		for _, x := range a {
			for _, y := range b {
				if x > y {
					sum++
				} else if x < y {
					sum--
				}
			}
		}
		want := float64(sum) / float64(len(a)*len(b))
		if got := CliffDelta(a, b); !near(got, want, 1e-12) {
			t.Errorf("CliffDelta(%v, %v) = %v, want %v", a, b, got, want)
		}
	})
	if !math.IsNaN(CliffDelta(nil, []float64{1})) {
		t.Error("effect of nothing")
	}
}

// binomialTail is P(X <= k) for n tries of rate p, summed term by term with
// big floats: the definition.
func binomialTail(k, n int64, p float64) float64 {
	sum := new(big.Float).SetPrec(200)
	for i := int64(0); i <= k; i++ {
		term := new(big.Float).SetPrec(200).SetInt(new(big.Int).Binomial(n, i))
		pf, qf := new(big.Float).SetPrec(200).SetFloat64(p), new(big.Float).SetPrec(200).SetFloat64(1-p)
		for range i {
			term.Mul(term, pf)
		}
		for range n - i {
			term.Mul(term, qf)
		}
		sum.Add(sum, term)
	}
	f, _ := sum.Float64()
	return f
}

func TestExactBounds(t *testing.T) {
	rounds(t, 60, func(rng *rand.Rand) {
		n := 1 + rng.Int64N(80)
		k := rng.Int64N(n + 1)
		// The bound is the rate at which seeing k or fewer has probability 5 %.
		if u := UpperRate(k, n); k < n && !near(binomialTail(k, n, u), 1-Level, 1e-6) {
			t.Errorf("UpperRate(%d, %d) = %v: tail %v", k, n, u, binomialTail(k, n, u))
		}
		i := ClopperPearson(k, n)
		if k < n && !near(binomialTail(k, n, i.Hi), (1-Level)/2, 1e-6) {
			t.Errorf("ClopperPearson(%d, %d).Hi = %v", k, n, i.Hi)
		}
		if k > 0 && !near(1-binomialTail(k-1, n, i.Lo), (1-Level)/2, 1e-6) {
			t.Errorf("ClopperPearson(%d, %d).Lo = %v", k, n, i.Lo)
		}
		// Wilson's ends solve (p - share)² = z² p (1-p) / n.
		const z = 1.959963984540054
		share := float64(k) / float64(n)
		w := Wilson(k, n)
		for _, p := range []float64{w.Lo, w.Hi} {
			if p > 1e-12 && p < 1-1e-12 && !near((p-share)*(p-share), z*z*p*(1-p)/float64(n), 1e-9) {
				t.Errorf("Wilson(%d, %d) = %v", k, n, w)
			}
		}
	})
	// Large n: zero events give 1 - 0.05^(1/n).
	for _, n := range []int64{1, 300, 20_000, 2_000_000, 5_000_000_000} {
		want := -math.Expm1(math.Log(1-Level) / float64(n))
		if got := UpperRate(0, n); math.Abs(got-want) > 1e-6*want {
			t.Errorf("UpperRate(0, %d) = %v, want %v", n, got, want)
		}
	}
	if UpperRate(5, 5) != 1 || !math.IsNaN(UpperRate(0, 0)) || ClopperPearson(3, 2).Valid() || Wilson(0, 0).Valid() {
		t.Error("edges")
	}
}

func TestLogLogSlope(t *testing.T) {
	rounds(t, 100, func(rng *rand.Rand) {
		n := 3 + rng.IntN(10)
		x, y := make([]float64, n), make([]float64, n)
		for i := range x {
			x[i] = math.Exp2(float64(i) + rng.Float64())
			y[i] = 7 * math.Pow(x[i], 0.5) * math.Exp(rng.NormFloat64()*0.1)
		}
		got := LogLogSlope(x, y)
		// Second implementation: minimise the squares by ever finer search.
		f := func(b float64) (float64, float64) {
			a := 0.0
			for i := range x {
				a += (math.Log(y[i]) - b*math.Log(x[i])) / float64(n)
			}
			r := 0.0
			for i := range x {
				d := math.Log(y[i]) - a - b*math.Log(x[i])
				r += d * d
			}
			return r, a
		}
		lo, hi := -10.0, 10.0
		for range 200 {
			l, h := lo+(hi-lo)/3, hi-(hi-lo)/3
			rl, _ := f(l)
			rh, _ := f(h)
			if rl < rh {
				hi = h
			} else {
				lo = l
			}
		}
		_, a := f(lo)
		if !near(got.B, lo, 1e-6) || !near(got.A, math.Exp(a), 1e-5) {
			t.Errorf("slope %v from %v, want %v from %v", got.B, got.A, lo, math.Exp(a))
		}
		if b := LogLogExponent(x, y); b != got.B {
			t.Errorf("exponent %v, slope %v", b, got.B)
		}
		if !(got.Interval.Lo < got.B && got.B < got.Interval.Hi) {
			t.Errorf("interval %v of %v", got.Interval, got.B)
		}
	})
	// The interval covers the truth about as often as it says.
	covered := 0
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		x, y := make([]float64, 7), make([]float64, 7)
		for i := range x {
			x[i] = math.Exp2(float64(2 * i))
			y[i] = math.Exp(rng.NormFloat64())
		}
		if s := LogLogSlope(x, y); s.Interval.Lo <= 0 && 0 <= s.Interval.Hi {
			covered++
		}
	}
	if covered < 930 || covered > 970 {
		t.Errorf("covers %d of 1000", covered)
	}
	for _, s := range []Slope{LogLogSlope(nil, nil), LogLogSlope([]float64{1, 1}, []float64{1, 2}), LogLogSlope([]float64{1, 2}, []float64{0, 1})} {
		if !math.IsNaN(s.B) || s.Interval.Valid() {
			t.Errorf("slope of nothing: %v", s)
		}
	}
	if s := LogLogSlope([]float64{1, 2}, []float64{1, 2}); !near(s.B, 1, 1e-12) || s.Interval.Valid() {
		t.Errorf("two points: %v", s)
	}
}

// The slope that makes the squares least, found by trying: the sum is convex in it,
// and the best intercept for a slope is the mean of what is left.
func TestLinearSlope(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		n := 2 + rng.IntN(8)
		x, y := make([]float64, n), make([]float64, n)
		for i := range x {
			x[i], y[i] = float64(i)*3+rng.Float64(), 500+6*float64(i)+10*rng.NormFloat64()
		}
		squares := func(b float64) float64 {
			var mean, sum float64
			for i := range x {
				mean += (y[i] - b*x[i]) / float64(n)
			}
			for i := range x {
				sum += (y[i] - b*x[i] - mean) * (y[i] - b*x[i] - mean)
			}
			return sum
		}
		lo, hi := -1000.0, 1000.0
		for hi-lo > 1e-9 {
			a, b := lo+(hi-lo)/3, hi-(hi-lo)/3
			if squares(a) < squares(b) {
				hi = b
			} else {
				lo = a
			}
		}
		if got := LinearSlope(x, y); !near(got, lo, 1e-4) {
			t.Errorf("slope of %v over %v: %v, want %v", y, x, got, lo)
		}
	}
	for _, x := range [][]float64{nil, {3}, {3, 3}} {
		if b := LinearSlope(x, make([]float64, len(x))); !math.IsNaN(b) {
			t.Errorf("slope over %v: %v", x, b)
		}
	}
}

func TestBootstrap(t *testing.T) {
	mean := func(v []float64) func([]int) float64 {
		return func(idx []int) float64 {
			s := 0.0
			for _, i := range idx {
				s += v[i]
			}
			return s / float64(len(idx))
		}
	}
	v := []float64{1, 2, 3}
	got := Bootstrap(Resampling{1, Resamples}, 3, mean(v))
	if got != Bootstrap(Resampling{1, Resamples}, 3, mean(v)) {
		t.Error("not deterministic")
	}
	// Second implementation: all 27 resamples, equally likely.
	var exact []float64
	for i := range 27 {
		exact = append(exact, mean(v)([]int{i % 3, i / 3 % 3, i / 9}))
	}
	sort.Float64s(exact)
	// 2.5 % of 27 is the first, 97.5 % the last.
	if !near(got.Lo, exact[0], 1e-12) || !near(got.Hi, exact[26], 1e-12) {
		t.Errorf("got %v, want %v", got, Interval{exact[0], exact[26]})
	}
	// Twenty units: nearly the textbook interval of the mean.
	rng := rand.New(rand.NewPCG(5, 6))
	u := make([]float64, 20)
	var s, ss float64
	for i := range u {
		u[i] = rng.NormFloat64()
		s += u[i]
		ss += u[i] * u[i]
	}
	se := math.Sqrt((ss/20 - s/20*s/20) / 20)
	got = Bootstrap(Resampling{9, Resamples}, 20, mean(u))
	if !near(got.Lo, s/20-1.96*se, 0.06) || !near(got.Hi, s/20+1.96*se, 0.06) {
		t.Errorf("got %v, want about %v ± %v", got, s/20, 1.96*se)
	}
	if Bootstrap(Resampling{1, Resamples}, 1, mean(v)).Valid() || Bootstrap2(Resampling{1, Resamples}, 1, 5, nil).Valid() {
		t.Error("an interval from one unit")
	}
	if Bootstrap(Resampling{1, Resamples}, 3, func([]int) float64 { return math.NaN() }).Valid() {
		t.Error("an interval of NaN")
	}
	two := Bootstrap2(Resampling{3, Resamples}, 3, 3, func(a, b []int) float64 { return mean(v)(a) - mean(v)(b) })
	if !near(two.Lo, -two.Hi, 0.35) || two.Hi <= 0 {
		t.Errorf("difference of equals: %v", two)
	}
}

// Pooled quantiles and their intervals against sorting the pooled values.
// Pooled at once or one value after the other.
func TestMerge(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for n := range 9 {
		var ds []Dist
		var all []Point
		for range n {
			var p []Point
			for range rng.IntN(6) {
				p = append(p, Point{float64(rng.IntN(8)), 1 + rng.Int64N(3)})
			}
			ds, all = append(ds, NewDist(p)), append(all, p...)
		}
		if got, want := Merge(ds...), NewDist(all); !slices.Equal(got, want) {
			t.Errorf("%v pooled is %v, want %v", ds, got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	shares := []float64{1, 0.999, 0.9, 0.5}
	rounds(t, 15, func(rng *rand.Rand) {
		n := 2 + rng.IntN(4)
		raw := make([][]float64, n)
		units := make([]Dist, n)
		for i := range raw {
			raw[i] = random(rng, rng.IntN(40))
			var p []Point
			for _, v := range raw[i] {
				p = append(p, Point{v, 1})
			}
			units[i] = NewDist(p)
		}
		raw[0] = append(raw[0], 5)
		units[0] = Merge(units[0], Dist{{5, 1}})
		pooled := func(idx []int) (v []float64) {
			for _, i := range idx {
				v = append(v, raw[i]...)
			}
			return v
		}
		point, ivs := Quantiles(Resampling{7, Resamples}, units, shares)
		ratio, rivs := QuantileRatios(Resampling{7, Resamples}, units, units, true, shares)
		for k, s := range shares {
			if want := Quantile(pooled(all(n)), s); point[k] != want {
				t.Errorf("%v: %v, want %v", s, point[k], want)
			}
			want := Bootstrap(Resampling{7, Resamples}, n, func(idx []int) float64 { return Quantile(pooled(idx), s) })
			if !near(ivs[k].Lo, want.Lo, 0) || !near(ivs[k].Hi, want.Hi, 0) {
				t.Errorf("%v: interval %v, want %v", s, ivs[k], want)
			}
			// A paired ratio to itself is 1 without any doubt.
			if point[k] != 0 && (ratio[k] != 1 || rivs[k].Valid() && (rivs[k].Lo != 1 || rivs[k].Hi != 1)) {
				t.Errorf("ratio to itself: %v %v", ratio[k], rivs[k])
			}
		}
	})
	one := []Dist{{{3, 10}}}
	if p, i := Quantiles(Resampling{1, Resamples}, one, []float64{0.5}); p[0] != 3 || i[0].Valid() {
		t.Error("one unit has a quantile and no interval")
	}
	if p, _ := Quantiles(Resampling{1, Resamples}, nil, []float64{0.5}); !math.IsNaN(p[0]) {
		t.Error("a quantile of nothing")
	}
	if r, i := QuantileRatios(Resampling{1, Resamples}, one, nil, false, []float64{0.5}); !math.IsNaN(r[0]) || i[0].Valid() {
		t.Error("a ratio to nothing")
	}
	if r, i := QuantileRatios(Resampling{1, Resamples}, []Dist{{{4, 1}}, {{4, 1}}}, []Dist{{{2, 1}}, {{2, 1}}}, false, []float64{0.5}); r[0] != 2 || i[0] != (Interval{2, 2}) {
		t.Error("unpaired", r, i)
	}
}

func TestWarmUp(t *testing.T) {
	slow := func(v []float64) int {
		best, at := math.Inf(1), 0
		for d := 0; d <= len(v)/2 && d < len(v); d++ {
			rest := v[d:]
			m := 0.0
			for _, x := range rest {
				m += x / float64(len(rest))
			}
			e := 0.0
			for _, x := range rest {
				e += (x - m) * (x - m)
			}
			e /= float64(len(rest)) * float64(len(rest))
			if e < best-1e-9 {
				best, at = e, d
			}
		}
		return at
	}
	rounds(t, 100, func(rng *rand.Rand) {
		v := make([]float64, rng.IntN(60))
		for i := range v {
			v[i] = 100 + rng.NormFloat64()
			if i < 5 {
				v[i] += 50
			}
		}
		if got, want := WarmUp(v), slow(v); got != want {
			t.Errorf("WarmUp(%v) = %d, want %d", v, got, want)
		}
		if len(v) > 20 && WarmUp(v) < 5 {
			t.Errorf("missed the warm-up of %v", v)
		}
	})
	if WarmUp(nil) != 0 || WarmUp([]float64{1, 1, 1, 1}) != 0 {
		t.Error("warm-up of nothing")
	}
}

// TestRelativeLine: against a search that knows nothing but what is to be least.
func TestRelativeLine(t *testing.T) {
	x, y := []float64{1, 16, 256, 1024}, []float64{110, 118, 260, 640}
	off := func(a, b float64) (sum float64) {
		for i := range x {
			d := (a + b*x[i] - y[i]) / y[i]
			sum += d * d
		}
		return sum
	}
	a, b, step := 0.0, 0.0, 256.0
	for step > 1e-9 {
		better := false
		for _, d := range [][2]float64{{step, 0}, {-step, 0}, {0, step / 1000}, {0, -step / 1000}, {step, -step / 1000}, {-step, step / 1000}} {
			if off(a+d[0], b+d[1]) < off(a, b) {
				a, b, better = a+d[0], b+d[1], true
			}
		}
		if !better {
			step /= 2
		}
	}
	if ga, gb := RelativeLine(x, y); math.Abs(ga-a) > 1e-4 || math.Abs(gb-b) > 1e-6 {
		t.Errorf("%v + %v x, by search %v + %v x", ga, gb, a, b)
	}
	if a, b := RelativeLine([]float64{1, 2, 3}, []float64{5, 7, 9}); math.Abs(a-3) > 1e-9 || math.Abs(b-2) > 1e-9 {
		t.Errorf("%v + %v x of points on 3 + 2 x", a, b)
	}
	for _, c := range [][2][]float64{{{1}, {1}}, {{2, 2}, {1, 3}}, {{1, 2}, {0, 1}}} {
		if a, _ := RelativeLine(c[0], c[1]); !math.IsNaN(a) {
			t.Errorf("a line through %v", c)
		}
	}
}
