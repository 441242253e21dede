// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/realworld/server"
)

// window is what of a run counts as being about a patch: from the moment that
// it is asked for. A restart takes longer, and its latencies outside of the
// window are as visible in those of the steady state.
const window = 500 * time.Millisecond

// Program makes the record of a run.
func Program(made Made, cal server.Calibration, run server.RunOutcome, samples []server.Sample) (record.Program, error) {
	p := record.Program{Experiment: "E9", Program: made.Server.Name, Version: made.Version, Fix: made.Fix, Strategy: run.Strategy,
		Cell:     record.Cell{UtilisationPct: run.UtilisationPct},
		Requests: run.Requests, Lost: run.Lost, Wrong: run.Wrong, Dropped: run.Dropped,
		WindowNS: window.Nanoseconds(), Window: new(record.Hist), Steady: new(record.Hist)}
	notes := []string{fmt.Sprintf("%d threads", run.Threads), fmt.Sprintf("%.0f requests a second of %.0f", run.Rate, cal.Rate),
		fmt.Sprintf("server %.0f %% and clients %.0f %% of a processor (%.0f %% and %.0f %% when all clients were busy)", run.ServerPct, run.ClientPct, cal.ServerPct, cal.ClientPct)}
	if run.Error != "" {
		notes = append(notes, "no run: "+run.Error)
	}
	for i, c := range run.Patches {
		switch {
		case run.Strategy == record.None:
		case c.Error != "":
			p.PatchesFailed++
			notes = append(notes, fmt.Sprintf("change %d: %s", i, c.Error))
		default:
			p.Patches++
			first, last := c.FirstOverNS, c.LastOverNS
			if run.Strategy == record.Restart {
				first, last = c.DoneNS, c.DoneNS
			}
			p.FirstNS, p.LastNS = append(p.FirstNS, since(first, c.QueuedNS)), append(p.LastNS, since(last, c.QueuedNS))
		}
	}
	if n := len(run.Patches); n > 1 && run.Strategy != record.None {
		a, b := run.Patches[0].Memory, run.Patches[n-1].Memory
		notes = append(notes, fmt.Sprintf("%d KiB resident after the first change and %d after %d, %d KiB available in the machine and %d", a.ResidentKiB, b.ResidentKiB, n, a.AvailableKiB, b.AvailableKiB))
	}
	for _, s := range samples {
		h := p.Steady
		for _, c := range run.Patches {
			if d := s.ArrivalNS - c.QueuedNS; d >= 0 && d < p.WindowNS {
				h = p.Window
			}
		}
		if err := h.Add(s.LatencyNS); err != nil {
			return p, fmt.Errorf("record run of %s: %w", made.Server.Name, err)
		}
	}
	for _, q := range run.Probes {
		notes = append(notes, probeNote(q))
	}
	notes = append(notes, run.Complaints...)
	p.Note = strings.Join(notes, "; ")
	return p, nil
}

func since(at, from int64) int64 {
	if at == 0 {
		return 0
	}
	return at - from
}

func probeNote(q server.ProbeOutcome) string {
	state, conn, what := "without the fix", "a new connection", "the defect is not there"
	if q.Patched {
		state = "with the fix"
	}
	if q.Older {
		conn = "a connection older than the patch"
	}
	if q.Defect {
		what = "the defect is there"
	}
	if q.Error != "" {
		what = "unknown, " + q.Error
	}
	return fmt.Sprintf("%s, over %s: %s (%s)", state, conn, what, q.Said)
}

// Violations lists what must not be in a run under a strategy that patches live.
// A probe that could not be answered is none, but it is no pass either.
func Violations(run server.RunOutcome) []string {
	var out []string
	if run.Error != "" {
		out = append(out, run.Error)
	}
	for _, q := range run.Probes {
		if q.Error != "" || q.Defect == q.Patched {
			out = append(out, probeNote(q))
		}
	}
	for i, c := range run.Patches {
		if c.Error != "" {
			out = append(out, fmt.Sprintf("change %d: %s", i, c.Error))
		}
	}
	if run.Strategy != record.Restart && run.Lost+run.Wrong+run.Dropped > 0 {
		out = append(out, fmt.Sprintf("%d requests lost, %d answered wrongly, %d connections dropped: %s", run.Lost, run.Wrong, run.Dropped, strings.Join(run.Complaints, "; ")))
	}
	if run.Error == "" && run.Requests == 0 {
		out = append(out, "no request was sent")
	}
	return out
}

// Unit makes the records of a boot.
func Unit(key string, cfg Config, base record.TimeBase, res *Result) (record.Unit, error) {
	m := res.Machine
	u := record.Unit{Key: key, Boot: record.Boot{Experiments: []string{"E9"}, TimeBase: base, Variant: cfg.Kernel.Variant, KernelDigest: cfg.Kernel.Digest,
		CPUs: cfg.CPUs, MemMiB: cfg.MemMiB, Seed: record.Seed(cfg.Seed), Release: m.Hello.Release, QEMU: m.QEMU, DurationNS: m.Duration.Nanoseconds(), End: string(m.End),
		Packages: cfg.Made.Packages}}
	u.Boot.Incidents = server.OtherPackages(cfg.Made.Packages)
	for _, c := range m.Complaints {
		u.Boot.Complaints = append(u.Boot.Complaints, record.Complaint{Kind: string(c.Kind), Text: c.Title})
	}
	for i, run := range res.Outcome.Runs {
		p, err := Program(cfg.Made, res.Outcome.Calibration, run, res.Samples[i])
		if err != nil {
			return u, err
		}
		u.Programs = append(u.Programs, p)
		for _, bad := range Violations(run) {
			u.Boot.Incidents = append(u.Boot.Incidents, fmt.Sprintf("%s: %s", run.Strategy, bad))
		}
	}
	return u, nil
}

// Violation is what must not be in a run of a unit.
type Violation struct {
	Strategy record.Strategy
	Note     string
}

// Bad lists what the incidents of a boot say of its runs.
func Bad(u record.Unit) []Violation {
	var out []Violation
	for _, i := range u.Boot.Incidents {
		name, note, _ := strings.Cut(i, ": ")
		if slices.ContainsFunc(u.Programs, func(p record.Program) bool { return string(p.Strategy) == name }) {
			out = append(out, Violation{record.Strategy(name), note})
		}
	}
	return out
}

// Count says how many runs of the units were as they must be. All runs of a
// machine whose kernel complained are not.
func Count(units []record.Unit) (passed, failed int) {
	for _, u := range units {
		bad := Bad(u)
		for _, p := range u.Programs {
			if len(u.Boot.Complaints) > 0 || slices.ContainsFunc(bad, func(v Violation) bool { return v.Strategy == p.Strategy }) {
				failed++
			} else {
				passed++
			}
		}
	}
	return passed, failed
}

// Moments draws when the code is changed in a run: once in each of n equal parts
// of the time in which there is load before and after, at any millisecond of it.
func Moments(rng *rand.Rand, durationMS, n int) []int {
	out := make([]int, n)
	from, part := durationMS/5, max(durationMS*3/5/n, 1)
	for i := range out {
		out[i] = from + i*part + rng.IntN(part)
	}
	return out
}
