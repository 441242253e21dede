// SPDX-License-Identifier: Apache-2.0

package workloads

import "fmt"

// CrowdParams describe a program of many threads, few of which run at a time;
// zero means the default.
type CrowdParams struct {
	Threads    int // default 64
	Births     int // threads that are born and die while patches arrive, default 0
	DurationMS int // default 600
	Patches    int // default 4
}

// Of the threads of a crowd these never sleep.
const crowdBusy = 2

// Crowd makes a Spec of shape crowd, as of a server with a thread for each
// connection: the threads sleep, offline, and wake for one transaction now and
// then, so often that all together take about a quarter of one CPU.
func Crowd(seed uint64, p CrowdParams) *Spec {
	orElse(&p.Threads, 64)
	orElse(&p.DurationMS, 600)
	orElse(&p.Patches, 4)
	g := newGen(seed, false)
	s := &Spec{Format: Format, Seed: seed, Shape: Many, Depth: 1, WatchdogMS: 30000 + 20*p.DurationMS}
	s.Text.Backing = Memfd
	s.Functions = g.functions(6, 4)
	span := p.DurationMS * 1000
	s.Patches = g.spread(s.Functions, p.Patches, float64(span))
	for i := range p.Threads {
		w := Worker{Parent: -1, Interval: 1, SpinUS: 1000, Cap: 8*p.DurationMS + 100}
		w.Roots = []int{g.Intn(len(s.Functions)), g.Intn(len(s.Functions))}
		if i >= crowdBusy {
			// Not all alike, or they would wake together.
			mean := max(400*p.Threads, 2000)
			w.SpinUS, w.BlockedUS = 100, mean*3/4+g.Intn(mean/2)
			w.Cap = 16*span/w.BlockedUS + 20
		}
		s.Workers = append(s.Workers, w)
	}
	for k := range p.Births {
		s.Workers = append(s.Workers, Worker{Parent: 0, BornAt: 1 + k*p.DurationMS/(2*p.Births), Interval: 1,
			Roots: []int{g.Intn(len(s.Functions))}, SpinUS: 500, Txns: 4, Cap: 10})
	}
	return s
}

// A hostile program has a thread that keeps others from being patched, or would.
type HostileProgram string

// Hostile programs.
const (
	// HostileBusy: a thread runs, in code that is not patchable, and comes to no
	// quiescence point.
	HostileBusy HostileProgram = "busy"
	// HostileAsleep: threads block for ever, offline.
	HostileAsleep HostileProgram = "asleep"
	// HostileBlocked: threads block for ever, and the program did not say so.
	HostileBlocked HostileProgram = "blocked"
	// HostileLock: a thread passes quiescence points with a lock held that another
	// waits for.
	HostileLock HostileProgram = "lock"
)

// HostilePrograms lists them.
var HostilePrograms = []HostileProgram{HostileBusy, HostileAsleep, HostileBlocked, HostileLock}

// HostileForMS stands for ever: it is when the threads that do not come to a
// quiescence point do so after all. A patch that takes this long waited for them.
const HostileForMS = 1200

// Hostile makes a Spec of shape hostile: four threads, and one patch after 100 ms.
func Hostile(seed uint64, program HostileProgram) (*Spec, error) {
	g := newGen(seed, false)
	// What is slow on a slow machine must not pass for stuck.
	s := &Spec{Format: Format, Seed: seed, Shape: Hostiles, Depth: 1, WatchdogMS: HostileForMS * 10}
	s.Text.Backing = Memfd
	s.Functions = g.functions(4, 4)
	s.Patches = g.patches(s.Functions, 1, 100_000, 0)
	for range 4 {
		// They sleep in between, so that the one that runs on has a processor.
		w := Worker{Parent: -1, Interval: 1, SpinUS: 200, BlockedUS: 1000, Cap: 20 * HostileForMS}
		w.Roots = []int{g.Intn(len(s.Functions)), g.Intn(len(s.Functions))}
		s.Workers = append(s.Workers, w)
	}
	const ever = HostileForMS * 1000
	switch program {
	case HostileBusy:
		w := &s.Workers[3]
		w.SpinUS, w.BlockedUS, w.Txns = ever, 0, 1
	case HostileAsleep, HostileBlocked:
		for i := 2; i < 4; i++ {
			w := &s.Workers[i]
			w.BlockedUS, w.Txns, w.WaitOnline = ever, 1, program == HostileBlocked
		}
	case HostileLock:
		s.WatchdogMS = HostileForMS * 2 // where it gets stuck it takes all of this
		for i := range s.Workers {
			s.Workers[i].SpinUS, s.Workers[i].BlockedUS = 500, 0
		}
		// The first has the lock when the patch comes, and for some time yet; the
		// second, which takes it again and again until then, waits for it.
		s.Workers[0].Actions = []Action{{At: 1, Kind: Lock}, {At: 250, Kind: Unlock}}
		s.Workers[0].Txns = 300
		for at := 1; at < 600; at++ {
			s.Workers[1].Actions = append(s.Workers[1].Actions, Action{At: at, Kind: Lock}, Action{At: at, Kind: Unlock})
		}
	default:
		return nil, fmt.Errorf("generate spec: no hostile program %q, there are %v", program, HostilePrograms)
	}
	return s, nil
}
