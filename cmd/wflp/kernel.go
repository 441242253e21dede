// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/wflp/wflp/kernel"
)

func init() {
	register(subcommand{
		name: "kernel", about: "build VARIANT… | path VARIANT | list | tree [DIR] | patches [DIR] | check | each | mutants",
		run: runKernel,
	})
}

func runKernel(ctx context.Context, inv *invocation) error {
	fs := inv.flags("kernel")
	tree := fs.String("tree", "", "build what this git tree holds, committed or not, in place of kernel/patches")
	mutant := fs.String("mutant", "", "build and path: with this defect of kernel/mutants on top")
	fs.Usage = func() {
		fmt.Fprintf(inv.stderr, "usage: wflp kernel build [-tree DIR] [-mutant N] VARIANT…   build what is missing, print the folders\n"+
			"       wflp kernel path [-tree DIR] [-mutant N] VARIANT     print the folder if it is built\n"+
			"       wflp kernel list                          what is in the cache\n"+
			"       wflp kernel tree [DIR]                    make a git tree with the series on it (build/linux)\n"+
			"       wflp kernel patches [DIR]                 write that tree's commits to kernel/patches\n"+
			"       wflp kernel check                         checkpatch and sparse over the series; the mutants apply\n"+
			"       wflp kernel each                          build and boot the series after each of its patches\n"+
			"       wflp kernel mutants [VARIANT [NUMBER…]]   list the defects of kernel/mutants; compile them as a variant\n\nvariants:\n")
		for _, v := range kernel.Variants() {
			fmt.Fprintf(inv.stderr, "  %-8s %s\n", v.Name, v.About)
		}
	}
	if err := inv.parse(fs); err != nil {
		return err
	}
	verb, args := fs.Arg(0), fs.Args()
	if len(args) > 0 {
		// Flags may also follow the verb.
		rest := *inv
		rest.args = args[1:]
		if err := rest.parse(fs); err != nil {
			return err
		}
		args = fs.Args()
	}
	b, err := inv.builder()
	if err != nil {
		return err
	}
	if *tree != "" {
		if b.Tree, err = filepath.Abs(*tree); err != nil {
			return err
		}
	}
	if *mutant != "" {
		m, err := findMutant(b, *mutant)
		if err != nil {
			return err
		}
		b.Mutant = &m
	}
	treeDir := func() (string, error) {
		if len(args) > 0 {
			return filepath.Abs(args[0])
		}
		return filepath.Join(b.RepoRoot, "build", "linux"), nil
	}
	switch {
	case verb == "build" && len(args) > 0:
		for _, v := range args {
			built, err := b.Build(ctx, v)
			if err != nil {
				return err
			}
			fmt.Fprintln(inv.stdout, built.Dir)
		}
		return nil
	case verb == "path" && len(args) == 1:
		built, err := b.Find(ctx, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintln(inv.stdout, built.Dir)
		return nil
	case verb == "list" && len(args) == 0:
		all, err := b.List()
		if err != nil {
			return err
		}
		for _, k := range all {
			fmt.Fprintf(inv.stdout, "%-8s %s  %-28s %s %s\n", k.Variant, k.Digest, k.Release, k.Dir, k.Mutant)
		}
		return nil
	case verb == "tree" && len(args) <= 1:
		dir, err := treeDir()
		if err != nil {
			return err
		}
		if err := b.MakeTree(ctx, dir); err != nil {
			return err
		}
		fmt.Fprintln(inv.stdout, dir)
		return nil
	case verb == "check" && len(args) == 0:
		return checkSeries(ctx, inv, b)
	case verb == "mutants":
		return kernelMutants(ctx, inv, b, args)
	case verb == "each" && len(args) == 0:
		return eachPatch(ctx, inv, b)
	case verb == "patches" && len(args) <= 1:
		dir, err := treeDir()
		if err != nil {
			return err
		}
		n, err := b.ExportPatches(ctx, dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(inv.stdout, "%d patches in kernel/patches\n", n)
		return nil
	}
	fs.Usage()
	return silentExit(exitUsage)
}

func checkSeries(ctx context.Context, inv *invocation, b *kernel.Builder) error {
	c, err := b.Check(ctx)
	if err != nil {
		return err
	}
	bad := map[string]bool{}
	for _, f := range c.Findings {
		bad[f.Checker+f.Where] = true
		fmt.Fprintf(inv.stdout, "FAIL %s %s\n%s\n", f.Checker, f.Where, indent(f.Text))
	}
	skipped := 0
	if c.Patches == 0 {
		skipped = 1
		fmt.Fprintln(inv.stdout, "skip: the series is empty")
	}
	fmt.Fprintf(inv.stdout, "series (%d patches, %d files by sparse): %d passed, %d failed, %d skipped\n",
		c.Patches, c.Files, max(0, c.Patches+c.Files-len(bad)), len(bad), skipped)
	if len(bad) > 0 {
		return silentExit(exitFinding)
	}
	return nil
}

// findMutant finds a mutant of the kernel; a wrong number is the user's mistake.
func findMutant(b *kernel.Builder, name string) (kernel.Mutant, error) {
	m, err := kernel.FindMutant(b.RepoRoot, name)
	if errors.Is(err, kernel.ErrUnknownMutant) {
		return m, &codeError{exitUsage, err}
	}
	return m, err
}

func kernelMutants(ctx context.Context, inv *invocation, b *kernel.Builder, args []string) error {
	all, err := kernel.ReadMutants(b.RepoRoot)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		for _, m := range all {
			fmt.Fprintf(inv.stdout, "%s %-7s %-40s %s\n", m.ID, m.Target, m.Name, m.Kind)
		}
		return nil
	}
	if len(args) > 1 {
		all = nil
		for _, a := range args[1:] {
			m, err := findMutant(b, a)
			if err != nil {
				return err
			}
			all = append(all, m)
		}
	}
	c, err := b.CompileMutants(ctx, args[0], all)
	if err != nil {
		return err
	}
	for _, f := range c.Findings {
		fmt.Fprintf(inv.stdout, "FAIL %s %s\n%s\n", f.Checker, f.Where, indent(f.Text))
	}
	fmt.Fprintf(inv.stdout, "mutants that compile: %d passed, %d failed, 0 skipped\n", c.Patches-len(c.Findings), len(c.Findings))
	if len(c.Findings) > 0 {
		return silentExit(exitFinding)
	}
	return nil
}
