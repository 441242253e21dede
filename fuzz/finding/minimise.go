// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/scenario"
	"github.com/wflp/wflp/internal/build"
)

// Minimiser makes findings smaller.
type Minimiser struct {
	Try attempt.Runner
	Kit attempt.Kit
	// Jobs is how many machines run at once.
	Jobs int
	// Schedules is how many interleavings a smaller scenario is given to show the
	// failure in, in deterministic mode: with fewer instructions in it, the
	// finding's own seed interleaves the rest in another way.
	Schedules int
	// Tries is how often a smaller scenario is run elsewhere. It is taken if Hits
	// of them show the failure: a single one may be luck, and a chain of lucky
	// ones ends with a scenario that shows nothing.
	Tries, Hits int
	// On, if not nil, is told of each step.
	On func(Step)
}

// Step is one smaller scenario that was tried.
type Step struct {
	Tried, Taken int // so far
	Accepted     bool
	Size         int // of the smallest so far, in bytes as printed
	Rate         Rate
}

// MinimisedName is the folder, within that of a finding, of its smaller form.
const MinimisedName = "minimised"

// state is what a minimisation that was stopped goes on from.
type state struct {
	Schedule  uint64               `json:"schedule"`
	Scenarios []*scenario.Scenario `json:"scenarios"`
	// Rejected is how many of what is simpler than these are not tried, as they,
	// or those in the same place before the last success, were tried in vain. When
	// there are no more, all are tried again if Since says that there was a success.
	Rejected     int  `json:"rejected"`
	Since        bool `json:"since"`
	Tried, Taken int
}

const stateName = "minimise.json"

// Run makes the finding smaller until nothing simpler shows the same title, and
// writes the result as a finding of its own into the folder. Stopped at any
// moment, it goes on from the smallest so far.
func (m Minimiser) Run(ctx context.Context, f *Finding) (*Finding, error) {
	st := state{Schedule: f.Attempt.Schedule, Scenarios: f.Attempt.Scenarios}
	path := filepath.Join(f.Dir, stateName)
	if b, err := os.ReadFile(path); err == nil {
		st = state{} // into the finding's scenarios it would be merged
		if err := json.Unmarshal(b, &st); err != nil {
			return nil, fmt.Errorf("go on minimising %s: %w; remove %s to start afresh", f.Dir, err, path)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("minimise finding: %w", err)
	}
	for {
		next, err := m.pass(ctx, f, &st, func() error { return writeJSON(path, st) })
		if err != nil {
			return nil, err
		}
		switch {
		case next != nil:
			st.Schedule, st.Scenarios, st.Since = next.Schedule, next.Scenarios, true
		case st.Since:
			st.Rejected, st.Since = 0, false
		default:
			return m.finish(ctx, f, st)
		}
		if err := writeJSON(path, st); err != nil {
			return nil, fmt.Errorf("minimise finding: %w", err)
		}
	}
}

// finish writes the smallest as a finding of its own.
func (m Minimiser) finish(ctx context.Context, f *Finding, st state) (*Finding, error) {
	small := f.Attempt
	small.Schedule, small.Scenarios = st.Schedule, st.Scenarios
	res, rate, err := m.confirm(ctx, f, small)
	if err != nil {
		return nil, err
	}
	info := Info{Title: f.Title, Attempt: small, From: f.Title, Found: f.Found, Again: &rate, Exact: f.Deterministic() && rate.Hits == rate.Runs}
	dir := filepath.Join(f.Dir, MinimisedName)
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("minimise finding: %w", err)
	}
	got, err := Write(dir, info, m.Kit, res)
	if err != nil {
		return nil, err
	}
	return Read(got)
}

// confirm runs the smallest attempt twice more where runs are equal, and as often
// as a try takes elsewhere, and returns a result that shows the failure.
func (m Minimiser) confirm(ctx context.Context, f *Finding, a attempt.Attempt) (*attempt.Result, Rate, error) {
	var hit *attempt.Result
	all := Replayed{}
	for range max(2, m.Tries) {
		res, err := m.Try(ctx, a)
		if err != nil {
			return nil, all.Rate, fmt.Errorf("confirm smaller finding: %w", err)
		}
		before := all.Hits
		all.count(f.Title, res)
		if all.Hits > before && hit == nil {
			hit = res
		}
		if f.Deterministic() && all.Runs == 2 {
			break
		}
	}
	if hit == nil {
		return nil, all.Rate, fmt.Errorf("confirm smaller finding: %s: none shows %q", all.Rate, f.Title)
	}
	return hit, all.Rate, nil
}

// simpler yields attempts that are simpler than the one of st: without scenarios
// that ran before the failing one, then with a smaller failing one.
func simpler(a attempt.Attempt, st state) iter.Seq[attempt.Attempt] {
	return func(yield func(attempt.Attempt) bool) {
		a.Schedule = st.Schedule
		last := len(st.Scenarios) - 1
		for size := last; size > 0; size /= 2 {
			for from := 0; from < last; from += size {
				a.Scenarios = slices.Delete(slices.Clone(st.Scenarios), from, min(from+size, last))
				if !yield(a) {
					return
				}
			}
		}
		for s := range st.Scenarios[last].Shrink() {
			a.Scenarios = append(slices.Clone(st.Scenarios[:last]), s)
			if !yield(a) {
				return
			}
		}
	}
}

// pass tries what is simpler than st, several at once, and returns the first in
// the order of simpler that shows the failure; nil if none does. Which it is does
// not depend on which machine was done first.
func (m Minimiser) pass(ctx context.Context, f *Finding, st *state, save func() error) (*attempt.Attempt, error) {
	next, stop := iter.Pull(simpler(f.Attempt, *st))
	defer stop()
	for range st.Rejected {
		next()
	}
	for {
		var batch []attempt.Attempt
		for len(batch) < max(m.Jobs, 1) {
			a, ok := next()
			if !ok {
				break
			}
			batch = append(batch, a)
		}
		if len(batch) == 0 {
			return nil, nil
		}
		hits := make([]*attempt.Attempt, len(batch))
		rates := make([]Rate, len(batch))
		errs := make([]error, len(batch))
		var wg sync.WaitGroup
		for i, a := range batch {
			wg.Go(func() { hits[i], rates[i], errs[i] = m.try(ctx, f, a) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, fmt.Errorf("minimise finding: %w", err)
		}
		for i, h := range hits {
			st.Tried++
			if h != nil {
				st.Taken++
			}
			if m.On != nil {
				size := st.Scenarios
				if h != nil {
					size = h.Scenarios
				}
				m.On(Step{Tried: st.Tried, Taken: st.Taken, Accepted: h != nil, Size: sizeOf(size), Rate: rates[i]})
			}
			if h != nil {
				return h, nil
			}
			st.Rejected++
		}
		if err := save(); err != nil {
			return nil, fmt.Errorf("minimise finding: %w", err)
		}
	}
}

func sizeOf(list []*scenario.Scenario) int {
	n := 0
	for _, s := range list {
		if b, err := s.Marshal(); err == nil {
			n += len(b)
		}
	}
	return n
}

// try runs an attempt under several schedules, or several times, and returns it,
// with the schedule that shows the failure, if it may be taken.
func (m Minimiser) try(ctx context.Context, f *Finding, a attempt.Attempt) (*attempt.Attempt, Rate, error) {
	var all Replayed
	runs, need := m.Tries, m.Hits
	if f.Deterministic() {
		runs, need = m.Schedules, 1
	}
	for i := range max(runs, 1) {
		b := a
		if f.Deterministic() {
			b.Schedule = a.Schedule + uint64(i)
		}
		res, err := m.Try(ctx, b)
		if err != nil {
			return nil, all.Rate, err
		}
		all.count(f.Title, res)
		if all.Hits >= need {
			return &b, all.Rate, nil
		}
		if runs-all.Runs < need-all.Hits {
			break
		}
	}
	return nil, all.Rate, nil
}

// Checked is whether another kernel still shows a finding.
type Checked struct {
	// Before is how often the finding's own kernel shows it over many schedules.
	Before Rate
	// After is the same of the other kernel; it ends at the first hit.
	After Rate
	// Needed is how many runs without a hit say with Confidence that it is gone.
	Needed     int
	Confidence float64
}

// Shown says that the other kernel still has it.
func (c Checked) Shown() bool { return c.After.Hits > 0 }

// Gone says that enough decided runs showed nothing.
func (c Checked) Gone() bool {
	return c.After.Hits == 0 && c.Needed > 0 && c.After.Runs-c.After.Undecided >= c.Needed
}

// Check asks whether another kernel still shows the finding. A changed kernel
// executes other instructions, so the finding's seed alone says nothing: both are
// run under many schedules, its own kernel first.
func (f *Finding) Check(ctx context.Context, own, other attempt.Runner, sample, most int, confidence float64, on func(before bool, r Rate)) (Checked, error) {
	c := Checked{Confidence: confidence}
	run := func(try attempt.Runner, r *Rate, i int) error {
		a := f.Attempt
		a.Schedule += uint64(i)
		res, err := try(ctx, a)
		if err != nil {
			return fmt.Errorf("check finding: %w", err)
		}
		all := Replayed{Rate: *r}
		all.count(f.Title, res)
		*r = all.Rate
		if on != nil {
			on(r == &c.Before, *r)
		}
		return nil
	}
	for i := range sample {
		if err := run(own, &c.Before, i); err != nil {
			return c, err
		}
	}
	if c.Needed = c.Before.RunsNeeded(confidence); c.Needed == 0 {
		return c, nil
	}
	for i := 0; i < most && c.After.Hits == 0 && c.After.Runs-c.After.Undecided < c.Needed; i++ {
		if err := run(other, &c.After, i); err != nil {
			return c, err
		}
	}
	return c, nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return build.WriteFileAtomic(path, append(b, '\n'), 0o644)
}
