// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/wflp/wflp/fuzz/conform"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "conform", about: "run the kernel's mm selftests and stress-ng outside and inside of views, and compare",
		run: runConform,
	})
}

func runConform(ctx context.Context, inv *invocation) error {
	fs := inv.flags("conform")
	c := conform.Config{Log: inv.stderr}
	fs.StringVar(&c.Variant, "variant", "release", "kernel with the series; it is compared with stock")
	fs.StringVar(&c.Out, "out", "", "folder of results (default: out/conform-SUBSET); what is there and fits is not run again")
	subset := fs.String("subset", "full", "full or quick")
	pattern := fs.String("run", "", "only programs whose name matches this regular expression")
	fs.IntVar(&c.Jobs, "jobs", 2, "machines side by side")
	fs.IntVar(&c.CPUs, "cpus", 2, "virtual processors of each")
	fs.IntVar(&c.MemMiB, "mem", 2048, "memory of each in MiB")
	mode := fs.String("mode", "", "measured or fast (default: measured where KVM works, else fast)")
	tree := fs.String("tree", "", "build the kernel from this git tree in place of kernel/patches")
	list := fs.Bool("list", false, "print the programs and start nothing")
	if err := inv.parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("conform: unexpected argument %q", fs.Arg(0))
	}
	match, err := regexp.Compile(*pattern)
	if err != nil {
		return usagef("select programs: %w", err)
	}
	if c.Cases, err = conform.Subset(*subset); err != nil {
		return &codeError{exitUsage, err}
	}
	c.Cases = slices.DeleteFunc(c.Cases, func(c conform.Case) bool { return !match.MatchString(c.Name) })
	if len(c.Cases) == 0 {
		return usagef("select programs: none matches %q", *pattern)
	}
	if *list {
		for _, k := range c.Cases {
			fmt.Fprintf(inv.stdout, "%-12s %s\n", k.Boot, k.Name)
		}
		return nil
	}
	if v, err := kernel.VariantByName(c.Variant); err == nil && v.Checks() {
		c.Slower = 5
	}
	if c.Out == "" {
		c.Out = filepath.Join("out", "conform-"+*subset)
	}
	explanations, err := conform.Explanations()
	if err != nil {
		return err
	}
	mf := machineFlags{tree: *tree}
	if c.Builder, err = mf.builder(inv); err != nil {
		return err
	}
	if c.Mode = vm.Mode(*mode); c.Mode == "" {
		if c.Mode, err = vm.DefaultMode(ctx, c.Builder.CacheDir); err != nil {
			return err
		}
	}
	if _, err := vm.Command(vm.Config{Mode: c.Mode, CPUs: c.CPUs, MemMiB: c.MemMiB}); err != nil {
		return &codeError{exitUsage, err}
	}
	all, in, err := conform.Run(ctx, c)
	var be *vm.BootError
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintf(inv.stderr, "wflp conform: interrupted; the same command goes on\n")
		return silentExit(exitInterrupted)
	case errors.As(err, &be):
		return bootError(err)
	case err != nil:
		return err
	}
	t := conform.MakeTable(c.Cases, all, in, explanations)
	for name, write := range map[string]func(io.Writer) error{"table.txt": t.WriteText, "table.csv": t.WriteCSV, "conformance.md": t.WriteMarkdown} {
		if err := writeTo(filepath.Join(c.Out, name), write); err != nil {
			return err
		}
	}
	for _, r := range t.Differences() {
		fmt.Fprintln(inv.stdout, r)
	}
	fmt.Fprintf(inv.stdout, "%stables are in %s\n", t.Summary(), c.Out)
	bad := t.Unexplained()
	fmt.Fprintf(inv.stdout, "conform, %s: %d passed, %d failed, 0 skipped\n", c.Variant, len(t.Rows)-bad, bad)
	if bad > 0 {
		return silentExit(exitFinding)
	}
	return nil
}

func writeTo(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
