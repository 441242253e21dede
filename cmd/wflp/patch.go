// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/realworld/patch"
	"github.com/wflp/wflp/realworld/program"
)

// exitRefused: the fix was understood, and cannot be applied to a running
// program.
const exitRefused = 5

func init() {
	register(subcommand{name: "patch", about: "build PROGRAM FIX | show FILE | list: patches for running programs, from Debian's sources", run: runPatch})
}

func runPatch(ctx context.Context, inv *invocation) error {
	if len(inv.args) == 0 {
		inv.args = []string{"-h"}
	}
	verb := inv.args[0]
	fs := inv.flags("patch")
	diff := fs.String("diff", "", "build: a `FILE` with a diff to the package as Debian has it, instead of one of its own patches")
	variant := fs.String("build", "", "build: with -diff, which of the program's `BUILDS` it is for")
	out := fs.String("out", "", "build: write the patch to `FILE` (build/patches/PROGRAM-FIX.wflp)")
	explain := fs.Bool("explain", false, "build: show what the judgement rests on")
	fs.Usage = func() {
		fmt.Fprintf(inv.stderr, "usage: wflp patch build [FLAGS] PROGRAM FIX   build PROGRAM without and with FIX, write a patch of the difference\n"+
			"       wflp patch build -diff FILE PROGRAM   the same for a diff of your own\n"+
			"       wflp patch show FILE                  what is in a patch\n"+
			"       wflp patch list                       programs, their builds and fixes\n"+
			"Exit code %d: the fix cannot be applied to a running program.\n", exitRefused)
		fs.PrintDefaults()
	}
	if !strings.HasPrefix(verb, "-") {
		inv.args = inv.args[1:]
	}
	if err := inv.parse(fs); err != nil {
		return err
	}
	switch {
	case verb == "list" && fs.NArg() == 0:
		return listPrograms(inv.stdout)
	case verb == "show" && fs.NArg() == 1:
		return showPatch(inv.stdout, fs.Arg(0))
	case verb == "build" && (fs.NArg() == 2 && *diff == "" && *variant == "" || fs.NArg() == 1 && *diff != ""):
		return buildPatch(ctx, inv, fs.Arg(0), fs.Arg(1), *diff, *variant, *out, *explain)
	}
	fs.Usage()
	return silentExit(exitUsage)
}

func listPrograms(w io.Writer) error {
	for _, name := range program.Names() {
		p, err := program.Find(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: %s of %s %s\n", name, p.Program, p.Source.Package, p.Source.Version)
		for _, f := range p.Fixes {
			fmt.Fprintf(w, "  %-24s", f.Name)
			if f.Build != "" {
				fmt.Fprintf(w, " build %s", f.Build)
			}
			if f.Refused != "" {
				fmt.Fprintf(w, " refused: %s", f.Refused)
			}
			fmt.Fprintln(w)
		}
	}
	return nil
}

func buildPatch(ctx context.Context, inv *invocation, name, fix, diff, variant, out string, explain bool) error {
	p, err := program.Find(name)
	if err != nil {
		return usagef("%w", err)
	}
	cache, err := kernel.DefaultCacheDir()
	if err != nil {
		return err
	}
	b := &program.Builder{CacheDir: cache, Log: inv.stderr}
	var got *program.Patch
	if diff != "" {
		data, err := os.ReadFile(diff)
		if err != nil {
			return usagef("read diff: %w", err)
		}
		if _, ok := p.Builds[variant]; !ok {
			return usagef("%s has no build %q", name, variant)
		}
		fix = strings.TrimSuffix(filepath.Base(diff), filepath.Ext(diff))
		if got, err = b.PatchOf(ctx, p, variant, fix, data); err != nil {
			return err
		}
	} else {
		f, err := p.Fix(fix)
		if err != nil {
			return usagef("%w", err)
		}
		if got, err = b.Patch(ctx, p, f); err != nil {
			return err
		}
	}
	describeResult(inv.stdout, got, explain)
	if len(got.Refused) > 0 {
		return silentExit(exitRefused)
	}
	if out == "" {
		root, err := repoRoot()
		if err != nil {
			return err
		}
		out = filepath.Join(root, "build", "patches", name+"-"+fix+".wflp")
	}
	if err := build.WriteFileAtomic(out, got.File, 0o644); err != nil {
		return fmt.Errorf("write patch: %w", err)
	}
	fmt.Fprintf(inv.stdout, "patch:   %s\nfor:     %s\n", out, got.Without.Program)
	return nil
}

func describeResult(w io.Writer, p *program.Patch, explain bool) {
	o := p.Origin
	fmt.Fprintf(w, "%s %s %s: ", o.Source, o.Version, o.Fix)
	if len(p.Refused) == 0 {
		fmt.Fprintln(w, "can be applied to the running program")
	} else {
		fmt.Fprintln(w, "cannot be applied to the running program")
	}
	for _, r := range p.Refused {
		fmt.Fprintf(w, "  %s: %s\n", r.Kind, r.Text)
		if explain {
			for _, e := range r.Evidence {
				fmt.Fprintf(w, "    - %s\n", e)
			}
		}
	}
	line := func(title string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(w, "  %s: %s\n", title, strings.Join(names, ", "))
		}
	}
	if len(p.Refused) == 0 || explain {
		line("replaced", p.Replaced)
		line("added", p.Added)
		line("carried along", p.Carried)
	}
	if explain {
		for _, n := range p.Notes {
			fmt.Fprintf(w, "  note: %s\n", n)
		}
		fmt.Fprintf(w, "  without: %s\n  with:    %s\n", p.Without.Dir, p.With.Dir)
	}
}

func showPatch(w io.Writer, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return usagef("read patch: %w", err)
	}
	info, err := patch.Read(data)
	if err != nil {
		return findingError(errors.Join(fmt.Errorf("%s", path), err))
	}
	fmt.Fprintf(w, "name:     %s\nid:       %x\nbuild id: %x\n", info.Name, info.ID, info.BuildID)
	for _, f := range info.Functions {
		how := "replaces"
		if !f.Replaced {
			how = "leaves"
		}
		fmt.Fprintf(w, "%-9s %#x %5d %s\n", how, f.Addr, f.Size, f.Name)
	}
	for _, s := range info.Symbols {
		switch {
		case s.ByName:
			fmt.Fprintf(w, "uses      by name        %s\n", s.Name)
		case s.TLS:
			fmt.Fprintf(w, "uses      tls+%#-9x  %s\n", s.Addr, s.Name)
		default:
			fmt.Fprintf(w, "uses      %#-12x   %s\n", s.Addr, s.Name)
		}
	}
	fmt.Fprintf(w, "origin:   %s", info.Origin)
	return nil
}
