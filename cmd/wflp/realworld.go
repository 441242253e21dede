// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	pages "github.com/wflp/wflp/analysis/report"
	"github.com/wflp/wflp/evaluation"
	"github.com/wflp/wflp/realworld/guest"
	"github.com/wflp/wflp/realworld/program"
	"github.com/wflp/wflp/realworld/server"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "realworld", about: "patch real programs under load in a guest: realworld [FLAGS] [PROGRAM [FIX]]",
		run: runRealworld,
	})
}

func runRealworld(ctx context.Context, inv *invocation) error {
	fs := inv.flags("realworld")
	r := realworld{inv: inv}
	fs.StringVar(&r.out, "out", filepath.Join("out", "realworld"), "folder of records and report; what is there is not run again")
	fs.IntVar(&r.boots, "boots", 1, "machines for each fix")
	fs.StringVar(&r.strategies, "strategies", "none,restart,waitfree,barrier,stopworld", "how the code is changed, a run each in every machine")
	fs.IntVar(&r.utilisation, "utilisation", 40, "offered load in percent of what clients and server can do")
	fs.IntVar(&r.duration, "duration", 4000, "milliseconds of load in each run")
	fs.IntVar(&r.rounds, "rounds", 3, "changes of the code in each run: with the fix, without it, and so on")
	fs.IntVar(&r.cfg.Clients, "clients", 16, "connections")
	fs.IntVar(&r.cfg.CPUs, "cpus", 2, "virtual processors, of which the last is the clients'")
	fs.IntVar(&r.cfg.MemMiB, "mem", 768, "memory in MiB")
	fs.Uint64Var(&r.seed, "seed", 1, "of arrivals, requests and the moments at which the code is changed; each machine has the next")
	fs.StringVar(&r.given.Without, "without", "", "with PROGRAM and FIX: the program as it is built, in place of building it")
	fs.StringVar(&r.given.With, "with", "", "and with the fix")
	fs.StringVar(&r.given.Patch, "patch", "", "and the patch")
	if err := inv.parse(fs); err != nil {
		return err
	}
	if n := fs.NArg(); n > 2 || r.given != (guest.Programs{}) && n != 2 {
		return usagef("realworld: unexpected arguments %q", fs.Args())
	}
	if r.boots < 1 || r.rounds < 1 || r.duration < 1 || r.utilisation < 1 || r.cfg.Clients < 1 || r.cfg.CPUs < 2 {
		return usagef("realworld: every number is at least 1, and -cpus 2")
	}
	fixes, err := selectFixes(fs.Args())
	if err != nil {
		return &codeError{exitUsage, err}
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	defer r.log.Close()
	for _, f := range fixes {
		if err := r.fix(ctx, f[0], f[1]); err != nil {
			return err
		}
	}
	if err := pages.Make(r.out); err != nil {
		return err
	}
	units, err := record.ReadAll(r.out)
	if err != nil {
		return err
	}
	// What an earlier call ran counts, too.
	passed, failed := guest.Count(units)
	fmt.Fprintf(inv.stdout, "the report is %s\nreal programs: %d passed, %d failed, 0 skipped\n", filepath.Join(r.out, "report.html"), passed, failed)
	if failed > 0 {
		return silentExit(exitFinding)
	}
	return nil
}

// selectFixes lists what the arguments name: all fixes that can be applied live,
// those of a program, or one.
func selectFixes(args []string) ([][2]string, error) {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	out, err := guest.Fixes(name)
	if err != nil {
		return nil, err
	}
	if len(args) > 1 {
		out = slices.DeleteFunc(out, func(f [2]string) bool { return f[1] != args[1] })
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("select fixes: nothing that can be applied live is called %s; wflp patch list has all", strings.Join(args, " "))
	}
	return out, nil
}

// realworld is one call of the command.
type realworld struct {
	inv                                  *invocation
	out, strategies                      string
	boots, utilisation, duration, rounds int
	seed                                 uint64
	cfg                                  guest.Config
	given                                guest.Programs
	images                               *guest.Maker
	log                                  *record.Log
}

// begin builds what all machines need, and opens the log.
func (r *realworld) begin(ctx context.Context) error {
	builder, err := r.inv.builder()
	if err != nil {
		return err
	}
	r.images = &guest.Maker{Builder: builder, Log: r.inv.stderr, Patches: filepath.Join(r.out, "patches")}
	maker := evaluation.Maker{Builder: builder}
	const variant = "release"
	kit, err := maker.Make(ctx, []string{variant})
	if err != nil {
		return err
	}
	m, err := kit.Manifest(ctx, maker)
	if err != nil {
		return err
	}
	if r.cfg.Mode, err = vm.DefaultMode(ctx, builder.CacheDir); err != nil {
		return err
	}
	r.cfg.Kernel = kit.Kernels[variant]
	r.cfg.Emulator, _ = kit.EmulatorFor(r.cfg.Mode)
	m.Profile, m.Seed = "realworld", record.Seed(r.seed)
	m.TimeBases = []record.TimeBase{evaluation.Unit{Mode: r.cfg.Mode}.Base()}
	settings, err := json.Marshal([]any{r.strategies, r.utilisation, r.duration, r.rounds, r.cfg.Clients, r.cfg.CPUs, r.cfg.MemMiB})
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	m.Config = map[string]string{"mode": string(r.cfg.Mode), "settings": string(settings)}
	if _, err := record.Begin(r.out, m); err != nil {
		return err
	}
	r.log, err = record.Open(r.out)
	return err
}

// image makes the image of a fix, of programs that are built if they are not given.
func (r *realworld) image(ctx context.Context, name, fix string) (guest.Made, error) {
	if r.given == (guest.Programs{}) {
		return r.images.Make(ctx, name, fix)
	}
	p, err := program.Find(name)
	if err != nil {
		return guest.Made{}, err
	}
	return r.images.Given(ctx, name, fix, p.Source.Version, r.given)
}

// fix runs the machines of a fix that the log does not have.
func (r *realworld) fix(ctx context.Context, name, fix string) error {
	base := evaluation.Unit{Mode: r.cfg.Mode}.Base()
	for boot := range r.boots {
		key := record.Key("e9", base, name, fix, boot)
		if r.log.Done(key) {
			continue
		}
		cfg := r.cfg
		cfg.Seed, cfg.CalibrateMS = r.seed+uint64(boot), 1500
		var err error
		if cfg.Made, err = r.image(ctx, name, fix); err != nil {
			return err
		}
		cfg.Dir = filepath.Join(r.out, "machines", strings.ReplaceAll(key, "/", "-"))
		moments := guest.Moments(rand.New(rand.NewPCG(cfg.Seed, 3)), r.duration, r.rounds)
		for _, s := range strings.Split(r.strategies, ",") {
			cfg.Runs = append(cfg.Runs, server.Run{Strategy: record.Strategy(s), UtilisationPct: r.utilisation, DurationMS: r.duration, PatchAtMS: moments})
		}
		res, err := guest.Run(ctx, cfg)
		if err != nil {
			return err
		}
		unit, err := guest.Unit(key, cfg, base, res)
		if err != nil {
			return err
		}
		for _, run := range res.Outcome.Runs {
			fmt.Fprintf(r.inv.stderr, "%s %s: %d threads, %d requests\n", key, run.Strategy, run.Threads, run.Requests)
		}
		for _, bad := range unit.Boot.Incidents {
			fmt.Fprintf(r.inv.stderr, "%s %s\n", key, bad)
		}
		if err := r.log.Append(unit); err != nil {
			return err
		}
	}
	return nil
}
