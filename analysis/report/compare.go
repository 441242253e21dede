// SPDX-License-Identifier: Apache-2.0

package report

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"

	"gonum.org/v1/gonum/stat"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

// Comparison says what changed from one run to another beyond noise.
//
// Every number of the report is compared in one way, whatever it is: boots of
// the same kind are drawn again with replacement, and the whole report is stated
// anew of what was drawn, redraws times for each run.  The spread of a
// number over these is its noise, pairs within a boot included.
type Comparison struct {
	Schema int    `json:"schema"`
	A      RunOf  `json:"a"`
	B      RunOf  `json:"b"`
	Level  Share  `json:"false_discovery_rate"`
	Notes  []Note `json:"notes"`
	// All numbers of both runs: what changed first, the largest change first.
	Numbers []Change      `json:"numbers"`
	Claims  []ClaimChange `json:"claims"`
}

// Share is a number between 0 and 1.
type Share float64

// Note is a difference between the runs that is not a number.
type Note string

// RunOf is one of the two runs.
type RunOf struct {
	Folder string `json:"folder"`
	Run
	Kernels map[string]string `json:"kernel_digests"`
}

// What is said of a pair of numbers.
const (
	Changed  = "changed"
	Same     = "same"     // no change beyond noise
	Unjudged = "unjudged" // for the reason that is given
)

// Change is one number in both runs.
type Change struct {
	ID   string   `json:"id"`
	Text string   `json:"text"`
	Unit string   `json:"unit"`
	Base string   `json:"time_base"`
	A    *float64 `json:"a"`
	B    *float64 `json:"b"`
	// B/A - 1, or B - A where Absolute, with its 95 % interval, by itself.
	Change   *float64 `json:"change"`
	Lo       *float64 `json:"lo"`
	Hi       *float64 `json:"hi"`
	Absolute bool     `json:"absolute,omitempty"`
	// p-value by itself, and q-value among all that were judged.
	P       *float64 `json:"p"`
	Q       *float64 `json:"q"`
	BootsA  int      `json:"boots_a"`
	BootsB  int      `json:"boots_b"`
	Verdict string   `json:"verdict"`
	Why     string   `json:"why,omitempty"`
}

// ClaimChange is a claim whose answer differs. It counts as a change where the
// second run has an event that refutes it: a violation or a complaint is never
// noise. That such an event is not seen again proves nothing, and of the other
// claims the numbers tell.
type ClaimChange struct {
	ID     string `json:"id"`
	Text   string `json:"text"`
	A      string `json:"a"`
	B      string `json:"b"`
	SaidA  string `json:"measured_a"`
	SaidB  string `json:"measured_b"`
	Counts bool   `json:"counts"`
}

// ErrIncomparable is what two runs are that no number of one can be set beside
// one of the other.
var ErrIncomparable = errors.New("the runs cannot be compared")

const (
	compareLevel = 0.05
	redraws      = 200
	// What a histogram resolves: a uniform error of a thousandth. Nothing finer is
	// believed of any number, so units that agree to the last digit do not prove
	// a change of the last digit.
	compareRounding = 0.001
	// Fewer boots than this may agree by luck: what they count often has two or three
	// values and nothing between. Their variance is taken to be at least that of the
	// numbers beside them, which differ in the last part of the name only.
	compareFew = 6
)

// Compare compares the runs in two folders.
func Compare(dirA, dirB string) (*Comparison, error) {
	var sides [2]*builder
	for i, dir := range [2]string{dirA, dirB} {
		m, err := record.ReadManifest(dir)
		if err != nil {
			return nil, fmt.Errorf("compare: %w", err)
		}
		units, err := record.ReadAll(dir)
		if err != nil {
			return nil, fmt.Errorf("compare: %w", err)
		}
		matrix, err := record.ReadMatrix(dir)
		if err != nil {
			return nil, fmt.Errorf("compare: %w", err)
		}
		b, err := build(m, units, matrix)
		if err != nil {
			return nil, fmt.Errorf("compare: %s: %w", dir, err)
		}
		sides[i] = b
	}
	c, err := compare(sides[0], sides[1])
	if err != nil {
		return nil, fmt.Errorf("compare %s and %s: %w", dirA, dirB, err)
	}
	c.A.Folder, c.B.Folder = dirA, dirB
	return c, nil
}

// Found counts what changed.
func (c *Comparison) Found() int {
	n := 0
	for _, x := range c.Numbers {
		if x.Verdict == Changed {
			n++
		}
	}
	for _, x := range c.Claims {
		if x.Counts {
			n++
		}
	}
	return n
}

func compare(a, b *builder) (*Comparison, error) {
	if why := incomparable(a, b); why != "" {
		return nil, fmt.Errorf("%w: %s", ErrIncomparable, why)
	}
	c := &Comparison{Schema: Schema, Level: compareLevel, Notes: []Note{}, Claims: []ClaimChange{}}
	for i, x := range []*builder{a, b} {
		r := []*RunOf{&c.A, &c.B}[i]
		r.Run, r.Kernels = x.summary.Run, map[string]string{}
		for v, k := range x.manifest.Kernels {
			r.Kernels[v] = k.Digest
		}
	}
	for _, d := range a.manifest.Differences(b.manifest) {
		c.Notes = append(c.Notes, Note(d))
	}
	var sides [2]noise
	var wg sync.WaitGroup
	var errs [2]error
	for i, x := range []*builder{a, b} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			sides[i], errs[i] = x.noise(uint64(i))
		}()
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	in := map[string]Number{}
	for _, n := range b.summary.Numbers {
		in[n.ID] = n
	}
	sameHost := a.manifest.Host == b.manifest.Host
	var pairs [][2]stats.Estimate
	beside := map[string]*[2]float64{} // sum and number of variances
	for _, x := range a.summary.Numbers {
		y, both := in[x.ID]
		delete(in, x.ID)
		ch := Change{ID: x.ID, Text: x.Text, Unit: x.Unit, A: x.Value, Verdict: Unjudged}
		var e [2]stats.Estimate
		if !both {
			ch.Why = "only in the first run"
		} else {
			ch.B = y.Value
			e, ch.Why = ch.estimates(x, y, sides[0], sides[1], sameHost)
		}
		if ch.Why == "" {
			g := ch.group()
			if beside[g] == nil {
				beside[g] = new([2]float64)
			}
			for _, v := range e {
				beside[g][0] += v.Var * (v.DF + 1) // of one boot
				beside[g][1]++
			}
		}
		pairs, c.Numbers = append(pairs, e), append(c.Numbers, ch)
	}
	ps := make([]float64, len(pairs))
	for i, e := range pairs {
		x := &c.Numbers[i]
		if ps[i] = math.NaN(); x.Why != "" {
			continue
		}
		for k := range e {
			if n := e[k].DF + 1; n < compareFew {
				sum := beside[x.group()]
				e[k].Var = max(e[k].Var, sum[0]/sum[1]/n)
			}
		}
		ps[i] = x.judge(e[0], e[1])
	}
	for _, y := range b.summary.Numbers {
		if _, left := in[y.ID]; left {
			ps, c.Numbers = append(ps, math.NaN()), append(c.Numbers, Change{ID: y.ID, Text: y.Text, Unit: y.Unit, B: y.Value, Verdict: Unjudged, Why: "only in the second run"})
		}
	}
	for i, q := range stats.FalseDiscovery(ps) {
		x := &c.Numbers[i]
		if x.P, x.Q = pointer(ps[i]), pointer(q); x.Q == nil {
			continue
		}
		if x.Verdict = Same; q <= compareLevel {
			x.Verdict = Changed
		}
	}
	rank := map[string]int{Changed: 0, Same: 1, Unjudged: 2}
	sort.SliceStable(c.Numbers, func(i, j int) bool {
		x, y := c.Numbers[i], c.Numbers[j]
		if x.Verdict != y.Verdict {
			return rank[x.Verdict] < rank[y.Verdict]
		}
		return x.Verdict == Changed && x.size() > y.size()
	})
	c.claims(a.summary.Claims, b.summary.Claims)
	return c, nil
}

// size of a change that was found, for the order of the list: on the scale of
// logarithms, so that half is as large as double.
func (x Change) size() float64 {
	if x.Absolute {
		return math.Abs(*x.Change)
	}
	return math.Abs(math.Log1p(*x.Change))
}

// incomparable says why no number of the two runs can be compared.
func incomparable(a, b *builder) string {
	if a.manifest.Profile != b.manifest.Profile {
		return fmt.Sprintf("their profiles are %s and %s, so the same names stand for other sizes; run both with one -profile", a.manifest.Profile, b.manifest.Profile)
	}
	var shared bool
	has := func(x *builder) (bases []record.TimeBase) {
		return x.bases(func(record.Unit) bool { return true })
	}
	for _, t := range has(a) {
		shared = shared || slices.Contains(has(b), t)
	}
	if !shared {
		return fmt.Sprintf("their time bases are %v and %v, and durations of different time bases are never compared; run both in one mode", has(a), has(b))
	}
	for _, n := range b.summary.Numbers {
		for _, m := range a.summary.Numbers {
			if m.ID == n.ID {
				return ""
			}
		}
	}
	return "no number is in both: they ran different experiments or cells; run both with the same -only"
}

// noise is what is known of the chance in a run.
type noise struct {
	// The number in each resampled run, where it is in enough of them.
	again   map[string][]float64
	redraws int
	// Kind of boots that a unit belongs to, how many of the kind there are, and in
	// which machines.
	kind    map[string]int
	boots   []int
	machine []string
	base    map[string]record.TimeBase
}

// noise states the report anew of resampled boots.
func (b *builder) noise(stream uint64) (noise, error) {
	kinds := bootKinds(b.units)
	n := noise{again: map[string][]float64{}, redraws: b.redraws, kind: map[string]int{}, base: map[string]record.TimeBase{}}
	for k, kind := range kinds {
		machines := map[string]bool{}
		for _, i := range kind {
			u := b.units[i]
			n.kind[u.Key], n.base[u.Key] = k, u.Boot.TimeBase
			machines[fmt.Sprintf("%d processors, %d MiB, shift %d", u.Boot.CPUs, u.Boot.MemMiB, u.Boot.IcountShift)] = true
		}
		n.boots = append(n.boots, len(kind))
		n.machine = append(n.machine, strings.Join(sortedKeys(machines), "; "))
	}
	rng := rand.New(rand.NewPCG(seed("compare"), stream))
	s := &builder{manifest: b.manifest, matrix: b.matrix, dists: b.dists, bare: true}
	for range b.redraws {
		s.units, s.summary = s.units[:0], Summary{}
		for _, kind := range kinds {
			for range kind {
				u := b.units[kind[rng.IntN(len(kind))]]
				// A boot that is drawn twice is two boots.
				u.Key = fmt.Sprintf("%s/%d", u.Key, len(s.units))
				s.units = append(s.units, u)
			}
		}
		if err := s.state(); err != nil {
			return n, fmt.Errorf("state numbers of resampled boots: %w", err)
		}
		for _, x := range s.summary.Numbers {
			if x.Value != nil {
				n.again[x.ID] = append(n.again[x.ID], *x.Value)
			}
		}
	}
	return n, nil
}

// bootKinds are the units that can stand for each other: of one series, and of
// those the ones that are linked by something that they measured alike.
func bootKinds(units []record.Unit) [][]int {
	group := make([]int, len(units))
	for i := range group {
		group[i] = i
	}
	root := func(i int) int {
		for group[i] != i {
			i = group[i]
		}
		return i
	}
	first := map[string]int{}
	for i, u := range units {
		series := u.Key[:strings.LastIndex(u.Key, "/")+1]
		what := map[string]bool{}
		for _, t := range u.Trials {
			if len(u.Latencies)+len(u.Overs)+len(u.Micros)+len(u.Outcomes) == 0 {
				what[fmt.Sprint(t.Experiment, t.Strategy)] = true
			}
		}
		for _, p := range u.Programs {
			what[p.Program+p.Fix] = true
		}
		for _, l := range u.Latencies {
			what[l.Cell.String()] = true
		}
		for _, o := range u.Overs {
			what[o.Cell.String()] = true
		}
		for _, m := range u.Micros {
			what[fmt.Sprint(m.Experiment, m.Bench, m.Sweep, m.Setting, m.ResidentKiB, m.Mappings, m.Views, m.Threads)] = true
		}
		for _, m := range u.Memories {
			what[fmt.Sprint(m.Experiment, m.Series, m.N)] = true
		}
		for _, o := range u.Outcomes {
			what[fmt.Sprint(o.Experiment, o.Program, o.Strategy)] = true
		}
		if len(what) == 0 {
			what["nothing"] = true
		}
		for w := range what {
			if j, ok := first[series+w]; ok {
				group[max(root(i), root(j))] = min(root(i), root(j))
			} else {
				first[series+w] = i
			}
		}
	}
	var out [][]int
	at := map[int]int{}
	for i := range units {
		r := root(i)
		if _, ok := at[r]; !ok {
			at[r] = len(out)
			out = append(out, nil)
		}
		out[at[r]] = append(out[at[r]], i)
	}
	return out
}

// rests says of which boots a number is: how many of the kind of which there are
// fewest, in which machines, and in which time base.
func (n noise) rests(x Number) (boots int, machines, base string) {
	boots = math.MaxInt
	ms, bs := map[string]bool{}, map[string]bool{}
	for _, key := range x.Records {
		k, ok := n.kind[key]
		if !ok {
			return 0, "", "" // not of boots: the kill matrix
		}
		boots = min(boots, n.boots[k])
		ms[n.machine[k]], bs[string(n.base[key])] = true, true
	}
	if boots == math.MaxInt {
		boots = 0
	}
	return boots, strings.Join(sortedKeys(ms), "; "), strings.Join(sortedKeys(bs), "+")
}

// group is what is beside a number.
func (x Change) group() string {
	return fmt.Sprint(x.ID[:strings.LastIndex("."+x.ID, ".")], x.Absolute)
}

// estimates of both runs, or why they cannot be compared.
func (x *Change) estimates(a, b Number, na, nb noise, sameHost bool) (e [2]stats.Estimate, why string) {
	ba, ma, ta := na.rests(a)
	bb, mb, tb := nb.rests(b)
	x.BootsA, x.BootsB, x.Base = ba, bb, ta
	switch {
	case a.Unit != b.Unit:
		return e, fmt.Sprintf("counted in %s and in %s", a.Unit, b.Unit)
	case a.Unit == "count" || a.Unit == "share":
		return e, "says how much was run or seen; claims judge it"
	case a.Value == nil && b.Value == nil:
		return e, "without a value in both runs"
	case a.Value == nil || b.Value == nil:
		return e, "without a value in one of the runs"
	case ta != tb:
		return e, fmt.Sprintf("time bases %s and %s", ta, tb)
	case !sameHost && ta != string(record.ICount):
		return e, "durations of different hosts"
	case ma != mb:
		return e, fmt.Sprintf("machines with %s and with %s", ma, mb)
	case ba == 0 || bb == 0:
		return e, "not of boots"
	case ba < 2 || bb < 2:
		return e, "a single boot of a kind tells nothing of noise"
	}
	x.Absolute = a.Unit == "exponent" || a.Unit == "bytes" || // of growth, which is about 0
		*a.Value <= 0 || *b.Value <= 0
	var ok [2]bool
	e[0], ok[0] = na.estimate(*a.Value, na.again[a.ID], ba, x.Absolute)
	e[1], ok[1] = nb.estimate(*b.Value, nb.again[b.ID], bb, x.Absolute)
	if !ok[0] || !ok[1] {
		return e, "without a value in too many resampled runs"
	}
	return e, ""
}

func (x *Change) judge(a, b stats.Estimate) (p float64) {
	d, i, p := stats.Difference(a, b)
	if !x.Absolute {
		d, i.Lo, i.Hi = math.Expm1(d), math.Expm1(i.Lo), math.Expm1(i.Hi)
	}
	x.Change, x.Lo, x.Hi = pointer(d), pointer(i.Lo), pointer(i.Hi)
	return p
}

// estimate is a number with the variance of its resampled values. These vary less
// than boots do by (n-1)/n, as a resample's mean is that of the sample.
func (n noise) estimate(value float64, again []float64, boots int, absolute bool) (stats.Estimate, bool) {
	if len(again) < n.redraws*95/100 {
		return stats.Estimate{}, false
	}
	v := append([]float64(nil), again...)
	if !absolute {
		for i := range v {
			if !(v[i] > 0) {
				return stats.Estimate{}, false
			}
			v[i] = math.Log(v[i])
		}
		value = math.Log(value)
	}
	k := float64(boots)
	known := compareRounding * compareRounding / 12
	return stats.Estimate{Value: value, Var: stat.Variance(v, nil) * k / (k - 1), DF: k - 1, Known: known / k}, true
}

func (c *Comparison) claims(a, b []Claim) {
	in := map[string]Claim{}
	for _, x := range b {
		in[x.ID] = x
	}
	for _, x := range a {
		y, ok := in[x.ID]
		if !ok || x.Holds == y.Holds {
			continue
		}
		c.Claims = append(c.Claims, ClaimChange{ID: x.ID, Text: x.Text, A: x.Holds, B: y.Holds, SaidA: x.Measured, SaidB: y.Measured, Counts: y.OneEvent && y.Holds == False})
	}
}

// format says a change as a reader wants it.
func (x Change) format(v *float64) string {
	switch {
	case v == nil:
		return "–"
	case x.Absolute:
		return fmt.Sprintf("%+.3g", *v)
	case *v >= 9:
		return "×" + plots.Share.Format(*v+1)
	}
	return fmt.Sprintf("%+.3g %%", 100**v)
}
