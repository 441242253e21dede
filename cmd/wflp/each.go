// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
)

// eachPatch builds the kernel after each patch of the series and boots it, as
// somebody would who bisects. What is known of a kernel, by its digest, is not
// found out again, so a run that was stopped goes on.
func eachPatch(ctx context.Context, inv *invocation, b *kernel.Builder) error {
	series, err := kernel.ReadSeries(b.RepoRoot)
	if err != nil {
		return err
	}
	mode, err := vm.DefaultMode(ctx, b.CacheDir)
	if err != nil {
		return err
	}
	failed := 0
	for n := 1; n <= len(series); n++ {
		part := *b
		part.First = n
		err := bootPart(ctx, &part, mode)
		if ctx.Err() != nil {
			return fmt.Errorf("build each patch: %w", context.Cause(ctx))
		}
		if err != nil {
			failed++
			fmt.Fprintf(inv.stdout, "FAIL %s\n%s\n", series[n-1].Name, indent(err.Error()))
			continue
		}
		fmt.Fprintf(inv.stdout, "ok   %s\n", series[n-1].Name)
	}
	fmt.Fprintf(inv.stdout, "each patch builds and boots: %d passed, %d failed, 0 skipped\n", len(series)-failed, failed)
	if failed > 0 {
		return silentExit(exitFinding)
	}
	return nil
}

// bootPart boots a kernel once in its life, and keeps no more of it than that
// it did.
func bootPart(ctx context.Context, b *kernel.Builder, mode vm.Mode) error {
	const variant = "release"
	digest, err := b.Digest(ctx, variant)
	if err != nil {
		return err
	}
	known := filepath.Join(b.CacheDir, "parts", variant+"-"+digest+".json")
	if _, err := os.Stat(known); err == nil {
		return nil
	}
	built, err := b.Build(ctx, variant)
	if err != nil {
		return err
	}
	image, err := vmimages.Build(ctx, vmimages.Spec{RepoRoot: b.RepoRoot, CacheDir: b.CacheDir})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wflp-part-")
	if err != nil {
		return fmt.Errorf("boot a part of the series: %w", err)
	}
	defer os.RemoveAll(dir)
	// No program: that /init speaks, ends and turns the machine off is enough.
	res, err := vm.Run(ctx, vm.Config{Mode: mode, Kernel: built, Image: image, CPUs: 2, MemMiB: 256, Seed: 1, Timeout: 2 * time.Minute, Dir: dir,
		Job: guestproto.Job{Seed: 1}}, func(vm.Event) {})
	if err != nil {
		return err
	}
	switch {
	case res.End != vm.Exited || res.Hello.Release != built.Release:
		return fmt.Errorf("boot a part of the series: the guest, %q, ended as %s", res.Hello.Release, res.End)
	case len(res.Complaints) > 0:
		return errors.New("boot a part of the series: the kernel complains: " + res.Complaints[0].Text)
	}
	data, err := json.Marshal(map[string]any{"digest": digest, "release": built.Release, "patches": b.First})
	if err != nil {
		return fmt.Errorf("note that a part of the series boots: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(known), 0o755); err != nil {
		return fmt.Errorf("note that a part of the series boots: %w", err)
	}
	if err := os.WriteFile(known, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("note that a part of the series boots: %w", err)
	}
	return os.RemoveAll(built.Dir)
}
