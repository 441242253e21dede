// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wflp/wflp/analysis/record"
)

var lookAt = flag.String("look", "", "folder in which to leave the synthetic report, to look at")

var regexpNetwork = regexp.MustCompile(`href="(https?:|//)|<script|<link|url\(`)

func store(t *testing.T, dir string, m record.Manifest, units []record.Unit) {
	t.Helper()
	if err := record.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	l, err := record.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if err := l.Append(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == record.LogName {
			return err
		}
		b, err := os.ReadFile(p)
		name, _ := filepath.Rel(dir, p)
		out[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The same records give the same bytes, in whatever order the boots ended.
func TestReportIsAFunctionOfTheRecords(t *testing.T) {
	dir := t.TempDir()
	units := synth()
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(units), func(i, j int) { units[i], units[j] = units[j], units[i] })
	store(t, dir, synthManifest(), units)
	m, err := record.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if units, err = record.ReadAll(dir); err != nil {
		t.Fatal(err)
	}
	b, err := roughly(m, units)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.render("svg")
	if err != nil {
		t.Fatal(err)
	}
	if len(again) != len(pages(t)) {
		t.Errorf("%d files against %d", len(again), len(pages(t)))
	}
	x := map[string]string{}
	for name, data := range pages(t) {
		if x[name] = string(data); x[name] != string(again[name]) {
			t.Errorf("%s differs", name)
		}
	}
	for _, name := range []string{"summary.json", "report.html", "figures/e1-outcomes.svg", "figures/e2-around-tcg-threads4-util60.svg", "figures/e3-gantt-tcg.svg", "figures/e4-resident-icount.svg",
		"figures/e5-ratios-icount.svg", "tables/e1-outcomes.tex", "tables/e2-window-tcg.csv", "tables/claims.csv"} {
		if x[name] == "" {
			t.Errorf("no %s", name)
		}
	}
	html := x["report.html"]
	for _, bad := range []string{"<script", "<link", "@import", "src=", "url(", "NaN", "Inf", "%!"} {
		if strings.Contains(html, bad) {
			t.Errorf("report.html contains %q", bad)
		}
	}
	if m := regexp.MustCompile(`href="(https?:|//)`).FindString(html); m != "" {
		t.Errorf("report.html refers to the network: %s", m)
	}
	for name, s := range x {
		if strings.HasSuffix(name, ".csv") {
			rows, err := csv.NewReader(strings.NewReader(s)).ReadAll()
			if err != nil || len(rows) < 2 {
				t.Errorf("%s: %d rows, %v", name, len(rows), err)
			}
		}
		if strings.HasSuffix(name, ".tex") && regexp.MustCompile(`[^\x00-\x7f]`).MatchString(s) {
			t.Errorf("%s has characters that LaTeX may not know: %s", name, regexp.MustCompile(`[^\x00-\x7f]`).FindString(s))
		}
	}
	if *lookAt != "" {
		if err := os.RemoveAll(*lookAt); err != nil {
			t.Fatal(err)
		}
		store(t, *lookAt, synthManifest(), units)
		if err := Make(*lookAt); err != nil {
			t.Fatal(err)
		}
	}
}

// Make writes all of it into the folder of the run, and nothing of an earlier
// report stays.
func TestMake(t *testing.T) {
	dir := t.TempDir()
	store(t, dir, synthManifest(), smallRun(1, 3, record.ICount, one))
	stale := filepath.Join(dir, "figures", "old.png")
	if err := os.MkdirAll(filepath.Dir(stale), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stale, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Make(dir); err != nil {
		t.Fatal(err)
	}
	x := tree(t, dir)
	if _, there := x["figures/old.png"]; there {
		t.Error("a figure of an earlier report is there")
	}
	for _, name := range []string{"manifest.json", "summary.json", "report.html", "figures/captions.tex", "figures/e5-ratios-icount.pdf", "figures/e5-ratios-icount.svg", "figures/e5-ratios-icount.png", "tables/numbers.tex",
		"tables/claims.csv"} {
		if x[name] == "" {
			t.Errorf("no %s", name)
		}
	}
}

func claims(t *testing.T, units []record.Unit) map[string]Claim {
	t.Helper()
	b, err := roughly(synthManifest(), units)
	if err != nil {
		t.Fatal(err)
	}
	return claimsOf(t, b)
}

func claimsOf(t *testing.T, b *builder) map[string]Claim {
	t.Helper()
	out := map[string]Claim{}
	for _, c := range b.summary.Claims {
		if _, dup := out[c.ID]; dup {
			t.Errorf("claim %s occurs twice", c.ID)
		}
		out[c.ID] = c
		if c.Measured == "" || c.Text == "" || c.Expected == "" || c.Refute == "" {
			t.Errorf("claim %s is not complete: %+v", c.ID, c)
		}
		for _, id := range c.Numbers {
			if !b.ids[id] {
				t.Errorf("claim %s rests on %s, which is not stated", c.ID, id)
			}
		}
	}
	return out
}

func eachTrial(units []record.Unit, f func(u *record.Unit, t *record.Trial)) {
	for i := range units {
		for j := range units[i].Trials {
			f(&units[i], &units[i].Trials[j])
		}
	}
}

func eachMicro(units []record.Unit, f func(u *record.Unit, m *record.Micro)) {
	for i := range units {
		for j := range units[i].Micros {
			f(&units[i], &units[i].Micros[j])
		}
	}
}

func scale(v []int64, by float64) []int64 {
	out := make([]int64, len(v))
	for i, x := range v {
		out[i] = int64(float64(x) * by)
	}
	return out
}

// Each claim holds for the run that one hopes for, turns false when the records
// refute it, and unknown when they are not there. Only the claims named change.
func TestClaims(t *testing.T) {
	base := claimsOf(t, whole(t))
	for id, c := range base {
		if c.Holds != True {
			t.Errorf("%s: %s (%s)", id, c.Holds, c.Measured)
		}
	}
	for _, mutation := range []struct {
		name string
		do   func(units []record.Unit) []record.Unit
		want map[string]string
	}{
		{"one torn execution under waitfree", func(us []record.Unit) []record.Unit {
			us[0].Trials[0].Violations = map[string]int64{"torn": 1} // whatever the verdict says
			return us
		}, map[string]string{"e1-waitfree": False}},
		{"a violation without a kind under barrier", func(us []record.Unit) []record.Unit {
			us[0].Trials[1].Verdict = record.Violation
			return us
		}, map[string]string{"e1-barrier": False}},
		{"every tenth run under waitfree timed out", func(us []record.Unit) []record.Unit {
			n := 0
			eachTrial(us, func(_ *record.Unit, t *record.Trial) {
				if n++; t.Strategy == record.WaitFree && n%10 == 0 {
					t.Verdict = record.Unknown
				}
			})
			return us
		}, map[string]string{"e1-waitfree": Unknown}},
		{"naive caught in two kinds only", func(us []record.Unit) []record.Unit {
			eachTrial(us, func(_ *record.Unit, t *record.Trial) {
				delete(t.Violations, "crash")
				delete(t.Violations, "stale")
			})
			return us
		}, map[string]string{"e1-control": False}},
		{"naive ran other programs", func(us []record.Unit) []record.Unit {
			eachTrial(us, func(_ *record.Unit, t *record.Trial) {
				if t.Strategy == record.Naive {
					t.SpecID = "other" + t.SpecID
				}
			})
			return us
		}, map[string]string{"e1-control": Unknown}},
		{"naive not run", func(us []record.Unit) []record.Unit {
			return filterTrials(us, func(t record.Trial) bool { return t.Strategy != record.Naive })
		}, map[string]string{"e1-control": Unknown}},
		{"too few executions", func(us []record.Unit) []record.Unit {
			eachTrial(us, func(_ *record.Unit, t *record.Trial) { t.Counts.Executions /= 2 })
			return us
		}, map[string]string{"e1-volume": False}},
		{"no memory operations", func(us []record.Unit) []record.Unit {
			eachTrial(us, func(_ *record.Unit, t *record.Trial) { t.Counts.MemoryOps = 0 })
			return us
		}, map[string]string{"e1-volume": False}},
		{"a complaint in a release boot", func(us []record.Unit) []record.Unit {
			us[0].Boot.Complaints = []record.Complaint{{Kind: "warning", Text: "WARNING: synthetic"}}
			return us
		}, map[string]string{"console": False}},
		{"a complaint in the kasan boot", func(us []record.Unit) []record.Unit {
			us[len(us)-1].Boot.Complaints = []record.Complaint{{Kind: "kasan", Text: "BUG: KASAN: synthetic"}}
			return us
		}, map[string]string{"console": False, "console-checked": False}},
		{"a crash without a complaint", func(us []record.Unit) []record.Unit {
			us[3].Boot.End = record.EndCrashed
			return us
		}, map[string]string{"console": False}},
		{"a boot that timed out", func(us []record.Unit) []record.Unit {
			us[3].Boot.End = record.EndTimeout
			return us
		}, map[string]string{"console": Unknown}},
		{"no debug boot", func(us []record.Unit) []record.Unit { return append(us[:len(us)-2:len(us)-2], us[len(us)-1]) }, map[string]string{"console-checked": Unknown}},
		{"waitfree and barrier exchanged in E2", func(us []record.Unit) []record.Unit {
			for i := range us {
				for j := range us[i].Latencies {
					if l := &us[i].Latencies[j]; l.Cell.Threads == 4 {
						l.Strategy = exchange(l.Strategy)
					}
				}
			}
			return us
		}, map[string]string{"e2-tail-tcg-threads4-util60": False}},
		{"waitfree and barrier equal in E2", func(us []record.Unit) []record.Unit {
			for i := range us {
				var ls []record.Latency
				for _, l := range us[i].Latencies {
					if l.Strategy == record.Barrier && l.Cell.Threads == 16 {
						continue
					}
					ls = append(ls, l)
					if l.Strategy == record.WaitFree && l.Cell.Threads == 16 {
						l.Strategy = record.Barrier
						ls = append(ls, l)
					}
				}
				us[i].Latencies = ls
			}
			return us
		}, map[string]string{"e2-tail-tcg-threads16-util60": False}},
		{"barrier not run in E2", func(us []record.Unit) []record.Unit {
			for i := range us {
				var ls []record.Latency
				for _, l := range us[i].Latencies {
					if l.Strategy != record.Barrier {
						ls = append(ls, l)
					}
				}
				us[i].Latencies = ls
			}
			return us
		}, map[string]string{"e2-tail-tcg-threads16-util60": Unknown, "e2-tail-tcg-threads4-util60": Unknown}},
		{"waitfree and barrier exchanged in E3", func(us []record.Unit) []record.Unit {
			for i := range us {
				for j := range us[i].Overs {
					if us[i].Overs[j].Experiment == "E3" {
						us[i].Overs[j].Strategy = exchange(us[i].Overs[j].Strategy)
					}
				}
			}
			return us
		}, map[string]string{"e3-first": False}},
		{"a thread left behind", func(us []record.Unit) []record.Unit {
			us[0].Overs[5].LastOverNS = 0
			return us
		}, map[string]string{"e3-all": False}},
		{"create grows with size", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Bench == "create" && m.Sweep == record.SweepResident && u.Boot.TimeBase == record.TCG {
					m.ValuesNS = scale(m.ValuesNS, math.Pow(float64(m.ResidentKiB)/1024, 0.3))
				}
			})
			return us
		}, map[string]string{"e4-flat-create-tcg": False, "e4-fork-tcg": False}},
		{"seal is noise", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Bench == "seal" && m.Sweep == record.SweepResident && u.Boot.TimeBase == record.ICount {
					m.ValuesNS = scale(m.ValuesNS, []float64{1, 9, 0.2}[m.ResidentKiB/1024%3])
					if m.ResidentKiB >= 1<<20 {
						m.ValuesNS = scale(m.ValuesNS, 0.05)
					}
				}
			})
			return us
		}, map[string]string{"e4-flat-seal-icount": Unknown, "e4-model-icount": False}},
		{"fork is cheap", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Bench == "fork" && u.Boot.TimeBase == record.TCG {
					m.ValuesNS = scale(m.ValuesNS, 0.2)
				}
			})
			return us
		}, map[string]string{"e4-fork-tcg": False}},
		{"nothing at 1 GiB", func(us []record.Unit) []record.Unit {
			return filterMicros(us, func(m record.Micro) bool { return m.ResidentKiB != 1<<20 })
		}, map[string]string{"e4-fork-tcg": Unknown, "e4-fork-icount": Unknown, "e4-model-icount": Unknown}},
		{"page faults in a view cost 3 % more", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Setting == record.SettingView && m.Bench == "page-fault" && u.Boot.TimeBase == record.ICount {
					m.ValuesNS = scale(m.ValuesNS, 1.03)
				}
			})
			return us
		}, map[string]string{"e5-page-fault-icount": False}},
		{"no stock kernel", func(us []record.Unit) []record.Unit {
			return filterMicros(us, func(m record.Micro) bool { return m.Setting != record.SettingStock })
		}, allStock(Unknown, map[string]string{"e5-page-fault-icount": Unknown, "e5-map-unmap-icount": Unknown, "e5-page-fault-tcg": Unknown, "e5-map-unmap-tcg": Unknown})},
		{"a switch of processes costs 0.4 % more without views", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Setting == record.SettingBase && m.Bench == record.BenchSwitchProcess && u.Boot.TimeBase == record.ICount {
					m.ValuesNS = scale(m.ValuesNS, 1.004)
				}
			})
			return us
		}, map[string]string{"e5-stock-switch-process-icount": False}},
		{"entering grows with the threads", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Sweep == record.SweepThreads && m.Bench == record.BenchEnterLast {
					m.ValuesNS = scale(m.ValuesNS, math.Sqrt(float64(m.Threads)))
				}
			})
			return us
		}, map[string]string{"e4-flat-enter-threads-icount": False, "e4-enter-bound-icount": False, "e4-model-icount": False}},
		{"entering takes twice as long where there are 10,000 mappings", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Sweep == record.SweepMappings && m.Bench == record.BenchEnterLast && m.Mappings == 10000 {
					m.ValuesNS = scale(m.ValuesNS, 2)
				}
			})
			return us
		}, map[string]string{"e4-enter-bound-icount": False, "e4-flat-enter-mappings-icount": Unknown, "e4-model-icount": False}},
		{"each live view makes entering 20 instructions longer", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Sweep == record.SweepViews && m.Bench == record.BenchEnterLast {
					m.ValuesNS = scale(m.ValuesNS, (530+20*float64(m.Views))/(530+6*float64(m.Views)))
				}
			})
			return us
		}, map[string]string{"e4-enter-bound-icount": False}},
		{"stalls look half as long", func(us []record.Unit) []record.Unit {
			for i := range us {
				for j := range us[i].Latencies {
					us[i].Latencies[j].Cell.StallUS *= 2
				}
			}
			return us
		}, map[string]string{"e0-stall": False}},
		{"a generation in one boot keeps a file", func(us []record.Unit) []record.Unit {
			us[0].Memories[len(us[0].Memories)-1].Files++
			return us
		}, map[string]string{"e6-leak": False}},
		{"a generation loses a page", func(us []record.Unit) []record.Unit {
			for i := range us {
				for j := range us[i].Memories {
					us[i].Memories[j].UsedKiB += 4 * us[i].Memories[j].N
				}
			}
			return us
		}, map[string]string{"e6-leak": False}},
		{"few generations", func(us []record.Unit) []record.Unit {
			for i := range us {
				us[i].Memories = slices.DeleteFunc(us[i].Memories, func(m record.Memory) bool { return m.N > 1000 })
			}
			return us
		}, map[string]string{"e6-leak": Unknown}},
		{"waitfree holds a thread up as long as a stop, and forgets one that is born", func(us []record.Unit) []record.Unit {
			for i := range us {
				for j := range us[i].Overs {
					if o := &us[i].Overs[j]; o.Experiment == "E7" && o.Strategy == record.WaitFree {
						o.HeldNS, o.LastOverNS = 256*60_000, 0
					}
				}
			}
			return us
		}, map[string]string{"e7-held": False, "e7-all": False}},
		{"hostile programs exchange their fates", func(us []record.Unit) []record.Unit {
			for i := range us {
				for j := range us[i].Outcomes {
					us[i].Outcomes[j].Strategy = exchange(us[i].Outcomes[j].Strategy)
				}
			}
			return us
		}, map[string]string{"e8-lock-waitfree": False, "e8-lock-barrier": False, "e8-busy-waitfree": False, "e8-blocked-waitfree": False, "e8-asleep-waitfree": False}},
		{"the watchdog came to programs that went on", func(us []record.Unit) []record.Unit {
			for i := range us {
				for j := range us[i].Outcomes {
					us[i].Outcomes[j].Ended, us[i].Outcomes[j].Stuck = false, 0
				}
			}
			return us
		}, map[string]string{"e8-lock-waitfree": Unknown, "e8-lock-barrier": Unknown, "e8-busy-waitfree": Unknown, "e8-blocked-waitfree": Unknown, "e8-asleep-waitfree": Unknown}},
		{"a variant's code takes 3 % longer", func(us []record.Unit) []record.Unit {
			eachMicro(us, func(u *record.Unit, m *record.Micro) {
				if m.Experiment == "E11" && m.Setting == "variant" {
					m.ValuesNS = scale(m.ValuesNS, 1.03)
				}
			})
			return us
		}, map[string]string{"e11-call": False}},
		{"entering was not measured over threads", func(us []record.Unit) []record.Unit {
			return filterMicros(us, func(m record.Micro) bool { return m.Sweep != record.SweepThreads })
		}, map[string]string{"e4-enter-bound-icount": Unknown, "e4-flat-enter-threads-icount": Unknown}},
	} {
		units := synth()
		for i := range units {
			for j := range units[i].Latencies {
				if units[i].Latencies[j].Experiment != "E0" {
					units[i].Latencies[j].Bins = nil // no claim looks at them
				}
			}
		}
		got := claims(t, mutation.do(units))
		for id := range base {
			want := mutation.want[id]
			if want == "" {
				want = True
			}
			if got[id].Holds != want {
				t.Errorf("%s: %s is %q, want %q: %s", mutation.name, id, got[id].Holds, want, got[id].Measured)
			}
		}
		for id := range mutation.want {
			if _, ok := base[id]; !ok {
				t.Errorf("%s: no claim %s", mutation.name, id)
			}
		}
	}
}

// allStock is want, and the same for each claim about where there are no views.
func allStock(holds string, want map[string]string) map[string]string {
	for _, e := range everyones {
		want[fmt.Sprintf("e5-stock-%s-icount", e.bench)] = holds
	}
	return want
}

func exchange(s record.Strategy) record.Strategy {
	switch s {
	case record.WaitFree:
		return record.Barrier
	case record.Barrier:
		return record.WaitFree
	}
	return s
}

func filterTrials(us []record.Unit, keep func(record.Trial) bool) []record.Unit {
	for i := range us {
		var ts []record.Trial
		for _, t := range us[i].Trials {
			if keep(t) {
				ts = append(ts, t)
			}
		}
		us[i].Trials = ts
	}
	return us
}

func filterMicros(us []record.Unit, keep func(record.Micro) bool) []record.Unit {
	for i := range us {
		var ms []record.Micro
		for _, m := range us[i].Micros {
			if keep(m) {
				ms = append(ms, m)
			}
		}
		us[i].Micros = ms
	}
	return us
}

// Whatever a run that was cut short leaves, there is a report, and nothing that
// was not measured holds.
func TestScraps(t *testing.T) {
	whole := synth()
	scraps := map[string][]record.Unit{
		"nothing":           nil,
		"one boot":          whole[:1],
		"a boot of nothing": {{Key: "x", Boot: synthBoot(record.TCG, "release", 0)}},
		"stock boots only":  {whole[1], whole[3]},
		"zero n": {{Key: "x", Boot: synthBoot(record.KVM, "release", 0), Trials: []record.Trial{{Strategy: record.WaitFree}},
			Latencies: []record.Latency{{Experiment: "E2", Strategy: record.WaitFree}, {Experiment: "E0"}, {Experiment: "E2", Strategy: record.Barrier, Window: mustHist(nil), Bins: []*record.Hist{nil}, BinNS: 1}, {Strategy: "new one", Window: mustHist([]int64{0})}},
			Overs:     []record.Over{{Experiment: "E7"}, {Experiment: "E3", Strategy: record.WaitFree}, {Experiment: "E3", Strategy: record.Barrier, PublishedNS: 1, LastOverNS: 1, Moves: []record.Move{{}}}},
			Micros: []record.Micro{{Experiment: "E4", Sweep: record.SweepResident, ResidentKiB: 1, Bench: "create"}, {Experiment: "E4", Sweep: record.SweepResident, Bench: "create", Batch: 1, ValuesNS: []int64{0}},
				{Experiment: "E4", Sweep: record.SweepResident, ResidentKiB: 1 << 20, Bench: "fork", Batch: 1, ValuesNS: []int64{0}}, {Experiment: "E5", Bench: "page-fault", Setting: "view", Batch: 0, ValuesNS: []int64{1}}, {Experiment: "E5", Bench: "page-fault", Setting: "stock"}}}},
		"huge counts": {{Key: "x", Boot: synthBoot(record.TCG, "release", 0),
			Trials: []record.Trial{{Strategy: record.WaitFree, Verdict: record.Pass, Counts: record.Counts{Executions: math.MaxInt64 / 4, Patches: math.MaxInt64 / 4}}},
			Micros: []record.Micro{{Experiment: "E4", Sweep: record.SweepResident, ResidentKiB: 1 << 40, Bench: "fork", Batch: 1, ValuesNS: []int64{math.MaxInt64}}}}},
	}
	for name, units := range scraps {
		report, err := roughly(synthManifest(), units)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		files, err := report.render("svg")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var s Summary
		if err := json.Unmarshal(files["summary.json"], &s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, c := range s.Claims {
			if c.Holds == True && name != "one boot" && name != "huge counts" && !strings.HasPrefix(c.ID, "console") && c.ID != "e3-all" {
				t.Errorf("%s: %s holds: %s", name, c.ID, c.Measured)
			}
			if name == "nothing" && c.Holds != Unknown {
				t.Errorf("%s: %s is %s", name, c.ID, c.Holds)
			}
			// One boot has no interval over boots, so no ratio is decided by it.
			if name == "one boot" && (strings.HasPrefix(c.ID, "e2") || strings.HasPrefix(c.ID, "e4-fork") || c.ID == "e3-first") && c.Holds != Unknown {
				t.Errorf("one boot decides %s: %s", c.ID, c.Measured)
			}
		}
		if len(s.Claims) < 10 {
			t.Errorf("%s: only %d claims", name, len(s.Claims))
		}
	}
	if err := Make(t.TempDir()); err == nil {
		t.Error("a report of no run")
	}
}

func TestRecordsOfAnotherKernel(t *testing.T) {
	units := synth()
	units[4].Boot.KernelDigest = "other"
	if _, err := roughly(synthManifest(), units); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("mixed kernels: %v", err)
	}
}

// Numbers of different time bases never meet: not in a figure, not in a number.
func TestTimeBasesAreNotMixed(t *testing.T) {
	b := whole(t)
	for _, n := range b.summary.Numbers {
		bases := map[string]bool{}
		for _, r := range n.Records {
			bases[strings.Split(r, "/")[1]] = true
		}
		if len(bases) > 1 && n.Unit != "count" && n.Unit != "share" {
			t.Errorf("%s rests on %v", n.ID, bases)
		}
		if len(n.Records) == 0 {
			t.Errorf("%s rests on no record", n.ID)
		}
		if n.Lo != nil && (*n.Lo > *n.Value || *n.Hi < *n.Value) {
			t.Errorf("%s: %v is not in its interval [%v, %v]", n.ID, *n.Value, *n.Lo, *n.Hi)
		}
	}
	for _, s := range b.sections {
		for _, p := range s.Parts {
			if f := p.Figure; f != nil {
				if !strings.Contains(f.Note, "n = ") || !strings.Contains(f.Note, "tcg") && !strings.Contains(f.Note, "icount") {
					t.Errorf("%s does not say its time base and n: %q", f.Name, f.Note)
				}
				if s.ID != "E1" && strings.Contains(f.Note, "tcg") && strings.Contains(f.Note, "icount") {
					t.Errorf("%s mixes time bases: %q", f.Name, f.Note)
				}
			}
		}
	}
}

// A number that is known by construction arrives unharmed.
func TestKnownNumbers(t *testing.T) {
	var units []record.Unit
	for i := range 3 {
		u := record.Unit{Key: record.Key("k", i), Boot: synthBoot(record.ICount, "release", i)}
		// 160 ns at 16 ns an instruction, ten operations a batch: one instruction.
		u.Micros = append(u.Micros, record.Micro{Experiment: "E5", Bench: "page-fault", Setting: "view", Batch: 10, ValuesNS: []int64{160, 160, 160}},
			record.Micro{Experiment: "E5", Bench: "page-fault", Setting: "stock", Batch: 10, ValuesNS: []int64{320, 320, 320}})
		var window []int64
		for v := range int64(1000) {
			window = append(window, v+1)
		}
		u.Latencies = []record.Latency{{Experiment: "E2", Strategy: record.WaitFree, Cell: record.Cell{Threads: 2}, Window: mustHist(window), Steady: mustHist(nil)}}
		units = append(units, u)
	}
	b, err := roughly(synthManifest(), units)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]float64{
		"e5.icount.page-fault.view.cost":            1,
		"e5.icount.page-fault.stock":                2,
		"e5.icount.page-fault.view":                 0.5,
		"e2.icount.threads=2.waitfree.p99.9":        999,
		"e2.icount.threads=2.waitfree.p50":          500,
		"e2.icount.threads=2.waitfree.max":          1000,
		"e2.icount.threads=2.waitfree.requests":     3000,
		"e2.icount.threads=2.waitfree.p99.99":       math.NaN(),
		"e2.icount.threads=2.waitfree.steady.p99.9": math.NaN(),
	} {
		if got := b.find(id).value(); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%s = %v, want %v", id, got, want)
		}
	}
}

func TestTables(t *testing.T) {
	v, lo, hi := 1234.5, 1000.0, 2000.0
	n := Number{Unit: "ns", Value: &v, Lo: &lo, Hi: &hi}
	tab := &table{Name: "t", Caption: "50 % & more_", Header: []string{"what", "cost"}, Rows: [][]tableCell{{text("a, b"), full(n)}, {text("c"), short(Number{Unit: "ns"})}, {text("d"), text("")}}}
	got, err := tab.csv()
	if err != nil {
		t.Fatal(err)
	}
	if want := "what,cost (ns),cost (ns) lo,cost (ns) hi\n\"a, b\",1234.5,1000,2000\nc,,,\nd,,,\n"; string(got) != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if latex := string(tab.latex()); !strings.Contains(latex, `50 \% \& more\_`) || !strings.Contains(latex, `a, b & 1.23 \textmu{}s [1 \textmu{}s, 2 \textmu{}s] \\`) {
		t.Error(latex)
	}
	if !bytes.Contains(tab.latex(), []byte("{lr}")) {
		t.Error("numbers are not set flush right")
	}
	for _, c := range []struct{ got, want string }{
		{count(1, "boot"), "1 boot"}, {count(2, "patch"), "2 patches"}, {count(1234, "batch"), "1,234 batches"},
		{format(0.000123456, "share"), "0.000123"}, {format(9999, "instructions"), "9,999"}, {format(250.4, "ratio"), "250"}, {format(-0.0001, "exponent"), "0.000"},
		{answer([]Claim{{Holds: True}, {Holds: False}, {Holds: Unknown}}), "1 of 3 claims hold, 1 is refuted, 1 cannot be decided from these records."},
		{fmt.Sprint(slug("threads=4 util=60%")), "threads4-util60"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
