// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/wflp/wflp/vmimages/qemu"
)

func init() {
	register(subcommand{name: "qemu", about: "build | path | tree [DIR] | patches [DIR]: the emulator of our own", run: runQEMU})
}

func runQEMU(ctx context.Context, inv *invocation) error {
	fs := inv.flags("qemu")
	fs.Usage = func() {
		fmt.Fprintf(inv.stderr, "usage: wflp qemu build           build it if it is missing, print the folder\n"+
			"       wflp qemu path            print the folder if it is built\n"+
			"       wflp qemu tree [DIR]      make a git tree with the series on it (build/qemu)\n"+
			"       wflp qemu patches [DIR]   write that tree's commits to vmimages/qemu/patches\n")
	}
	if err := inv.parse(fs); err != nil {
		return err
	}
	b, err := inv.emulatorBuilder()
	if err != nil {
		return err
	}
	dir := filepath.Join(b.RepoRoot, "build", "qemu")
	if fs.NArg() == 2 {
		if dir, err = filepath.Abs(fs.Arg(1)); err != nil {
			return err
		}
	}
	switch verb := fs.Arg(0); {
	case verb == "build" && fs.NArg() == 1:
		built, err := b.Build(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(inv.stdout, built.Dir)
		return nil
	case verb == "path" && fs.NArg() == 1:
		built, err := b.Find(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(inv.stdout, built.Dir)
		return nil
	case verb == "tree" && fs.NArg() <= 2:
		if err := b.MakeTree(ctx, dir); err != nil {
			return err
		}
		fmt.Fprintln(inv.stdout, dir)
		return nil
	case verb == "patches" && fs.NArg() <= 2:
		n, err := b.ExportPatches(ctx, dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(inv.stdout, "%d patches in vmimages/qemu/patches\n", n)
		return nil
	}
	fs.Usage()
	return silentExit(exitUsage)
}

// emulatorBuilder is the builder of QEMU for this checkout and this user's cache.
func (inv *invocation) emulatorBuilder() (*qemu.Builder, error) {
	b, err := inv.builder()
	if err != nil {
		return nil, err
	}
	return &qemu.Builder{RepoRoot: b.RepoRoot, CacheDir: b.CacheDir, Log: inv.stderr}, nil
}
