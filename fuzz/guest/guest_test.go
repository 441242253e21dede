// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wflp/wflp/fuzz/fuzzwire"
	"github.com/wflp/wflp/fuzz/model"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/vm"
)

// Scenarios on a kernel without known defects give no violation. WFLP_BOOT may
// name the folder of a finished kernel, WFLP_FUZZ_FIRST and WFLP_FUZZ_COUNT
// which seeds.
func TestScenariosPass(t *testing.T) {
	if os.Getenv("WFLP_BOOT") == "" {
		t.Skip("WFLP_BOOT is not set")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := kernel.DefaultCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	built, err := kernel.Open(os.Getenv("WFLP_BOOT"))
	if err != nil {
		built, err = kernel.Build(t.Context(), root, cache, "release", os.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	files, err := Files(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	image, err := vmimages.Build(t.Context(), vmimages.Spec{RepoRoot: root, CacheDir: cache, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	mode := vm.Fast
	if m := os.Getenv("WFLP_FUZZ_MODE"); m != "" {
		mode = vm.Mode(m)
	}
	first, count := number("WFLP_FUZZ_FIRST", 1), number("WFLP_FUZZ_COUNT", 60)
	const batch = 300
	keep := os.Getenv("WFLP_FUZZ_KEEP")
	for ; count > 0; first, count = first+batch, count-batch {
		var list []*scenario.Scenario
		for i := range min(batch, count) {
			list = append(list, scenario.Generate(uint64(first+i), scenario.Knobs{}))
		}
		job, jobFiles := Job(list)
		res, err := vm.Run(t.Context(), vm.Config{
			Mode: mode, Kernel: built, Image: image, Job: job, JobFiles: jobFiles,
			Seed: uint64(first), Timeout: 8 * time.Minute, Append: strings.Fields(os.Getenv("WFLP_FUZZ_APPEND")),
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ns, ops := int64(0), 0
		var times [4]uint64
		did := map[string]int{} // ! failed, + moved threads
		for i, v := range Judge(list, res) {
			if i < len(res.Steps) {
				ns += res.Steps[i].DurationNS
				if d := res.Steps[i].DurationNS; d > 200e6 {
					t.Logf("seed %d took %d ms", list[i].Seed, d/1e6)
				}
			}
			ops += v.Ops
			if tr, err := fuzzwire.DecodeTrace(RunOf(list[i], res, i).Trace); err == nil {
				for _, r := range tr.RecordList {
					k := scenario.Kind(r.Kind).String()
					if r.Ret < 0 {
						k += "!"
					} else if r.Kind == fuzzwire.OpPull && r.Ret > 0 {
						k += "+"
					}
					did[k]++
				}
				for j := range times {
					times[j] += tr.Counters[2*fuzzwire.CounterSetUp+j] / uint64(len(list)) / 1000
				}
			}
			if v.Status == oracle.Pass {
				continue
			}
			t.Errorf("seed %d: %s: %s\n%s", list[i].Seed, v.Status, v.Note, model.Title(v))
			if keep != "" && i < len(res.Steps) {
				for _, b := range res.Steps[i].Files {
					if text, err := model.Timeline(b); err == nil {
						_ = os.WriteFile(filepath.Join(keep, strconv.FormatUint(list[i].Seed, 10)+".txt"), []byte(text), 0o644)
					}
					_ = os.WriteFile(filepath.Join(keep, strconv.FormatUint(list[i].Seed, 10)+".trace"), b, 0o644)
				}
			}
		}
		t.Logf("µs to set up, for lists, for the last look, in all: %v", times)
		t.Logf("operations: %v", did)
		t.Logf("seeds %d to %d: %d operations, %.1f ms of guest time each, %v in all, machine %s", first, first+len(list)-1,
			ops, float64(ns)/1e6/float64(len(list)), res.Duration.Round(time.Millisecond), res.End)
	}
}

func number(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}
