// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/wflp/wflp/evaluation"
	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/campaign"
	"github.com/wflp/wflp/fuzz/matrix"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/vm"
)

// Names of the ways of looking for defects.
const (
	guided = "guided"
	blind  = "blind"
	free   = "free"
)

func fuzzMatrix(ctx context.Context, inv *invocation) error {
	fs := inv.flags("fuzz matrix")
	out := fs.String("out", "out/matrix", "folder of the matrix; one that is there is gone on with")
	seeds := fs.Int("seeds", 5, "campaigns for each defect")
	first := fs.Uint64("seed", 1, "the first seed")
	limit := fs.Duration("cap", 10*time.Minute, "time of a campaign")
	only := fs.String("mutants", "", "defects whose number and name match this regular expression (default: all)")
	every := fs.Int("every", 1, "of these, each N-th by number, the first among them: a sample for other machines")
	lanes := fs.String("lanes", "debug/deterministic", "kinds of machines: VARIANT/MODE:WEIGHT or VARIANT/MODE+tlb:WEIGHT, with commas")
	withBlind := fs.Bool("blind", false, "look for each of them without guidance as well")
	freeLanes := fs.String("free", "", "look for each of them in these machines as well: release/fast, say")
	cpus := fs.Int("cpus", vm.DefaultCPUs, "virtual processors of a machine")
	batchSize := fs.Int("batch", 8, "scenarios that one machine runs")
	jobs := fs.Int("jobs", runtime.NumCPU(), "processors of this machine to keep busy")
	shard := fs.String("shard", "0/1", "I/N: the I-th of N parts, the first is 0; folders cells of all parts together are the whole")
	report := fs.Bool("report", false, "run nothing, only make the tables and figures again")
	if err := inv.parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("%q: fuzz matrix takes flags only", fs.Arg(0))
	}
	if *report {
		return inv.matrixReport(*out)
	}
	m := matrix.Matrix{Dir: *out}
	if n, err := fmt.Sscanf(*shard, "%d/%d", &m.Shard, &m.Shards); n != 2 || err != nil || m.Shard < 0 || m.Shard >= m.Shards {
		return usagef("-shard %s: want I/N with I from 0 to N-1", *shard)
	}
	if *seeds < 1 || *limit <= 0 || *every < 1 {
		return usagef("-seeds, -cap and -every must be greater than 0")
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return usagef("-mutants: %v", err)
	}
	maker, err := inv.maker(kernelFlags{})
	if err != nil {
		return err
	}
	all, err := kernel.ReadMutants(maker.Builder.RepoRoot)
	if err != nil {
		return err
	}
	s := matrix.Settings{Seed: *first, Seeds: *seeds, CapS: limit.Seconds()}
	matched := 0
	for _, d := range all {
		if match.MatchString(d.String()) {
			if matched%*every == 0 {
				s.Mutants = append(s.Mutants, matrix.Of(d))
			}
			matched++
		}
	}
	if len(s.Mutants) == 0 {
		return usagef("-mutants %s: none of the %d in kernel/mutants", *only, len(all))
	}
	add := func(name, text string, isBlind bool) error {
		t := matrix.Treatment{Name: name, Blind: isBlind}
		if t.Lanes, err = parseLanes(text, *cpus); err != nil {
			return err
		}
		for i := range t.Lanes {
			t.Lanes[i].Batch = *batchSize
		}
		s.Treatments = append(s.Treatments, t)
		return nil
	}
	if err := add(guided, *lanes, false); err != nil {
		return err
	}
	if *withBlind {
		if err := add(blind, *lanes, true); err != nil {
			return err
		}
	}
	if *freeLanes != "" {
		if err := add(free, *freeLanes, false); err != nil {
			return err
		}
	}
	if s.QEMU, err = vm.QEMUVersion(ctx); err != nil {
		return err
	}
	show := newStatusLine(inv.stderr)
	k := &mutantKits{inv: inv, maker: maker, settings: s, made: map[string]map[string]attempt.Kit{}}
	sound, err := k.of(ctx, matrix.Cell{Mutant: matrix.Control})
	if err != nil {
		return err
	}
	for _, t := range s.Treatments {
		for i := range t.Lanes {
			t.Lanes[i].MadeOf(sound[t.Lanes[i].Setup.String()])
		}
	}
	m.Settings = s
	m.Seek = map[string]matrix.Seeker{
		kernel.TargetKernel: matrix.Campaigns{Kits: k.of, Jobs: *jobs, On: func(c matrix.Cell, st campaign.Status) {
			show.line(c.String() + ": " + st.Line())
		}}.Seek,
		kernel.TargetLibrary: matrix.Programs{
			Kit: func(ctx context.Context, c matrix.Cell, variant string) (attempt.Kit, error) {
				kits, err := k.of(ctx, c)
				for _, kit := range kits {
					if kit.Kernel.Variant == variant {
						return kit, err
					}
				}
				return attempt.Kit{}, cmp.Or(err, fmt.Errorf("no lane has the kernel %s", variant))
			},
			On: func(c matrix.Cell, n int, at float64) {
				show.line(fmt.Sprintf("%s: %d programs, %.0f s", c, n, at))
			}}.Seek,
	}
	m.On = func(done, of int, r matrix.Result) {
		show.end()
		fmt.Fprintf(inv.stdout, "%d of %d: %s %s after %.0f s, %d iterations %s%s\n", done, of, r.Cell, r.State, r.Seconds, r.Iterations, r.Title, r.Note)
	}
	err = m.Run(ctx)
	show.end()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return inv.matrixReport(*out)
}

func (inv *invocation) matrixReport(dir string) error {
	r, err := matrix.Read(dir)
	if err != nil {
		return err
	}
	if err := r.Write(dir); err != nil {
		return err
	}
	fmt.Fprintln(inv.stdout, strings.TrimSpace(r.Page()))
	fmt.Fprintln(inv.stdout, filepath.Join(dir, matrix.PageName))
	return nil
}

// mutantKits makes what the machines of cells are made of, and keeps those of the
// unmutated kernel and of the last mutant.
type mutantKits struct {
	inv      *invocation
	maker    evaluation.Maker
	settings matrix.Settings
	made     map[string]map[string]attempt.Kit // by mutant
}

func (k *mutantKits) of(ctx context.Context, c matrix.Cell) (map[string]attempt.Kit, error) {
	if kits, ok := k.made[c.Mutant]; ok {
		return kits, nil
	}
	m := k.maker
	if c.Mutant != matrix.Control {
		d, err := kernel.FindMutant(m.Builder.RepoRoot, c.Mutant)
		if err != nil {
			return nil, err
		}
		if d.Target == kernel.TargetLibrary {
			m.Library = &d
		} else {
			b := *m.Builder
			b.Mutant = &d
			m.Builder = &b
		}
	}
	var lanes []campaign.Lane
	for _, t := range k.settings.Treatments {
		lanes = append(lanes, t.Lanes...)
	}
	kits, err := k.inv.fuzzKits(ctx, m, lanes)
	if err != nil {
		return nil, err
	}
	for mutant := range k.made {
		if mutant != matrix.Control {
			delete(k.made, mutant)
		}
	}
	k.made[c.Mutant] = kits
	return kits, nil
}
