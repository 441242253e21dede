// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/realworld/server"
	"github.com/wflp/wflp/vmimages/vm"
)

func clean() server.RunOutcome {
	return server.RunOutcome{
		Run: server.Run{Strategy: record.WaitFree, UtilisationPct: 40}, Threads: 9, Requests: 3, Rate: 100,
		Patches: []server.PatchOutcome{{QueuedNS: 1000, DoneNS: 9000, Over: server.Over{PublishedNS: 2000, FirstOverNS: 3000, LastOverNS: 4000}}},
		Probes:  []server.ProbeOutcome{{Defect: true}, {Patched: true, Older: true}, {Patched: true}},
	}
}

func TestViolations(t *testing.T) {
	if v := Violations(clean()); len(v) > 0 {
		t.Fatalf("a clean run: %q", v)
	}
	for name, spoil := range map[string]func(*server.RunOutcome){
		"lost":        func(r *server.RunOutcome) { r.Lost = 1 },
		"wrong":       func(r *server.RunOutcome) { r.Wrong = 1 },
		"dropped":     func(r *server.RunOutcome) { r.Dropped = 1 },
		"idle":        func(r *server.RunOutcome) { r.Requests = 0 },
		"no run":      func(r *server.RunOutcome) { r.Error = "killed" },
		"refused":     func(r *server.RunOutcome) { r.Patches[0].Error = "refused" },
		"still there": func(r *server.RunOutcome) { r.Probes[1].Defect = true },
		"never there": func(r *server.RunOutcome) { r.Probes[0].Defect = false },
		"unanswered":  func(r *server.RunOutcome) { r.Probes[2].Error = "EOF" },
	} {
		r := clean()
		spoil(&r)
		if len(Violations(r)) != 1 {
			t.Errorf("%s: %q", name, Violations(r))
		}
	}
	r := clean()
	r.Strategy, r.Lost, r.Dropped = record.Restart, 16, 16
	if v := Violations(r); len(v) > 0 {
		t.Errorf("a restart loses requests, and that is no violation of its own: %q", v)
	}
}

func TestProgramRecord(t *testing.T) {
	r := clean()
	samples := []server.Sample{{ArrivalNS: 999, LatencyNS: 5}, {ArrivalNS: 1000, LatencyNS: 7}, {ArrivalNS: 1000 + window.Nanoseconds(), LatencyNS: 9}}
	p, err := Program(Made{Server: server.Server{Name: "memcached"}, Fix: "F", Version: "1"}, server.Calibration{Rate: 250}, r, samples)
	if err != nil {
		t.Fatal(err)
	}
	if p.Patches != 1 || p.PatchesFailed != 0 || p.FirstNS[0] != 2000 || p.LastNS[0] != 3000 || p.Window.N() != 1 || p.Steady.N() != 2 || p.Requests != 3 ||
		!strings.Contains(p.Note, "100 requests a second of 250") {
		t.Errorf("%+v", p)
	}
	r.Patches[0].Error = "refused"
	if p, err = Program(Made{}, server.Calibration{}, r, nil); err != nil || p.Patches != 0 || p.PatchesFailed != 1 || len(p.LastNS) != 0 {
		t.Errorf("a refused patch: %+v, %v", p, err)
	}
}

func TestCount(t *testing.T) {
	bad := clean()
	bad.Strategy, bad.Lost = record.Barrier, 1
	res := &Result{Machine: new(vm.Result), Outcome: server.Outcome{Runs: []server.RunOutcome{clean(), bad}}, Samples: make([][]server.Sample, 2)}
	u, err := Unit("e9/tcg/memcached/F/0000", Config{}, record.TCG, res)
	if err != nil {
		t.Fatal(err)
	}
	if passed, failed := Count([]record.Unit{u}); passed != 1 || failed != 1 {
		t.Errorf("%d passed, %d failed: %q", passed, failed, u.Boot.Incidents)
	}
	u.Boot.Complaints = []record.Complaint{{Kind: "warning"}}
	if passed, failed := Count([]record.Unit{u}); passed != 0 || failed != 2 {
		t.Errorf("with a complaint of the kernel: %d passed, %d failed", passed, failed)
	}
}

func TestMoments(t *testing.T) {
	seen := map[int]bool{}
	for seed := range uint64(50) {
		m := Moments(rand.New(rand.NewPCG(seed, 3)), 1000, 3)
		if len(m) != 3 || !slices.IsSorted(m) || m[0] < 200 || m[2] >= 800 {
			t.Fatalf("seed %d: %v", seed, m)
		}
		seen[m[0]] = true
	}
	if len(seen) < 20 {
		t.Errorf("50 seeds, %d moments", len(seen))
	}
}
