// SPDX-License-Identifier: Apache-2.0

// Package matrix measures the fuzzer: it gives it kernels and libraries with
// defects made on purpose, and takes down which of them it finds, how soon, and by
// which oracle. Each pair of defect and seed, under each way of looking for it, is
// a cell. A cell is a campaign of its own that ends with its first finding.
//
// What counts as found. An oracle that gives false alarms would find every mutant.
// So a title counts only if the unmutated kernel does not show it: not in the
// control cells, which are campaigns of the same seeds and the same length on the
// unmutated kernel, and not when the very machines that showed it are run again on
// that. A title that does not count is noted and the cell goes on looking. The
// control cells come first; one that is run later (by another shard) takes back
// what was counted, and such a cell is censored at the time when it stopped.
//
// Time is the host's, from the start of the cell's first machine, over all its
// starts. A cell that reaches the cap without a finding is censored: that tells
// that the defect takes longer, not that it is never found.
package matrix

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/wflp/wflp/fuzz/campaign"
	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/kernel"
)

// Format is the version of a matrix's folder.
const Format = 1

// Names within the folder.
const (
	SettingsName = "settings.json"
	ResultName   = "matrix.json"
	PageName     = "matrix.md"
	FigureName   = "survival"
	cellsName    = "cells"
	cellName     = "cell.json"
)

// Control is in place of a mutant's number where there is none.
const Control = "none"

// Treatment is a way of looking for defects. Its lanes name the unmutated kernels
// and the image, so that no other ones get into the same folder.
type Treatment struct {
	Name  string          `json:"name"`
	Lanes []campaign.Lane `json:"lanes"`
	Blind bool            `json:"blind,omitempty"`
}

// Mutant is what a matrix has to know of one.
type Mutant struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Target string `json:"target"`
	Oracle string `json:"oracle"` // who ought to see it
	Patch  string `json:"patch"`  // digest
}

// Of makes one of a patch.
func Of(m kernel.Mutant) Mutant {
	sum := sha256.Sum256(m.Patch.Data)
	return Mutant{m.ID, m.Name, m.Kind, m.Target, m.Oracle, hex.EncodeToString(sum[:8])}
}

// Settings are what a matrix is. A folder belongs to one of them, but that mutants
// and seeds may be added.
type Settings struct {
	Format     int         `json:"format"`
	Seed       uint64      `json:"seed"`  // the first
	Seeds      int         `json:"seeds"` // how many
	CapS       float64     `json:"cap_s"`
	Treatments []Treatment `json:"treatments"`
	Mutants    []Mutant    `json:"mutants"`
	QEMU       string      `json:"qemu"`
}

// Cap is the time that a cell has.
func (s Settings) Cap() time.Duration { return time.Duration(s.CapS * float64(time.Second)) }

// Cell is one campaign of a matrix.
type Cell struct {
	Mutant    string `json:"mutant"` // number, or Control
	Target    string `json:"target"`
	Treatment string `json:"treatment"`
	Seed      uint64 `json:"seed"`
}

func (c Cell) String() string {
	return fmt.Sprintf("%s/%s/%s/%d", c.Treatment, c.Target, c.Mutant, c.Seed)
}

// Cells are all cells in the order in which they are run: controls first, then all
// of a mutant together, so that each kernel is built once. The library is not
// searched with guidance, so it has no cells where the difference is that.
func (s Settings) Cells() []Cell {
	var out []Cell
	add := func(mutant, target string) {
		for i := range s.Seeds {
			for _, t := range s.Treatments {
				if target == kernel.TargetLibrary && t.Blind {
					continue
				}
				out = append(out, Cell{mutant, target, t.Name, s.Seed + uint64(i)})
			}
		}
	}
	targets := map[string]bool{}
	for _, m := range s.Mutants {
		if !targets[m.Target] {
			targets[m.Target] = true
			add(Control, m.Target)
		}
	}
	for _, m := range s.Mutants {
		add(m.ID, m.Target)
	}
	return out
}

// Shard is the cells of part i of n. All cells of a mutant are in one part.
func (s Settings) Shard(i, n int) []Cell {
	number := map[string]int{}
	return slices.DeleteFunc(s.Cells(), func(c Cell) bool {
		key := c.Target + "/" + c.Mutant
		if _, ok := number[key]; !ok {
			number[key] = len(number)
		}
		return number[key]%n != i
	})
}

// State is what became of a cell.
type State string

// The states. A cell without a result is yet to be run.
const (
	Found    State = "found"
	Censored State = "censored"
	// Machine: machines did not start, or a build failed. It says nothing of the
	// defect and is run again at the next start.
	Machine State = "machine"
)

// Result is what came of a cell.
type Result struct {
	Cell
	State State `json:"state"`
	// Seconds until it was found, or for how long it was looked for.
	Seconds    float64 `json:"s"`
	Iterations int     `json:"n"`
	// Title of what was found, and the kinds of violation.
	Title string   `json:"title,omitempty"`
	Kinds []string `json:"kinds,omitempty"`
	// False are titles that did not count.
	False []string `json:"false,omitempty"`
	// NotStarted is how many machines did not start.
	NotStarted int    `json:"not_started,omitempty"`
	Note       string `json:"note,omitempty"`
}

// Seeker looks for the defect of a cell, in a folder of its own: it goes on there
// with what an earlier call has done. Titles in known do not count. The error is
// about the machinery.
type Seeker func(ctx context.Context, s Settings, c Cell, dir string, known map[string]bool) (Result, error)

// Matrix is one that is being made.
type Matrix struct {
	Dir           string
	Settings      Settings
	Shard, Shards int
	// Seek by target.
	Seek map[string]Seeker
	// On is told of each cell that is done, with how many are.
	On func(done, of int, r Result)
}

// Run runs the cells that the folder does not have yet. A cell whose machines fail
// is noted and the others go on. An interrupt is no error.
func (m *Matrix) Run(ctx context.Context) error {
	m.Settings.Format = Format
	m.Shards = max(m.Shards, 1)
	if err := m.settle(); err != nil {
		return err
	}
	cells := m.Settings.Shard(m.Shard, m.Shards)
	for i, c := range cells {
		if ctx.Err() != nil {
			return nil
		}
		dir := cellDir(m.Dir, c)
		if r, err := readCell(dir); err == nil && r.State != Machine {
			continue
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		known, err := m.known(c)
		if err != nil {
			return err
		}
		r, err := m.Seek[c.Target](ctx, m.Settings, c, dir, known)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r = Result{State: Machine, Note: err.Error()}
		}
		r.Cell = c
		if err := writeJSON(filepath.Join(dir, cellName), r); err != nil {
			return fmt.Errorf("keep cell %s: %w", c, err)
		}
		if m.On != nil {
			m.On(i+1, len(cells), r)
		}
	}
	return nil
}

func cellDir(dir string, c Cell) string {
	return filepath.Join(dir, cellsName, c.Treatment, fmt.Sprintf("%s-%s-%d", c.Target, c.Mutant, c.Seed))
}

// known are the titles of the control cells that are done.
func (m *Matrix) known(of Cell) (map[string]bool, error) {
	known := map[string]bool{}
	if of.Mutant == Control {
		return known, nil
	}
	for _, c := range m.Settings.Cells() {
		if c.Mutant != Control || c.Target != of.Target {
			continue
		}
		r, err := readCell(cellDir(m.Dir, c))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, t := range r.False {
			known[t] = true
		}
	}
	return known, nil
}

func readCell(dir string) (Result, error) {
	var r Result
	b, err := os.ReadFile(filepath.Join(dir, cellName))
	if err != nil {
		return r, fmt.Errorf("read cell: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read cell %s: %w", dir, err)
	}
	return r, nil
}

// settle writes the settings of a new folder. In one that is there only mutants
// and seeds may differ, and a mutant that is there already must be the same.
func (m *Matrix) settle() error {
	old, err := readSettings(m.Dir)
	if errors.Is(err, os.ErrNotExist) {
		if err := writeJSON(filepath.Join(m.Dir, SettingsName), m.Settings); err != nil {
			return fmt.Errorf("open matrix: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	merged, err := merge(old, m.Settings)
	if err != nil {
		return fmt.Errorf("open matrix %s: %w", m.Dir, err)
	}
	if err := writeJSON(filepath.Join(m.Dir, SettingsName), merged); err != nil {
		return fmt.Errorf("open matrix: %w", err)
	}
	return nil
}

func readSettings(dir string) (Settings, error) {
	var s Settings
	b, err := os.ReadFile(filepath.Join(dir, SettingsName))
	if err != nil {
		return s, fmt.Errorf("read matrix: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read matrix %s: %w", dir, err)
	}
	return s, nil
}

// ErrOther says that a folder belongs to another matrix.
var ErrOther = errors.New("the folder belongs to another matrix; choose another, or go on with what it was begun with")

func merge(a, b Settings) (Settings, error) {
	x, y := a, b
	x.Mutants, y.Mutants, x.Seeds, y.Seeds = nil, nil, 0, 0
	// As it is read from a file.
	x.Treatments, y.Treatments = normal(x.Treatments), normal(y.Treatments)
	if !reflect.DeepEqual(x, y) {
		return a, fmt.Errorf("%w: it has %s, now %s", ErrOther, brief(x), brief(y))
	}
	out := b
	out.Seeds = max(a.Seeds, b.Seeds)
	out.Mutants = slices.Clone(a.Mutants)
	for _, m := range b.Mutants {
		i := slices.IndexFunc(out.Mutants, func(o Mutant) bool { return o.ID == m.ID })
		if i < 0 {
			out.Mutants = append(out.Mutants, m)
		} else if out.Mutants[i].Patch != m.Patch {
			return a, fmt.Errorf("%w: mutant %s has changed", ErrOther, m.ID)
		}
	}
	slices.SortFunc(out.Mutants, func(a, b Mutant) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func brief(s Settings) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func normal(t []Treatment) []Treatment {
	b, _ := json.Marshal(t)
	var out []Treatment
	_ = json.Unmarshal(b, &out)
	return out
}

// writeJSON replaces a file as a whole.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return build.WriteFileAtomic(path, append(b, '\n'), 0o644)
}

// writeCompact is writeJSON with a line for each cell and mutant: small, and still
// something that can be compared line by line.
func writeCompact(path string, r Report) error {
	var b bytes.Buffer
	settings := r.Settings
	settings.Mutants = nil
	head, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	list := func(n int, item func(i int) any) error {
		for i := range n {
			line, err := json.Marshal(item(i))
			if err != nil {
				return err
			}
			b.Write(line)
			if i < n-1 {
				b.WriteByte(',')
			}
			b.WriteByte('\n')
		}
		return nil
	}
	// The list of mutants is the one field that is null in the head.
	open, rest, ok := bytes.Cut(head, []byte(`"mutants":null`))
	if !ok {
		return errors.New("settings have no mutants")
	}
	fmt.Fprintf(&b, "{\"settings\":%s\"mutants\":[\n", open)
	if err := list(len(r.Settings.Mutants), func(i int) any { return r.Settings.Mutants[i] }); err != nil {
		return err
	}
	fmt.Fprintf(&b, "]%s,\n\"cells\":[\n", rest)
	if err := list(len(r.Cells), func(i int) any { return r.Cells[i] }); err != nil {
		return err
	}
	b.WriteString("]}\n")
	return build.WriteFileAtomic(path, b.Bytes(), 0o644)
}

// ReadResult reads a matrix.json.
func ReadResult(path string) (Report, error) {
	var r Report
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read matrix: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read matrix %s: %w", path, err)
	}
	if r.Settings.Format != Format {
		return r, fmt.Errorf("read matrix %s: format %d, this program knows %d", path, r.Settings.Format, Format)
	}
	return r, nil
}
