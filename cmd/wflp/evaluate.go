// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wflp/wflp/evaluation"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "evaluate", about: "run the experiments of a profile, or go on with them, and report",
		run: runEvaluate,
	})
}

func runEvaluate(ctx context.Context, inv *invocation) error {
	fs := inv.flags("evaluate")
	c := evaluation.Config{Log: inv.stderr}
	fs.StringVar(&c.Profile, "profile", "quick", strings.Join(evaluation.Profiles(), ", "))
	fs.StringVar(&c.Out, "out", "", "folder of the run (default: out/PROFILE); one that is there is gone on with")
	fs.Uint64Var(&c.Seed, "seed", 1, "seed of programs, orders and machines")
	only := fs.String("only", "", "experiments to run now, with commas: E1,E3")
	mode := fs.String("mode", "", "measured or fast (default: measured where KVM works, else fast)")
	fs.IntVar(&c.Slots, "jobs", 0, "machines side by side, where none must be alone (default: one a core)")
	dryRun := fs.Bool("dry-run", false, "print the plan and start nothing")
	kernels := registerKernels(fs)
	if err := inv.parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("evaluate: unexpected argument %q", fs.Arg(0))
	}
	c.Mode = vm.Mode(*mode)
	if c.Mode != "" && !c.Mode.Valid() {
		return usagef("evaluate: mode %q is none of %v", c.Mode, vm.Modes())
	}
	if *only != "" {
		c.Only = strings.Split(*only, ",")
	}
	if c.Out == "" {
		c.Out = filepath.Join("out", c.Profile)
	}
	if f, ok := inv.stderr.(*os.File); ok {
		c.Terminal = evaluation.IsTerminal(f)
	}
	m, err := inv.maker(kernels)
	if err != nil {
		return err
	}
	c.Maker = m
	ability, err := m.Ability(ctx, c.Mode)
	if err != nil {
		return err
	}
	plan, err := evaluation.Plan(c.Profile, c.Seed, ability, c.Only)
	if err != nil {
		return &codeError{exitUsage, err}
	}
	if *dryRun {
		evaluation.Describe(inv.stdout, plan, c.SideBySide(ability))
		return nil
	}
	found, err := evaluation.Run(ctx, c)
	var be *vm.BootError
	switch {
	case errors.As(err, &be) && ctx.Err() == nil:
		err = bootError(err)
	case err != nil && ctx.Err() != nil:
		fmt.Fprintf(inv.stderr, "wflp evaluate: interrupted; the same command goes on\n")
		return silentExit(exitInterrupted)
	}
	for _, f := range found {
		fmt.Fprintf(inv.stderr, "%s: %s %s\n", f.Key, f.Strategy, f.Note)
		if f.Again != "" {
			fmt.Fprintf(inv.stderr, "    again: %s\n", f.Again)
		}
	}
	if err != nil {
		return err
	}
	if err := printClaims(inv, c.Out); err != nil {
		return err
	}
	if len(found) > 0 {
		return findingError(fmt.Errorf("%d violations and complaints; specs, traces and consoles are in %s", len(found), filepath.Join(c.Out, "evidence")))
	}
	return nil
}

// printClaims says what the report answers.
func printClaims(inv *invocation, out string) error {
	s, err := evaluation.ReadSummary(out)
	if err != nil {
		return err
	}
	for _, c := range s.Claims {
		fmt.Fprintf(inv.stdout, "%-8s %s\n         %s\n", c.Holds, c.Text, c.Measured)
	}
	fmt.Fprintf(inv.stdout, "\n%s\n", filepath.Join(out, "report.html"))
	return nil
}
