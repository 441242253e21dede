// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"strings"
	"testing"

	"github.com/wflp/wflp/analysis/report"
)

// surely are the claims that hold in any run, of whatever size.
var surely = []string{"e1-waitfree", "e1-barrier", "e1-stopworld", "console", "e3-all", "e7-all", "e8-lock-waitfree", "e8-asleep-waitfree"}

func good() report.Summary {
	var s report.Summary
	for id, v := range map[string]float64{"e1.waitfree.pulled": 1, "e1.naive.violating_runs": 1, "e1.stopworld.patches": 50, "e1.stopworld.stops_active": 1} {
		s.Numbers = append(s.Numbers, report.Number{ID: id, Value: &v})
	}
	for _, strategy := range []string{"waitfree", "barrier"} {
		for _, id := range []string{"runs", "patches", "executions", "migrated", "births", "memory_ops"} {
			v := 1000.0
			s.Numbers = append(s.Numbers, report.Number{ID: "e1." + strategy + "." + id, Value: &v})
		}
	}
	for _, id := range surely {
		s.Claims = append(s.Claims, report.Claim{ID: id, Holds: report.True})
	}
	for _, id := range []string{"e1-control", "e1-volume", "e2-tail-tcg-x", "e3-first", "e4-flat-create-tcg", "e4-flat-seal-tcg", "e4-flat-enter-tcg", "e4-fork-tcg",
		"e5-page-fault-icount", "e5-map-unmap-icount", "e7-held"} {
		s.Claims = append(s.Claims, report.Claim{ID: id, Holds: report.Unknown})
	}
	return s
}

func TestCheck(t *testing.T) {
	if err := Check(good()); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for i := range good().Numbers {
		s := good()
		zero := 0.0
		s.Numbers[i].Value = &zero
		if err := Check(s); err == nil || !strings.Contains(err.Error(), s.Numbers[i].ID) {
			t.Errorf("%s is 0: %v", s.Numbers[i].ID, err)
		}
		s.Numbers[i].Value = nil
		if Check(s) == nil {
			t.Errorf("%s is not known, and that is fine", s.Numbers[i].ID)
		}
	}
	for i := range good().Claims {
		s := good()
		if i < len(surely) {
			s.Claims[i].Holds = report.Unknown
			if Check(s) == nil {
				t.Errorf("%s is unknown, and that is fine", s.Claims[i].ID)
			}
		}
		s.Claims = append(s.Claims[:i], s.Claims[i+1:]...)
		if Check(s) == nil {
			t.Errorf("%s is not claimed, and that is fine", good().Claims[i].ID)
		}
	}
}
