// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"fmt"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/workloads"
)

// Repeat is the command that runs a trial again, in a machine like that of its
// unit.
func Repeat(u Unit, t Trial) string {
	b := []string{"wflp run", fmt.Sprintf("--seed %d", t.Program.Seed), "--shape " + string(t.Program.Shape), "--strategy " + string(t.Strategy),
		"--variant " + u.Variant, "--mode " + string(u.Mode), fmt.Sprintf("--cpus %d --mem %d", u.CPUs, u.MemMiB)}
	add := func(name string, v int) {
		if v != 0 {
			b = append(b, fmt.Sprintf("--%s %d", name, v))
		}
	}
	if p := t.Program.Serve; p != nil {
		add("threads", p.Threads)
		add("load-cpus", p.CPUs)
		add("utilisation", int(p.Utilisation*100+0.5))
		add("service-us", p.ServiceUS)
		add("per-request", p.PerRequest)
		add("long-pct", p.LongPct)
		add("long-us", p.LongUS)
		add("duration-ms", p.DurationMS)
		add("patches", p.Patches)
		add("stall-us", p.StallUS)
	}
	if p := t.Program.Slow; p != nil {
		add("threads", p.Threads)
		add("interval-us", p.IntervalUS)
		add("long-pct", p.LongPct)
		add("long-us", p.LongUS)
		add("blocked", p.Blocked)
		add("blocked-us", p.BlockedUS)
		add("duration-ms", p.DurationMS)
		add("patches", p.Patches)
	}
	if p := t.Program.Crowd; p != nil {
		add("threads", p.Threads)
		add("births", p.Births)
		add("duration-ms", p.DurationMS)
		add("patches", p.Patches)
	}
	if p := t.Program.Hostile; p != "" {
		b = append(b, "--hostile "+string(p))
	}
	return strings.Join(b, " ")
}

// Again holds the numbers that Repeat writes, by the names of its flags.
type Again struct {
	Seed        uint64 `flag:"seed"`
	Shape       string `flag:"shape"`
	Threads     int    `flag:"threads"`
	LoadCPUs    int    `flag:"load-cpus"`
	Utilisation int    `flag:"utilisation"`
	ServiceUS   int    `flag:"service-us"`
	PerRequest  int    `flag:"per-request"`
	IntervalUS  int    `flag:"interval-us"`
	LongPct     int    `flag:"long-pct"`
	LongUS      int    `flag:"long-us"`
	Blocked     int    `flag:"blocked"`
	BlockedUS   int    `flag:"blocked-us"`
	DurationMS  int    `flag:"duration-ms"`
	Patches     int    `flag:"patches"`
	Births      int    `flag:"births"`
	StallUS     int    `flag:"stall-us"`
	Hostile     string `flag:"hostile"`
}

// Program is the one that they describe.
func (a Again) Program() Program {
	p := Program{Seed: a.Seed, Shape: workloads.Shape(a.Shape)}
	switch p.Shape {
	case workloads.Latency:
		p.Serve = &workloads.ServeParams{Threads: a.Threads, CPUs: a.LoadCPUs, Utilisation: float64(a.Utilisation) / 100, ServiceUS: a.ServiceUS,
			PerRequest: a.PerRequest, LongPct: a.LongPct, LongUS: a.LongUS, DurationMS: a.DurationMS, Patches: a.Patches, StallUS: a.StallUS}
	case workloads.Over:
		p.Slow = &workloads.SlowParams{Threads: a.Threads, IntervalUS: a.IntervalUS, LongPct: a.LongPct, LongUS: a.LongUS, Blocked: a.Blocked,
			BlockedUS: a.BlockedUS, DurationMS: a.DurationMS, Patches: a.Patches}
	case workloads.Many:
		p.Crowd = &workloads.CrowdParams{Threads: a.Threads, Births: a.Births, DurationMS: a.DurationMS, Patches: a.Patches}
	case workloads.Hostiles:
		p.Hostile = workloads.HostileProgram(a.Hostile)
	}
	return p
}

// Strategies that a program can be run under.
func Strategies() []record.Strategy {
	return []record.Strategy{record.None, record.WaitFree, record.Barrier, record.StopWorld, record.Restart, record.Naive}
}
