// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"testing"
)

func TestParseKTAP(t *testing.T) {
	for _, tc := range []struct {
		name, out           string
		pass, skip, failure int
		err                 error
	}{
		{"good", "TAP version 13\n1..2\n# note\nok 1 a\nok 2 b\n# Totals: pass:2\n", 2, 0, 0, nil},
		{"plan last", "ok 1 a\n1..1\n", 1, 0, 0, nil},
		{"failure", "1..2\nok 1 a\nnot ok 2 b\n", 1, 0, 1, nil},
		{"skip", "1..3\nok 1 a\nok 2 # SKIP no pkeys\nok 3 c # skip\n", 1, 2, 0, nil},
		{"xfail", "1..1\nnot ok 1 a # XFAIL known\n", 0, 1, 0, nil},
		{"nested", "1..1\n    1..2\n    ok 1 x\n    not ok 2 y\nnot ok 1 outer\n", 0, 0, 1, nil},
		{"no number", "1..1\nok - a\n", 1, 0, 0, nil},
		{"carriage returns", "1..1\r\nok 1 a\r\n", 1, 0, 0, nil},
		{"died", "1..3\nok 1 a\nok 2 b\n", 2, 0, 0, ErrIncomplete},
		{"too many", "1..1\nok 1 a\nok 2 b\n", 2, 0, 0, ErrIncomplete},
		{"no plan", "ok 1 a\n", 1, 0, 0, ErrIncomplete},
		{"two plans", "1..1\n1..1\nok 1 a\n", 0, 0, 0, ErrIncomplete},
		{"bail", "1..2\nok 1 a\nBail out! no memory\n", 1, 0, 0, ErrIncomplete},
		{"nothing", "", 0, 0, 0, ErrNoTests},
		{"skip all", "1..0 # SKIP no kernel support\n", 0, 0, 0, ErrNoTests},
		{"words", "okay then\nnot okay\nokra 1\n", 0, 0, 0, ErrNoTests},
	} {
		k, err := ParseKTAP(tc.out)
		if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.err)
		}
		if k.Passed != tc.pass || k.Skipped != tc.skip || k.Failed != tc.failure {
			t.Errorf("%s: got %d passed, %d skipped, %d failed; want %d, %d, %d", tc.name, k.Passed, k.Skipped, k.Failed, tc.pass, tc.skip, tc.failure)
		}
		if len(k.Failures) != k.Failed || len(k.Skips) != k.Skipped {
			t.Errorf("%s: lines and numbers differ: %+v", tc.name, k)
		}
	}
}
