// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// Chunk is the range that one page table of the lowest level maps.
const Chunk = 2 << 20

// Validate says what is wrong with a Spec. The executor trusts what passes.
func (s *Spec) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("validate spec: "+format, args...))
	}
	if s.Format != Format {
		bad("format %d, want %d", s.Format, Format)
	}
	if s.Text.Offset < 0 || s.Text.Offset >= Chunk {
		bad("text offset %d outside its chunk", s.Text.Offset)
	}
	if !slices.Contains([]Backing{Memfd, File, Anonymous}, s.Text.Backing) {
		bad("text backing %q", s.Text.Backing)
	}
	if n := len(s.Functions); n < 1 || n > MaxFunctions {
		bad("%d functions", n)
	}
	if n := len(s.Workers); n < 1 || n > MaxWorkers {
		bad("%d workers", n)
	}
	if len(s.Regions) > MaxRegions {
		bad("%d regions", len(s.Regions))
	}
	if s.Depth < 1 || s.Depth > 64 {
		bad("depth %d", s.Depth)
	}
	if s.WatchdogMS < 1 {
		bad("watchdog of %d ms", s.WatchdogMS)
	}
	for i := len(s.Functions) - 1; i >= 0; i-- {
		s.validateFunction(i, bad)
	}
	if len(errs) == 0 { // only a sound call graph has trees
		for i := range s.Functions {
			if n := len(s.Tree(i)); n > MaxTree {
				bad("function %d: executes %d functions", i, n)
			}
		}
	}
	heaps := 0
	for i, r := range s.Regions {
		if !slices.Contains(RegionKinds, r.Kind) || r.Pages < 1 || r.Pages > MaxPages {
			bad("region %d: %q of %d pages", i, r.Kind, r.Pages)
		}
		if r.Near && (r.Kind == Heap || r.Kind == Huge || r.Pages > 32) {
			bad("region %d: cannot lie near the text", i)
		}
		if r.Kind == Heap {
			heaps++
		}
	}
	if heaps > 1 {
		bad("%d heaps: a process has one", heaps)
	}
	for i := range s.Workers {
		s.validateWorker(i, bad)
	}
	last := 0
	for i, p := range s.Patches {
		if p.AtUS < last {
			bad("patch %d: earlier than the one before it", i)
		}
		last = p.AtUS
		if p.StallUS < 0 {
			bad("patch %d: a stall of %d us", i, p.StallUS)
		}
		if len(p.Changes) == 0 {
			bad("patch %d: changes nothing", i)
		}
		seen := map[int]bool{}
		for _, c := range p.Changes {
			if c.Function < 0 || c.Function >= len(s.Functions) || seen[c.Function] {
				bad("patch %d: function %d", i, c.Function)
				continue
			}
			seen[c.Function] = true
			if c.Version < 0 || c.Version >= len(s.Functions[c.Function].Versions) {
				bad("patch %d: function %d has no version %d", i, c.Function, c.Version)
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Spec) validateFunction(i int, bad func(string, ...any)) {
	f := s.Functions[i]
	if bits.OnesCount(uint(f.Align)) != 1 || f.Align < 1 || f.Align > 4096 || f.Skew < 0 || f.Skew > 4096 {
		bad("function %d: placed at %d past %d", i, f.Skew, f.Align)
	}
	if f.Straddle != 0 && (bits.OnesCount(uint(f.Straddle)) != 1 || f.Straddle < 16 || f.Straddle > Chunk || f.Into < 1 || f.Into > 16) {
		bad("function %d: straddles %d by %d", i, f.Straddle, f.Into)
	}
	if f.Parts < 2 || f.Parts > MaxParts {
		bad("function %d: %d parts", i, f.Parts)
	}
	if len(f.Versions) < 1 || len(f.Versions) > MaxVersions {
		bad("function %d: %d versions", i, len(f.Versions))
	}
	for _, c := range f.Calls {
		if c.After < 0 || c.After >= f.Parts || c.Callee <= i || c.Callee >= len(s.Functions) {
			bad("function %d: call of %d after part %d", i, c.Callee, c.After)
		}
	}
	for v, ver := range f.Versions {
		if len(ver.Parts) != f.Parts {
			bad("function %d version %d: %d parts", i, v, len(ver.Parts))
		}
		for _, p := range ver.Parts {
			if p.Form < 0 || p.Pad < 0 || p.Pad > 4096 || p.Step < 0 || p.Step > 11 || p.Skip < 0 || p.Skip > 8192 || p.Loop < 0 || p.Loop > 1<<20 {
				bad("function %d version %d: part %+v", i, v, p)
			}
		}
	}
}

func (s *Spec) validateWorker(i int, bad func(string, ...any)) {
	w := s.Workers[i]
	if w.Parent >= i || w.Parent < -1 {
		bad("worker %d: parent %d is not started before it", i, w.Parent)
	}
	if w.Parent >= 0 && len(s.Workers[w.Parent].Arrivals) == 0 && w.BornAt >= s.Workers[w.Parent].Cap {
		bad("worker %d: born at transaction %d, after its parent's last", i, w.BornAt)
	}
	if len(w.Roots) == 0 || w.Interval < 1 || w.Interval > 64 || w.Cap < 1 {
		bad("worker %d: %d roots, interval %d, cap %d", i, len(w.Roots), w.Interval, w.Cap)
	}
	for _, r := range w.Roots {
		if r < 0 || r >= len(s.Functions) {
			bad("worker %d: root %d", i, r)
		}
	}
	if len(w.Arrivals) > 0 && (w.PerRequest < 1 || w.PerRequest*len(w.Arrivals) > w.Cap) {
		bad("worker %d: %d requests of %d transactions, cap %d", i, len(w.Arrivals), w.PerRequest, w.Cap)
	}
	if !slices.IsSorted(w.Arrivals) {
		bad("worker %d: arrivals out of order", i)
	}
	if w.SpinUS < 0 || w.LongUS < 0 || w.LongEvery < 0 || w.BlockedUS < 0 || w.Txns < 0 {
		bad("worker %d: a negative time", i)
	}
	last := 0
	for n, a := range w.Actions {
		if a.At < last || !slices.Contains(ActionKinds, a.Kind) || a.US < 0 {
			bad("worker %d action %d: %+v", i, n, a)
		}
		last = a.At
		if !a.Kind.Memory() {
			continue
		}
		if a.Region < 0 || a.Region >= len(s.Regions) || a.Page < 0 || a.Count < 1 || a.Page+a.Count > s.Regions[a.Region].Pages {
			bad("worker %d action %d: %+v", i, n, a)
			continue
		}
		heap := s.Regions[a.Region].Kind == Heap
		grows := a.Kind == BreakGrow || a.Kind == BreakDrop
		if grows && !heap || heap && !grows && a.Kind != Store && a.Kind != Load && a.Kind != Fork {
			bad("worker %d action %d: %s of a %s", i, n, a.Kind, s.Regions[a.Region].Kind)
		}
	}
}
