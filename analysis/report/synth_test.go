// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wflp/wflp/analysis/record"
)

// Everything in this file is made up: a run such as one hopes for, to test the
// report with. The numbers resemble no machine.

const syntheticProfile = "SYNTHETIC, not a measurement"

func synthManifest() record.Manifest {
	kernels := map[string]record.Kernel{}
	for _, v := range []string{"stock", "release", "debug", "kasan"} {
		kernels[v] = record.Kernel{Release: "6.12.0-synthetic-" + v, Digest: "d-" + v, Compiler: "none"}
	}
	return record.Manifest{
		Started: time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC), Profile: syntheticProfile, Seed: 42, Version: "0000000",
		Kernels: kernels, QEMU: "0.0 (synthetic)", TimeBases: []record.TimeBase{record.TCG, record.ICount},
		Acceleration: "made up", Host: record.Host{CPU: "Synthetic CPU", Cores: 2, MemMiB: 8192, Kernel: "0.0", Distro: "none"},
		Config: map[string]string{"boots per cell": "10"},
	}
}

func synthBoot(base record.TimeBase, variant string, i int) record.Boot {
	b := record.Boot{
		TimeBase: base, Variant: variant, KernelDigest: "d-" + variant, Release: "6.12.0-synthetic", QEMU: "0.0", CPUs: 2, MemMiB: 2048,
		Seed: record.Seed(i), DurationNS: 1e10, End: record.EndExited,
	}
	if base == record.ICount {
		b.IcountShift = 4
	}
	return b
}

func mustHist(values []int64) *record.Hist {
	h, err := record.HistOf(values)
	if err != nil {
		panic(err)
	}
	return h
}

var synthOnce = sync.OnceValue(makeSynth)

// synth is a whole run; the caller may change all but the histograms.
func synth() []record.Unit {
	units := slices.Clone(synthOnce())
	for i := range units {
		u := &units[i]
		u.Trials, u.Latencies, u.Overs, u.Micros = slices.Clone(u.Trials), slices.Clone(u.Latencies), slices.Clone(u.Overs), slices.Clone(u.Micros)
		u.Outcomes, u.Memories = slices.Clone(u.Outcomes), slices.Clone(u.Memories)
		for j := range u.Trials {
			u.Trials[j].Violations = maps.Clone(u.Trials[j].Violations)
		}
	}
	return units
}

// whole is the report of it, and pages are the files of that, with figures as SVG
// only: drawing takes longest, and plots has its own tests. Not to be changed.
func whole(t *testing.T) *builder {
	t.Helper()
	b, err := wholeOnce()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pages(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := pagesOnce()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var wholeOnce = sync.OnceValues(func() (*builder, error) {
	units := synth()
	slices.SortFunc(units, func(a, b record.Unit) int { return strings.Compare(a.Key, b.Key) })
	return roughly(synthManifest(), units)
})

var pagesOnce = sync.OnceValues(func() (map[string][]byte, error) {
	b, err := wholeOnce()
	if err != nil {
		return nil, err
	}
	return b.render("svg")
})

// roughly is a report of so few resamples that many runs can be judged. Intervals
// of 100 do for runs that are no close calls; and a variance of 50 is better known
// than one of ten boots can be.
func roughly(m record.Manifest, units []record.Unit) (*builder, error) {
	b := newBuilder(m, units, nil)
	b.resamples, b.redraws = 100, 50
	return b, b.state()
}

func makeSynth() []record.Unit {
	var units []record.Unit
	for i := range 10 {
		u := record.Unit{Key: record.Key("boot", record.TCG, "release", i), Boot: synthBoot(record.TCG, "release", i)}
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		for s := range 32 {
			for _, st := range []record.Strategy{record.WaitFree, record.Barrier, record.Naive} {
				t := record.Trial{
					Experiment: "E1", SpecID: fmt.Sprintf("spec-%d-%d", i, s), SpecSeed: record.Seed(s), Shape: "synthetic", Strategy: st, Cell: record.Cell{Threads: 4}, Verdict: record.Pass,
					Counts: record.Counts{Executions: 4000 + rng.Int64N(500), Patches: 40, Transactions: 900, Requests: 300, Migrated: 100, Pulled: 20, Births: 3, MemoryOps: 50},
				}
				if st == record.Naive {
					t.Verdict = record.Violation
					t.Violations = map[string]int64{"torn": 1 + rng.Int64N(5)}
					if s%3 == 0 {
						t.Violations["mixed"] = 2
					}
					if s%7 == 0 {
						t.Violations["crash"] = 1
					}
					if s%11 == 0 {
						t.Violations = map[string]int64{"stale": 4}
					}
				}
				u.Trials = append(u.Trials, t)
			}
		}
		for _, threads := range []int{4, 16} {
			cell := record.Cell{Threads: threads, UtilisationPct: 60}
			for _, st := range []record.Strategy{record.Barrier, record.None, record.WaitFree} {
				u.Latencies = append(u.Latencies, synthLatency(rng, cell, st))
				if st != record.None {
					for p := range 20 {
						u.Overs = append(u.Overs, synthOver(rng, record.Cell{Threads: threads, IntervalUS: 500}, st, p))
					}
				}
			}
		}
		u.Micros = append(synthE4(rng, record.TCG), synthE5(rng, "release", 40)...)
		synthMore(rand.New(rand.NewPCG(uint64(i), 3)), &u)
		units = append(units, u)
		units = append(units, record.Unit{Key: record.Key("boot", record.TCG, "stock", i), Boot: synthBoot(record.TCG, "stock", i), Micros: synthE5(rng, "stock", 40)})
	}
	for i := range 3 {
		rng := rand.New(rand.NewPCG(uint64(i), 2))
		var eleven []record.Micro
		for how, instructions := range map[string]int64{"one": 8, "variant": 8, "branch": 11, "pointer": 12} {
			eleven = append(eleven, record.Micro{Experiment: "E11", Bench: "call", Setting: how, Batch: 100, ValuesNS: []int64{1600 * instructions, 1600 * instructions}})
		}
		units = append(units,
			record.Unit{Key: record.Key("e11", record.ICount, "release", i), Boot: synthBoot(record.ICount, "release", i), Micros: eleven},
			record.Unit{Key: record.Key("boot", record.ICount, "release", i), Boot: synthBoot(record.ICount, "release", i), Micros: append(synthE4(rng, record.ICount), synthE5(rng, "release", 1)...)},
			record.Unit{Key: record.Key("boot", record.ICount, "stock", i), Boot: synthBoot(record.ICount, "stock", i), Micros: synthE5(rng, "stock", 1)})
	}
	for _, v := range []string{"debug", "kasan"} {
		units = append(units, record.Unit{Key: record.Key("boot", record.TCG, v, 0), Boot: synthBoot(record.TCG, v, 0), Trials: []record.Trial{{
			Experiment: "E1", SpecID: "spec-0-0", Strategy: record.WaitFree, Verdict: record.Pass, Counts: record.Counts{Executions: 1, Patches: 1, MemoryOps: 1, Births: 1},
		}}})
	}
	return units
}

func synthLatency(rng *rand.Rand, cell record.Cell, st record.Strategy) record.Latency {
	const bin, window = 500_000, 5_000_000
	l := record.Latency{Experiment: "E2", Strategy: st, Cell: cell, Patches: 20, WindowNS: window, WarmupRequests: 12, BinNS: bin, FirstBin: -10}
	var in, out []int64
	for k := -10; k < 20; k++ {
		var values []int64
		for range 40 {
			v := 60e3 * math.Exp(rng.NormFloat64()*0.5)
			if rng.IntN(50) == 0 {
				v *= 5
			}
			at := float64(k) * bin
			if st == record.Barrier && at >= 0 && at < 2e6*float64(cell.Threads)/4 && rng.IntN(2) == 0 {
				v += 2e6*float64(cell.Threads)/4 - at
			}
			if st == record.WaitFree && at >= 0 && at < 1e6 {
				v *= 1.1
			}
			values = append(values, int64(v))
		}
		if at := k * bin; at >= 0 && at < window {
			in = append(in, values...)
		} else {
			out = append(out, values...)
		}
		l.Bins = append(l.Bins, mustHist(values))
	}
	l.Window, l.Steady = mustHist(in), mustHist(out)
	return l
}

func synthOver(rng *rand.Rand, cell record.Cell, st record.Strategy, p int) record.Over {
	q := int64(1e9) + int64(p)*50e6
	o := record.Over{Experiment: "E3", Strategy: st, Cell: cell, Patch: p, QueuedNS: q, PreparingNS: q + 1e4, PublishedNS: q + 1e5, Threads: cell.Threads}
	var arrive []int64
	for range cell.Threads {
		arrive = append(arrive, o.PublishedNS+int64(rng.ExpFloat64()*5e5))
	}
	first, last := arrive[0], arrive[0]
	for _, a := range arrive {
		first, last = min(first, a), max(last, a)
	}
	if st == record.Barrier {
		first = last
		o.PublishedNS = last
	}
	o.FirstOverNS, o.LastOverNS, o.ReleasedNS = first, last, last+1e5
	for i, a := range arrive {
		m := record.Move{Thread: i, AtNS: a, How: record.HowOwn, Spans: []record.Span{{FromNS: q - 1e6, ToNS: a, State: record.SpanOld}, {FromNS: a, ToNS: q + 1e7, State: record.SpanNew}}}
		switch {
		case st == record.Barrier:
			m.AtNS = last
			m.Spans = []record.Span{{FromNS: q - 1e6, ToNS: a, State: record.SpanOld}, {FromNS: a, ToNS: last, State: record.SpanWait}, {FromNS: last, ToNS: q + 1e7, State: record.SpanNew}}
		case i == 1:
			m.How = record.HowPulled
			m.Spans = []record.Span{{FromNS: q - 1e6, ToNS: q + 1e7, State: record.SpanIdle}}
		}
		o.Moves = append(o.Moves, m)
		o.Migrated++
	}
	return o
}

func synthE4(rng *rand.Rand, base record.TimeBase) []record.Micro {
	var out []record.Micro
	values := func(cost float64) []int64 {
		v := make([]int64, 12)
		for i := range v {
			v[i] = int64(8 * cost * math.Exp(rng.NormFloat64()*0.03))
			if i == 0 {
				v[i] *= 4 // warm-up
			}
		}
		return v
	}
	flat := map[string]float64{"create": 21e3, "seal": 7e3, "enter": 2.2e3}
	for kib := int64(1024); kib <= 4<<20; kib *= 4 {
		for _, op := range []string{"create", "seal", "enter"} {
			out = append(out, record.Micro{Experiment: "E4", Sweep: record.SweepResident, Bench: op, ResidentKiB: kib, Batch: 8, ValuesNS: values(flat[op])})
		}
		out = append(out, record.Micro{Experiment: "E4", Sweep: record.SweepResident, Bench: "fork", ResidentKiB: kib, Batch: 8, ValuesNS: values(90e3 + 12*float64(kib))})
	}
	if base == record.ICount {
		enter := func(m record.Micro, cost float64) {
			for _, op := range []string{"enter", "enter-last"} {
				if m.ResidentKiB > 0 && op == "enter" {
					continue // above
				}
				m.Experiment, m.Bench, m.Batch, m.ValuesNS = "E4", op, 8, values(cost)
				out = append(out, m)
			}
		}
		// In instructions, of which one is 16 ns there.
		for n := 1; n <= 10000; n *= 10 {
			enter(record.Micro{Sweep: record.SweepMappings, Mappings: n}, 16*530)
		}
		for n := 1; n <= 256; n *= 4 {
			enter(record.Micro{Sweep: record.SweepThreads, Threads: n}, 16*530)
		}
		for n := 1; n <= 64; n *= 2 {
			enter(record.Micro{Sweep: record.SweepViews, Views: n}, 16*(530+6*float64(n)))
		}
		for kib := int64(1024); kib <= 1<<20; kib *= 32 {
			enter(record.Micro{Sweep: record.SweepResident, ResidentKiB: kib}, 16*530)
		}
		return out
	}
	for _, n := range []int{10, 100, 1000, 10000} {
		out = append(out,
			record.Micro{Experiment: "E4", Sweep: record.SweepMappings, Bench: "create", Mappings: n, Batch: 8, ValuesNS: values(21e3 + 30*float64(n))},
			record.Micro{Experiment: "E4", Sweep: record.SweepMappings, Bench: "fork", Mappings: n, Batch: 8, ValuesNS: values(90e3 + 900*float64(n))})
	}
	for _, n := range []int{1, 4, 16, 64} {
		out = append(out, record.Micro{Experiment: "E4", Sweep: record.SweepViews, Bench: "create", Views: n, Batch: 8, ValuesNS: values(21e3)})
	}
	return out
}

func synthE5(rng *rand.Rand, variant string, noise float64) []record.Micro {
	var out []record.Micro
	cost := map[string]float64{"page-fault": 32000, "map-unmap": 96000}
	for i, e := range everyones {
		if cost[e.bench] == 0 {
			cost[e.bench] = 50000 * float64(i)
		}
	}
	extra := map[string]float64{"stock": 1, "base": 1.001, "base-views": 1.003, "view": 1.008}
	settings := []string{"base", "base-views", "view"}
	if variant == "stock" {
		settings = []string{"stock"}
	}
	for _, b := range sortedKeys(cost) {
		for _, s := range settings {
			m := record.Micro{Experiment: "E5", Bench: b, Setting: s, Batch: 100}
			for range 20 {
				m.ValuesNS = append(m.ValuesNS, int64(100*cost[b]*extra[s]*math.Exp(rng.NormFloat64()*0.0002*noise)))
			}
			out = append(out, m)
		}
	}
	return out
}

// synthMore is E0, E6, E7 and E8.
func synthMore(rng *rand.Rand, u *record.Unit) {
	for _, us := range []int{5000, 20000} {
		l := record.Latency{Experiment: "E0", Strategy: record.None, Cell: record.Cell{Threads: 4, StallUS: us}, Patches: 20, BinNS: 1e6, FirstBin: -1, Window: mustHist(nil)}
		usual := func() int64 { return 1_000_000 + rng.Int64N(100_000) }
		var steady []int64
		for bin := range 5 {
			var in []int64
			for range 20 {
				v := usual()
				if bin > 0 {
					v += int64(us)*1000 - int64(bin-1)*1e6 - rng.Int64N(1e6)
				}
				in, steady = append(in, v), append(steady, usual())
			}
			l.Bins = append(l.Bins, mustHist(in))
		}
		l.Steady = mustHist(steady)
		u.Latencies = append(u.Latencies, l)
	}
	for n := int64(0); n <= 8; n++ {
		u.Memories = append(u.Memories, record.Memory{Experiment: "E6", Series: record.SeriesViews, N: n, Views: n, PrivatePages: n, OwnTables: 4 * n, UsedKiB: 10000 + 21*n})
	}
	for n := int64(0); n <= 2000; n += 100 {
		u.Memories = append(u.Memories, record.Memory{Experiment: "E6", Series: record.SeriesGenerations, N: n, Views: 1, PrivatePages: 1, OwnTables: 4, Files: 5, RSSKiB: 900, PTEKiB: 80,
			UsedKiB: 20000 + min(n, 300)/3 + rng.Int64N(8)})
	}
	for _, n := range []int{4, 256} {
		for _, st := range []record.Strategy{record.WaitFree, record.Barrier, record.StopWorld} {
			o := record.Over{Experiment: "E7", Strategy: st, Cell: record.Cell{Threads: n, Births: 4}, QueuedNS: 1e9, PublishedNS: 1e9 + 1e5, FirstOverNS: 1e9 + 2e5, LastOverNS: 1e9 + 5e6, HeldNS: 40_000 + rng.Int64N(10_000)}
			if st == record.StopWorld {
				o.HeldNS, o.Stops = int64(n)*50_000+rng.Int64N(10_000), 1
			}
			u.Overs = append(u.Overs, o)
		}
	}
	for program := range hostileNames {
		u.Outcomes = append(u.Outcomes,
			record.Outcome{Experiment: "E8", Program: program, Strategy: record.WaitFree, Ended: true, FirstNS: 1e6, LastNS: map[bool]int64{true: 1.5e9, false: 3e6}[program == "busy" || program == "blocked"]},
			record.Outcome{Experiment: "E8", Program: program, Strategy: record.Barrier, Ended: program != "lock", Stuck: map[bool]int{true: 4}[program == "lock"], FirstNS: 1e6, LastNS: 1.5e9, HeldNS: 1.4e9})
	}
}
