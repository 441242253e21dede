// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wflp/wflp/analysis/report"
)

// ReadSummary reads summary.json of a run.
func ReadSummary(dir string) (report.Summary, error) {
	var s report.Summary
	b, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		return s, fmt.Errorf("read summary: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read summary: %w", err)
	}
	return s, nil
}

// Check holds a summary to what every evaluation must show, of whatever size:
// waitfree and barrier ran and were not caught, naive was, the kernel had nothing
// to say, and each experiment has its claims.
func Check(s report.Summary) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("check summary: "+format, args...)) }
	numbers := map[string]float64{}
	for _, n := range s.Numbers {
		if n.Value != nil {
			numbers[n.ID] = *n.Value
		}
	}
	atLeast := func(id string, least float64) {
		if v, ok := numbers[id]; !ok {
			bad("no number %s", id)
		} else if v < least {
			bad("%s is %v, want at least %v", id, v, least)
		}
	}
	for _, strategy := range []string{"waitfree", "barrier"} {
		id := "e1." + strategy + "."
		atLeast(id+"runs", 1)
		atLeast(id+"patches", 100)
		atLeast(id+"executions", 1000)
		atLeast(id+"migrated", 1)
		atLeast(id+"births", 1)
		atLeast(id+"memory_ops", 1)
	}
	atLeast("e1.waitfree.pulled", 1)
	atLeast("e1.stopworld.patches", 50)
	atLeast("e1.stopworld.stops_active", 1)
	atLeast("e1.naive.violating_runs", 1)
	claims := map[string]report.Claim{}
	for _, c := range s.Claims {
		claims[c.ID] = c
	}
	for _, id := range []string{"e1-waitfree", "e1-barrier", "e1-stopworld", "console", "e3-all", "e7-all", "e8-lock-waitfree", "e8-asleep-waitfree"} {
		switch c, ok := claims[id]; {
		case !ok:
			bad("no claim %s", id)
		case c.Holds != report.True:
			bad("claim %s does not hold (%s): %s", id, c.Holds, c.Measured)
		}
	}
	// Small runs leave these undecided, but they must be made.
	for _, prefix := range []string{"e1-control", "e1-volume", "e2-tail", "e3-first", "e4-flat-create", "e4-flat-seal", "e4-flat-enter", "e4-fork", "e5-page-fault", "e5-map-unmap", "e7-held"} {
		found := false
		for _, c := range s.Claims {
			found = found || strings.HasPrefix(c.ID, prefix)
		}
		if !found {
			bad("no claim %s", prefix)
		}
	}
	return errors.Join(errs...)
}
