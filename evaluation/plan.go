// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/realworld/guest"
	"github.com/wflp/wflp/realworld/server"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
)

// Ability is what a plan must know of the machine that it is for. It must not
// change from one start of a run to the next, or the plan would.
type Ability struct {
	Mode   vm.Mode // measured or fast (or deterministic, for tests): for what is measured in time
	Cores  int
	MemMiB int // that one virtual machine may take
}

// Experiments of this package, in the order of their planning.
var Experiments = []string{"E0", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9", "E11"}

// compared are the strategies that every cell of E2 compares, and followed those
// whose patches E3 follows.
var (
	compared = []record.Strategy{record.None, record.WaitFree, record.Barrier, record.StopWorld, record.Restart}
	followed = []record.Strategy{record.WaitFree, record.Barrier, record.StopWorld}
)

// correctness is E1: boots with programs in each, every program under each of
// the strategies. Checked boots are those of each of the kernels with checks:
// fewer and shorter, as such a kernel is slow.
// Of the programs of a boot, those that are stopped to be patched are fewer: the
// strategy is the least in question.
type correctness struct{ boots, programs, stopped, checkedBoots, checkedPrograms int }

// load is a cell of E2. Without long requests all threads are at a quiescence
// point within about a millisecond, which is the best case of global quiescence.
type load struct{ threads, utilisation, longPct, longUS int }

// calibration is E0: loads of E2 with stalls of known lengths.
type calibration struct {
	boots, durationMS, stalls int
	stallUS                   []int
}

// latencies is E2.
type latencies struct {
	boots                                      int
	cells                                      []load
	serviceUS, perRequest, durationMS, patches int
}

// overs is E3.
type overs struct {
	boots               int
	cells               []workloads.SlowParams
	durationMS, patches int
}

// sizes are those of a process that E4 varies, one at a time.
type sizes struct{ resident, mappings, views, threads []int }

// operations is E4. Fewer boots are counted in instructions than measured in
// time, as they hardly vary; but up to every limit, for what is to have a bound.
type operations struct {
	boots, counted        int
	timed, inInstructions sizes
	reps                  int
}

// everyone is E5. Where instructions are counted, a repetition is short and there
// are more of them.
type everyone struct{ boots, counted, reps, countedReps, batch int }

// footprints is E6.
type footprints struct {
	boots, generations int
	views, pages       []int
}

// crowds is E7.
type crowds struct {
	boots, births, durationMS, patches int
	threads                            []int
}

// hostiles is E8.
type hostiles struct{ boots int }

// reals is E9: programs with one of their fixes, or with all.
type reals struct {
	boots, durationMS, changes, utilisation int
	all                                     bool
}

// profile is how much of each experiment there is.
type profile struct {
	e0 calibration
	e1 correctness
	e2 latencies
	e3 overs
	e4 operations
	e5 everyone
	e6 footprints
	e7 crowds
	e8 hostiles
	e9 reals
	// e11 is different code for different threads: boots in time, and counted.
	e11 everyone
}

// Sizes are chosen so that quick ends within a quarter of an hour on two cores
// with emulation, and smoke within two minutes; full takes three to four hours.
var profiles = map[string]profile{
	"smoke": {
		e0:  calibration{boots: 1, durationMS: 800, stalls: 6, stallUS: []int{5000, 20000}},
		e1:  correctness{boots: 2, programs: 5, stopped: 3, checkedBoots: 1, checkedPrograms: 2},
		e2:  latencies{boots: 2, cells: []load{{4, 40, 0, 0}}, serviceUS: 1000, perRequest: 1, durationMS: 1000, patches: 16},
		e3:  overs{boots: 2, cells: []workloads.SlowParams{{Threads: 4, IntervalUS: 1000}}, durationMS: 300, patches: 5},
		e4:  operations{boots: 1, counted: 0, timed: sizes{resident: []int{1, 64}, mappings: []int{100}, views: []int{8}, threads: []int{8}}, reps: 5},
		e5:  everyone{boots: 1, counted: 1, reps: 5, countedReps: 9, batch: 128},
		e6:  footprints{boots: 1, generations: 80, views: []int{1, 4, 16}, pages: []int{1, 16, 64}},
		e11: everyone{boots: 1, counted: 1, reps: 5, countedReps: 9, batch: 64},
		e7:  crowds{boots: 1, threads: []int{4, 16}, births: 4, durationMS: 300, patches: 3},
		e8:  hostiles{boots: 1},
	},
	"quick": {
		e0: calibration{boots: 3, durationMS: 1800, stalls: 15, stallUS: []int{5000, 10000, 20000}},
		e1: correctness{boots: 12, programs: 26, stopped: 4, checkedBoots: 1, checkedPrograms: 8},
		e2: latencies{boots: 5, cells: []load{{4, 25, 0, 0}, {16, 25, 2, 20000}, {64, 25, 0, 0}},
			serviceUS: 1000, perRequest: 1, durationMS: 2000, patches: 33},
		e3: overs{boots: 5, durationMS: 600, patches: 12, cells: []workloads.SlowParams{
			{Threads: 4, IntervalUS: 1000},
			{Threads: 4, IntervalUS: 1000, LongPct: 5, LongUS: 20000}, {Threads: 4, IntervalUS: 1000, Blocked: 8, BlockedUS: 100000}}},
		e4: operations{boots: 3, counted: 2, reps: 15,
			timed:          sizes{resident: []int{1, 4, 16, 64, 256, 1024}, mappings: []int{10, 100, 1000}, views: []int{1, 8, 32}, threads: []int{1, 8, 32}},
			inInstructions: sizes{resident: []int{1, 16, 256, 1024}, mappings: []int{1, 10, 100, 1000, 10000}, views: []int{1, 2, 4, 8, 16, 32, 62}, threads: []int{1, 4, 16, 64, 256}}},
		e5:  everyone{boots: 3, counted: 4, reps: 20, countedReps: 60, batch: 256},
		e6:  footprints{boots: 2, generations: 1600, views: []int{1, 2, 4, 8, 16, 32, 62}, pages: []int{1, 4, 16, 64, 256}},
		e11: everyone{boots: 3, counted: 2, reps: 15, countedReps: 40, batch: 128},
		e7:  crowds{boots: 3, threads: []int{1, 32, 256}, births: 12, durationMS: 600, patches: 5},
		e8:  hostiles{boots: 2},
		e9:  reals{boots: 2, durationMS: 1500, changes: 1, utilisation: 40},
	},
	"full": {
		e0: calibration{boots: 10, durationMS: 8000, stalls: 60, stallUS: []int{2000, 5000, 10000, 20000}},
		e1: correctness{boots: 60, programs: 40, stopped: 20, checkedBoots: 6, checkedPrograms: 20},
		e2: latencies{boots: 10, cells: []load{{4, 20, 0, 0}, {4, 40, 0, 0}, {4, 60, 0, 0}, {8, 40, 0, 0}, {16, 20, 0, 0}, {16, 40, 0, 0}, {16, 60, 0, 0},
			{32, 40, 0, 0}, {64, 20, 0, 0}, {64, 40, 0, 0}, {64, 60, 0, 0}, {4, 40, 5, 10000}, {16, 40, 5, 20000}, {16, 40, 1, 100000}},
			serviceUS: 1000, perRequest: 1, durationMS: 8000, patches: 140},
		e3: overs{boots: 10, durationMS: 2000, patches: 40, cells: []workloads.SlowParams{
			{Threads: 4, IntervalUS: 100}, {Threads: 4, IntervalUS: 1000}, {Threads: 4, IntervalUS: 10000}, {Threads: 4, IntervalUS: 50000},
			{Threads: 16, IntervalUS: 1000}, {Threads: 64, IntervalUS: 1000},
			{Threads: 4, IntervalUS: 1000, LongPct: 1, LongUS: 100000}, {Threads: 4, IntervalUS: 1000, LongPct: 5, LongUS: 20000},
			{Threads: 4, IntervalUS: 1000, Blocked: 8, BlockedUS: 100000}, {Threads: 4, IntervalUS: 1000, Blocked: 56, BlockedUS: 100000}}},
		e4: operations{boots: 10, counted: 3, reps: 30,
			timed:          sizes{resident: []int{1, 4, 16, 64, 256, 1024, 4096}, mappings: []int{10, 100, 1000, 10000}, views: []int{1, 2, 8, 32, 60}, threads: []int{1, 8, 64, 256}},
			inInstructions: sizes{resident: []int{1, 4, 16, 64, 256, 1024}, mappings: []int{1, 10, 100, 1000, 10000}, views: []int{1, 2, 4, 8, 16, 32, 48, 62}, threads: []int{1, 4, 16, 64, 256}}},
		e5:  everyone{boots: 10, counted: 6, reps: 40, countedReps: 200, batch: 256},
		e6:  footprints{boots: 10, generations: 10000, views: []int{1, 2, 4, 8, 16, 32, 48, 62}, pages: []int{1, 4, 16, 64, 256, 1024}},
		e11: everyone{boots: 10, counted: 3, reps: 40, countedReps: 100, batch: 256},
		e7:  crowds{boots: 10, threads: []int{1, 4, 16, 64, 256, 512, 1024}, births: 64, durationMS: 3000, patches: 20},
		e8:  hostiles{boots: 5},
		e9:  reals{boots: 5, durationMS: 6000, changes: 5, utilisation: 40, all: true},
	},
}

// Profiles lists the names of the profiles.
func Profiles() []string {
	var out []string
	for name := range profiles {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Plan is the work of a profile: units in the order in which they are begun.
// Units that may run side by side come first, and the order of the experiments
// is otherwise theirs. only, if not empty, names the experiments wanted; it
// chooses among the units and changes none of them.
func Plan(name string, seed uint64, a Ability, only []string) ([]Unit, error) {
	p, ok := profiles[name]
	if !ok {
		return nil, fmt.Errorf("plan evaluation: no profile %q, there are %s", name, strings.Join(Profiles(), ", "))
	}
	for _, e := range only {
		if !slices.Contains(Experiments, e) {
			return nil, fmt.Errorf("plan evaluation: no experiment %q, there are %s", e, strings.Join(Experiments, ", "))
		}
	}
	if !a.Mode.Valid() {
		return nil, fmt.Errorf("plan evaluation: mode %q", a.Mode)
	}
	b := &planner{seed: seed, ability: a}
	b.e0(p.e0)
	b.e1(p.e1)
	b.e2(p.e2)
	b.e3(p.e3)
	b.e4(p.e4)
	b.e5(p.e5)
	b.e6(p.e6)
	b.e7(p.e7)
	b.e8(p.e8)
	if err := b.e9(p.e9); err != nil {
		return nil, fmt.Errorf("plan evaluation: %w", err)
	}
	b.e11(p.e11)
	units := slices.DeleteFunc(b.units, func(u Unit) bool {
		return len(only) > 0 && !slices.ContainsFunc(u.Experiments, func(e string) bool { return slices.Contains(only, e) })
	})
	slices.SortStableFunc(units, func(x, y Unit) int { return boolInt(x.Alone) - boolInt(y.Alone) })
	return units, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

type planner struct {
	seed    uint64
	ability Ability
	units   []Unit
}

// derive makes a seed from that of the run and what it is for, so that the seeds
// of one experiment do not depend on how much there is of another.
func (b *planner) derive(parts ...any) uint64 {
	h := sha256.New()
	fmt.Fprintln(h, append([]any{b.seed}, parts...)...)
	return binary.LittleEndian.Uint64(h.Sum(nil))
}

// add finishes a unit. Times are given generously: a timeout is for what hangs.
func (b *planner) add(u Unit, experiment string, parts ...any) {
	// Instructions are counted the same whoever else runs.
	u.Alone = u.Alone && u.Mode != vm.Deterministic
	u.Experiments = []string{experiment}
	u.Key = record.Key(append([]any{strings.ToLower(experiment), u.Base(), u.Variant}, parts...)...)
	u.Seed = b.derive(u.Key)
	if u.Mode == vm.Measured {
		u.Estimate /= 4
	}
	u.Timeout = 5*time.Minute + 10*u.Estimate
	rng := rand.New(rand.NewPCG(u.Seed, 1))
	rng.Shuffle(len(u.Trials), func(i, j int) { u.Trials[i], u.Trials[j] = u.Trials[j], u.Trials[i] })
	b.units = append(b.units, u)
}

const release, stock = "release", "stock"

// checked are the kernels that watch themselves.
var checked = []string{"debug", "kasan"}

// e1 runs every program under all strategies that change code; under the unsafe
// control only in release. The number of
// processors varies: one is where a thread is preempted anywhere, more than the
// host has is where a thread stops for long in the middle of anything.
func (b *planner) e1(p correctness) {
	add := func(variant string, boot, programs, memMiB int, each time.Duration, part string, strategies ...record.Strategy) {
		cpus := []int{2, 2, 4, 2, 3, 2}[boot%6]
		u := Unit{Variant: variant, Mode: b.ability.Mode, CPUs: cpus, MemMiB: memMiB, Estimate: 3*time.Second + time.Duration(programs)*each}
		for i := range programs {
			// The programs of a release boot keep their seeds whatever else is planned.
			seed := b.derive("E1", boot, i)
			if variant != release {
				seed = b.derive("E1", variant, boot, i)
			}
			program := Program{Seed: seed, Shape: workloads.Correctness}
			for _, s := range strategies {
				if s != record.StopWorld || i < p.stopped {
					u.Trials = append(u.Trials, Trial{Experiment: "E1", Program: program, Strategy: s})
				}
			}
		}
		if part != "" {
			b.add(u, "E1", part, boot)
		} else {
			b.add(u, "E1", boot)
		}
	}
	for _, variant := range checked {
		for boot := range p.checkedBoots {
			add(variant, boot, p.checkedPrograms, 768, 2*time.Second, "", record.WaitFree, record.Barrier)
		}
	}
	for boot := range p.boots {
		add(release, boot, p.programs, 512, 950*time.Millisecond, "", record.WaitFree, record.Barrier, record.StopWorld)
		// The control has a machine of its own: torn code is any code, and may
		// take an emulated machine down with it.
		add(release, boot, p.programs, 512, 500*time.Millisecond, "naive", record.Naive)
	}
}

// measuredCPUs is what programs are measured on. The load of E2 is a percentage
// of this many, so they must all be there at the same time.
func (b *planner) measuredCPUs() int { return min(max(b.ability.Cores, 1), 2) }

func (b *planner) e0(p calibration) {
	cpus := b.measuredCPUs()
	for boot := range p.boots {
		u := Unit{Variant: release, Mode: b.ability.Mode, CPUs: cpus, MemMiB: 512, Alone: true,
			Estimate: 3*time.Second + time.Duration(len(p.stallUS)*(p.durationMS+150))*time.Millisecond}
		for _, us := range p.stallUS {
			program := Program{Seed: b.derive("E0", boot, us), Shape: workloads.Latency, Serve: &workloads.ServeParams{
				Threads: 4, CPUs: cpus, Utilisation: 0.15, ServiceUS: 1000, PerRequest: 1, DurationMS: p.durationMS, Patches: p.stalls, StallUS: us}}
			u.Trials = append(u.Trials, Trial{Experiment: "E0", Program: program, Strategy: record.None, Cell: record.Cell{Threads: 4, UtilisationPct: 15, StallUS: us}})
		}
		b.add(u, "E0", boot)
	}
}

func (b *planner) e2(p latencies) {
	cpus := b.measuredCPUs()
	for boot := range p.boots {
		u := Unit{Variant: release, Mode: b.ability.Mode, CPUs: cpus, MemMiB: 512, Alone: true,
			Estimate: 2*time.Second + time.Duration(len(p.cells)*len(compared)*(p.durationMS+600))*time.Millisecond}
		for i, c := range p.cells {
			program := Program{Seed: b.derive("E2", boot, i), Shape: workloads.Latency, Serve: &workloads.ServeParams{
				Threads: c.threads, CPUs: cpus, Utilisation: float64(c.utilisation) / 100, ServiceUS: p.serviceUS, PerRequest: p.perRequest,
				LongPct: c.longPct, LongUS: c.longUS, DurationMS: p.durationMS, Patches: p.patches}}
			cell := record.Cell{Threads: c.threads, UtilisationPct: c.utilisation, LongPct: c.longPct, LongUS: c.longUS}
			for _, s := range compared {
				u.Trials = append(u.Trials, Trial{Experiment: "E2", Program: program, Strategy: s, Cell: cell})
			}
		}
		b.add(u, "E2", boot)
	}
}

func (b *planner) e3(p overs) {
	for boot := range p.boots {
		u := Unit{Variant: release, Mode: b.ability.Mode, CPUs: b.measuredCPUs(), MemMiB: 512, Alone: true,
			Estimate: 2*time.Second + time.Duration(len(p.cells)*len(followed)*(p.durationMS+150))*time.Millisecond}
		for i, c := range p.cells {
			c.DurationMS, c.Patches = p.durationMS, p.patches
			program := Program{Seed: b.derive("E3", boot, i), Shape: workloads.Over, Slow: &c}
			cell := record.Cell{Threads: c.Threads, IntervalUS: c.IntervalUS, LongPct: c.LongPct, LongUS: c.LongUS, BlockedThreads: c.Blocked}
			for _, s := range followed {
				u.Trials = append(u.Trials, Trial{Experiment: "E3", Program: program, Strategy: s, Cell: cell})
			}
		}
		b.add(u, "E3", boot)
	}
}

// fits drops the sizes that a machine would not have the memory for.
func (b *planner) fits(mib []int) []int {
	return slices.DeleteFunc(slices.Clone(mib), func(m int) bool { return machineMiB(m) > b.ability.MemMiB })
}

// machineMiB is the memory of a machine whose greatest process is this large:
// its page tables twice, and a system around it.
func machineMiB(resident int) int { return resident + resident/64 + 256 }

func list(v []int) string {
	var s []string
	for _, n := range v {
		s = append(s, strconv.Itoa(n))
	}
	return strings.Join(s, ",")
}

func (b *planner) e4(p operations) {
	add := func(mode vm.Mode, boot int, s sizes, reps int) {
		s.resident = b.fits(s.resident)
		if len(s.resident) == 0 {
			return
		}
		u := Unit{Variant: release, Mode: mode, CPUs: b.measuredCPUs(), MemMiB: machineMiB(slices.Max(s.resident)), Alone: true,
			Estimate: 10*time.Second + time.Duration(slices.Max(s.resident))*10*time.Millisecond}
		args := []string{"ops", "--reps", strconv.Itoa(reps)}
		if mode == vm.Deterministic {
			u.CPUs = 1
			args = append(args, "--short", "--batch", "128")
		}
		rng := rand.New(rand.NewPCG(b.derive("E4", mode, boot), 2))
		// A step for each factor, in random order: what one leaves behind in the
		// kernel's allocators must not always meet the same other.
		for _, i := range rng.Perm(4) {
			lists := []string{"", "", "", ""}
			lists[i] = list([][]int{s.resident, s.mappings, s.views, s.threads}[i])
			u.Measures = append(u.Measures, Measure{Experiment: "E4", Args: append(slices.Clone(args), "--seed", strconv.FormatUint(rng.Uint64()>>1, 10),
				"--resident", lists[0], "--mappings", lists[1], "--views", lists[2], "--threads", lists[3])})
		}
		b.add(u, "E4", boot)
	}
	for boot := range p.counted {
		add(vm.Deterministic, boot, p.inInstructions, max(p.reps/2, 1))
	}
	// Where everything is counted in instructions, that is it.
	if b.ability.Mode == vm.Deterministic && p.counted > 0 {
		return
	}
	for boot := range p.boots {
		add(b.ability.Mode, boot, p.timed, p.reps)
	}
}

func (b *planner) e5(p everyone) {
	type base struct {
		mode  vm.Mode
		boots int
	}
	bases := []base{{vm.Deterministic, p.counted}}
	if b.ability.Mode != vm.Deterministic {
		bases = append(bases, base{b.ability.Mode, p.boots})
	}
	// The two kernels in turn, so that what changes on the host meets both.
	for _, m := range bases {
		for boot := range m.boots {
			for _, variant := range []string{stock, release} {
				u := Unit{Variant: variant, Mode: m.mode, CPUs: b.measuredCPUs(), MemMiB: 256, Alone: true, Estimate: 8 * time.Second}
				// With more, an emulated machine has the hooks of views on from
				// the start: they would be measured where they are not wanted.
				if m.mode != vm.Measured {
					u.CPUs = 1
				}
				// The same seed for both: the same order of the same work.
				seed := b.derive("E5", m.mode, boot) >> 1
				args := []string{"mm", "--seed", strconv.FormatUint(seed, 10)}
				if m.mode == vm.Deterministic {
					u.Estimate = 20 * time.Second
					args = append(args, "--short", "--reps", strconv.Itoa(p.countedReps))
				} else {
					args = append(args, "--reps", strconv.Itoa(p.reps), "--batch", strconv.Itoa(p.batch))
				}
				// Before any view: with the first one the hooks come, for a while.
				if variant == stock {
					u.Measures = []Measure{{Experiment: "E5", Args: append(slices.Clone(args), "--without", record.SettingStock)}}
				} else {
					u.Measures = []Measure{{Experiment: "E5", Args: append(slices.Clone(args), "--without", record.SettingBase)}, {Experiment: "E5", Args: args}}
				}
				b.add(u, "E5", boot)
			}
		}
	}
}

func (b *planner) e6(p footprints) {
	for boot := range p.boots {
		u := Unit{Variant: release, Mode: b.ability.Mode, CPUs: b.measuredCPUs(), MemMiB: 512, Alone: true, Estimate: 8*time.Second + time.Duration(p.generations)*3/2*time.Millisecond}
		u.Measures = []Measure{{Experiment: "E6", Args: []string{"footprint", "--views", list(p.views), "--pages", list(p.pages), "--generations", strconv.Itoa(p.generations)}}}
		b.add(u, "E6", boot)
	}
}

// e11 also has what the instruments cost, since it wants the same machines.
func (b *planner) e11(p everyone) {
	for i, m := range []struct {
		mode  vm.Mode
		boots int
	}{{vm.Deterministic, p.counted}, {b.ability.Mode, p.boots}} {
		if i == 0 && b.ability.Mode == m.mode {
			continue // all of it is counted
		}
		for boot := range m.boots {
			u := Unit{Variant: release, Mode: m.mode, CPUs: 1, MemMiB: 256, Alone: m.mode != vm.Deterministic, Estimate: 3 * time.Second}
			args := []string{"--reps", strconv.Itoa(p.reps), "--batch", strconv.Itoa(p.batch)}
			if m.mode == vm.Deterministic {
				args = []string{"--reps", strconv.Itoa(p.countedReps), "--short"}
			}
			for _, what := range []string{"variants", "instrument"} {
				u.Measures = append(u.Measures, Measure{Experiment: "E11", Args: append([]string{what}, args...)})
			}
			b.add(u, "E11", boot)
		}
	}
}

func (b *planner) e7(p crowds) {
	for boot := range p.boots {
		u := Unit{Variant: release, Mode: b.ability.Mode, CPUs: b.measuredCPUs(), MemMiB: 512, Alone: true,
			Estimate: 3*time.Second + time.Duration(len(p.threads)*len(followed)*(p.durationMS+300))*time.Millisecond}
		for _, n := range p.threads {
			program := Program{Seed: b.derive("E7", boot, n), Shape: workloads.Many,
				Crowd: &workloads.CrowdParams{Threads: n, Births: p.births, DurationMS: p.durationMS, Patches: p.patches}}
			for _, s := range followed {
				u.Trials = append(u.Trials, Trial{Experiment: "E7", Program: program, Strategy: s, Cell: record.Cell{Threads: n, Births: p.births}})
			}
		}
		b.add(u, "E7", boot)
	}
}

func (b *planner) e8(p hostiles) {
	for boot := range p.boots {
		u := Unit{Variant: release, Mode: b.ability.Mode, CPUs: b.measuredCPUs(), MemMiB: 256, Alone: true,
			Estimate: 3*time.Second + time.Duration(len(workloads.HostilePrograms)*len(followed)*1700)*time.Millisecond}
		for _, h := range workloads.HostilePrograms {
			program := Program{Seed: b.derive("E8", boot, h), Shape: workloads.Hostiles, Hostile: h}
			for _, s := range followed {
				u.Trials = append(u.Trials, Trial{Experiment: "E8", Program: program, Strategy: s, Cell: record.Cell{Threads: 4}})
			}
		}
		b.add(u, "E8", boot)
	}
}

// e9 is in time only: where instructions are counted, servers are as slow as the
// machine, and what their clients wait for is that.
func (b *planner) e9(p reals) error {
	if b.ability.Mode == vm.Deterministic || p.boots == 0 {
		return nil
	}
	fixes, err := guest.Fixes("")
	if err != nil {
		return err
	}
	if !p.all {
		fixes = slices.CompactFunc(fixes, func(x, y [2]string) bool { return x[0] == y[0] })
	}
	for boot := range p.boots {
		for _, f := range fixes {
			u := Unit{Variant: release, Mode: b.ability.Mode, CPUs: 2, MemMiB: 768, Alone: true,
				// A start and an end of the server, twice where it is restarted, take as long as a short run.
				Estimate: 6*time.Second + time.Duration(len(compared)*(p.durationMS+1500))*time.Millisecond}
			u.Real = &Real{Program: f[0], Fix: f[1], Clients: 16, CalibrateMS: 1000}
			rng := rand.New(rand.NewPCG(b.derive("E9", boot, f), 3))
			moments := guest.Moments(rng, p.durationMS, p.changes)
			for _, i := range rng.Perm(len(compared)) {
				u.Real.Runs = append(u.Real.Runs, server.Run{Strategy: compared[i], UtilisationPct: p.utilisation, DurationMS: p.durationMS, PatchAtMS: moments})
			}
			b.add(u, "E9", f[0], f[1], boot)
		}
	}
	return nil
}

// Variants lists the kernels that units need.
func Variants(units []Unit) []string {
	var out []string
	for _, u := range units {
		out = append(out, u.Variant)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Digest names a plan: a run must not go on with another one.
func Digest(units []Unit) (string, error) {
	b, err := json.Marshal(units)
	if err != nil {
		return "", fmt.Errorf("digest plan: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}
