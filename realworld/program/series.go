// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/wflp/wflp/internal/build"
)

// change is a diff to be applied to the source.
type change struct {
	name string
	data []byte
}

// readSeries reads debian/patches of an unpacked source.
func readSeries(dir string) ([]change, error) {
	patches := filepath.Join(dir, "debian", "patches")
	text, err := os.ReadFile(filepath.Join(patches, "series"))
	if err != nil {
		return nil, fmt.Errorf("read series of patches: %w", err)
	}
	var list []change
	for _, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) > 1 && (len(fields) != 2 || fields[1] != "-p1") {
			return nil, fmt.Errorf("read series of patches: %q: only -p1 is known", line)
		}
		data, err := os.ReadFile(filepath.Join(patches, fields[0]))
		if err != nil {
			return nil, fmt.Errorf("read series of patches: %w", err)
		}
		list = append(list, change{fields[0], data})
	}
	return list, nil
}

// split says what the source is without a fix: the series up to its first patch,
// exclusive; and what the fix is: its patches, in their order.
func split(series []change, names []string) (base, fix []change, err error) {
	for _, n := range names {
		if !slices.ContainsFunc(series, func(c change) bool { return c.name == n }) {
			return nil, nil, fmt.Errorf("the package's series has no patch %s", n)
		}
	}
	for _, c := range series {
		switch {
		case slices.Contains(names, c.name):
			fix = append(fix, c)
		case len(fix) == 0:
			base = append(base, c)
		}
	}
	return base, fix, nil
}

func (c change) apply(ctx context.Context, dir string) error {
	cmd := build.Command(ctx, dir, "patch", "-p1", "--forward", "--batch", "--silent", "--fuzz=0", "--no-backup-if-mismatch", "--version-control=never")
	cmd.Stdin = bytes.NewReader(c.data)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply %s: %w\n%s", c.name, err, build.LastLines(string(out), 10))
	}
	return nil
}

var fileRE = regexp.MustCompile(`(?m)^\+\+\+ [^/\s]+/(\S+)`)

// touched are the files that a diff changes.
func (c change) touched() []string {
	var list []string
	for _, m := range fileRE.FindAllSubmatch(c.data, -1) {
		list = append(list, string(m[1]))
	}
	return list
}

var hunkRE = regexp.MustCompile(`(?m)^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@`)

// keepLines gives what follows a change in a C source its old line numbers
// back, with a #line directive after the function that was changed. Assertions
// have line numbers in them: without this, all that stand below a fix would be
// other code.
func keepLines(ctx context.Context, was, now string) error {
	out, err := diff(ctx, was, now)
	if err != nil || len(out) == 0 {
		return err
	}
	text, err := os.ReadFile(now)
	if err != nil {
		return fmt.Errorf("keep line numbers: %w", err)
	}
	return build.WriteFileAtomic(now, renumber(text, out), 0o644)
}

// renumber puts the directives into a text, of which diff -U0 tells the changes.
func renumber(text, diff []byte) []byte {
	type hunk struct{ start, next, shift int } // in the text; by how much the old numbers are larger
	var hunks []hunk
	moved := false
	for _, m := range hunkRE.FindAllSubmatch(diff, -1) {
		oldAt, oldLen, at, n := number(m[1], 0), number(m[2], 1), number(m[3], 0), number(m[4], 1)
		if oldLen == 0 {
			oldAt++
		}
		if n == 0 {
			at++
		}
		h := hunk{at, at + n, oldAt + oldLen - at - n}
		moved = moved || h.shift != 0
		hunks = append(hunks, h)
	}
	if !moved {
		return text
	}
	var b bytes.Buffer
	passed := 0 // hunks above
	due := false
	for i, line := range bytes.SplitAfter(text, []byte("\n")) {
		at := i + 1
		for passed < len(hunks) && at >= hunks[passed].next {
			passed, due = passed+1, true
		}
		b.Write(line)
		inside := passed < len(hunks) && at >= hunks[passed].start
		if due && !inside && string(line) == "}\n" {
			fmt.Fprintf(&b, "#line %d\n", at+1+hunks[passed-1].shift)
			due = false
		}
	}
	return b.Bytes()
}

func number(b []byte, none int) int {
	if len(b) == 0 {
		return none
	}
	n, _ := strconv.Atoi(string(b)) // digits, as the expression has it
	return n
}

// diff compares two files; where one is missing, there is nothing to say.
func diff(ctx context.Context, was, now string) ([]byte, error) {
	if !build.IsFile(was) || !build.IsFile(now) {
		return nil, nil
	}
	cmd := build.Command(ctx, "", "diff", "-U0", was, now)
	out, err := cmd.Output()
	if code := cmd.ProcessState; err != nil && (code == nil || code.ExitCode() != 1) {
		return nil, fmt.Errorf("compare %s: %w", filepath.Base(now), errors.Join(err, ctx.Err()))
	}
	return out, nil
}
