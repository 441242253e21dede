// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
)

// Column is one kind of run; a table has all three.
type Column string

// The columns.
const (
	Stock  Column = "stock"  // the kernel without the series
	Series Column = "series" // with it, in the base as every program is
	View   Column = "view"   // with it, in a view with private pages
)

// Columns are all columns, the one that the others are compared with first.
func Columns() []Column { return []Column{Stock, Series, View} }

// Places in the guest.
const (
	guestTests  = "/mmtests"
	guestRun    = "/inview/inview-run"
	guestShim   = "/inview/inview.so"
	guestReport = "/run/inview.report"
)

// stressPackages are stress-ng and the libraries it is linked to, but for libc.
var stressPackages = []string{
	"stress-ng", "libapparmor1", "libbsd0", "libcrypt1", "libdrm2", "libegl1", "libexpat1", "libffi8", "libgbm1", "libgles2", "libglvnd0",
	"libipsec-mb1", "libjpeg62-turbo", "libjudydebian1", "libkmod2", "liblzma5", "libmd0", "libsctp1", "libssl3", "libwayland-server0",
	"libxxhash0", "libzstd1", "zlib1g",
}

// Config is what is to be run, and how.
type Config struct {
	Builder *kernel.Builder
	Variant string // of the kernel with the series
	Out     string // results, one file a boot; what is there is not run again
	Cases   []Case
	Jobs    int // machines side by side
	CPUs    int // of each
	MemMiB  int
	Mode    vm.Mode
	// Slower is by how much the kernel is slower than one without checks: all
	// limits are multiplied by it. 0 is 1.
	Slower int
	Log    io.Writer
}

// Inputs says what a table was made from.
type Inputs struct {
	Kernels  map[Column]string `json:"kernels"` // name of each
	Source   string            `json:"source"`  // version of the selftests
	StressNG string            `json:"stress_ng"`
	NotBuilt map[string]string `json:"not_built,omitempty"`
	CPUs     int               `json:"cpus"`
	MemMiB   int               `json:"mem_mib"`
	Mode     vm.Mode           `json:"mode"`
}

// boot is the cases of one machine in one column.
type boot struct {
	column Column
	name   string
	cases  []Case
	key    string // digest of all that its results depend on
}

func (b boot) file(out string) string {
	return filepath.Join(out, "boots", fmt.Sprintf("%s-%s.json", b.column, b.name))
}

// saved is the file of a boot.
type saved struct {
	Key     string       `json:"key"`
	Results []CaseResult `json:"results"`
}

// engine is a Config with all that it needs at hand.
type engine struct {
	Config
	kernels map[Column]kernel.Built
	image   string
	inputs  Inputs
	mu      sync.Mutex
	done    int
	boots   int
}

func (e *engine) logf(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintf(e.Log, "conform: "+format+"\n", args...)
}

// Run runs what has no result yet and hands back all results, by column and case.
func Run(ctx context.Context, cfg Config) (map[Column]map[string]CaseResult, Inputs, error) {
	e := &engine{Config: cfg}
	e.Cases = slices.Clone(cfg.Cases)
	for i := range e.Cases {
		e.Cases[i].Limit *= time.Duration(max(1, cfg.Slower))
	}
	if err := e.prepare(ctx); err != nil {
		return nil, Inputs{}, err
	}
	var boots []boot
	var order []string
	groups := map[string][]Case{}
	for _, c := range e.Cases {
		if c.Suite == "selftests" && e.inputs.NotBuilt[strings.TrimPrefix(c.Argv[0], guestTests+"/")] != "" {
			continue
		}
		if groups[c.Boot] == nil {
			order = append(order, c.Boot)
		}
		groups[c.Boot] = append(groups[c.Boot], c)
	}
	for _, name := range order {
		for _, col := range Columns() {
			b := boot{column: col, name: name, cases: groups[name]}
			b.key = e.key(b)
			boots = append(boots, b)
		}
	}
	e.boots = len(boots)
	results := make([][]CaseResult, len(boots))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range max(1, e.Jobs) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				rs, err := e.boot(ctx, boots[i])
				if err != nil {
					cancel(err)
				}
				results[i] = rs
			}
		}()
	}
feed:
	for i := range boots {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, e.inputs, context.Cause(ctx)
	}
	all := map[Column]map[string]CaseResult{}
	for i, b := range boots {
		if all[b.column] == nil {
			all[b.column] = map[string]CaseResult{}
		}
		for _, r := range results[i] {
			all[b.column][r.Case] = r
		}
	}
	return all, e.inputs, nil
}

// prepare builds kernels, programs and the image.
func (e *engine) prepare(ctx context.Context) error {
	e.kernels = map[Column]kernel.Built{}
	for _, col := range Columns() {
		variant := e.Variant
		if col == Stock {
			variant = "stock"
		}
		built, err := e.Builder.Build(ctx, variant)
		if err != nil {
			return err
		}
		e.kernels[col] = built
	}
	pkgs, err := e.Builder.Packages(ctx, append(append([]string{}, stressPackages...), kernel.MMPackages...)...)
	if err != nil {
		return err
	}
	tests, err := e.Builder.MMTests(ctx, pkgs)
	if err != nil {
		return err
	}
	shim, err := e.shim(ctx)
	if err != nil {
		return err
	}
	files := []vmimages.File{
		{Path: "/usr/bin/stress-ng", Host: filepath.Join(pkgs.Root, "usr/bin/stress-ng")},
		{Path: guestShim, Host: filepath.Join(shim, "inview.so")},
		{Path: guestRun, Host: filepath.Join(shim, "inview-run")},
		// Read by a test, and by libc for the names of users.
		{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")},
	}
	for _, t := range tests.Programs {
		files = append(files, vmimages.File{Path: guestTests + "/" + t.Name, Host: t.Path})
	}
	var programs []string
	for _, f := range files {
		if f.Host != "" {
			programs = append(programs, f.Host)
		}
	}
	libs, err := vmimages.Libraries(programs, pkgs.Root, "/")
	if err != nil {
		return err
	}
	// libc loads it when a thread is cancelled.
	gcc, err := vmimages.Library("libgcc_s.so.1", pkgs.Root, "/")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(libs, func(f vmimages.File) bool { return f.Path == gcc.Path }) {
		libs = append(libs, gcc)
	}
	e.image, err = vmimages.Build(ctx, vmimages.Spec{RepoRoot: e.Builder.RepoRoot, CacheDir: e.Builder.CacheDir, Files: append(files, libs...)})
	if err != nil {
		return err
	}
	e.inputs = Inputs{
		Kernels: map[Column]string{}, Source: tests.Source, StressNG: pkgs.Versions["stress-ng"], NotBuilt: tests.NotBuilt,
		CPUs: e.CPUs, MemMiB: e.MemMiB, Mode: e.Mode,
	}
	for col, k := range e.kernels {
		e.inputs.Kernels[col] = k.Variant + "-" + k.Digest
	}
	return nil
}

// shim builds fuzz/inview and returns the folder.
func (e *engine) shim(ctx context.Context) (string, error) {
	dir := filepath.Join(e.Builder.CacheDir, "build", "inview")
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", filepath.Join(e.Builder.RepoRoot, "fuzz", "inview"), "BUILD="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build inview: %w\n%s", err, out)
	}
	return dir, nil
}

// kernelWords make the RAM disk that serves as swap large enough.
var kernelWords = []string{"brd.rd_nr=1", "brd.rd_size=131072"}

// judgement is raised when judge makes other results of the same run.
const judgement = 2

func (e *engine) key(b boot) string {
	data, err := json.Marshal([]any{judgement, e.kernels[b.column].Digest, filepath.Base(e.image), e.steps(b.column, b.cases), kernelWords, e.CPUs, e.MemMiB, e.Mode})
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

func (e *engine) steps(col Column, cases []Case) []guestproto.Step {
	var steps []guestproto.Step
	for _, c := range cases {
		argv := []string{guestRun, "-r", guestReport}
		if col == View {
			argv = append(argv, "-p", guestShim)
		}
		if c.UID != 0 {
			argv = append(argv, "-u", strconv.Itoa(c.UID))
		}
		argv = append(argv, c.Argv...)
		setup := c.Setup
		if setup == "" {
			setup = ":"
		}
		steps = append(steps, guestproto.Step{
			Name: c.Name, Argv: append([]string{"/bin/sh", "-c", "{ " + setup + "; } >&2; exec \"$@\"", "sh"}, argv...),
			Dir: "/tmp", TimeoutMS: c.Limit.Milliseconds(), Collect: []string{guestReport},
		})
	}
	return steps
}

// maxBootTries bounds how often a machine is started for what is left of a boot.
const maxBootTries = 8

// boot runs the cases of a boot, or reads what came of them. Cases after one
// that took the machine down run in a new one; a case that was not over in time
// has one more try, with thrice the time: the host may have been busy.
func (e *engine) boot(ctx context.Context, b boot) ([]CaseResult, error) {
	var s saved
	if data, err := os.ReadFile(b.file(e.Out)); err == nil && json.Unmarshal(data, &s) == nil && s.Key == b.key {
		e.finished(b, "kept")
		return s.Results, nil
	}
	results := map[string]CaseResult{}
	retried := map[string]bool{}
	pending := b.cases
	start := time.Now()
	for try := 1; len(pending) > 0; try++ {
		if try > maxBootTries {
			return nil, fmt.Errorf("run %s in %s: machines went down %d times", b.name, b.column, maxBootTries)
		}
		res, err := e.machine(ctx, b, pending)
		var be *vm.BootError
		if errors.As(err, &be) && try < 3 && ctx.Err() == nil {
			e.logf("%s %s: the machine did not come up, once more", b.column, b.name)
			continue
		}
		if err != nil {
			return nil, err
		}
		var again []Case
		for i, c := range pending {
			step := res.Steps[i]
			if step.Ran && step.TimedOut && !retried[c.Name] {
				retried[c.Name] = true
				c.Limit *= 3
				again = append(again, c)
				continue
			}
			down := ""
			if !step.Ran {
				down = fmt.Sprintf("%s; console ends: %s", res.End, tail(string(res.Console), 1500))
			}
			results[c.Name] = judge(c, step, down, b.column == View)
			if !step.Ran {
				// What comes after it has not run.
				again = append(again, pending[i+1:]...)
				break
			}
		}
		pending = again
	}
	for _, c := range b.cases {
		s.Results = append(s.Results, results[c.Name])
	}
	s.Key = b.key
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(e.Out, "boots"), 0o755); err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	tmp := b.file(e.Out) + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	if err := os.Rename(tmp, b.file(e.Out)); err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	e.finished(b, fmt.Sprintf("%d s", int(time.Since(start).Seconds())))
	return s.Results, nil
}

func (e *engine) finished(b boot, how string) {
	e.mu.Lock()
	e.done++
	n := e.done
	e.mu.Unlock()
	e.logf("%d of %d boots: %s %s, %d programs, %s", n, e.boots, b.column, b.name, len(b.cases), how)
}

func (e *engine) machine(ctx context.Context, b boot, cases []Case) (*vm.Result, error) {
	cfg := vm.Config{
		Mode: e.Mode, Kernel: e.kernels[b.column], Image: e.image, CPUs: e.CPUs, MemMiB: e.MemMiB, Append: kernelWords,
		Dir: filepath.Join(e.Out, "machines", fmt.Sprintf("%s-%s", b.column, b.name)),
		Job: guestproto.Job{Seed: 1, Steps: e.steps(b.column, cases)}, Timeout: 3 * time.Minute,
	}
	for _, c := range cases {
		cfg.Timeout += c.Limit
	}
	res, err := vm.Run(ctx, cfg, func(ev vm.Event) {
		if ev.Kind == vm.EventStepEnd {
			how := fmt.Sprintf("exit %d", ev.End.ExitCode)
			if ev.End.TimedOut {
				how = "not over in time"
			} else if ev.End.Signal != "" {
				how = ev.End.Signal
			}
			e.logf("%-6s %s: %s, %.1f s", b.column, ev.Name, how, float64(ev.End.DurationNS)/1e9)
		}
	})
	if err != nil {
		return nil, err
	}
	switch {
	case res.End == vm.Killed:
		return nil, fmt.Errorf("run %s in %s: %w", b.name, b.column, context.Cause(ctx))
	case b.column != Stock && !res.Hello.MMView:
		return nil, fmt.Errorf("run %s in %s: the kernel has no views", b.name, b.column)
	case b.column == Stock && res.Hello.MMView:
		return nil, fmt.Errorf("run %s in %s: the kernel has views", b.name, b.column)
	}
	return res, nil
}
