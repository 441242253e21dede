// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/evaluation"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/trial"
)

func init() {
	register(subcommand{
		name: "run", about: "run one random program under one strategy in a guest and judge it",
		run: runRun,
	})
}

// kernelFlags collects -kernel VARIANT=DIR.
type kernelFlags map[string]string

func (f kernelFlags) String() string { return "" }

func (f kernelFlags) Set(s string) error {
	variant, dir, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("want VARIANT=DIR")
	}
	dir, err := filepath.Abs(dir)
	f[variant] = dir
	return err
}

func registerKernels(fs *flag.FlagSet) kernelFlags {
	f := kernelFlags{}
	fs.Var(f, "kernel", "VARIANT=DIR takes a finished kernel in place of building it; may be repeated")
	return f
}

// maker makes the machines of the evaluation.
func (inv *invocation) maker(kernels kernelFlags) (evaluation.Maker, error) {
	b, err := inv.builder()
	return evaluation.Maker{Builder: b, Kernels: kernels}, err
}

func runRun(ctx context.Context, inv *invocation) error {
	fs := inv.flags("run")
	var a evaluation.Again
	fs.Uint64Var(&a.Seed, "seed", 1, "seed of the program")
	fs.StringVar(&a.Shape, "shape", string(workloads.Correctness), "correctness, latency, over, many or hostile")
	fs.StringVar(&a.Hostile, "hostile", "", "hostile: busy, asleep, blocked or lock")
	strategy := fs.String("strategy", string(record.WaitFree), "none, waitfree, barrier, stopworld, restart (latency only) or naive; several with commas")
	count := fs.Int("count", 1, "programs of consecutive seeds in one boot")
	repeat := fs.Int("repeat", 1, "times to run each in the same boot")
	for _, f := range []struct {
		v           *int
		name, about string
	}{
		{&a.Threads, "threads", "latency, over and many: threads"},
		{&a.StallUS, "stall-us", "latency, strategy none: a stall of this length at each patch"},
		{&a.Births, "births", "many: threads that are born and die meanwhile"},
		{&a.LoadCPUs, "load-cpus", "latency: processors that the load is meant for"},
		{&a.Utilisation, "utilisation", "latency: percent of these"},
		{&a.ServiceUS, "service-us", "latency: work of a request"},
		{&a.PerRequest, "per-request", "latency: quiescence points in a request"},
		{&a.IntervalUS, "interval-us", "over: time between quiescence points"},
		{&a.LongPct, "long-pct", "latency and over: percent of transactions that are long"},
		{&a.LongUS, "long-us", "latency and over: how long these are"},
		{&a.Blocked, "blocked", "over: threads asleep besides"},
		{&a.BlockedUS, "blocked-us", "over: how long each of their sleeps is"},
		{&a.DurationMS, "duration-ms", "latency, over and many: length of the run"},
		{&a.Patches, "patches", "latency, over and many: patches"},
	} {
		fs.IntVar(f.v, f.name, 0, f.about)
	}
	variant := fs.String("variant", "release", "kernel variant")
	mode := fs.String("mode", "", "measured, fast or deterministic (default: measured where KVM works, else fast)")
	cpus := fs.Int("cpus", vm.DefaultCPUs, "virtual processors")
	mem := fs.Int("mem", vm.DefaultMemMiB, "memory in MiB")
	timeout := fs.Duration("timeout", vm.DefaultTimeout, "end the machine after this long")
	dir := fs.String("dir", "", "keep console, specs and traces here")
	kernels := registerKernels(fs)
	if err := inv.parse(fs); err != nil {
		return err
	}
	var trials []trial.Trial
	for i := range *count {
		b := a
		b.Seed += uint64(i)
		spec, err := b.Program().Spec()
		if err != nil {
			return &codeError{exitUsage, err}
		}
		for range *repeat {
			for _, s := range strings.Split(*strategy, ",") {
				trials = append(trials, trial.Trial{Experiment: "run", Spec: spec, Strategy: record.Strategy(s)})
			}
		}
	}
	m, err := inv.maker(kernels)
	if err != nil {
		return err
	}
	ability, err := m.Ability(ctx, vm.Mode(*mode))
	if err != nil {
		return err
	}
	kit, err := m.Make(ctx, []string{*variant})
	if err != nil {
		return err
	}
	b, err := inv.emulatorBuilder()
	if err != nil {
		return err
	}
	emulator, err := vm.EmulatorFor(ctx, b, ability.Mode)
	if err != nil {
		return err
	}
	machine := trial.VM{Config: vm.Config{Mode: ability.Mode, Emulator: emulator, Kernel: kit.Kernels[*variant], Image: kit.Image, CPUs: *cpus, MemMiB: *mem,
		Seed: a.Seed, Timeout: *timeout, Dir: *dir}}
	start := time.Now()
	results, res, err := trial.Run(ctx, machine, trials)
	var be *vm.BootError
	if errors.As(err, &be) && ctx.Err() == nil {
		return bootError(err)
	}
	if err != nil {
		return err
	}
	return reportRun(inv, *dir, results, res, time.Since(start))
}

// reportRun prints what came of each trial, and ends as the worst of them says.
func reportRun(inv *invocation, dir string, results []trial.Result, res *vm.Result, took time.Duration) error {
	worst := oracle.Pass
	for i, r := range results {
		c := r.Verdict.Counts
		fmt.Fprintf(inv.stdout, "%-9s %-11s seed %d %s: %d executions, %d patches (%d refused), %d moved, %d pulled, %d births, %d memory operations, %.3f s\n", r.Verdict.Status, r.Strategy,
			r.Spec.Seed, r.Spec.ID(), c.Executions, c.Published, c.Refused, c.Migrated, c.Pulled, c.Births, c.MemoryOps, float64(r.Step.DurationNS)/1e9)
		if r.Verdict.Note != "" {
			fmt.Fprintf(inv.stdout, "  %s\n", r.Verdict.Note)
		}
		if c.Stops > 0 {
			fmt.Fprintf(inv.stdout, "  all threads stopped %d times, %d in vain for code on a stack, %d for a stack that could not be walked; %d transactions of mixed generations\n", c.Stops, c.StopsActive, c.StopsUnknown, c.MixedAllowed)
		}
		if reqs := r.Requests(); len(reqs) > 0 {
			ns := make([]int64, len(reqs))
			for k, q := range reqs {
				ns[k] = q.Latency()
			}
			slices.Sort(ns)
			at := func(share float64) time.Duration {
				return time.Duration(ns[min(int(share*float64(len(ns))), len(ns)-1)]).Round(time.Microsecond)
			}
			fmt.Fprintf(inv.stdout, "  %d requests: p50 %v, p90 %v, p99 %v, p99.9 %v, max %v\n", len(ns), at(0.5), at(0.9), at(0.99), at(0.999), at(1))
		}
		for j, v := range r.Verdict.Violations {
			if j == 10 {
				fmt.Fprintf(inv.stdout, "  and %d more\n", len(r.Verdict.Violations)-j)
				break
			}
			fmt.Fprintf(inv.stdout, "  %s\n", v)
		}
		if len(r.Step.Stderr) > 0 {
			fmt.Fprintf(inv.stdout, "  stderr: %s\n", strings.TrimSpace(string(r.Step.Stderr)))
		}
		worst = oracle.Combine(worst, r.Verdict.Status)
		if dir == "" {
			continue
		}
		spec, err := r.Spec.Marshal()
		if err != nil {
			return err
		}
		name := filepath.Join(dir, fmt.Sprintf("%04d-%s-%d", i, r.Strategy, r.Spec.Seed))
		if err := os.WriteFile(name+".json", spec, 0o644); err != nil {
			return fmt.Errorf("keep spec: %w", err)
		}
		if r.Trace != nil {
			if err := os.WriteFile(name+".trace", r.Trace.Encode(), 0o644); err != nil {
				return fmt.Errorf("keep trace: %w", err)
			}
		}
	}
	for _, c := range res.Complaints {
		fmt.Fprintf(inv.stdout, "the kernel complains (%s): %s\n", c.Kind, c.Title)
	}
	fmt.Fprintf(inv.stdout, "%s: %d runs, machine %s after %.1f s (boot %.1f s), %.1f s with generation and judgement\n", worst, len(results), res.End, res.Duration.Seconds(), res.BootTime.Seconds(), took.Seconds())
	switch {
	case worst == oracle.Violated || len(res.Complaints) > 0:
		return silentExit(exitFinding)
	case worst != oracle.Pass:
		return silentExit(exitInfrastructure)
	}
	return nil
}
