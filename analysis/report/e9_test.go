// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wflp/wflp/analysis/record"
)

// programRun is made up: one program in five boots, in which patches hold up
// requests under barrier.
func programRun() []record.Unit {
	var out []record.Unit
	for i := range 5 {
		rng := rand.New(rand.NewPCG(uint64(i), 9))
		u := record.Unit{Key: record.Key("e9", record.TCG, "release", i), Boot: synthBoot(record.TCG, "release", i)}
		for _, s := range []record.Strategy{record.None, record.WaitFree, record.Barrier} {
			p := record.Program{Experiment: "E9", Program: "server", Version: "1.2", Fix: "CVE-0000-0001", Strategy: s, Cell: record.Cell{Threads: 8}, Requests: 4000, WindowNS: 1e7}
			if s != record.None {
				p.Patches, p.FirstNS, p.LastNS = 3, []int64{2e5, 3e5, 4e5}, []int64{2e6, 3e6, 0}
			}
			var v []int64
			for k := range 1000 {
				x := 1e6 * math.Exp(0.2*rng.NormFloat64())
				if s == record.Barrier && k%50 == 0 {
					x *= 20
				}
				v = append(v, int64(x))
			}
			p.Window, p.Steady = mustHist(v), mustHist(v[:10])
			u.Programs = append(u.Programs, p)
		}
		out = append(out, u)
	}
	return out
}

func TestPrograms(t *testing.T) {
	got := claims(t, programRun())
	if got["e9-answers"].Holds != True || got["e9-tail"].Holds != True {
		t.Errorf("%+v %+v", got["e9-answers"], got["e9-tail"])
	}
	for name, do := range map[string]func(p *record.Program){
		"lost": func(p *record.Program) { p.Lost = 1 }, "wrong": func(p *record.Program) { p.Wrong = 1 }, "dropped": func(p *record.Program) { p.Dropped = 1 },
	} {
		us := programRun()
		do(&us[3].Programs[1])
		if c := claims(t, us)["e9-answers"]; c.Holds != False || !strings.Contains(c.Measured, "1 "+name) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	us := programRun()
	for i := range us {
		us[i].Programs[1].Window = us[i].Programs[2].Window
	}
	if c := claims(t, us)["e9-tail"]; c.Holds == True {
		t.Errorf("the same latencies: %+v", c)
	}
	// A tail needs requests.
	us = programRun()
	for i := range us {
		for k := range us[i].Programs {
			us[i].Programs[k].Window = us[i].Programs[k].Steady
		}
	}
	if c := claims(t, us)["e9-tail"]; c.Holds != Unknown {
		t.Errorf("ten requests in each window: %+v", c)
	}
	us = programRun()
	for i := range us {
		us[i].Boot.Packages = map[string]string{"libc6": fmt.Sprint("2.", i/4)}
	}
	b, err := roughly(synthManifest(), us)
	if err != nil {
		t.Fatal(err)
	}
	if rows := b.packages().Rows; len(rows) != 2 {
		t.Errorf("two versions of a package: %v", rows)
	}
	for id, want := range map[string]float64{
		"e9.tcg.server-1.2.CVE-0000-0001.threads=8.waitfree.requests": 20000, "e9.tcg.server-1.2.CVE-0000-0001.threads=8.waitfree.patches": 15,
		"e9.tcg.server-1.2.CVE-0000-0001.threads=8.waitfree.first.p50": 3e5, "e9.tcg.server-1.2.CVE-0000-0001.threads=8.waitfree.last.p50": 2e6,
	} {
		if got := b.find(id).value(); got != want {
			t.Errorf("%s = %v, want %v", id, got, want)
		}
	}
	if _, ok := claimsOf(t, whole(t))["e9-answers"]; ok {
		t.Error("a claim about programs without a program")
	}
}

// matrixJSON is made up: three defects, two ways of looking.
func matrixJSON() string {
	var cells []string
	add := func(mutant, way string, seed int, state string, s float64) {
		cells = append(cells, fmt.Sprintf(`{"mutant":%q,"target":"kernel","treatment":%q,"seed":%d,"state":%q,"s":%g,"n":1}`, mutant, way, seed, state, s))
	}
	add("none", "guided", 1, "censored", 60)
	for seed := range 3 {
		add("0001", "guided", seed, "found", float64(2+seed))
		add("0002", "guided", seed, map[bool]string{true: "found", false: "censored"}[seed == 0], 30+30*float64(min(seed, 1)))
		add("0003", "guided", seed, "censored", 60)
		add("0001", "blind", seed, "found", float64(20+seed))
	}
	add("0003", "blind", 0, "machine", 0)
	return `{"settings":{"format":1,"seed":1,"seeds":3,"cap_s":60,"treatments":[{"name":"guided","lanes":[]},{"name":"blind","lanes":[]}],"mutants":[
{"id":"0001","name":"missing-flush","kind":"forgotten flush"},{"id":"0002","name":"lost-reference","kind":"lost reference"},{"id":"0003","name":"subtle","kind":"order"}],"qemu":"x"},
"cells":[` + strings.Join(cells, ",\n") + `]}`
}

func TestMatrix(t *testing.T) {
	dir := t.TempDir()
	store(t, dir, synthManifest(), programRun())
	write := func(s string) {
		if err := os.WriteFile(filepath.Join(dir, record.MatrixName), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(matrixJSON())
	m, err := record.ReadMatrix(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := build(synthManifest(), programRun(), m)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]float64{
		"e10.guided.defects": 3, "e10.guided.found": 2, "e10.guided.searches": 9, "e10.guided.hits": 4, "e10.blind.defects": 1, "e10.guided.0001.time": 3e9, "e10.guided.0003.time": math.NaN(),
	} {
		if got := b.find(id).value(); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%s = %v, want %v", id, got, want)
		}
	}
	if err := Make(dir); err != nil {
		t.Fatal(err)
	}
	files := tree(t, dir)
	for _, name := range []string{"figures/e10-survival.svg", "tables/e10-defects.csv", "figures/e9-tcg-server-1-2-cve-0000-0001-threads8.pdf"} {
		if files[name] == "" {
			t.Errorf("no %s", name)
		}
	}
	if page := files["report.html"]; !strings.Contains(page, "jq -c &#39;.cells[]&#39; matrix.json") || !strings.Contains(page, "Made by <code>wflp fuzz matrix</code>") {
		t.Error("the page does not lead to the matrix")
	}
	// The matrix is not of boots, and a comparison says so.
	b.redraws = 50
	c, err := compare(b, b)
	if err != nil {
		t.Fatal(err)
	}
	if c.Found() != 0 {
		t.Errorf("%s", c.Answer())
	}
	write(`{"settings":{"format":99}}`)
	if err := Make(dir); err == nil || !strings.Contains(err.Error(), "format 99") {
		t.Errorf("another format: %v", err)
	}
	write(`{"settings":`)
	if err := Make(dir); err == nil {
		t.Error("a damaged matrix was read")
	}
}
