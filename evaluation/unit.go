// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"fmt"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/realworld/server"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
)

// Unit is one boot.
type Unit struct {
	Key         string
	Experiments []string
	Variant     string // of the kernel
	Mode        vm.Mode
	CPUs        int
	MemMiB      int
	Seed        uint64 // of the machine
	// Alone: its times are real ones, and no other machine may disturb them.
	Alone bool
	// Estimate is about how long it takes; Timeout ends it.
	Estimate, Timeout time.Duration
	// A unit has trials, or measures, in the order in which they are run, or a
	// real program.
	Trials   []Trial
	Measures []Measure
	Real     *Real `json:",omitempty"`
}

// Real is a real program that takes a fix under load, in a run for each strategy.
type Real struct {
	Program, Fix         string
	Clients, CalibrateMS int
	Runs                 []server.Run
}

// Trial is one program under one strategy.
type Trial struct {
	Experiment string
	Program    Program
	Strategy   record.Strategy
	Cell       record.Cell
}

// Program says how a spec is made: by the generator of its shape with these
// parameters, nil being the defaults.
type Program struct {
	Seed  uint64
	Shape workloads.Shape
	Serve *workloads.ServeParams
	Slow  *workloads.SlowParams
	Crowd *workloads.CrowdParams
	// Hostile is one of the hostile programs.
	Hostile workloads.HostileProgram
}

// Spec generates the program.
func (p Program) Spec() (*workloads.Spec, error) {
	switch {
	case p.Serve != nil && p.Shape == workloads.Latency:
		return workloads.Serve(p.Seed, *p.Serve), nil
	case p.Slow != nil && p.Shape == workloads.Over:
		return workloads.Slow(p.Seed, *p.Slow), nil
	case p.Crowd != nil && p.Shape == workloads.Many:
		return workloads.Crowd(p.Seed, *p.Crowd), nil
	case p.Hostile != "" && p.Shape == workloads.Hostiles:
		return workloads.Hostile(p.Seed, p.Hostile)
	case p.Serve != nil || p.Slow != nil || p.Crowd != nil || p.Hostile != "":
		return nil, fmt.Errorf("generate spec: parameters of another shape than %q", p.Shape)
	}
	return workloads.Generate(p.Seed, p.Shape)
}

// Measure is one invocation of the micro-benchmarks.
type Measure struct {
	Experiment string
	Args       []string // of wflp-micro
}

// Base is what a nanosecond of the unit is.
func (u Unit) Base() record.TimeBase { return base(u.Mode) }

func base(m vm.Mode) record.TimeBase {
	switch m {
	case vm.Measured:
		return record.KVM
	case vm.Deterministic:
		return record.ICount
	}
	return record.TCG
}
