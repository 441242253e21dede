// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wflp/wflp/evaluation"
	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/campaign"
	"github.com/wflp/wflp/fuzz/finding"
	"github.com/wflp/wflp/fuzz/guest"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "fuzz", about: "try to break the mechanism: run, status, merge; replay, minimise, check, debug a finding; matrix",
		run: runFuzz,
	})
}

var fuzzCommands = []struct {
	name, args, about string
	run               func(context.Context, *invocation) error
}{
	{"run", "", "a campaign, or go on with one", fuzzRun},
	{"status", "DIR", "how far a campaign is", fuzzStatus},
	{"merge", "DIR FROM...", "put scenarios and findings of campaigns into one folder", fuzzMerge},
	{"replay", "FINDING", "see a finding again", fuzzReplay},
	{"minimise", "FINDING", "make a finding smaller", fuzzMinimise},
	{"check", "FINDING", "ask whether another kernel still shows it", fuzzCheck},
	{"debug", "FINDING", "replay a finding under gdb", fuzzDebug},
	{"matrix", "", "which seeded defects are found, and how soon", fuzzMatrix},
}

func runFuzz(ctx context.Context, inv *invocation) error {
	if len(inv.args) > 0 {
		for _, c := range fuzzCommands {
			if c.name == inv.args[0] {
				sub := *inv
				sub.args = inv.args[1:]
				return c.run(ctx, &sub)
			}
		}
	}
	w := inv.stderr
	fmt.Fprintf(w, "usage: wflp fuzz COMMAND [FLAGS] [ARGUMENTS]\n\n")
	for _, c := range fuzzCommands {
		fmt.Fprintf(w, "  %-9s %-12s %s\n", c.name, c.args, c.about)
	}
	fmt.Fprintf(w, "\nwflp fuzz COMMAND -h tells the flags. Exit code %d says that there is a finding.\n", exitFinding)
	if len(inv.args) > 0 && inv.args[0] != "-h" && inv.args[0] != "help" {
		return usagef("no command %q", inv.args[0])
	}
	return silentExit(exitUsage)
}

// defaultLanes: most of the time goes to what runs most scenarios, and most of it
// with a TLB that shows missing flushes, which costs nothing; kernels with
// checks see what others do not, and free-running machines see what one thread
// for all processors hides.
const defaultLanes = "release/deterministic+tlb:4,release/deterministic:2,debug/deterministic:2,kasan/deterministic:1,release/fast:1"

// parseLanes reads VARIANT/MODE[+tlb][:WEIGHT],…
func parseLanes(text string, cpus int) ([]campaign.Lane, error) {
	var out []campaign.Lane
	for _, word := range strings.Split(text, ",") {
		l := campaign.Lane{Weight: 1, Batch: 1}
		name, weight, ok := strings.Cut(strings.TrimSpace(word), ":")
		if ok {
			n, err := strconv.Atoi(weight)
			if err != nil || n < 1 {
				return nil, usagef("lane %q: the weight is a number from 1", word)
			}
			l.Weight = n
		}
		variant, mode, ok := strings.Cut(name, "/")
		mode, l.TLB = strings.CutSuffix(mode, attempt.WithTLB)
		l.Variant, l.Mode = variant, vm.Mode(mode)
		if !ok || !l.Mode.Valid() {
			return nil, usagef("lane %q: want VARIANT/MODE:WEIGHT, with a mode of %v, or VARIANT/MODE%s:WEIGHT", word, vm.Modes(), attempt.WithTLB)
		}
		if l.TLB && l.Mode == vm.Measured {
			return nil, usagef("lane %q: the TLB of a measured machine is that of this host; leave %s away", word, attempt.WithTLB)
		}
		l.CPUs, l.MemMiB = cpus, cmp.Or((&machineFlags{variant: variant}).memory(), vm.DefaultMemMiB)
		if slices.ContainsFunc(out, func(o campaign.Lane) bool { return o.Setup == l.Setup }) {
			return nil, usagef("lane %q is named twice", name)
		}
		out = append(out, l)
	}
	return out, nil
}

func fuzzRun(ctx context.Context, inv *invocation) error {
	fs := inv.flags("fuzz run")
	out := fs.String("out", "out/fuzz", "folder of the campaign; one that is there is gone on with")
	seed := fs.Uint64("seed", 1, "seed of the campaign")
	lanes := fs.String("lanes", defaultLanes, "kinds of machines: VARIANT/MODE:WEIGHT or VARIANT/MODE+tlb:WEIGHT, with commas")
	cpus := fs.Int("cpus", vm.DefaultCPUs, "virtual processors of a machine")
	batch := fs.Int("batch", 0, "scenarios that one machine runs (default 1, or 8 where each machine has to boot)")
	limit := fs.Duration("time", 0, "end after this long, over all starts (0: no bound)")
	more := fs.Duration("more", 0, "end this start after this long (0: no bound)")
	iterations := fs.Int("iterations", 0, "end after as many scenarios, over all starts (0: no bound)")
	findings := fs.Int("findings", 0, "end after as many different findings (0: no bound)")
	blind := fs.Bool("blind", false, "generate each scenario afresh, whatever was covered: to compare with")
	jobs := fs.Int("jobs", runtime.NumCPU(), "processors of this machine to keep busy")
	shard := fs.String("shard", "0/1", "I/N: run the I-th of N parts, the first is 0; a folder for each")
	mutant := fs.String("mutant", "", "number of a defect in kernel/mutants that the kernel is to have")
	kernels := registerKernels(fs)
	if err := inv.parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("%q: fuzz run takes flags only", fs.Arg(0))
	}
	s := campaign.Settings{Seed: *seed, Blind: *blind}
	if n, err := fmt.Sscanf(*shard, "%d/%d", &s.Shard, &s.Shards); n != 2 || err != nil || s.Shard >= s.Shards {
		return usagef("-shard %s: want I/N with I from 0 to N-1", *shard)
	}
	var err error
	if s.Lanes, err = parseLanes(*lanes, *cpus); err != nil {
		return err
	}
	m, err := inv.maker(kernels)
	if err != nil {
		return err
	}
	if *mutant != "" {
		d, err := findMutant(m.Builder, *mutant)
		if err != nil {
			return err
		}
		if len(kernels) > 0 {
			return usagef("-mutant builds a kernel, -kernel takes one: choose")
		}
		if d.Target != kernel.TargetKernel {
			return usagef("-mutant %s is a defect of %s: scenarios do without that; see wflp fuzz matrix", d, d.Target)
		}
		m.Builder.Mutant = &d
	}
	kits, err := inv.fuzzKits(ctx, m, s.Lanes)
	if err != nil {
		return err
	}
	for i := range s.Lanes {
		l := &s.Lanes[i]
		kit := kits[l.Setup.String()]
		l.MadeOf(kit)
		if l.Batch = *batch; l.Batch == 0 && kit.From != nil {
			l.Batch = 1
		} else if l.Batch == 0 {
			l.Batch = 8
		}
	}
	show := newStatusLine(inv.stderr)
	var last campaign.Status
	c := &campaign.Campaign{Dir: *out, Settings: s, Bounds: campaign.Bounds{Time: *limit, More: *more, Iterations: *iterations, Findings: *findings},
		Jobs: *jobs, Kits: kits, Confirm: 5, On: func(st campaign.Status) { last = st; show.line(st.Line()) }}
	err = c.Run(ctx)
	show.end()
	if err != nil {
		return err
	}
	fmt.Fprintln(inv.stdout, last.Line())
	for _, title := range last.Titles() {
		f := last.Findings[title]
		fmt.Fprintf(inv.stdout, "%s\n  %d times, first at iteration %d; %s\n", title, f.Count, f.FirstN, filepath.Join(*out, campaign.FindingsName, f.Folder))
	}
	fmt.Fprintf(inv.stdout, "%s\n", filepath.Join(*out, campaign.PageName))
	switch {
	case len(last.Findings) > 0:
		return silentExit(exitFinding)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return nil
}

// fuzzKits makes what the machines of the lanes are made of.
func (inv *invocation) fuzzKits(ctx context.Context, m evaluation.Maker, lanes []campaign.Lane) (map[string]attempt.Kit, error) {
	image, err := inv.fuzzImage(ctx, m.Builder)
	if err != nil {
		return nil, err
	}
	out := map[string]attempt.Kit{}
	for _, l := range lanes {
		k, err := m.Kernel(ctx, l.Variant)
		if err != nil {
			return nil, err
		}
		kit := attempt.Kit{Kernel: k, Image: image}
		if err := inv.prepare(ctx, l.Setup, &kit); err != nil {
			return nil, err
		}
		out[l.Setup.String()] = kit
	}
	return out, nil
}

// prepare chooses the emulator of machines, and boots the one that they start from.
func (inv *invocation) prepare(ctx context.Context, s attempt.Setup, kit *attempt.Kit) error {
	b, err := inv.emulatorBuilder()
	if err != nil {
		return err
	}
	if kit.Emulator, err = vm.EmulatorFor(ctx, b, s.Mode); err != nil {
		return err
	}
	if s.TLB && !kit.Emulator.Exists() {
		return fmt.Errorf("prepare machines of %s: the adversarial TLB is part of an emulator of our own, and there is none; see wflp qemu build, or leave %s away", s, attempt.WithTLB)
	}
	return kit.Keep(ctx, s, b.CacheDir)
}

// fuzzImage is the initial file system of machines that run scenarios.
func (inv *invocation) fuzzImage(ctx context.Context, b *kernel.Builder) (string, error) {
	files, err := guest.Files(ctx, b.RepoRoot)
	if err != nil {
		return "", err
	}
	return vmimages.Build(ctx, vmimages.Spec{RepoRoot: b.RepoRoot, CacheDir: b.CacheDir, Files: files})
}

// statusLine shows a line that changes: in place on a terminal, now and then
// elsewhere.
type statusLine struct {
	w        interface{ Write([]byte) (int, error) }
	terminal bool
	last     time.Time
}

func newStatusLine(w interface{ Write([]byte) (int, error) }) *statusLine {
	f, ok := w.(*os.File)
	return &statusLine{w: w, terminal: ok && evaluation.IsTerminal(f)}
}

func (s *statusLine) line(text string) {
	every := 30 * time.Second
	if s.terminal {
		every = 200 * time.Millisecond
	}
	if time.Since(s.last) < every {
		return
	}
	s.last = time.Now()
	if s.terminal {
		fmt.Fprintf(s.w, "\r\033[K%s", text)
		return
	}
	fmt.Fprintln(s.w, text)
}

func (s *statusLine) end() {
	if s.terminal {
		fmt.Fprint(s.w, "\r\033[K")
	}
}

func fuzzStatus(_ context.Context, inv *invocation) error {
	fs := inv.flags("fuzz status")
	asJSON := fs.Bool("json", false, "print all of it as JSON")
	dir, err := inv.folder(fs)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, campaign.SettingsName))
	if errors.Is(err, os.ErrNotExist) {
		return usagef("%s is no folder of a campaign: it has no %s", dir, campaign.SettingsName)
	}
	var s campaign.Settings
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return fmt.Errorf("read campaign: %w", err)
	}
	st, err := campaign.ReadStatus(dir, s)
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(inv.stdout)
		e.SetIndent("", "  ")
		return e.Encode(st)
	}
	fmt.Fprintln(inv.stdout, st.Line())
	for _, t := range st.Titles() {
		fmt.Fprintf(inv.stdout, "%6d  %s\n", st.Findings[t].Count, t)
	}
	return nil
}

func fuzzMerge(_ context.Context, inv *invocation) error {
	fs := inv.flags("fuzz merge")
	if err := inv.parse(fs); err != nil {
		return err
	}
	if fs.NArg() < 2 {
		return usagef("fuzz merge: want the folder to merge into and at least one to take from")
	}
	scenarios, findings, err := campaign.Merge(fs.Arg(0), fs.Args()[1:]...)
	if err != nil {
		return err
	}
	fmt.Fprintf(inv.stdout, "%d scenarios and %d findings were new\n", scenarios, findings)
	return nil
}

// folder parses flags and the one folder behind them, or before them.
func (inv *invocation) folder(fs *flag.FlagSet) (string, error) {
	if err := inv.parse(fs); err != nil {
		return "", err
	}
	args := fs.Args()
	if len(args) == 0 {
		return "", usagef("%s: want a folder", fs.Name())
	}
	dir := args[0]
	if len(args) > 1 {
		rest := *inv
		rest.args = args[1:]
		if err := rest.parse(fs); err != nil {
			return "", err
		}
		if fs.NArg() > 0 {
			return "", usagef("%s: want one folder, not %q as well", fs.Name(), fs.Arg(0))
		}
	}
	return dir, nil
}

// readFinding reads a finding and makes ready what its machine is made of. Where
// the folder has no machine, that is built from this checkout.
func (inv *invocation) readFinding(ctx context.Context, dir string) (*finding.Finding, attempt.Kit, error) {
	f, err := finding.Read(dir)
	if err != nil {
		return nil, attempt.Kit{}, &codeError{exitUsage, err}
	}
	k, err := f.Kit()
	if errors.Is(err, finding.ErrNoMachine) {
		k, err = inv.rebuild(ctx, f)
	}
	if err != nil {
		return nil, k, err
	}
	return f, k, inv.prepare(ctx, f.Attempt.Setup, &k)
}

// rebuild makes the kernel and the image of a finding of this checkout.
func (inv *invocation) rebuild(ctx context.Context, f *finding.Finding) (attempt.Kit, error) {
	m, err := inv.maker(kernelFlags{})
	if err != nil {
		return attempt.Kit{}, err
	}
	if f.Mutant != "" {
		d, err := findMutant(m.Builder, f.Mutant)
		if err != nil {
			return attempt.Kit{}, err
		}
		m.Builder.Mutant = &d
	}
	fmt.Fprintf(inv.stderr, "%s has no machine: its kernel is built from this checkout\n", f.Dir)
	f.Rebuilt()
	k := attempt.Kit{}
	if k.Kernel, err = m.Kernel(ctx, f.Attempt.Setup.Variant); err != nil {
		return k, err
	}
	k.Image, err = inv.fuzzImage(ctx, m.Builder)
	return k, err
}

func fuzzReplay(ctx context.Context, inv *invocation) error {
	fs := inv.flags("fuzz replay")
	runs := fs.Int("runs", 0, "how often (default: once in deterministic mode, twice if the kernel had to be built, else 20 times)")
	keep := fs.String("keep", "", "keep console and files of the machine here")
	dir, err := inv.folder(fs)
	if err != nil {
		return err
	}
	f, kit, err := inv.readFinding(ctx, dir)
	if err != nil {
		return err
	}
	if *runs == 0 {
		*runs = 20
		switch {
		case f.Deterministic() && f.Result == "":
			*runs = 2 // each is compared with the first
		case f.Deterministic():
			*runs = 1
		}
	}
	fmt.Fprintln(inv.stdout, f.Title)
	got, err := f.Replay(ctx, attempt.Machines(kit, *keep), *runs, func(run int, r *attempt.Result) {
		last := r.Outcomes[len(r.Outcomes)-1]
		what := last.Title
		if what == "" {
			what = string(last.Verdict.Status)
		}
		fmt.Fprintf(inv.stdout, "run %d: %s, machine %s after %.1f s\n", run, what, r.End, r.Duration.Seconds())
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(inv.stdout, "shown by %s\n", got.Rate)
	if v := got.Last.QEMU; f.QEMU != "" && v != f.QEMU && f.Deterministic() {
		fmt.Fprintf(inv.stderr, "QEMU is %s, the finding was made with %s: the bytes may differ\n", v, f.QEMU)
	}
	if f.Deterministic() {
		if got.Same == got.Runs {
			fmt.Fprintln(inv.stdout, "console and trace are the same byte for byte")
		} else {
			fmt.Fprintf(inv.stdout, "console and trace are the same in %d of %d runs\n", got.Same, got.Runs)
		}
	}
	if got.Hits == 0 {
		return &codeError{exitInfrastructure, fmt.Errorf("no run shows %q", f.Title)}
	}
	return silentExit(exitFinding)
}

func fuzzMinimise(ctx context.Context, inv *invocation) error {
	fs := inv.flags("fuzz minimise")
	jobs := fs.Int("jobs", runtime.NumCPU(), "machines at once")
	schedules := fs.Int("schedules", 8, "deterministic mode: interleavings that a smaller scenario is tried under")
	tries := fs.Int("tries", 20, "elsewhere: runs that a smaller scenario has …")
	hits := fs.Int("hits", 4, "… and how many of them must show the failure")
	dir, err := inv.folder(fs)
	if err != nil {
		return err
	}
	f, kit, err := inv.readFinding(ctx, dir)
	if err != nil {
		return err
	}
	show := newStatusLine(inv.stderr)
	m := finding.Minimiser{Try: attempt.Machines(kit, ""), Kit: kit, Jobs: *jobs, Schedules: *schedules, Tries: *tries, Hits: *hits,
		On: func(s finding.Step) {
			show.line(fmt.Sprintf("%d tried, %d taken, %d bytes", s.Tried, s.Taken, s.Size))
		}}
	small, err := m.Run(ctx, f)
	show.end()
	if err != nil {
		return err
	}
	fmt.Fprintf(inv.stdout, "%s\n%d scenarios of %d are left, shown by %s\n%s\n", small.Title, len(small.Attempt.Scenarios), len(f.Attempt.Scenarios), small.Again, small.Dir)
	return nil
}

func fuzzCheck(ctx context.Context, inv *invocation) error {
	fs := inv.flags("fuzz check")
	sample := fs.Int("sample", 20, "runs of the finding's own kernel, to know how often it shows")
	most := fs.Int("most", 2000, "runs of the other kernel at most")
	confidence := fs.Float64("confidence", 0.95, "how sure to be that it is gone")
	other := fs.String("kernel", "", "folder of a finished kernel (default: build the finding's variant from this checkout)")
	tree := fs.String("tree", "", "build the kernel from this git tree in place of kernel/patches")
	dir, err := inv.folder(fs)
	if err != nil {
		return err
	}
	if *confidence <= 0 || *confidence >= 1 {
		return usagef("-confidence %v: between 0 and 1, please", *confidence)
	}
	f, kit, err := inv.readFinding(ctx, dir)
	if err != nil {
		return err
	}
	m, err := inv.maker(kernelFlags{})
	if err != nil {
		return err
	}
	m.Builder.Tree = *tree
	variant := f.Attempt.Setup.Variant
	if *other != "" {
		if err := kernelFlags(m.Kernels).Set(variant + "=" + *other); err != nil {
			return err
		}
	}
	made, err := m.Kernel(ctx, variant)
	if err != nil {
		return err
	}
	changed := attempt.Kit{Kernel: made, Image: kit.Image}
	if err := inv.prepare(ctx, f.Attempt.Setup, &changed); err != nil {
		return err
	}
	show := newStatusLine(inv.stderr)
	c, err := f.Check(ctx, attempt.Machines(kit, ""), attempt.Machines(changed, ""), *sample, *most, *confidence, func(before bool, r finding.Rate) {
		which := "the other kernel"
		if before {
			which = "its own kernel"
		}
		show.line(fmt.Sprintf("%s: %d of %d", which, r.Hits, r.Runs))
	})
	show.end()
	if err != nil {
		return err
	}
	fmt.Fprintf(inv.stdout, "%s\nits own kernel %.12s: %s\n", f.Title, kit.Kernel.Digest, c.Before)
	if c.Needed == 0 {
		return &codeError{exitInfrastructure, fmt.Errorf("its own kernel did not show it in %d runs, so the other one cannot be asked; try a greater -sample", c.Before.Runs)}
	}
	fmt.Fprintf(inv.stdout, "the other kernel %.12s: %s; %d runs without it are needed for %.0f %%\n", changed.Kernel.Digest, c.After, c.Needed, 100*c.Confidence)
	switch {
	case c.Shown():
		fmt.Fprintln(inv.stdout, "it is still there")
		return silentExit(exitFinding)
	case c.Gone():
		fmt.Fprintln(inv.stdout, "it is gone")
		return nil
	}
	return &codeError{exitInfrastructure, fmt.Errorf("undecided after %d runs; a greater -most may tell", c.After.Runs)}
}
