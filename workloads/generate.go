// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"fmt"
	"math"
	"slices"

	fuzz "github.com/google/gofuzz"
)

// Generate makes the Spec of a seed. The same seed and shape give the same
// Spec; all but correctness are made with their default parameters.
func Generate(seed uint64, shape Shape) (*Spec, error) {
	switch shape {
	case Correctness:
		return Wild(seed, WildParams{}), nil
	case Latency:
		return Serve(seed, ServeParams{}), nil
	case Over:
		return Slow(seed, SlowParams{}), nil
	case Many:
		return Crowd(seed, CrowdParams{}), nil
	case Hostiles:
		return Hostile(seed, HostileBusy)
	}
	return nil, fmt.Errorf("generate spec: unknown shape %q", shape)
}

// gen draws from one seed. gofuzz fills the leaves (parts of code, actions),
// with a function of ours for each type, as its uniform random values would be
// invalid nearly always; what must fit together is put together by hand.
type gen struct {
	fuzz.Continue
	f *fuzz.Fuzzer
	// wild makes code that is as odd as it can be; otherwise it is plain.
	wild bool
}

func newGen(seed uint64, wild bool) *gen {
	g := &gen{wild: wild}
	g.f = fuzz.NewWithSeed(int64(seed)).NilChance(0).Funcs(g.part, g.backing)
	// A Continue can be had only inside a Fuzz call; keep the one of this.
	g.f.Funcs(func(_ *struct{ seeded bool }, c fuzz.Continue) { g.Continue = c })
	g.f.Fuzz(&struct{ seeded bool }{})
	return g
}

// in draws from lo to hi, both included.
func (g *gen) in(lo, hi int) int { return lo + g.Intn(hi-lo+1) }

// one draws true once in n.
func (g *gen) one(n int) bool { return g.Intn(n) == 0 }

// exp draws from an exponential distribution.
func (g *gen) exp(mean float64) float64 { return g.ExpFloat64() * mean }

// size draws from 1 to limit with every magnitude alike.
func (g *gen) size(limit int) int {
	return int(math.Exp(g.Float64() * math.Log(float64(limit)+0.99)))
}

func (g *gen) backing(b *Backing, c fuzz.Continue) {
	*b = []Backing{Memfd, Memfd, File, Anonymous}[c.Intn(4)]
}

func (g *gen) part(p *Part, _ fuzz.Continue) {
	p.Form = g.Intn(6)
	if g.one(2) {
		p.Pad, p.Step = g.size(40), g.in(1, 11)
	}
	if !g.wild {
		return
	}
	switch {
	case g.one(40):
		p.Skip = g.in(1000, 5000)
	case g.one(4):
		p.Skip = g.size(200)
	}
	if !g.one(3) {
		p.Loop = g.size(1200)
	}
}

func (g *gen) version(parts int) Version {
	v := Version{Parts: make([]Part, parts)}
	for i := range v.Parts {
		g.f.Fuzz(&v.Parts[i])
	}
	return v
}

// functions makes n of them with their first version. A tree executes at most
// MaxTree functions, and about a dozen at most in a wild program, so that a
// transaction stays short.
func (g *gen) functions(n, tree int) []Function {
	fs := make([]Function, n)
	size := make([]int, n)
	for i := n - 1; i >= 0; i-- {
		f := &fs[i]
		f.Align = []int{1, 1, 16, 64}[g.Intn(4)]
		f.Skew = g.Intn(64)
		f.Parts = g.in(2, MaxParts)
		switch {
		case i == 0 && g.wild && g.one(3):
			f.Straddle, f.Into = Chunk, g.in(1, 16)
		case g.one(6):
			f.Straddle, f.Into = 4096, g.in(1, 16)
		case g.one(4):
			f.Straddle, f.Into = 64, g.in(1, 16)
		}
		size[i] = 1
		for range g.Intn(4) {
			if i == n-1 {
				break
			}
			callee := g.in(i+1, n-1)
			if size[i]+size[callee] > tree {
				continue
			}
			size[i] += size[callee]
			f.Calls = append(f.Calls, Call{After: g.Intn(f.Parts), Callee: callee})
		}
		f.Versions = []Version{g.version(f.Parts)}
	}
	return fs
}

// patches makes n of them, with fresh contents mostly, a return to an earlier
// version now and then, and times gap apart on average.
func (g *gen) patches(fs []Function, n int, start, gap float64) []Patch {
	var ps []Patch
	at := start
	for range n {
		p := Patch{AtUS: int(at)}
		at += g.exp(gap)
		count := 1
		if g.one(2) {
			count = g.in(1, min(4, len(fs)))
		}
		for _, f := range g.Perm(len(fs))[:count] {
			fn := &fs[f]
			v := len(fn.Versions)
			if v == MaxVersions || v > 1 && g.one(8) {
				v = g.Intn(v)
			} else {
				fn.Versions = append(fn.Versions, g.version(fn.Parts))
			}
			p.Changes = append(p.Changes, Change{Function: f, Version: v})
		}
		p.Runs = g.one(2)
		if g.wild {
			p.Wrong = g.one(25)
			p.Try = !p.Wrong && g.one(25)
		}
		ps = append(ps, p)
	}
	return ps
}

// WildParams bound a correctness spec; zero means the default.
type WildParams struct {
	Patches int     // default 40 to 70
	GapUS   float64 // mean time between two, default 300 to 900
	// Records is roughly how many evidence records the run leaves: default 12000.
	Records int
}

// Wild makes a Spec of shape correctness.
func Wild(seed uint64, p WildParams) *Spec {
	g := newGen(seed, true)
	if p.Patches == 0 {
		p.Patches = g.in(40, 70)
	}
	if p.GapUS == 0 {
		p.GapUS = float64(g.in(300, 900))
	}
	if p.Records == 0 {
		p.Records = 12000
	}
	s := &Spec{Format: Format, Seed: seed, Shape: Correctness, WatchdogMS: 20000}
	g.f.Fuzz(&s.Text.Backing)
	s.Text.Offset = g.Intn(Chunk / 2)
	s.Functions = g.functions(g.in(3, 10), 10)
	if s.Functions[0].Straddle == Chunk {
		s.Text.Offset = Chunk - g.in(1, 3)*4096 + g.Intn(64)
	}
	s.Patches = g.patches(s.Functions, p.Patches, 200, p.GapUS)
	s.Depth = []int{1, 1, 2, 4}[g.Intn(4)]
	s.Drain = g.one(4)

	calm := g.one(8) // a few specs have no memory operations at all
	if !calm {
		s.Regions = g.regions()
	}
	started := g.in(2, 5)
	born := 0
	if !g.one(8) {
		born = g.in(1, 4)
	}
	for i := range started + born {
		w := Worker{Parent: -1}
		if i >= started {
			w.Parent = g.Intn(i)
			w.BornAt = g.size(60)
		}
		for range g.in(1, 4) {
			w.Roots = append(w.Roots, g.Intn(len(s.Functions)))
		}
		w.Interval = []int{1, 1, 1, 2, 3, 5}[g.Intn(6)]
		w.Yield = !g.one(4)
		if g.one(10) {
			w.SpinUS = g.size(300)
		}
		s.Workers = append(s.Workers, w)
		// The cap is in transactions; what must be bounded is records.
		perTxn := s.MaxTransaction(i) + 2
		w.Cap = max(p.Records/(started+born)/perTxn, 40)
		// A parent must live until its children are due.
		if i >= started && w.Parent >= 0 {
			w.BornAt = min(w.BornAt, s.Workers[w.Parent].Cap/3)
		}
		if g.one(3) { // dies in the middle of it all
			w.Txns = max(w.Cap/2, 1)
		}
		s.Workers[i] = w
	}
	for i := range s.Workers {
		w := &s.Workers[i]
		for _, c := range s.Workers {
			if c.Parent == i && w.Txns > 0 {
				w.Txns = max(w.Txns, c.BornAt+1)
			}
		}
		w.Actions = g.actions(s, w.Cap)
	}
	if g.one(3) { // a server thread among them: no request may be lost either
		g.serve(s)
	}
	return s
}

// serve turns the last worker into one that serves requests.
func (g *gen) serve(s *Spec) {
	w := &s.Workers[len(s.Workers)-1]
	w.Txns, w.PerRequest = 0, g.in(1, 3)
	n := max(w.Cap/w.PerRequest/2, 1)
	span := float64(s.Patches[len(s.Patches)-1].AtUS) + 1
	for range n {
		w.Arrivals = append(w.Arrivals, round(g.Float64()*span))
	}
	slices.Sort(w.Arrivals)
	w.Cap = max(w.Cap, n*w.PerRequest)
	w.WaitOnline = g.one(2)
}

func (g *gen) regions() []Region {
	var rs []Region
	for i, k := range RegionKinds {
		if g.one(3) && i > 0 {
			continue
		}
		switch k {
		case Huge:
			rs = append(rs, Region{Kind: k, Pages: 512 * g.in(1, 2)})
		case Heap:
			rs = append(rs, Region{Kind: k, Pages: g.in(1, 24)})
		default:
			rs = append(rs, Region{Kind: k, Pages: g.in(1, 24), Near: g.one(2)})
		}
	}
	return rs
}

// actions draws about one action in eight transactions.
func (g *gen) actions(s *Spec, limit int) []Action {
	var as []Action
	for at := g.in(1, 8); at < limit; at += g.in(1, 15) {
		a := Action{At: at}
		switch {
		case g.one(10):
			a.Kind = []ActionKind{Nanosleep, Futex, Epoll, SleepInTxn}[g.Intn(4)]
			a.US = g.size(1500)
		case g.one(6) || len(s.Regions) == 0:
			a.Kind = ShareAdd
		default:
			a.Region = g.Intn(len(s.Regions))
			a.Kind = g.memory(s.Regions[a.Region])
			pages := s.Regions[a.Region].Pages
			a.Page = g.Intn(pages)
			a.Count = g.size(min(pages-a.Page, 16))
		}
		as = append(as, a)
	}
	return as
}

func (g *gen) memory(r Region) ActionKind {
	if g.one(40) {
		return Fork // the dearest by far
	}
	var ks []ActionKind
	switch r.Kind {
	case Heap:
		ks = []ActionKind{Store, Load, BreakGrow, BreakDrop}
	case Huge:
		ks = []ActionKind{Store, Store, Load, Load, Map, Unmap, ProtRead, ProtWrite, ProtWrite, DontNeed, HugePage, Collapse}
	default:
		ks = []ActionKind{Store, Store, Store, Load, Load, Load, Map, Map, Unmap, ProtNone, ProtRead, ProtWrite, ProtWrite, Remap, DontNeed}
	}
	return ks[g.Intn(len(ks))]
}

// ServeParams describe an open-loop server; zero means the default.
type ServeParams struct {
	Threads     int     // default 4
	CPUs        int     // that the load is meant for, default 2
	Utilisation float64 // of all CPUs, default 0.5
	ServiceUS   int     // time of the work of one request, default 200
	PerRequest  int     // quiescence points in a request, default 4
	LongPct     int     // percentage of transactions that are long, default 0
	LongUS      int     // how long these are, default 10 * ServiceUS
	DurationMS  int     // of arrivals, default 1000
	Patches     int     // spread over the middle half, default 1
	StallUS     int     // stall at each patch, in place of it, default 0
}

// Serve makes a Spec of shape latency: every worker serves its own Poisson
// stream, and the streams together load the machine as asked.
func Serve(seed uint64, p ServeParams) *Spec {
	orElse(&p.Threads, 4)
	orElse(&p.CPUs, 2)
	orElse(&p.ServiceUS, 200)
	orElse(&p.PerRequest, 4)
	orElse(&p.LongUS, 10*p.ServiceUS)
	orElse(&p.DurationMS, 1000)
	orElse(&p.Patches, 1)
	if p.Utilisation == 0 {
		p.Utilisation = 0.5
	}
	g := newGen(seed, false)
	s := &Spec{Format: Format, Seed: seed, Shape: Latency, Depth: 1, WatchdogMS: 30000 + 10*p.DurationMS}
	s.Text.Backing = Memfd
	s.Functions = g.functions(6, 4)
	span := float64(p.DurationMS) * 1000
	s.Patches = g.spread(s.Functions, p.Patches, span)
	for i := range s.Patches {
		s.Patches[i].StallUS = p.StallUS
	}
	work, longEvery := float64(p.ServiceUS), 0
	if p.LongPct > 0 {
		longEvery = max(100/p.LongPct, 1)
		work += float64(p.PerRequest) / float64(longEvery) * float64(p.LongUS-p.ServiceUS/p.PerRequest)
	}
	// Mean time between arrivals at one thread: a request takes this much of one
	// CPU, and Threads streams share CPUs*Utilisation of them.
	mean := work * float64(p.Threads) / (float64(p.CPUs) * p.Utilisation)
	for range p.Threads {
		w := Worker{Parent: -1, Interval: 1, PerRequest: p.PerRequest, SpinUS: max(p.ServiceUS/p.PerRequest, 1)}
		if longEvery > 0 {
			w.LongEvery, w.LongUS = longEvery, p.LongUS
		}
		w.Roots = []int{g.Intn(len(s.Functions)), g.Intn(len(s.Functions))}
		for at := g.exp(mean); at < span; at += g.exp(mean) {
			w.Arrivals = append(w.Arrivals, round(at))
		}
		if len(w.Arrivals) == 0 {
			w.Arrivals = []float64{round(g.Float64() * span)}
		}
		w.Cap = len(w.Arrivals) * p.PerRequest
		s.Workers = append(s.Workers, w)
	}
	return s
}

// spread places patches evenly over the middle half of the span, each a little
// off, so that they meet no pattern of the load.
func (g *gen) spread(fs []Function, n int, span float64) []Patch {
	ps := g.patches(fs, n, 0, 0)
	for i := range ps {
		step := span / 2 / float64(n)
		ps[i].AtUS = int(span/4 + step*(float64(i)+g.Float64()*0.5+0.25))
	}
	return ps
}

// SlowParams describe threads that are slow to reach a quiescence point; zero
// means the default.
type SlowParams struct {
	Threads    int // default 4
	IntervalUS int // time between two quiescence points, default 500
	LongPct    int // percentage of transactions that are long, default 0
	LongUS     int // how long these are, default 20 * IntervalUS
	Blocked    int // threads asleep besides, offline, default 0
	BlockedUS  int // how long each sleep of these is, default 100000
	DurationMS int // default 500
	Patches    int // default 4
}

// Slow makes a Spec of shape over. The workers run for about DurationMS, on as
// many CPUs as there are workers; on fewer, longer.
func Slow(seed uint64, p SlowParams) *Spec {
	orElse(&p.Threads, 4)
	orElse(&p.IntervalUS, 500)
	orElse(&p.LongUS, 20*p.IntervalUS)
	orElse(&p.BlockedUS, 100000)
	orElse(&p.DurationMS, 500)
	orElse(&p.Patches, 4)
	g := newGen(seed, false)
	s := &Spec{Format: Format, Seed: seed, Shape: Over, Depth: 1, WatchdogMS: 30000 + 20*p.DurationMS}
	s.Text.Backing = Memfd
	s.Functions = g.functions(6, 4)
	span := p.DurationMS * 1000
	s.Patches = g.spread(s.Functions, p.Patches, float64(span))
	for i := range p.Threads + p.Blocked {
		w := Worker{Parent: -1, Interval: 1, SpinUS: p.IntervalUS}
		w.Roots = []int{g.Intn(len(s.Functions)), g.Intn(len(s.Functions))}
		if p.LongPct > 0 {
			w.LongEvery, w.LongUS = max(100/p.LongPct, 1), p.LongUS
		}
		if i >= p.Threads {
			w.SpinUS, w.LongEvery, w.LongUS = 0, 0, 0
			w.BlockedUS = p.BlockedUS
		}
		w.Cap = 8*span/max(w.SpinUS, 100) + 100
		s.Workers = append(s.Workers, w)
	}
	return s
}

func orElse(v *int, def int) {
	if *v == 0 {
		*v = def
	}
}

// round keeps a tenth of a microsecond, which is finer than any timer and
// keeps printed specs short.
func round(us float64) float64 { return math.Round(us*10) / 10 }
