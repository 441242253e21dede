// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
	"github.com/wflp/wflp/fuzz/scenario"
)

// Timeline prints the records of a trace by the time they began, one a line.
func Timeline(trace []byte) (string, error) {
	t, err := w.DecodeTrace(trace)
	if err != nil {
		return "", err
	}
	type line struct {
		w.Record
		list int
	}
	var lines []line
	for i := range t.StreamList {
		for _, r := range t.Of(i) {
			lines = append(lines, line{r, i})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.Begin, b.Begin) })
	var b strings.Builder
	for _, r := range lines {
		fmt.Fprintf(&b, "[%d,%d] list %d op %d %s", r.Begin, r.End, r.list, r.Op, scenario.Kind(r.Kind))
		if r.FD >= 0 {
			fmt.Fprintf(&b, " fd/n %d", r.FD)
		}
		fmt.Fprintf(&b, " at %d:%d -> %d, %#x %#x", r.Unit>>8, r.Unit&0xff, r.Ret, r.Val, r.Ext)
		if r.Flags != 0 {
			fmt.Fprintf(&b, " flags %d", r.Flags)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
