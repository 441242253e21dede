// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "vm", about: "run a command in a guest and hand back its exit code: vm [FLAGS] -- CMD…",
		run: runVM,
	})
}

// machineFlags are the flags of all subcommands that boot a machine.
type machineFlags struct {
	variant, kernel, mode, tree string
	dir, appendLine             string
	cpus, mem, nodes, levels    int
	seed, schedule              uint64
	sliceBits                   int
	hostQEMU, adversarial       bool
	timeout                     time.Duration
}

func (m *machineFlags) register(fs *flag.FlagSet, variant string) {
	fs.StringVar(&m.variant, "variant", variant, "kernel variant")
	fs.StringVar(&m.kernel, "kernel", "", "folder of a finished kernel to use in place of a variant's")
	fs.StringVar(&m.mode, "mode", "", "measured, fast or deterministic (default: measured where KVM works, else fast)")
	fs.StringVar(&m.tree, "tree", "", "build the kernel from this git tree in place of kernel/patches")
	fs.StringVar(&m.dir, "dir", "", "keep console.log and the other files of the machine here")
	fs.StringVar(&m.appendLine, "append", "", "more words for the kernel's command line")
	fs.IntVar(&m.cpus, "cpus", vm.DefaultCPUs, "virtual processors")
	fs.IntVar(&m.mem, "mem", 0, "memory in MiB (default 256, for kernels that check themselves 1024)")
	fs.IntVar(&m.nodes, "nodes", 0, "NUMA nodes that share processors and memory (default: a machine without)")
	fs.IntVar(&m.levels, "levels", 4, "levels of page tables, 4 or 5; only kernels with CONFIG_X86_5LEVEL use the fifth")
	fs.Uint64Var(&m.seed, "seed", 1, "seed of the machine and of its programs")
	fs.Uint64Var(&m.schedule, "schedule", 0, "seed of the interleaving in mode deterministic (default: that of -seed)")
	fs.IntVar(&m.sliceBits, "slice-bits", 0, fmt.Sprintf("a processor's turn there takes less than 2^this instructions (default %d)", vm.DefaultSliceBits))
	fs.BoolVar(&m.adversarial, "adversarial-tlb", false, "a TLB with PCID that forgets nothing it may keep, of our own QEMU: shows flushes that are missing")
	fs.BoolVar(&m.hostQEMU, "host-qemu", false, "use the host's QEMU, not the one of our own")
	fs.DurationVar(&m.timeout, "timeout", vm.DefaultTimeout, "end the machine after this long")
}

// memory is the machine's in MiB; 0 leaves it to the package vm.
func (m *machineFlags) memory() int {
	if built, err := kernel.Open(m.kernel); err == nil {
		m.variant = built.Variant
	}
	if m.mem == 0 && m.checks() {
		// An eighth of a KASAN machine is shadow, and lockdep has its tables.
		return 1024
	}
	return m.mem
}

// checks says whether the variant is one of those that check themselves; an
// unknown one is found out about elsewhere.
func (m *machineFlags) checks() bool {
	v, err := kernel.VariantByName(m.variant)
	return err == nil && v.Checks()
}

// builder is the kernel builder that the flags ask for.
func (m *machineFlags) builder(inv *invocation) (*kernel.Builder, error) {
	b, err := inv.builder()
	if err == nil && m.tree != "" {
		b.Tree, err = filepath.Abs(m.tree)
	}
	return b, err
}

// config makes a machine of the flags, building what it needs.
func (m *machineFlags) config(ctx context.Context, inv *invocation, programs []vmimages.File) (vm.Config, error) {
	b, err := m.builder(inv)
	if err != nil {
		return vm.Config{}, err
	}
	cfg := vm.Config{
		Mode: vm.Mode(m.mode), CPUs: m.cpus, MemMiB: m.memory(), Nodes: m.nodes, Levels: m.levels, Seed: m.seed, Schedule: m.schedule, SliceBits: m.sliceBits, Timeout: m.timeout, Dir: m.dir,
		Append: strings.Fields(m.appendLine),
	}
	if cfg.Mode == "" {
		if cfg.Mode, err = vm.DefaultMode(ctx, b.CacheDir); err != nil {
			return cfg, err
		}
	}
	if _, err := vm.Command(cfg); err != nil {
		return cfg, &codeError{exitUsage, err}
	}
	if err := m.emulator(ctx, inv, &cfg); err != nil {
		return cfg, err
	}
	if m.kernel != "" {
		cfg.Kernel, err = kernel.Open(m.kernel)
	} else {
		cfg.Kernel, err = b.Build(ctx, m.variant)
	}
	if err != nil {
		return cfg, err
	}
	cfg.Image, err = vmimages.Build(ctx, vmimages.Spec{RepoRoot: b.RepoRoot, CacheDir: b.CacheDir, Files: programs})
	return cfg, err
}

// emulator chooses the emulator of a machine, building it if need be.
func (m *machineFlags) emulator(ctx context.Context, inv *invocation, cfg *vm.Config) error {
	if m.hostQEMU {
		return nil
	}
	b, err := inv.emulatorBuilder()
	if err != nil {
		return err
	}
	if cfg.AdversarialTLB = m.adversarial; m.adversarial && cfg.Mode == vm.Fast {
		cfg.Emulator, err = b.Build(ctx)
	} else {
		cfg.Emulator, err = vm.EmulatorFor(ctx, b, cfg.Mode)
	}
	return err
}

// fileFlags collects -file HOST:GUEST.
type fileFlags map[string][]byte

func (f fileFlags) String() string { return "" }

func (f fileFlags) Set(s string) error {
	host, guest, ok := strings.Cut(s, ":")
	if !ok || guest == "" {
		guest = path.Join("/job", filepath.Base(host))
	}
	data, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	f[guest] = data
	return nil
}

func runVM(ctx context.Context, inv *invocation) error {
	fs := inv.flags("vm")
	var mf machineFlags
	mf.register(fs, "release")
	files := fileFlags{}
	fs.Var(files, "file", "HOST:GUEST puts a file into the guest, executable; may be repeated (GUEST default: /job/NAME)")
	collect := fs.String("collect", "", "pattern of guest files to fetch into -dir when the command has ended")
	dryRun := fs.Bool("dry-run", false, "print the QEMU command and start nothing")
	snapshot := fs.Bool("snapshot", false, "start from a machine that has booted and is kept in the cache, which is made first if need be")
	showConsole := fs.Bool("console", false, "print the console at the end")
	if err := inv.parse(fs); err != nil {
		return err
	}
	argv := fs.Args()
	if len(argv) == 0 && !*dryRun {
		return usagef("run in guest: no command (wflp vm [FLAGS] -- CMD…)")
	}
	if *collect != "" && mf.dir == "" {
		return usagef("run in guest: -collect needs -dir")
	}
	if *dryRun {
		return mf.dryRun(ctx, inv)
	}
	cfg, err := mf.config(ctx, inv, nil)
	if err != nil {
		return err
	}
	if *snapshot {
		cache, err := kernel.DefaultCacheDir()
		if err != nil {
			return err
		}
		from, err := vm.Keep(ctx, cfg, cache)
		if err != nil {
			return err
		}
		cfg.From = from
	}
	step := guestproto.Step{Name: path.Base(argv[0]), Argv: argv, Stream: true}
	if *collect != "" {
		step.Collect = []string{*collect}
	}
	cfg.Job = guestproto.Job{Seed: mf.seed, Steps: []guestproto.Step{step}}
	cfg.JobFiles = files
	res, err := vm.Run(ctx, cfg, func(e vm.Event) {
		switch e.Kind {
		case vm.EventStdout:
			inv.stdout.Write(e.Data)
		case vm.EventStderr:
			inv.stderr.Write(e.Data)
		}
	})
	var be *vm.BootError
	if errors.As(err, &be) && ctx.Err() == nil {
		return bootError(err)
	}
	if err != nil {
		return err
	}
	if *showConsole {
		inv.stderr.Write(res.Console)
	}
	return vmExit(inv, mf.dir, res)
}

// vmExit reports how the command and the machine ended.
func vmExit(inv *invocation, dir string, res *vm.Result) error {
	for _, c := range res.Complaints {
		fmt.Fprintf(inv.stderr, "wflp vm: the kernel complains (%s):\n%s\n", c.Kind, c.Text)
	}
	s := res.Steps[0]
	for guest, data := range s.Files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(guest)), data, 0o644); err != nil {
			return fmt.Errorf("keep collected file: %w", err)
		}
	}
	if s.Error != "" {
		fmt.Fprintf(inv.stderr, "wflp vm: %s\n", s.Error)
	}
	switch {
	case res.End == vm.Killed:
		return &codeError{exitInterrupted, errors.New("interrupted")}
	case res.AgentError != "":
		return fmt.Errorf("run in guest: agent: %s", res.AgentError)
	case res.End != vm.Exited || !s.Ran:
		return &codeError{exitBoot, fmt.Errorf("run in guest: machine ended by %s; console ends:\n%s", res.End, lastBytes(res.Console, 3000))}
	case s.Signal != "":
		fmt.Fprintf(inv.stderr, "wflp vm: the command was ended by %s\n", s.Signal)
		return silentExit(128 + signalNumber(s.Signal))
	case s.ExitCode == 0 && len(res.Complaints) > 0:
		return findingError(errors.New("the command succeeded, but the kernel complained"))
	}
	return silentExit(s.ExitCode)
}

// dryRun prints the command line for what is built already; it builds nothing.
func (m *machineFlags) dryRun(ctx context.Context, inv *invocation) error {
	b, err := m.builder(inv)
	if err != nil {
		return err
	}
	cfg := vm.Config{Mode: vm.Mode(m.mode), CPUs: m.cpus, MemMiB: m.memory(), Nodes: m.nodes, Levels: m.levels, Seed: m.seed, Schedule: m.schedule,
		SliceBits: m.sliceBits, Dir: m.dir, Append: strings.Fields(m.appendLine)}
	if cfg.Mode == "" {
		if cfg.Mode, err = vm.DefaultMode(ctx, b.CacheDir); err != nil {
			return err
		}
	}
	if eb, err := inv.emulatorBuilder(); err == nil && cfg.Mode != vm.Measured && !m.hostQEMU {
		cfg.Emulator, _ = eb.Find(ctx) // or what would be used if it cannot be built
	}
	v, err := kernel.VariantByName(m.variant)
	if err != nil {
		return err
	}
	cfg.Kernel = kernel.Built{Variant: v.Name, Dir: filepath.Join(b.CacheDir, "kernels", v.Name+"-DIGEST")}
	if built, err := b.Find(ctx, m.variant); err == nil {
		cfg.Kernel = built
	} else if !errors.Is(err, kernel.ErrNotBuilt) {
		return err
	}
	args, err := vm.Command(cfg)
	if err != nil {
		return &codeError{exitUsage, err}
	}
	fmt.Fprintln(inv.stdout, shellQuote(args))
	return nil
}

func lastBytes(b []byte, n int) []byte {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return b
}

// shellQuote prints a command so that a shell reads it back.
func shellQuote(args []string) string {
	var out []string
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\$&|;<>()*?[]{}!#~`") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

// signalNumber is what a shell adds to 128.
func signalNumber(name string) int { return int(unix.SignalNum(name)) }
