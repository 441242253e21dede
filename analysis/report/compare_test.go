// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/wflp/wflp/analysis/record"
)

// smallRun has the operations of E5 and latencies of E2 in so many boots of two
// kernels. Boots differ by a few percent, more than what is within them does, as
// real ones do.
func smallRun(seed uint64, boots int, base record.TimeBase, cost func(bench, setting string) float64) []record.Unit {
	rng := rand.New(rand.NewPCG(seed, 77))
	var out []record.Unit
	for _, variant := range []string{"release", "stock"} {
		for i := range boots {
			u := record.Unit{Key: record.Key("e5", base, variant, i), Boot: synthBoot(base, variant, i)}
			settings := []string{"base", "view"}
			if variant == "stock" {
				settings = []string{"stock"}
			}
			for _, bench := range []string{"page-fault", "map-unmap", "mprotect", "fork-exit"} {
				for _, s := range settings {
					m := record.Micro{Experiment: "E5", Bench: bench, Setting: s, Batch: 1}
					boot := 1e5 * cost(bench, s) * math.Exp(0.03*rng.NormFloat64())
					for range 9 {
						m.ValuesNS = append(m.ValuesNS, int64(boot*math.Exp(0.01*rng.NormFloat64())))
					}
					u.Micros = append(u.Micros, m)
				}
			}
			out = append(out, u)
		}
	}
	for i := range boots {
		u := record.Unit{Key: record.Key("e2", base, "release", i), Boot: synthBoot(base, "release", i)}
		for _, st := range []record.Strategy{record.None, record.WaitFree, record.Barrier} {
			boot := 1e6 * cost("request", string(st)) * math.Exp(0.05*rng.NormFloat64())
			var v []int64
			for range 60 {
				v = append(v, int64(boot*math.Exp(0.6*rng.NormFloat64())))
			}
			u.Latencies = append(u.Latencies, record.Latency{Experiment: "E2", Strategy: st, Cell: record.Cell{Threads: 4}, Patches: 3, WindowNS: 1e6, Window: mustHist(v[:30]), Steady: mustHist(v[30:])})
		}
		out = append(out, u)
	}
	return out
}

func one(string, string) float64 { return 1 }

func compared(t *testing.T, a, b []record.Unit) *Comparison {
	t.Helper()
	x, err := roughly(synthManifest(), a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := roughly(synthManifest(), b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := compare(x, y)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Of equal runs, one comparison in twenty may list anything. Of 20, more than
// four would happen by chance once in four hundred times.
func TestCompareIsSilentAboutNoise(t *testing.T) {
	if testing.Short() {
		t.Skip("many comparisons")
	}
	alarms, judged := 0, 0
	const runs = 20
	for i := range runs {
		n := []int{3, 4, 6, 10}[i%4]
		c := compared(t, smallRun(uint64(2*i), n, record.TCG, one), smallRun(uint64(2*i+1), n, record.TCG, one))
		judged += len(c.with(Same)) + len(c.with(Changed))
		if c.Found() > 0 {
			alarms++
			t.Logf("%d boots: %s", n, c.Answer())
		}
	}
	t.Logf("%d of %d comparisons of equal runs list something", alarms, runs)
	if alarms > 4 {
		t.Errorf("%d of %d comparisons of equal runs list something", alarms, runs)
	}
	if judged < runs*30 {
		t.Errorf("only %d numbers were judged: silence proves nothing", judged)
	}
}

// What was put in is found, with its size, and nothing beside it.
func TestCompareFindsWhatChanged(t *testing.T) {
	a := smallRun(1, 6, record.TCG, one)
	b := smallRun(2, 6, record.TCG, func(bench, s string) float64 {
		if bench == "mprotect" && s == "view" {
			return 1.4
		}
		return 1
	})
	c := compared(t, a, b)
	found := map[string]Change{}
	for _, x := range c.with(Changed) {
		found[x.ID] = x
	}
	for _, id := range []string{"e5.tcg.mprotect.view", "e5.tcg.mprotect.view.cost"} {
		x, ok := found[id]
		if !ok {
			t.Errorf("%s was not found", id)
			continue
		}
		if *x.Lo > 0.4 || *x.Hi < 0.4 || *x.Lo < 0.2 {
			t.Errorf("%s: %s %s", id, x.ChangeText(), x.IntervalText())
		}
		delete(found, id)
	}
	for id, x := range found {
		t.Errorf("%s did not change: %s", id, x.ChangeText())
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 of ", "e5.tcg.mprotect.view.cost", "E5, tcg: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	page, err := c.HTML()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(page, []byte("cost of one mprotect, in a view")) || regexpNetwork.Match(page) {
		t.Error("the page lacks the change, or refers to the network")
	}
	if _, err := json.Marshal(c); err != nil {
		t.Error(err)
	}
	again := compared(t, a, b)
	if x, y := fmt.Sprintf("%+v", c.Numbers[0].ChangeText()+c.Numbers[0].IntervalText()), fmt.Sprintf("%+v", again.Numbers[0].ChangeText()+again.Numbers[0].IntervalText()); x != y {
		t.Errorf("compared again: %s, then %s", x, y)
	}
}

// A run compared with itself has changed in nothing.
func TestCompareWithItself(t *testing.T) {
	a := smallRun(1, 3, record.ICount, one)
	for _, x := range compared(t, a, a).Numbers {
		if x.Verdict == Changed {
			t.Errorf("%s changed from itself", x.ID)
		}
	}
}

// What cannot be judged is not, and says why.
func TestCompareRefuses(t *testing.T) {
	why := func(c *Comparison, id string) string {
		for _, x := range c.Numbers {
			if x.ID == id {
				if x.Verdict != Unjudged {
					t.Errorf("%s: %s", id, x.Verdict)
				}
				return x.Why
			}
		}
		return "not there"
	}
	const id = "e5.tcg.mprotect.view.cost"
	a := smallRun(1, 3, record.TCG, one)
	if got := why(compared(t, a, smallRun(2, 1, record.TCG, one)), id); !strings.Contains(got, "single boot") {
		t.Error(got)
	}
	other := smallRun(2, 3, record.TCG, one)
	for i := range other {
		other[i].Boot.CPUs = 4
	}
	if got := why(compared(t, a, other), id); !strings.Contains(got, "4 processors") {
		t.Error(got)
	}
	if got := why(compared(t, a, a), "e2.tcg.threads=4.waitfree.requests"); !strings.Contains(got, "how much was run") {
		t.Error(got)
	}
	for name, change := range map[string]func(m *record.Manifest, u *[]record.Unit){
		"profiles":    func(m *record.Manifest, _ *[]record.Unit) { m.Profile = "other" },
		"time bases":  func(_ *record.Manifest, u *[]record.Unit) { *u = smallRun(3, 2, record.KVM, one) },
		"experiments": func(_ *record.Manifest, u *[]record.Unit) { *u = synth()[len(synth())-1:] },
	} {
		m, u := synthManifest(), []record.Unit(nil)
		change(&m, &u)
		if u == nil {
			u = a
		}
		from := a
		if name == "experiments" {
			from = a[len(a)-3:]
			for i := range from {
				from[i].Boot.Variant = "release"
			}
		}
		x, err := roughly(synthManifest(), from)
		if err != nil {
			t.Fatal(err)
		}
		y, err := roughly(m, u)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := compare(x, y); !errors.Is(err, ErrIncomparable) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Of another host, instructions can be compared, durations cannot.
	for base, want := range map[record.TimeBase]string{record.TCG: "different hosts", record.ICount: ""} {
		u := smallRun(4, 3, base, one)
		x, _ := roughly(synthManifest(), u)
		m := synthManifest()
		m.Host.CPU = "another"
		y, _ := roughly(m, u)
		c, err := compare(x, y)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range c.Numbers {
			if n.ID == fmt.Sprintf("e5.%s.mprotect.view", base) && (want == "") != (n.Verdict == Same) {
				t.Errorf("%s: %s %s", base, n.Verdict, n.Why)
			}
		}
	}
}

// A violation that the first run did not have counts, however rare; its absence
// does not.
func TestCompareEvents(t *testing.T) {
	a, b := synth()[:2], synth()[:2]
	b[0].Trials[0].Violations = map[string]int64{"torn": 1}
	counts := func(c *Comparison) (n int) {
		for _, x := range c.Claims {
			if x.ID == "e1-waitfree" && x.Counts {
				n++
			}
		}
		return n
	}
	if counts(compared(t, a, b)) != 1 || counts(compared(t, b, a)) != 0 {
		t.Error("a violation under waitfree does not count, or its absence does")
	}
}

// Boots that measured the same are one kind, those that did not are not.
func TestBootKinds(t *testing.T) {
	u := smallRun(1, 3, record.TCG, one)
	u[1].Micros = u[1].Micros[:1] // a benchmark failed: still the same kind
	u[7].Latencies[0].Cell = record.Cell{Threads: 9}
	kinds := bootKinds(u)
	if got := fmt.Sprint(kinds); got != "[[0 1 2] [3 4 5] [6 7 8]]" {
		t.Error(got)
	}
	for i := range u[7].Latencies {
		u[7].Latencies[i].Cell = record.Cell{Threads: 9}
	}
	if got := fmt.Sprint(bootKinds(u)); got != "[[0 1 2] [3 4 5] [6 8] [7]]" {
		t.Error(got)
	}
	// Of memory and hostile programs, too: here the third boot has others.
	for name, do := range map[string]func(u *record.Unit, other bool){
		"memory": func(u *record.Unit, other bool) {
			u.Memories = []record.Memory{{Experiment: "E6", Series: record.SeriesViews, N: 1}}
			if other {
				u.Memories[0].Series = record.SeriesGenerations
			}
		},
		"outcomes": func(u *record.Unit, other bool) {
			u.Trials = []record.Trial{{Experiment: "E8", Strategy: record.Barrier}}
			u.Outcomes = []record.Outcome{{Experiment: "E8", Program: "lock", Strategy: record.Barrier}}
			if other {
				u.Outcomes[0].Program = "busy"
			}
		},
	} {
		var u []record.Unit
		for i := range 4 {
			u = append(u, record.Unit{Key: record.Key("x", i)})
			do(&u[i], i == 2)
		}
		if got := fmt.Sprint(bootKinds(u)); got != "[[0 1 3] [2]]" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// What views take of memory is compared; a hostile program that got its way in
// the second run only is a change.
func TestCompareMemoryAndOutcomes(t *testing.T) {
	only := func(seed uint64) []record.Unit {
		rng := rand.New(rand.NewPCG(seed, 5))
		var out []record.Unit
		for i := range 4 {
			u := record.Unit{Key: record.Key("e6", record.TCG, "release", i), Boot: synthBoot(record.TCG, "release", i)}
			synthMore(rng, &u)
			u.Latencies, u.Overs = nil, nil
			for j := range u.Memories {
				if m := &u.Memories[j]; m.N > 0 {
					m.UsedKiB += rng.Int64N(6)
				}
			}
			out = append(out, u)
		}
		return out
	}
	if c := compared(t, only(1), only(2)); c.Found() != 0 {
		t.Errorf("equal runs: %s", c.Answer())
	}
	b := only(2)
	for i := range b {
		for j := range b[i].Memories {
			if m := &b[i].Memories[j]; m.Series == record.SeriesViews {
				m.UsedKiB += 4 * m.N
				m.OwnTables += m.N
			}
		}
	}
	c := compared(t, only(1), b)
	found := map[string]bool{}
	for _, x := range c.with(Changed) {
		found[x.ID] = true
		if !strings.HasPrefix(x.ID, "e6.tcg.views.") {
			t.Errorf("%s did not change: %s", x.ID, x.ChangeText())
		}
	}
	for _, id := range []string{"e6.tcg.views.each", "e6.tcg.views.8.own_tables"} {
		if !found[id] {
			t.Errorf("%s was not found", id)
		}
	}
	b = only(2)
	for j := range b[0].Outcomes {
		if o := &b[0].Outcomes[j]; o.Program == "asleep" && o.Strategy == record.WaitFree {
			o.Error = 16
		}
	}
	if c := compared(t, only(1), b); c.Found() != 1 || len(c.Claims) != 1 || c.Claims[0].ID != "e8-asleep-waitfree" {
		t.Errorf("a patch that one hostile program prevented: %s %+v", c.Answer(), c.Claims)
	}
}
