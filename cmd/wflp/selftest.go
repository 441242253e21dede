// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "selftest", about: "run the selftests of the series, or of the library, in a guest",
		run: runSelftest,
	})
}

func runSelftest(ctx context.Context, inv *invocation) error {
	fs := inv.flags("selftest")
	var mf machineFlags
	mf.register(fs, "debug")
	suite := fs.String("suite", "series", "series: the kernel selftests; lib: the tests of kernel/libwflp; lib-long: those that take hours of guest time, for -mode deterministic")
	pattern := fs.String("run", "", "only programs whose name matches this regular expression")
	not := fs.String("skip", "", "and not those whose name matches this one")
	verbose := fs.Bool("v", false, "print what the programs print")
	limit := fs.Duration("test-timeout", 10*time.Minute, "end a program after this much guest time")
	if err := inv.parse(fs); err != nil {
		return err
	}
	match, err := regexp.Compile(*pattern)
	if err != nil {
		return usagef("select selftests: %w", err)
	}
	skip, err := regexp.Compile(*not)
	if err != nil {
		return usagef("leave selftests out: %w", err)
	}
	b, err := mf.builder(inv)
	if err != nil {
		return err
	}
	var files []vmimages.File
	var steps []guestproto.Step
	switch *suite {
	case "series":
		files, steps, err = seriesTests(ctx, b, mf)
	case "lib", "lib-long":
		files, steps, err = libTests(ctx, b.RepoRoot, strings.Replace(*suite, "lib", "matrix", 1))
		if mf.variant != "release" {
			// Fewer rounds and later deadlines: lockdep under emulation.
			for i := range steps {
				steps[i].Env = append(steps[i].Env, "WFLP_TEST_SLOW=8")
			}
		}
	default:
		return usagef("select selftests: no suite %q", *suite)
	}
	if err != nil {
		return err
	}
	steps = slices.DeleteFunc(steps, func(s guestproto.Step) bool {
		return !match.MatchString(s.Name) || *not != "" && skip.MatchString(s.Name)
	})
	for i := range steps {
		steps[i].Dir, steps[i].TimeoutMS, steps[i].Stream = "/tmp", limit.Milliseconds(), true
	}
	if len(steps) == 0 {
		return findingError(errors.New("run selftests: there are none that match"))
	}
	if mf.timeout == vm.DefaultTimeout {
		mf.timeout = time.Hour
	}
	var sum selftestSummary
	for _, g := range groupByNeeds(steps) {
		res, err := runGroup(ctx, inv, mf, g, files, *verbose)
		if err != nil {
			return err
		}
		sum.add(judgeSelftests(res))
	}
	for _, line := range sum.lines {
		fmt.Fprintln(inv.stdout, line)
	}
	fmt.Fprintf(inv.stdout, "%s selftests, %s: %d passed, %d failed, %d skipped\n", *suite, mf.variant, sum.passed, sum.failed, sum.skipped)
	if sum.failed > 0 {
		return silentExit(exitFinding)
	}
	return nil
}

// machineNeeds is what a program needs of its machine: at least that much, and
// these words for the kernel besides the user's.
type machineNeeds struct {
	memMiB, nodes int
	words         string
}

// gigantic is room for a leaf of 1 GiB. 3 GiB of the memory are below 4 GiB, the
// rest is above. What the kernel takes at boot it takes from the top, with KASAN more
// than half a GiB, and a bzImage that cannot be relocated gets its initramfs just
// below 2 GiB. So the GiB at 4 GiB is whole in every machine that has another above.
var gigantic = machineNeeds{memMiB: 5120, words: "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=0"}

// seriesNeeds tells the programs of the series that an ordinary machine is too
// small for.
var seriesNeeds = map[string]machineNeeds{
	"mm_view_gigantic": gigantic, "mm_view_huge": gigantic,
	// Somewhere to migrate to, and a RAM disk (in KiB) to swap to.
	"mm_view_reclaim": {memMiB: 1024, nodes: 2, words: "ramdisk_size=131072"},
	// It takes pages out of service, which others would miss.
	"mm_view_advice": {memMiB: 512},
}

// machineGroup are programs that run in one machine, one after the other.
type machineGroup struct {
	needs machineNeeds
	steps []guestproto.Step
}

// groupByNeeds puts programs with equal needs together, in the order of their
// first ones.
func groupByNeeds(steps []guestproto.Step) []machineGroup {
	var groups []machineGroup
	for _, s := range steps {
		needs := seriesNeeds[s.Name]
		i := slices.IndexFunc(groups, func(g machineGroup) bool { return g.needs == needs })
		if i < 0 {
			i = len(groups)
			groups = append(groups, machineGroup{needs: needs})
		}
		groups[i].steps = append(groups[i].steps, s)
	}
	return groups
}

// with are the flags for a machine that has what is needed, too.
func (m machineFlags) with(n machineNeeds) machineFlags {
	m.mem = max(m.memory(), n.memMiB)
	m.nodes = max(m.nodes, n.nodes)
	m.appendLine = strings.TrimSpace(m.appendLine + " " + n.words)
	if m.dir != "" && n != (machineNeeds{}) {
		m.dir = filepath.Join(m.dir, fmt.Sprintf("mem%d-nodes%d", m.mem, m.nodes))
	}
	return m
}

func runGroup(ctx context.Context, inv *invocation, mf machineFlags, g machineGroup, files []vmimages.File, verbose bool) (*vm.Result, error) {
	mf = mf.with(g.needs)
	cfg, err := mf.config(ctx, inv, files)
	if err != nil {
		return nil, err
	}
	cfg.Job = guestproto.Job{Seed: mf.seed, Steps: g.steps}
	res, err := vm.Run(ctx, cfg, func(e vm.Event) {
		switch e.Kind {
		case vm.EventStepBegin:
			fmt.Fprintf(inv.stderr, "selftest %s: %s\n", mf.variant, e.Name)
		case vm.EventStdout, vm.EventStderr:
			if verbose {
				inv.stderr.Write(e.Data)
			}
		}
	})
	var be *vm.BootError
	if errors.As(err, &be) && ctx.Err() == nil {
		return nil, bootError(err)
	}
	if err != nil {
		return nil, err
	}
	if res.End == vm.Killed {
		return nil, fmt.Errorf("run selftests: %w", context.Cause(ctx))
	}
	return res, nil
}

// seriesTests are the programs of the series, one step each.
func seriesTests(ctx context.Context, b *kernel.Builder, mf machineFlags) (files []vmimages.File, steps []guestproto.Step, err error) {
	all, err := b.Selftests(ctx, mf.variant)
	if err != nil {
		return nil, nil, err
	}
	for _, st := range all {
		guest := "/selftests/" + st.Name
		files = append(files, vmimages.File{Path: guest, Host: st.Path})
		step := guestproto.Step{Name: st.Name, Argv: []string{guest}}
		if mf.checks() {
			// How much slower than the release kernel such a one is.
			step.Env = append(step.Env, "MM_VIEW_SCALE=8")
		}
		// A program sees that there is a race, judgeSelftests() whose it is.
		step.Env = append(step.Env, "MM_VIEW_RACES_ARE_JUDGED=1")
		// Tests see to it that these really are there.
		if n := max(mf.nodes, seriesNeeds[st.Name].nodes); n > 1 {
			step.Env = append(step.Env, fmt.Sprintf("MM_VIEW_NODES=%d", n))
		}
		if mf.levels == 5 {
			step.Env = append(step.Env, "MM_VIEW_LEVELS=5")
		}
		steps = append(steps, step)
	}
	return files, steps, nil
}

// libTests are the lines of a test matrix of the library, each a program and its
// arguments, with the programs linked for the guest.
func libTests(ctx context.Context, root, name string) (files []vmimages.File, steps []guestproto.Step, err error) {
	lib := filepath.Join(root, "kernel", "libwflp")
	if out, err := exec.CommandContext(ctx, "make", "-s", "-C", lib, "guest", "guest-preload").CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("build library tests: %w\n%s", err, lastBytes(out, 3000))
	}
	matrix, err := os.ReadFile(filepath.Join(lib, "test", name))
	if err != nil {
		return nil, nil, fmt.Errorf("read test matrix: %w", err)
	}
	added := map[string]bool{}
	for _, line := range strings.Split(string(matrix), "\n") {
		argv := strings.Fields(line)
		if len(argv) == 0 || strings.HasPrefix(argv[0], "#") {
			continue
		}
		guest := "/libtests/" + argv[0]
		if !added[guest] {
			added[guest] = true
			files = append(files, vmimages.File{Path: guest, Host: filepath.Join(lib, "build", "guest", argv[0])})
		}
		steps = append(steps, guestproto.Step{Name: strings.Join(argv, " "), Argv: append([]string{guest}, argv[1:]...)})
	}
	if name != "matrix" {
		return files, steps, nil
	}
	// What is preloaded has to be linked dynamically, and so has the program.
	preload := filepath.Join(lib, "build", "libwflp-preload.so")
	program := filepath.Join(lib, "build", "preload", "t_preload")
	needed, err := vmimages.Libraries([]string{program, preload}, "/")
	if err != nil {
		return nil, nil, err
	}
	files = append(files, needed...)
	files = append(files, vmimages.File{Path: "/libtests/t_preload", Host: program},
		vmimages.File{Path: "/libtests/libwflp-preload.so", Host: preload})
	for _, strategy := range []string{"waitfree", "barrier", "stopworld"} {
		steps = append(steps, guestproto.Step{
			Name: "t_preload " + strategy, Argv: []string{"/libtests/t_preload", strategy},
			Env: []string{"WFLP_PRELOAD=/libtests/libwflp-preload.so"},
		})
	}
	return files, steps, nil
}

type selftestSummary struct {
	passed, failed, skipped int
	lines                   []string
}

func (s *selftestSummary) add(other selftestSummary) {
	s.passed += other.passed
	s.failed += other.failed
	s.skipped += other.skipped
	s.lines = append(s.lines, other.lines...)
}

// judgeSelftests counts. A program that fails in a way of its own (a signal, a
// timeout, a report that is cut off, a complaint of the kernel) counts as one
// more failure: its good lines are no excuse.
func judgeSelftests(res *vm.Result) selftestSummary {
	var sum selftestSummary
	say := func(format string, args ...any) { sum.lines = append(sum.lines, fmt.Sprintf(format, args...)) }
	for _, s := range res.Steps {
		k, err := kernel.ParseKTAP(string(s.Stdout))
		sum.passed += k.Passed
		sum.failed += k.Failed
		sum.skipped += k.Skipped
		var wrong []string
		wrong = append(wrong, k.Failures...)
		extra := func(format string, args ...any) {
			wrong = append(wrong, fmt.Sprintf(format, args...))
			sum.failed++
		}
		// The skip of a whole program: 4 is kselftest's, 77 the library's.
		skip := s.ExitCode == 4 || s.ExitCode == 77
		switch {
		case !s.Ran:
			extra("the program never ended (machine: %s)", res.End)
		case s.TimedOut:
			extra("timeout after %v", time.Duration(s.DurationNS))
		case s.Signal != "":
			extra("ended by %s", s.Signal)
		case skip && res.Hello.MMView:
			extra("skipped as a whole, on a kernel that has the feature")
		case skip:
			sum.skipped++
			say("skip %s: the kernel has no views", s.Name)
		case err != nil:
			extra("%v", err)
		case s.ExitCode != 0 && k.Failed == 0:
			extra("exit code %d without a failed test", s.ExitCode)
		}
		for _, c := range vm.Scan(s.Console) {
			if c.Kind == vm.KindRaceElsewhere {
				continue // listed below
			}
			// The limit of a control group that the test itself has set.
			if c.Kind == vm.KindMemory && strings.Contains(c.Text, "mem_cgroup_out_of_memory") {
				continue
			}
			extra("the kernel complains: %s\n%s", c.Kind, indent(c.Text))
		}
		if len(wrong) == 0 {
			say("ok   %s: %d passed, %d skipped, %.1f s of guest time", s.Name, k.Passed, k.Skipped, float64(s.DurationNS)/1e9)
		} else {
			say("FAIL %s", s.Name)
			for _, w := range wrong {
				say("     %s", w)
			}
			say("%s", indent(string(lastBytes(append(append([]byte{}, s.Stdout...), s.Stderr...), 4000))))
		}
		for _, l := range k.Skips {
			say("     %s", l)
		}
	}
	// Complaints outside every step: at boot, or after the last program.
	complaints, races := apart(res.Complaints)
	inside := 0
	for _, s := range res.Steps {
		c, _ := apart(vm.Scan(s.Console))
		inside += len(c)
	}
	if outside := len(complaints) - inside; outside > 0 {
		sum.failed += outside
		for _, c := range complaints {
			say("FAIL console line %d: %s: %s", c.Line, c.Kind, c.Title)
		}
	}
	sum.lines = append(sum.lines, listRaces(races)...)
	// With PREEMPT_RT a thread prints, and what it had not come to would be missing.
	if res.End == vm.Exited && !strings.Contains(string(res.Console), "wflp: bye") {
		sum.failed++
		say("FAIL machine: the console is cut off")
	}
	if res.End != vm.Exited || res.AgentError != "" || res.StreamErr != nil {
		sum.failed++
		say("FAIL machine: %s %s %v; console ends:\n%s", res.End, res.AgentError, res.StreamErr, indent(string(lastBytes(res.Console, 3000))))
	}
	return sum
}

// apart takes data races that are not the series' out of complaints.
func apart(all []vm.Complaint) (complaints, races []vm.Complaint) {
	for _, c := range all {
		if c.Kind == vm.KindRaceElsewhere {
			races = append(races, c)
		} else {
			complaints = append(complaints, c)
		}
	}
	return complaints, races
}

// listRaces tells how often which data race was reported, the most frequent first.
func listRaces(races []vm.Complaint) []string {
	if len(races) == 0 {
		return nil
	}
	count := map[string]int{}
	for _, c := range races {
		count[strings.TrimPrefix(c.Title, "BUG: KCSAN: ")]++
	}
	lines := []string{fmt.Sprintf("     %d data races without code of the series, of %d kinds:", len(races), len(count))}
	for _, title := range slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(count[b]-count[a], strings.Compare(a, b))
	}) {
		lines = append(lines, fmt.Sprintf("     %6d %s", count[title], title))
	}
	return lines
}

func indent(s string) string {
	return "       " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n       ")
}
