// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Kind is why a fix cannot be applied to a running program.
type Kind string

// The kinds of refusals.
const (
	Layout      Kind = "layout"      // a type has another layout, and old data has the old one
	Data        Kind = "data"        // a variable or table would have to be changed
	StartOnly   Kind = "start only"  // code that has already run, for the last time
	NotBuilt    Kind = "not built"   // the program does not have the code
	Signature   Kind = "signature"   // somebody would call a function the old way
	Running     Kind = "running"     // a function that never returns
	Unsupported Kind = "unsupported" // nothing that is wrong with the fix
)

// Kinds are all of them.
var Kinds = []Kind{Layout, Data, StartOnly, NotBuilt, Signature, Running, Unsupported}

// Reason is one reason to refuse.
type Reason struct {
	Kind     Kind     `json:"kind"`
	Text     string   `json:"text"`
	Evidence []string `json:"evidence,omitempty"`
}

// Request asks for a patch from one build to the other.
type Request struct {
	Name     string
	Old, New *Program
	// Loops are functions in which the threads of the running program are:
	// what only main calls, and none of these, has run already.
	Loops []string
	// Touched are the files that the fix changes.
	Touched []string
}

// Result is a judgement, with what led to it.
type Result struct {
	// Refused is empty where the fix can be applied.
	Refused []Reason
	// Replaced and Added are functions, Carried variables and tables.
	Replaced, Added, Carried []string
	// Relocations counts the types in the patch.
	Relocations map[string]int
	// Notes are further facts, in words.
	Notes []string

	name       string
	collection *collection
}

// File is the patch file; origin is JSON for people.
func (r *Result) File(origin []byte) ([]byte, error) {
	if len(r.Refused) > 0 {
		return nil, errors.New("write patch: it was refused")
	}
	f, err := r.collection.write(r.name, origin)
	if err != nil {
		return nil, fmt.Errorf("write patch: %w", err)
	}
	return f, nil
}

// judge works out a result.
type judge struct {
	Request
	*comparison
	k            *collection
	oldCalls     *calls
	newCalls     *calls
	oldLoops     []*unit
	newLoops     []*unit
	result       *Result
	isChanged    map[*unit]bool
	types        []shapeChange
	prototypes   []shapeChange
	definedIn    map[*object]map[string]string
	refersToData map[*section][]referrer
}

type referrer struct {
	unit *unit
	data *section
}

// Judge compares the builds and says whether the running program can have the
// code of the new one. An error is none of the fix's making.
func Judge(q Request) (*Result, error) {
	j := &judge{Request: q, comparison: compare(q.Old, q.New), isChanged: map[*unit]bool{},
		result: &Result{name: q.Name, Relocations: map[string]int{}}}
	j.oldCalls, j.newCalls = q.Old.calls(), q.New.calls()
	for _, name := range q.Loops {
		o, n := q.Old.named(name), q.New.named(name)
		if len(o) == 0 || len(n) == 0 {
			return nil, fmt.Errorf("compare builds: the description names the loop %s, which %s does not have", name, q.Old.path)
		}
		j.oldLoops, j.newLoops = append(j.oldLoops, o...), append(j.newLoops, n...)
	}
	var err error
	if j.types, j.prototypes, j.definedIn, err = j.shapesOf(); err != nil {
		return nil, fmt.Errorf("compare builds: %w", err)
	}
	sort.Slice(j.changed, func(a, b int) bool { return j.changed[a].String() < j.changed[b].String() })
	for _, u := range j.changed {
		j.isChanged[u] = true
	}
	j.k = j.collect()
	j.result.collection = j.k
	j.describe()
	j.checkBuilt()
	j.checkTypes()
	j.checkData()
	j.checkPrototypes()
	j.checkStart()
	j.checkRunning()
	j.checkMeans()
	if len(j.result.Refused) == 0 {
		if _, err := j.result.File(nil); err != nil {
			return nil, err
		}
	}
	return j.result, nil
}

func (j *judge) refuse(kind Kind, evidence []string, format string, args ...any) {
	j.result.Refused = append(j.result.Refused, Reason{kind, fmt.Sprintf(format, args...), evidence})
}

func (j *judge) note(format string, args ...any) {
	j.result.Notes = append(j.result.Notes, fmt.Sprintf(format, args...))
}

func (j *judge) describe() {
	elsewhere := []string{}
	for _, u := range j.changed {
		j.result.Replaced = append(j.result.Replaced, u.String())
		if len(j.Touched) > 0 && !j.touches(u) {
			elsewhere = append(elsewhere, u.String())
		}
	}
	if len(elsewhere) > 0 {
		j.note("changed by what the compiler put into them (inline functions, macros), not by an edit of their file: %s", strings.Join(elsewhere, ", "))
	}
	for _, s := range j.k.sections {
		for _, r := range s.relocs {
			j.result.Relocations[r.typ.String()]++
		}
		u := s.obj.unitOf[s]
		switch {
		case u != nil && j.fresh[u] && u.parts[0] == s:
			j.result.Added = append(j.result.Added, u.String())
		case u == nil && len(s.defined) > 0 && !s.literals():
			j.result.Carried = append(j.result.Carried, s.title())
		}
	}
	var gone []string
	for _, u := range j.gone {
		gone = append(gone, u.String())
	}
	if len(gone) > 0 {
		j.note("no longer there as functions of their own: %s", strings.Join(gone, ", "))
	}
}

// touches says whether the fix edits the file that a function is defined in.
func (j *judge) touches(u *unit) bool {
	file := j.definedIn[u.obj][u.sourceName()]
	if file == "" {
		file = u.obj.source
	}
	for _, t := range j.Touched {
		if filepath.Base(t) == filepath.Base(file) {
			return true
		}
	}
	return false
}

func (j *judge) checkBuilt() {
	if len(j.changed) > 0 || len(j.data) > 0 || len(j.types) > 0 {
		return
	}
	var how []string
	for _, t := range j.Touched {
		if !isSource(t) {
			continue
		}
		compiled := false
		for _, o := range j.Old.objects {
			compiled = compiled || filepath.Base(o.source) == filepath.Base(t)
		}
		switch {
		case compiled:
			how = append(how, t+" is compiled, but what the fix changes in it is left out of this build, or makes no difference")
		case strings.HasSuffix(t, ".h"):
			how = append(how, t+": what the fix changes in it is used nowhere in this build")
		default:
			how = append(how, t+" is not compiled into "+j.Old.path)
		}
	}
	j.refuse(NotBuilt, how, "the code that the fix changes is not in this build of %s: every function is the same with and without it", j.Old.path)
}

// isSource tells what a compiler reads from tests and documents.
func isSource(name string) bool {
	return slices.Contains([]string{".c", ".h", ".cc", ".cpp", ".hpp", ".S", ".s", ".inc"}, filepath.Ext(name))
}

func (j *judge) checkTypes() {
	for _, t := range j.types {
		evidence := append([]string(nil), t.how...)
		evidence = append(evidence, "seen in "+strings.Join(t.in, ", "))
		j.refuse(Layout, evidence, "%s has another layout, and the running program has data of the old one", t.name)
	}
}

// ordinary data is what a program reads and writes by name; sections of other
// names are lists that something goes through when the program starts.
func (s *section) ordinary() bool {
	for _, p := range []string{".data", ".bss", ".rodata", ".tdata", ".tbss", ".lbss", ".ldata", ".lrodata"} {
		if s.name == p || strings.HasPrefix(s.name, p+".") {
			return true
		}
	}
	return false
}

func (j *judge) checkData() {
	for _, d := range j.data {
		switch s := d.new; {
		case s == nil:
			if !d.old.ordinary() {
				j.refuse(Data, nil, "%s has lost an entry, and the running program has it", d.old.name)
			}
		case !s.ordinary():
			j.refuse(Data, []string{s.title()}, "section %s, which is gone through when the program starts, has other entries", s.name)
		case d.old == nil && s.tls():
			j.refuse(Data, nil, "%s is a new thread-local variable, and running threads have no room for it", s.title())
		case d.old == nil:
		case s.writable() || s.tls():
			how := fmt.Sprintf("it has other first contents (%d bytes)", s.size)
			if s.size != d.old.size {
				how = fmt.Sprintf("%d bytes, was %d", s.size, d.old.size)
			}
			j.refuse(Data, []string{how}, "the variable %s is another, and the running program has the old one in use", s.title())
		default:
			j.checkConstant(d)
		}
	}
}

// checkConstant allows a constant to change if only functions of the patch see it.
func (j *judge) checkConstant(d dataChange) {
	var others []string
	for _, r := range j.referrers()[d.new] {
		switch {
		case r.unit != nil && !j.k.has[r.unit.parts[0]]:
			others = append(others, r.unit.String()+" refers to it and is not in the patch")
		case r.data != nil && !j.k.has[r.data]:
			others = append(others, r.data.title()+" refers to it")
		}
	}
	if len(others) > 0 {
		j.refuse(Data, others, "the table or constant %s is another, and is not seen by the functions of the patch alone", d.new.title())
	}
}

func (j *judge) referrers() map[*section][]referrer {
	if j.refersToData != nil {
		return j.refersToData
	}
	j.refersToData = map[*section][]referrer{}
	for _, o := range j.New.objects {
		for _, s := range o.sections {
			for _, r := range s.relocs {
				if def := j.New.definition(r.sym); def != nil && !def.sec.code() && s.alloc() && s.name != ".eh_frame" {
					ref := referrer{unit: o.unitOf[s]}
					if ref.unit == nil {
						ref.data = s
					}
					j.refersToData[def.sec] = append(j.refersToData[def.sec], ref)
				}
			}
		}
	}
	return j.refersToData
}

func (j *judge) checkPrototypes() {
	for _, p := range j.prototypes {
		name := strings.TrimSuffix(p.name, "()")
		var outside []string
		found := false
		for _, u := range j.New.named(name) {
			if !slices.Contains(p.in, u.obj.source) {
				continue
			}
			found = true
			for _, caller := range j.newCalls.by[u] {
				if !j.isChanged[caller] && !j.fresh[caller] {
					outside = append(outside, caller.String()+" calls it and is not in the patch")
				}
			}
			for _, who := range j.newCalls.taken[u] {
				outside = append(outside, who+" has its address")
			}
		}
		switch {
		case len(outside) > 0:
			sort.Strings(outside)
			j.refuse(Signature, append(slices.Clone(p.how), slices.Compact(outside)...), "%s takes or returns something else, and not all who call it are in the patch", p.name)
		case found:
			j.note("%s takes or returns something else (%s); all who call it are in the patch", p.name, p.how[0])
		}
	}
}

func (j *judge) checkStart() {
	live := j.newCalls.live(j.newLoops)
	fromMain := j.newCalls.from(j.New.named("main"), j.newCalls.of)
	for _, u := range j.changed {
		if _, ok := live[u]; ok {
			root := path(live, u)
			why := root
			first := u
			for live[first] != nil {
				first = live[first]
			}
			if by := j.newCalls.taken[first]; len(by) > 0 && !slices.Contains(j.newLoops, first) {
				why = fmt.Sprintf("%s, whose address is in %s", root, by[0])
			}
			j.note("%s may run at any time: %s", u, why)
			continue
		}
		if _, ok := fromMain[u]; ok {
			j.refuse(StartOnly, []string{path(fromMain, u), "none of the loops (" + strings.Join(j.Loops, ", ") + ") calls it, and nobody has its address"},
				"%s runs only when the program starts, which it has done", u)
			continue
		}
		if len(j.oldCalls.by[j.oldOf[u]]) == 0 {
			j.note("%s is called by nobody: the compiler has put it into those who do", u)
			continue
		}
		j.refuse(StartOnly, nil, "%s is called neither by the loops of the program nor by main: it runs only before main, or never", u)
	}
}

func (j *judge) checkRunning() {
	under := j.oldCalls.from(j.oldLoops, j.oldCalls.by)
	for _, u := range j.changed {
		if _, ok := under[j.oldOf[u]]; ok {
			j.refuse(Running, []string{path(under, j.oldOf[u]) + " (called by the one after it)"}, "%s is on the stack of a thread for as long as the program runs", u)
		}
	}
}

// carriable are the relocations that a loader can do.
var carriable = []elf.R_X86_64{
	elf.R_X86_64_64, elf.R_X86_64_PC32, elf.R_X86_64_PLT32, elf.R_X86_64_GOTPCREL, elf.R_X86_64_GOTPCRELX, elf.R_X86_64_REX_GOTPCRELX,
	elf.R_X86_64_PC64, elf.R_X86_64_32, elf.R_X86_64_32S, elf.R_X86_64_TPOFF32, elf.R_X86_64_GOTTPOFF, elf.R_X86_64_TLSGD, elf.R_X86_64_TLSLD,
	elf.R_X86_64_DTPOFF32, elf.R_X86_64_DTPOFF64,
}

func (j *judge) checkMeans() {
	for _, u := range j.changed {
		was := j.oldOf[u]
		switch {
		case u.mixed || was.mixed:
			j.refuse(Unsupported, nil, "%s was not compiled with -ffunction-sections: which of its functions differ cannot be told", u.obj.path)
			continue
		case u.name == "main":
			continue // refused for better reasons
		}
		if _, size, _, err := j.Old.oldCode(was.parts[0], was.sym); err != nil {
			j.refuse(Unsupported, nil, "%v", err)
		} else if size < jumpSize {
			j.refuse(Unsupported, nil, "%s is too short (%d bytes) to hold a jump to the new one", u, size)
		}
	}
	for _, s := range j.k.sections {
		for _, r := range s.relocs {
			if !slices.Contains(carriable, r.typ) {
				j.refuse(Unsupported, nil, "%s has a relocation of the type %v, which no loader knows", s.title(), r.typ)
			}
		}
	}
}
