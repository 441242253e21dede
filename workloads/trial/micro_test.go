// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/wflp/wflp/analysis/record"
)

func TestParseMicro(t *testing.T) {
	out := `{"experiment":"E4","bench":"create","sweep":"views","resident_kib":1024,"mappings":0,"views":8,"threads":0,"rep":0,"batch":1,"ns":7}
{"unsupported":"ops","sweep":"resident","value":4096,"why":"not enough memory"}
{"experiment":"E4","bench":"create","sweep":"views","resident_kib":1024,"mappings":0,"views":8,"threads":0,"rep":1,"batch":1,"ns":5}
{"experiment":"E5","bench":"mprotect","setting":"view","rep":0,"batch":256,"ns":9}
`
	micros, missing, err := ParseMicro([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	want := []record.Micro{
		{Experiment: "E4", Bench: "create", Sweep: "views", ResidentKiB: 1024, Views: 8, Batch: 1, ValuesNS: []int64{7, 5}},
		{Experiment: "E5", Bench: "mprotect", Setting: "view", Batch: 256, ValuesNS: []int64{9}},
	}
	if !reflect.DeepEqual(micros, want) {
		t.Errorf("%+v, want %+v", micros, want)
	}
	if len(missing) != 1 || missing[0] != (Missing{"ops", "resident", 4096, "not enough memory"}) {
		t.Errorf("missing %+v", missing)
	}
	for _, bad := range []string{"{", `{"bench":"x","batch":1,"rep":1,"ns":1}`, `{"bench":"x","ns":1}`, `{"bench":"x","batch":1,"nanoseconds":1}`} {
		if _, _, err := ParseMicro([]byte(bad)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

// TestMicroRuns: the programs print what the parser reads; fork and the settings
// without views can be measured anywhere.
func TestMicroRuns(t *testing.T) {
	program := filepath.Join(filepath.Dir(local(t).Executor), "wflp-micro")
	for _, args := range []string{"ops --reps 2 --resident 1,8 --mappings 10 --views 0 --threads 2", "mm --reps 2 --batch 32 --without stock", "mm --reps 2 --short --without stock"} {
		out, err := exec.Command(program, strings.Fields(args)...).Output()
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		micros, missing, err := ParseMicro(out)
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		found := false
		for _, m := range micros {
			found = found || m.Bench == "fork" && m.ResidentKiB == 8192 || m.Bench == "page-fault" && m.Setting == "stock"
			if len(m.ValuesNS) != 2 {
				t.Errorf("%s: %d values of %s", args, len(m.ValuesNS), m.Bench)
			}
		}
		if !found {
			t.Errorf("%s: %d series, %+v", args, len(micros), missing)
		}
	}
}

func TestParseFootprint(t *testing.T) {
	looks, missing, err := ParseFootprint([]byte(`{"experiment":"E6","series":"views","n":8,"views":8,"private_pages":8,"own_tables":32,"files":11,"rss_kib":700,"pte_kib":40,"used_kib":9000}
{"unsupported":"footprint","sweep":"all","value":0,"why":"this kernel has no views"}
`))
	if err != nil || len(missing) != 1 || len(looks) != 1 || looks[0].OwnTables != 32 || looks[0].UsedKiB != 9000 {
		t.Errorf("%+v, %+v, %v", looks, missing, err)
	}
	for _, bad := range []string{"{", `{"series":"views","n":1}`, `{"series":"views","used_kib":1,"swap_kib":1}`} {
		if _, _, err := ParseFootprint([]byte(bad)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}
