// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// KTAP is what a test program of the kernel reported.
type KTAP struct {
	Passed, Skipped, Failed int
	// Failures are the lines that say what failed, Skips what was skipped.
	Failures, Skips []string
}

// Errors of ParseKTAP: output that is no complete report.
var (
	ErrNoTests    = errors.New("no test ran")
	ErrIncomplete = errors.New("the report is incomplete")
)

var (
	planRE   = regexp.MustCompile(`^1\.\.(\d+)(?:\s+#\s*SKIP.*)?$`)
	resultRE = regexp.MustCompile(`(?i)^(not ok|ok)\b(?:\s+(\d+))?(.*)$`)
	skipRE   = regexp.MustCompile(`(?i)#\s*SKIP`)
	todoRE   = regexp.MustCompile(`(?i)#\s*(TODO|XFAIL)`)
)

// ParseKTAP reads the top level of a report; what is indented belongs to a
// test that reports itself at the top. An error means that the numbers cannot
// be trusted: a program that dies in the middle prints only good lines.
func ParseKTAP(out string) (KTAP, error) {
	var k KTAP
	plan, results, bail := -1, 0, ""
	for _, line := range strings.Split(strings.ReplaceAll(out, "\r", ""), "\n") {
		if m := planRE.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil || plan >= 0 {
				return k, fmt.Errorf("parse KTAP: a second plan %q: %w", line, ErrIncomplete)
			}
			plan = n
			continue
		}
		if strings.HasPrefix(line, "Bail out!") {
			bail = line
			continue
		}
		m := resultRE.FindStringSubmatch(line)
		if m == nil || m[3] != "" && m[3][0] != ' ' && m[3][0] != '\t' {
			continue
		}
		results++
		switch {
		case skipRE.MatchString(m[3]):
			k.Skipped++
			k.Skips = append(k.Skips, line)
		case strings.EqualFold(m[1], "ok"):
			k.Passed++
		case todoRE.MatchString(m[3]):
			k.Skipped++
			k.Skips = append(k.Skips, line)
		default:
			k.Failed++
			k.Failures = append(k.Failures, line)
		}
	}
	switch {
	case bail != "":
		return k, fmt.Errorf("parse KTAP: %q: %w", bail, ErrIncomplete)
	case results == 0:
		return k, fmt.Errorf("parse KTAP: %w", ErrNoTests)
	case plan < 0:
		return k, fmt.Errorf("parse KTAP: %d results and no plan: %w", results, ErrIncomplete)
	case plan != results:
		return k, fmt.Errorf("parse KTAP: %d results of %d planned: %w", results, plan, ErrIncomplete)
	}
	return k, nil
}
