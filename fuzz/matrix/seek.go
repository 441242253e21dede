// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/campaign"
	"github.com/wflp/wflp/fuzz/finding"
	"github.com/wflp/wflp/vmimages/vm"
)

// Campaigns looks for defects of the kernel.
type Campaigns struct {
	// Kits are what the machines of a cell are made of, by Setup.String(); for Control the
	// unmutated kernels.
	Kits func(ctx context.Context, c Cell) (map[string]attempt.Kit, error)
	// Try makes an attempt in machines of a cell; nil: made of Kits.
	Try func(c Cell, kits map[string]attempt.Kit) attempt.Runner
	// Jobs is how many processors of the host a cell keeps busy.
	Jobs int
	// On is told how a campaign goes.
	On func(Cell, campaign.Status)
}

// schedules are the interleavings under which a finding is run on the unmutated
// kernel, beside its own: as that is another program, its own means less there.
const schedules = 3

// Seek is a Seeker: a campaign that ends with its first finding that counts.
func (k Campaigns) Seek(ctx context.Context, s Settings, c Cell, dir string, known map[string]bool) (Result, error) {
	t := treatment(s, c.Treatment)
	kits, err := k.Kits(ctx, c)
	if err != nil {
		return Result{}, err
	}
	set := campaign.Settings{Seed: c.Seed, Blind: t.Blind, Lanes: slices.Clone(t.Lanes)}
	for i := range set.Lanes {
		set.Lanes[i].MadeOf(kits[set.Lanes[i].Setup.String()])
	}
	var r Result
	for {
		run := campaign.Campaign{Dir: dir, Settings: set, Jobs: k.Jobs, Kits: kits, Confirm: 1,
			// The control cells were the same machines, and what stands is asked of the
			// unmutated kernel before it counts.
			Able:   c.Mutant != Control,
			Bounds: campaign.Bounds{Time: s.Cap(), Findings: len(r.False) + 1}}
		if c.Mutant == Control {
			run.Bounds.Findings = 0 // all that it shows are false alarms, or worse
		}
		if k.Try != nil {
			run.Try = k.Try(c, kits)
		}
		if k.On != nil {
			run.On = func(st campaign.Status) { k.On(c, st) }
		}
		runErr := run.Run(ctx)
		var be *vm.BootError
		if runErr != nil && !errors.As(runErr, &be) {
			return r, runErr
		}
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		entries, err := campaign.ReadLog(dir)
		if err != nil {
			return r, err
		}
		before := r.False
		r = Result{State: Censored}
		for _, e := range entries {
			r.Seconds = max(r.Seconds, e.AtS)
			if e.Machine {
				r.NotStarted++
				continue
			}
			r.Iterations++
			if e.Title == "" || slices.Contains(r.False, e.Title) {
				continue
			}
			if c.Mutant == Control || slices.Contains(before, e.Title) || known[e.Title] {
				r.False = append(r.False, e.Title)
				continue
			}
			f, err := finding.Read(filepath.Join(dir, campaign.FindingsName, finding.Name(e.Title)))
			if err != nil {
				return r, err
			}
			ok, err := k.counts(ctx, c, f)
			if err != nil {
				return r, err
			}
			if !ok {
				r.False = append(r.False, e.Title)
				continue
			}
			r.State, r.Title, r.Seconds = Found, e.Title, e.AtS
			for kind := range f.Kinds {
				r.Kinds = append(r.Kinds, string(kind))
			}
			slices.Sort(r.Kinds)
			// The finding is of a machine without the scenarios that came after; if
			// that one did not show it, the title still says what it was.
			if kind, _, ok := strings.Cut(e.Title, ": "); ok && len(r.Kinds) == 0 {
				r.Kinds = []string{kind}
			}
			return r, nil
		}
		if runErr != nil {
			return r, runErr // machines that do not start, and nothing found before
		}
		if c.Mutant != Control && r.Seconds < s.CapS && len(r.False) > len(before) {
			continue // it ended with titles that do not count
		}
		// It ended with its time: no machine was begun after the cap, and all
		// that were have been watched to their end.
		r.Seconds = max(r.Seconds, s.CapS)
		return r, nil
	}
}

func treatment(s Settings, name string) Treatment {
	for _, t := range s.Treatments {
		if t.Name == name {
			return t
		}
	}
	return Treatment{}
}

// counts says whether the unmutated kernel is free of a finding: the same machine,
// with its own schedule and with others, does not show the title there.
func (k Campaigns) counts(ctx context.Context, c Cell, f *finding.Finding) (bool, error) {
	control := c
	control.Mutant = Control
	kits, err := k.Kits(ctx, control)
	if err != nil {
		return false, err
	}
	try := attempt.Machines(kits[f.Attempt.Setup.String()], "")
	if k.Try != nil {
		try = k.Try(control, kits)
	}
	for i := range uint64(1 + schedules) {
		a := f.Attempt
		a.Schedule += i
		res, err := try(ctx, a)
		if err != nil {
			return false, fmt.Errorf("run finding on the unmutated kernel: %w", err)
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		for _, o := range res.Outcomes {
			if o.Title == f.Title {
				return false, nil
			}
		}
	}
	return true, nil
}
