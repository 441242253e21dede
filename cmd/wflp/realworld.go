// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/realworld/guest"
	"github.com/wflp/wflp/realworld/server"
	"github.com/wflp/wflp/vmimages/qemu"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "serve", about: "run a real server under load in a guest, and change its code meanwhile",
		run: runServe,
	})
}

func runServe(ctx context.Context, inv *invocation) error {
	fs := inv.flags("serve")
	var p guest.Programs
	cfg := guest.Config{}
	fs.StringVar(&cfg.Server, "server", "memcached", "one of "+strings.Join(server.Names(), ", "))
	fs.StringVar(&cfg.Fix, "fix", "", "name of the fix, for the request that shows the defect")
	fs.StringVar(&p.Without, "without", "", "the program built without the fix")
	fs.StringVar(&p.With, "with", "", "the program built with it")
	fs.StringVar(&p.Patch, "patch", "", "patch file")
	fs.StringVar(&p.Preload, "preload", "", "with -patch: libwflp-preload.so")
	strategies := fs.String("strategies", "none,restart", "how the code is changed, one run each")
	util := fs.Int("utilisation", 40, "offered load in percent of what clients and server can do")
	duration := fs.Int("duration", 4000, "milliseconds of load in each run")
	rounds := fs.Int("rounds", 1, "changes of the code in each run: with the fix, without it, and so on")
	fs.IntVar(&cfg.Clients, "clients", 16, "connections")
	fs.IntVar(&cfg.CPUs, "cpus", 2, "virtual processors, of which the last is the clients'")
	fs.IntVar(&cfg.MemMiB, "mem", 768, "memory in MiB")
	fs.Uint64Var(&cfg.Seed, "seed", 1, "of arrivals and requests")
	fs.StringVar(&cfg.Dir, "dir", "", "keep the machine's files here")
	variant := fs.String("variant", "release", "kernel variant")
	if err := inv.parse(fs); err != nil {
		return err
	}
	srv, err := server.ByName(cfg.Server)
	if err != nil {
		return &codeError{exitUsage, err}
	}
	cfg.CalibrateMS, cfg.Patch = 1500, p.Patch != ""
	for _, s := range strings.Split(*strategies, ",") {
		r := server.Run{Strategy: record.Strategy(s), UtilisationPct: *util, DurationMS: *duration}
		for i := range *rounds {
			r.PatchAtMS = append(r.PatchAtMS, *duration/4 + i**duration/2 / *rounds)
		}
		cfg.Runs = append(cfg.Runs, r)
	}
	b, err := (&machineFlags{}).builder(inv)
	if err != nil {
		return err
	}
	if cfg.Mode, err = vm.DefaultMode(ctx, b.CacheDir); err != nil {
		return err
	}
	if cfg.Kernel, err = b.Build(ctx, *variant); err != nil {
		return err
	}
	if cfg.Emulator, err = vm.EmulatorFor(ctx, &qemu.Builder{RepoRoot: b.RepoRoot, CacheDir: b.CacheDir, Log: inv.stderr}, cfg.Mode); err != nil {
		return err
	}
	if cfg.Image, _, err = guest.Image(ctx, b, srv, p); err != nil {
		return err
	}
	res, err := guest.Run(ctx, cfg)
	if err != nil {
		return err
	}
	out, err := json.MarshalIndent(res.Outcome, "", " ")
	if err != nil {
		return err
	}
	fmt.Fprintf(inv.stdout, "%s\n", out)
	return nil
}
