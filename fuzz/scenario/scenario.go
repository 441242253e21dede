// SPDX-License-Identifier: Apache-2.0

// Package scenario makes what the fuzzer runs: threads with lists of raw
// operations on views and on memory. A Scenario is a pure value. Its operations
// name slots, units and lists by small numbers, each of which means something
// whatever the others are, so that any change of one gives a scenario again.
package scenario

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// Format of the JSON form.
const Format = 1

// Kind of an operation; in JSON it is a name.
type Kind uint16

// kindInfo is what there is to know of a kind: its name, how its arguments are
// bounded (an argument is taken modulo its bound; 0: it has none and is 0), and
// how many records it leaves at most. count marks kinds whose C is a number of
// units, functions or the like, at least 1.
type kindInfo struct {
	name    string
	bound   [5]int
	count   bool
	records int
}

func (k kindInfo) recordsOf(o Op) int {
	if k.count && k.records > 1 {
		return int(o.C)
	}
	return k.records
}

var kinds = map[Kind]kindInfo{
	w.OpCreate:    {name: "create", bound: [5]int{w.Slots, 3, 0, 0, 2}, records: 2},
	w.OpWrite:     {name: "write", bound: [5]int{anySlot, w.Cells}, records: 1},
	w.OpRead:      {name: "read", bound: [5]int{anySlot, w.Cells}, records: 1},
	w.OpSeal:      {name: "seal", bound: [5]int{anySlot, 0, 0, 0, 2}, records: 1},
	w.OpEnter:     {name: "enter", bound: [5]int{anySlot, 3, 0, 0, 2}, records: 1},
	w.OpRetire:    {name: "retire", bound: [5]int{anySlot, 0, 0, 0, 2}, records: 1},
	w.OpRebase:    {name: "rebase", bound: [5]int{anySlot, 0, 0, 0, 2}, records: 1},
	w.OpStat:      {name: "stat", bound: [5]int{anySlot, 0, 0, 0, 2}, records: 1},
	w.OpPoll:      {name: "poll", bound: [5]int{anySlot, 4}, records: 1},
	w.OpPull:      {name: "pull", bound: [5]int{anySlot, w.PullForms, 4, 0, 2}, records: 1},
	w.OpRegister:  {name: "register", bound: [5]int{2, 0, 0, 0, 2}, records: 1},
	w.OpClose:     {name: "close", bound: [5]int{w.Slots}, records: 1},
	w.OpDup:       {name: "dup", bound: [5]int{anySlot, w.Slots}, records: 2},
	w.OpWho:       {name: "who", records: 1},
	w.OpMisuse:    {name: "misuse", bound: [5]int{anySlot, w.MisuseKinds, w.DataAreas, w.Units, 2}, records: 1},
	w.OpLoad:      {name: "load", bound: [5]int{w.Areas, w.Units, w.Units}, count: true, records: w.Units},
	w.OpStore:     {name: "store", bound: [5]int{w.DataAreas, w.Units, w.Units}, count: true, records: w.Units},
	w.OpExec:      {name: "exec", bound: [5]int{0, w.Cells, w.Cells}, count: true, records: w.Cells},
	w.OpMmap:      {name: "mmap", bound: [5]int{w.Areas, w.Units, w.Units, w.MapKinds, w.ProtKinds}, count: true, records: 1},
	w.OpMunmap:    {name: "munmap", bound: [5]int{w.Areas, w.Units, w.Units}, count: true, records: 1},
	w.OpMprotect:  {name: "mprotect", bound: [5]int{w.Areas, w.Units, w.Units, w.ProtKinds}, count: true, records: 1},
	w.OpMremap:    {name: "mremap", bound: [5]int{w.Areas, w.Units, w.Units, w.Areas, w.Units}, count: true, records: 1},
	w.OpMadvise:   {name: "madvise", bound: [5]int{w.Areas, w.Units, w.Units, 128}, count: true, records: 1},
	w.OpMlock:     {name: "mlock", bound: [5]int{w.Areas, w.Units, w.Units, 2}, count: true, records: 1},
	w.OpTruncate:  {name: "truncate", bound: [5]int{w.DataAreas, w.Units}, records: 1},
	w.OpFork:      {name: "fork", bound: [5]int{anyList}, records: 1},
	w.OpSpawn:     {name: "spawn", bound: [5]int{anyList}, records: 1},
	w.OpVfork:     {name: "vfork", bound: [5]int{2}, records: 1},
	w.OpSleep:     {name: "sleep", bound: [5]int{2000, w.SleepKinds, 2, 4}, records: 1},
	w.OpSignal:    {name: "signal", bound: [5]int{anyList}, records: 1},
	w.OpMeet:      {name: "meet", bound: [5]int{16, 6}},
	w.OpYield:     {name: "yield"},
	w.OpTaskRead:  {name: "task-read", bound: [5]int{anyList, w.Cells}, records: 1},
	w.OpTaskWrite: {name: "task-write", bound: [5]int{anyList, w.Cells}, records: 1},
	w.OpVMRead:    {name: "vm-read", bound: [5]int{0, w.Cells}, records: 1},
	w.OpHotplug:   {name: "hotplug", bound: [5]int{2}, records: 1},
	w.OpSystem:    {name: "system", bound: [5]int{w.SystemKinds}, records: 1},
	w.OpFail:      {name: "fail", bound: [5]int{40}},
	w.OpTrace:     {name: "trace", bound: [5]int{anyList, w.Cells, 2}, records: 1},
	w.OpFileWrite: {name: "file-write", bound: [5]int{w.DataAreas, w.Units}, records: 1},
	w.OpFileRead:  {name: "file-read", bound: [5]int{w.DataAreas, w.Units}, records: 1},
	w.OpUserfault: {name: "userfault", bound: [5]int{w.DataAreas, w.Units, w.Units, 16, w.UserfaultKinds}, count: true, records: 1},
	w.OpBrk:       {name: "brk", bound: [5]int{w.BrkKinds, w.BrkPages}, records: 1},
	w.OpExit:      {name: "exit"},
}

// Bounds that are not numbers.
const (
	anySlot = -1 // a slot, the base, or what is no view
	anyList = -2 // a list of the scenario
)

// advices are the values of madvise that are asked for.
var advices = []uint16{
	4, 4, 4, // DONTNEED
	3, 8, 9, 10, 11, 12, 13, 14, 15, 18, 19, 20, 21, 22, 23, 24, 25, 25, 16, 17, 0, 1, 2,
}

// Kinds lists all kinds of operation in order.
func Kinds() []Kind {
	var out []Kind
	for k := range kinds {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (k Kind) String() string {
	if i, ok := kinds[k]; ok {
		return i.name
	}
	return fmt.Sprintf("kind-%d", uint16(k))
}

// MarshalText makes the name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText finds the kind of a name.
func (k *Kind) UnmarshalText(b []byte) error {
	for n, i := range kinds {
		if i.name == string(b) {
			*k = n
			return nil
		}
	}
	return fmt.Errorf("parse scenario: no operation is called %q", b)
}

// Scenario is what one run does.
type Scenario struct {
	Format     int    `json:"format"`
	Seed       uint64 `json:"seed"` // it was made from; says nothing of one that was changed
	WatchdogMS int    `json:"watchdog_ms"`
	// Areas says how each data area is mapped at first (fuzzwire.Map…).
	Areas [w.DataAreas]int `json:"areas"`
	Lists []List           `json:"lists"`
}

// List is what one thread does, or the first thread of a forked child.
type List struct {
	// Start: its thread is there from the start. Others run if a Fork or Spawn
	// names them, the first that does.
	Start bool `json:"start,omitempty"`
	Ops   []Op `json:"ops"`
}

// Op is one operation; fuzzwire says what the arguments mean.
type Op struct {
	Kind Kind   `json:"k"`
	A    uint16 `json:"a,omitempty"`
	B    uint16 `json:"b,omitempty"`
	C    uint16 `json:"c,omitempty"`
	D    uint16 `json:"d,omitempty"`
	E    uint16 `json:"e,omitempty"`
}

func (o Op) String() string {
	return fmt.Sprintf("%s(%d,%d,%d,%d,%d)", o.Kind, o.A, o.B, o.C, o.D, o.E)
}

// Needs is what the machine must have.
type Needs struct {
	MemMiB, CPUs, Nodes int
	Faults              bool // allocation failures
	Hotplug             bool // a second processor that can go
}

// Needs tells what a run wants; without Faults or Hotplug the operations fail
// and the run says less, but nothing false.
func (s *Scenario) Needs() Needs {
	n := Needs{MemMiB: 256, CPUs: 2, Nodes: 1}
	for _, l := range s.Lists {
		for _, o := range l.Ops {
			n.Faults = n.Faults || o.Kind == w.OpFail
			n.Hotplug = n.Hotplug || o.Kind == w.OpHotplug
		}
	}
	return n
}

// normalise makes a scenario valid, changing nothing of one that is.
func (s *Scenario) normalise() {
	s.Format = Format
	s.WatchdogMS = min(max(s.WatchdogMS, 1000), 60000)
	for i := range s.Areas {
		s.Areas[i] = abs(s.Areas[i]) % w.MapKinds
	}
	if len(s.Lists) > w.MaxLists {
		s.Lists = s.Lists[:w.MaxLists]
	}
	if len(s.Lists) == 0 {
		s.Lists = []List{{Start: true}}
	}
	if !slices.ContainsFunc(s.Lists, func(l List) bool { return l.Start }) {
		s.Lists[0].Start = true
	}
	for i := range s.Lists {
		l := &s.Lists[i]
		if len(l.Ops) > w.MaxOps {
			l.Ops = l.Ops[:w.MaxOps]
		}
		l.Ops = slices.DeleteFunc(l.Ops, func(o Op) bool { _, ok := kinds[o.Kind]; return !ok })
		for j := range l.Ops {
			l.Ops[j] = l.Ops[j].normal(len(s.Lists))
		}
	}
}

func abs(n int) int { return max(n, -n) }

func (o Op) normal(lists int) Op {
	k := kinds[o.Kind]
	args := [5]*uint16{&o.A, &o.B, &o.C, &o.D, &o.E}
	for i, p := range args {
		switch b := k.bound[i]; {
		case b == anySlot:
			if *p >= w.Slots && *p != w.SlotBase && *p != w.SlotBad {
				*p %= w.Slots
			}
		case b == anyList:
			*p %= uint16(lists)
		case i == 2 && k.count:
			if *p == 0 || int(*p) > b {
				*p = *p%uint16(b) + 1
			}
		case b == 0:
			*p = 0
		default:
			*p %= uint16(b)
		}
	}
	area := func(a uint16) uint16 {
		if a == w.AreaCode {
			return w.CodeUnits
		}
		return w.Units
	}
	switch o.Kind {
	case w.OpMadvise:
		if !slices.Contains(advices, o.D) {
			o.D = advices[int(o.D)%len(advices)]
		}
		fallthrough
	case w.OpMmap, w.OpMunmap, w.OpMprotect, w.OpMremap, w.OpMlock, w.OpUserfault:
		n := area(o.A)
		o.B %= n
		o.C = min(o.C, n-o.B)
		if o.Kind == w.OpMmap && o.A == w.AreaCode {
			o.D = w.MapPrivate
		}
		if o.Kind == w.OpMremap {
			// The units of both are of one size, as is what is code: a cell
			// means nothing elsewhere.
			if (o.A == w.AreaHuge) != (o.D == w.AreaHuge) || (o.A == w.AreaCode) != (o.D == w.AreaCode) {
				o.D = o.A
			}
			n := area(o.D)
			o.E %= n
			o.C = min(o.C, n-o.E)
			if o.A == o.D && o.B < o.E+o.C && o.E < o.B+o.C {
				// Not onto itself: to the other end.
				o.C = 1
				o.E = (o.B + n/2) % n
			}
		}
	case w.OpLoad, w.OpStore:
		if o.A == w.AreaCode {
			o.B %= w.CodeUnits
		} else {
			o.C = min(o.C, w.Units-o.B)
		}
	}
	return o
}

// Validate says what a scenario lacks. All that this package makes are valid.
func (s *Scenario) Validate() error {
	if s.Format != Format {
		return fmt.Errorf("validate scenario: format %d, not %d", s.Format, Format)
	}
	c := s.Clone()
	c.normalise()
	if len(c.Lists) != len(s.Lists) || c.Areas != s.Areas || c.WatchdogMS != s.WatchdogMS {
		return fmt.Errorf("validate scenario: %d lists, areas %v, watchdog %d ms are not within bounds", len(s.Lists), s.Areas, s.WatchdogMS)
	}
	for i, l := range s.Lists {
		if len(c.Lists[i].Ops) != len(l.Ops) || c.Lists[i].Start != l.Start {
			return fmt.Errorf("validate scenario: list %d has too many operations, or an unknown one, or no list starts", i)
		}
		for j, o := range l.Ops {
			if n := c.Lists[i].Ops[j]; n != o {
				return fmt.Errorf("validate scenario: list %d operation %d: %v is not within bounds, %v would be", i, j, o, n)
			}
		}
	}
	return nil
}

// Clone makes a copy that shares nothing.
func (s *Scenario) Clone() *Scenario {
	c := *s
	c.Lists = make([]List, len(s.Lists))
	for i, l := range s.Lists {
		c.Lists[i] = List{Start: l.Start, Ops: slices.Clone(l.Ops)}
	}
	return &c
}

// Marshal makes the JSON form, a line for each operation's list.
func (s *Scenario) Marshal() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("print scenario: %w", err)
	}
	return append(b, '\n'), nil
}

// Parse reads the JSON form of a valid scenario.
func Parse(b []byte) (*Scenario, error) {
	s := &Scenario{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("parse scenario: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// ID names a scenario by what it does.
func (s *Scenario) ID() string {
	c := s.Clone()
	c.Seed = 0
	h := sha256.Sum256(c.Encode())
	return hex.EncodeToString(h[:8])
}

// Ops counts the operations.
func (s *Scenario) Ops() int {
	n := 0
	for _, l := range s.Lists {
		n += len(l.Ops)
	}
	return n
}

// Encode makes what wflp-fuzz reads.
func (s *Scenario) Encode() []byte {
	f := w.Scenario{ScenarioHeader: w.ScenarioHeader{Seed: s.Seed, WatchdogMS: uint32(s.WatchdogMS)}}
	for i, a := range s.Areas {
		f.AreaKinds[i] = uint32(a)
	}
	for _, l := range s.Lists {
		x := w.List{First: uint32(len(f.OpTable)), Count: uint32(len(l.Ops)), Records: 4}
		if l.Start {
			x.Flags = w.ListStart
		}
		for _, o := range l.Ops {
			x.Records += uint32(kinds[o.Kind].recordsOf(o))
			f.OpTable = append(f.OpTable, w.Op{Kind: uint16(o.Kind), A: o.A, B: o.B, C: o.C, D: o.D, E: o.E})
		}
		f.ListTable = append(f.ListTable, x)
	}
	return f.Encode()
}
