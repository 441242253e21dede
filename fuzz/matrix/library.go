// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/campaign"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/trial"
)

// Programs looks for defects of the library: random programs, patched by it.
type Programs struct {
	// Kit is what the machines of a cell are made of: kernel of a variant, and an
	// image whose programs are linked to the cell's library.
	Kit func(ctx context.Context, c Cell, variant string) (attempt.Kit, error)
	// Try runs trials in one machine; nil: made of Kit.
	Try func(ctx context.Context, c Cell, l campaign.Lane, schedule uint64, trials []trial.Trial) ([]trial.Result, error)
	// On is told how many programs have been run.
	On func(c Cell, iterations int, seconds float64)
}

// batch is one machine: a line of a cell's log.
type batch struct {
	N      int                 `json:"n"`
	AtS    float64             `json:"at_s"`
	Runs   int                 `json:"runs"`
	Kinds  map[string][]string `json:"kinds,omitempty"` // of violation, by title
	Failed bool                `json:"failed,omitempty"`
}

const batchesName = "batches.jsonl"

// specsPerMachine programs run in one machine, each under each strategy.
const specsPerMachine = 4

// machineLimit ends a machine that does not end by itself.
const machineLimit = 10 * time.Minute

// strategies that a program is patched by. Naive is meant to fail.
var strategies = []record.Strategy{record.WaitFree, record.Barrier}

// Seek is a Seeker.
func (p Programs) Seek(ctx context.Context, s Settings, c Cell, dir string, known map[string]bool) (Result, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Result{}, fmt.Errorf("look for a defect: %w", err)
	}
	path := filepath.Join(dir, batchesName)
	done, err := readBatches(path)
	if err != nil {
		return Result{}, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return Result{}, fmt.Errorf("look for a defect: %w", err)
	}
	defer f.Close()
	lane := treatment(s, c.Treatment).Lanes[0]
	before := 0.0
	for _, b := range done {
		before = max(before, b.AtS)
	}
	began := time.Now()
	elapsed := func() float64 { return before + time.Since(began).Seconds() }
	r := Result{State: Censored}
	failed := 0
	for n := 0; ; n++ {
		if n == len(done) {
			if elapsed() >= s.CapS {
				r.Seconds = max(r.Seconds, s.CapS)
				return r, nil
			}
			b, err := p.machine(ctx, c, c, lane, n)
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
			var be *vm.BootError
			if err != nil && !errors.As(err, &be) {
				return r, err
			}
			b.N, b.AtS, b.Failed = n, elapsed(), err != nil
			if b.Failed {
				if failed++; failed == 3 {
					return r, fmt.Errorf("a machine did not start %d times in a row: %w", failed, err)
				}
			} else {
				failed = 0
			}
			if err := appendBatch(f, b); err != nil {
				return r, err
			}
			done = append(done, b)
			if p.On != nil {
				p.On(c, r.Iterations+b.Runs, b.AtS)
			}
		}
		b := done[n]
		r.Seconds, r.Iterations = b.AtS, r.Iterations+b.Runs
		if b.Failed {
			r.NotStarted++
		}
		if len(b.Kinds) == 0 {
			continue
		}
		var titles []string
		for t := range b.Kinds {
			titles = append(titles, t)
		}
		slices.Sort(titles)
		shown := map[string][]string{}
		if c.Mutant != Control {
			// The same programs, linked to the library as it should be.
			control := c
			control.Mutant = Control
			again, err := p.machine(ctx, c, control, lane, n)
			if err != nil || ctx.Err() != nil {
				return r, errors.Join(err, ctx.Err())
			}
			shown = again.Kinds
		}
		for _, t := range titles {
			if _, too := shown[t]; too || known[t] || c.Mutant == Control {
				if !slices.Contains(r.False, t) {
					r.False = append(r.False, t)
				}
				continue
			}
			if slices.Contains(r.False, t) {
				continue
			}
			r.State, r.Title, r.Kinds = Found, t, b.Kinds[t]
			return r, nil
		}
	}
}

// machine runs the n-th programs of a cell in a machine of another, or the same.
func (p Programs) machine(ctx context.Context, programs, of Cell, lane campaign.Lane, n int) (batch, error) {
	rng := rand.New(rand.NewPCG(programs.Seed, uint64(n)))
	var trials []trial.Trial
	for range specsPerMachine {
		spec, err := workloads.Generate(rng.Uint64()>>1, workloads.Correctness)
		if err != nil {
			return batch{}, fmt.Errorf("make program: %w", err)
		}
		for _, st := range strategies {
			trials = append(trials, trial.Trial{Experiment: "mutants", Spec: spec, Strategy: st})
		}
	}
	try := p.Try
	if try == nil {
		try = p.boot
	}
	results, err := try(ctx, of, lane, rng.Uint64()>>1, trials)
	if err != nil {
		return batch{}, err
	}
	b := batch{Kinds: map[string][]string{}}
	for _, r := range results {
		if r.Verdict.Status != oracle.Unknown {
			b.Runs++
		}
		if r.Verdict.Status == oracle.Violated {
			title, kinds := programTitle(r)
			b.Kinds[title] = kinds
		}
	}
	return b, nil
}

func (p Programs) boot(ctx context.Context, c Cell, l campaign.Lane, schedule uint64, trials []trial.Trial) ([]trial.Result, error) {
	kit, err := p.Kit(ctx, c, l.Variant)
	if err != nil {
		return nil, err
	}
	m := trial.VM{Config: vm.Config{Mode: l.Mode, Kernel: kit.Kernel, Image: kit.Image, CPUs: l.CPUs, MemMiB: l.MemMiB, Seed: schedule, Timeout: machineLimit}}
	results, _, err := trial.Run(ctx, m, trials)
	return results, err
}

// programTitle names a violation by strategy and kinds: what else it says has
// numbers of threads and generations in it.
func programTitle(r trial.Result) (string, []string) {
	var kinds []string
	for k := range r.Verdict.ByKind {
		kinds = append(kinds, string(k))
	}
	slices.Sort(kinds)
	return fmt.Sprintf("%s: %s", r.Strategy, strings.Join(kinds, ", ")), kinds
}

func readBatches(path string) ([]batch, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cell: %w", err)
	}
	// A kill leaves at most one line that is not whole, the last.
	if end := bytes.LastIndexByte(data, '\n') + 1; end < len(data) {
		data = data[:end]
		if err := os.Truncate(path, int64(end)); err != nil {
			return nil, fmt.Errorf("read cell: %w", err)
		}
	}
	var out []batch
	in := bufio.NewScanner(bytes.NewReader(data))
	for in.Scan() {
		var b batch
		if err := json.Unmarshal(in.Bytes(), &b); err != nil {
			return nil, fmt.Errorf("read cell %s: %w", path, err)
		}
		out = append(out, b)
	}
	return out, in.Err()
}

func appendBatch(f *os.File, b batch) error {
	line, err := json.Marshal(b)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep cell: %w", err)
	}
	return nil
}
