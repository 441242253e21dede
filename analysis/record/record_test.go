// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"
)

func hist(t testing.TB, values ...int64) *Hist {
	t.Helper()
	h, err := HistOf(values)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func unit(t testing.TB, i int) Unit {
	return Unit{
		Key: Key("e1", TCG, "release", i),
		Boot: Boot{
			Experiments: []string{"E1", "E2"}, TimeBase: TCG, Variant: "release", KernelDigest: "abc", Release: "6.12",
			QEMU: "7.2", CPUs: 2, MemMiB: 256, Seed: Seed(1<<63 + uint64(i)), DurationNS: 5, End: EndExited,
			Complaints: []Complaint{{Kind: "warning", Text: "WARNING: <nothing> & more\nsecond line"}},
		},
		Trials: []Trial{{
			Experiment: "E1", SpecID: fmt.Sprint("s", i), SpecSeed: 7, Strategy: Naive, Cell: Cell{Threads: 4},
			Verdict: Violation, Violations: map[string]int64{"torn": 2, "mixed": 1}, Counts: Counts{Executions: 10, Patches: 3},
		}},
		Latencies: []Latency{{
			Experiment: "E2", Strategy: Barrier, WindowNS: 1000, Window: hist(t, 1, 5, 1e6), Steady: hist(t),
			BinNS: 10, FirstBin: -1, Bins: []*Hist{hist(t, 3), nil},
		}},
		Programs: []Program{{Experiment: "E9", Program: "server", Version: "1.0", Fix: "CVE-0000-0000", Strategy: WaitFree, Patches: 1, FirstNS: []int64{7}, LastNS: []int64{0}, Window: hist(t, 4), Steady: hist(t)}},
		Overs:    []Over{{Experiment: "E3", Strategy: WaitFree, QueuedNS: 10, Moves: []Move{{Thread: 1, AtNS: 30, How: HowOwn}}}},
		Outcomes: []Outcome{{Experiment: "E8", Program: "lock", Strategy: Barrier, Stuck: 4}},
		Memories: []Memory{{Experiment: "E6", Series: SeriesViews, N: 3, OwnTables: 12}},
		Micros:   []Micro{{Experiment: "E4", Bench: "create", ResidentKiB: 1024, Batch: 1, ValuesNS: []int64{1, 2, 3}}},
	}
}

// same compares units by their JSON form: histograms have private state.
func same(t testing.TB, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var want []Unit
	for i := range 3 {
		want = append(want, unit(t, i))
	}
	for _, i := range []int{2, 0, 1} { // readers sort
		if err := l.Append(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !l.Done(want[1].Key) || l.Done("other") || l.Len() != 3 {
		t.Error("Done or Len is wrong")
	}
	if err := l.Append(want[1]); err == nil {
		t.Error("a unit was appended twice")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(unit(t, 9)); err == nil {
		t.Error("append to a closed log")
	}
	got, err := ReadAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !same(t, got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got[0].Boot.Seed != 1<<63 {
		t.Errorf("seed %v lost bits", got[0].Boot.Seed)
	}
}

// Killed after any byte, a run resumes with the whole units that were written and
// ends with the very same file.
func TestResumeAfterKillAnywhere(t *testing.T) {
	var whole []byte
	var ends []int
	for i := range 2 {
		b, err := encode(unit(t, i))
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, b...)
		ends = append(ends, len(whole))
	}
	dir := t.TempDir()
	path := filepath.Join(dir, LogName)
	step := len(whole)/40 + 1
	for cut := 0; cut <= len(whole); cut++ {
		// Every place near the end of a line, and a sample of the others: each
		// costs a sync.
		if cut%step != 0 && cut != len(whole) && !bytes.ContainsRune(whole[max(0, cut-1):min(len(whole), cut+1)], '\n') {
			continue
		}
		for _, tail := range []string{"", "\x00\x00\x00\x00", "\x00\x00\n"} {
			if tail != "" && cut > 0 && whole[cut-1] != '\n' && !strings.HasSuffix(tail, "\n") {
				tail = "" // zeroes after half a line are half a line, too
			}
			if err := os.WriteFile(path, append(whole[:cut:cut], tail...), 0o644); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir)
			if err != nil {
				t.Fatalf("cut at %d %q: %v", cut, tail, err)
			}
			want := sort.SearchInts(ends, cut+1)
			if l.Len() != want {
				t.Fatalf("cut at %d %q: %d units, want %d", cut, tail, l.Len(), want)
			}
			for i := range 2 {
				if u := unit(t, i); !l.Done(u.Key) {
					if err := l.Append(u); err != nil {
						t.Fatal(err)
					}
				}
			}
			l.Close()
			if got, _ := os.ReadFile(path); !bytes.Equal(got, whole) {
				t.Fatalf("cut at %d %q: the resumed log differs", cut, tail)
			}
		}
	}
}

func TestDamageIsAnError(t *testing.T) {
	a, _ := encode(unit(t, 0))
	b, _ := encode(unit(t, 1))
	lines := bytes.SplitAfter(a, []byte("\n"))
	join := func(p ...[]byte) string { return string(bytes.Join(p, nil)) }
	for name, log := range map[string]string{
		"a changed number":        strings.Replace(join(a, b), `"executions":10`, `"executions":11`, 1),
		"a missing line":          join(lines[0], lines[2], bytes.Join(lines[3:], nil)),
		"a partial unit within":   join(lines[0], lines[1], b),
		"a partial line within":   join(a, []byte("{\"schema\":1,\n"), b),
		"the same unit twice":     join(a, a),
		"another schema":          strings.Replace(join(a), `"schema":1`, `"schema":2`, 1),
		"a kind without payload":  strings.Replace(join(a), `"kind":"trial"`, `"kind":"micro"`, 1),
		"an unknown kind":         strings.Replace(join(a), `"kind":"trial"`, `"kind":"spell"`, 1),
		"a trial before its boot": join(lines[1], a),
	} {
		if units, err := Parse(strings.NewReader(log)); err == nil {
			t.Errorf("%s: read as %d units", name, len(units))
		}
	}
	if units, err := Parse(strings.NewReader("")); err != nil || len(units) != 0 {
		t.Error("an empty log is a log")
	}
}

func TestTwoWriters(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second writer: %v", err)
	}
	l.Close()
	l, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// The slow and obvious histogram: all values, sorted.
func TestHistAgainstSortedValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		n := rng.IntN(300)
		values := make([]int64, n)
		for i := range values {
			values[i] = rng.Int64N(1 << rng.IntN(41))
		}
		h := hist(t, values...)
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var back Hist
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		sort.Slice(values, func(i, j int) bool { return values[i] < values[j] })
		var got []int64
		back.Buckets(func(v, c int64) {
			for range c {
				got = append(got, v)
			}
		})
		if len(got) != n || back.N() != int64(n) {
			t.Fatalf("%d values, want %d", len(got), n)
		}
		for i, v := range values {
			if got[i] < v || float64(got[i]-v) > 0.001*float64(v) {
				t.Fatalf("value %d reads as %d", v, got[i])
			}
		}
	}
	for _, v := range []int64{-1, histHighest * 4} {
		if err := new(Hist).Add(v); err == nil {
			t.Errorf("%d was counted", v)
		}
	}
	var none *Hist
	none.Buckets(func(v, c int64) { t.Error("a nil histogram has values") })
	if none.N() != 0 {
		t.Error("a nil histogram has values")
	}
}

func TestManifest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := ReadManifest(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no manifest: %v", err)
	}
	m := Manifest{
		Started: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC), Profile: "quick", Seed: 1<<64 - 1, QEMU: "7.2",
		Kernels: map[string]Kernel{"release": {Release: "6.12", Digest: "d"}}, TimeBases: []TimeBase{TCG, ICount},
		Config: map[string]string{"boots": "10"},
	}
	if _, err := Begin(dir, m); err != nil {
		t.Fatal(err)
	}
	later := m
	later.Started = m.Started.Add(time.Hour)
	got, err := Begin(dir, later)
	if err != nil || !got.Started.Equal(m.Started) || got.Seed != m.Seed {
		t.Errorf("resume: %+v, %v", got, err)
	}
	later.Kernels = map[string]Kernel{"release": {Release: "6.12", Digest: "e"}}
	later.QEMU = "9"
	if _, err := Begin(dir, later); err == nil || !strings.Contains(err.Error(), "[kernels qemu]") {
		t.Errorf("another kernel: %v", err)
	}
	if d := m.Differences(m); d != nil {
		t.Errorf("differs from itself in %v", d)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestKeyAndCell(t *testing.T) {
	if got := Key("e2", ICount, "a/b", 7); got != "e2/icount/a_b/0007" {
		t.Error(got)
	}
	keys := []string{Key("x", 10), Key("x", 9), Key("x", 100)}
	sort.Strings(keys)
	if !reflect.DeepEqual(keys, []string{"x/0009", "x/0010", "x/0100"}) {
		t.Error(keys)
	}
	if got := (Cell{Threads: 4, UtilisationPct: 60}).String(); got != "threads=4 util=60%" {
		t.Error(got)
	}
	// Two different cells must not have one key: each field shows.
	v := reflect.New(reflect.TypeFor[Cell]()).Elem()
	seen := map[string]bool{"": true}
	for i := range v.NumField() {
		v.SetZero()
		v.Field(i).SetInt(3)
		s := v.Interface().(Cell).String()
		if seen[s] {
			t.Errorf("field %s does not show in %q", v.Type().Field(i).Name, s)
		}
		seen[s] = true
	}
}

// TestEmulatorDefect has one boot that is excused, and what must not be.
func TestEmulatorDefect(t *testing.T) {
	boot := func(base TimeBase, kinds []string, strategies ...Strategy) Unit {
		u := Unit{Boot: Boot{TimeBase: base}}
		for _, k := range kinds {
			u.Boot.Complaints = append(u.Boot.Complaints, Complaint{Kind: k})
		}
		for _, s := range strategies {
			u.Trials = append(u.Trials, Trial{Strategy: s})
		}
		return u
	}
	far := []string{"emulator", "emulator"}
	if !boot(TCG, far, Naive, Naive).EmulatorDefect() {
		t.Error("naive alone, emulated: charged to the kernel")
	}
	for what, u := range map[string]Unit{
		"another strategy is there":  boot(TCG, far, Naive, WaitFree),
		"a real processor":           boot(KVM, far, Naive),
		"a complaint of the kernel":  boot(TCG, []string{"emulator", "warning"}, Naive),
		"no complaint":               boot(TCG, nil, Naive),
		"no trial, so nothing naive": boot(TCG, far),
	} {
		if u.EmulatorDefect() {
			t.Errorf("excused although %s", what)
		}
	}
}
