// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"errors"
	"slices"
	"testing"

	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// small is a program of three functions, 0 calls 2, and two workers: the first
// runs 0 and 1 in each transaction, the second serves two requests. Patch 0
// changes 0 and 1, patch 1 changes 2 only, patch 2 must be refused, patch 3
// brings the first version of 0 back.
func small() *workloads.Spec {
	code := func(loops ...int) []workloads.Version {
		var vs []workloads.Version
		for _, l := range loops {
			vs = append(vs, workloads.Version{Parts: []workloads.Part{{Loop: l}, {}, {Loop: 1}}})
		}
		return vs
	}
	return &workloads.Spec{
		Format: workloads.Format, Seed: 9, Shape: workloads.Correctness, Depth: 1, WatchdogMS: 1000,
		Text: workloads.Text{Backing: workloads.Memfd},
		Functions: []workloads.Function{
			{Align: 1, Parts: 3, Versions: code(3, 4), Calls: []workloads.Call{{After: 1, Callee: 2}}},
			{Align: 1, Parts: 3, Versions: code(0, 7)},
			{Align: 1, Parts: 3, Versions: code(5, 6)},
		},
		Workers: []workloads.Worker{
			{Parent: -1, Roots: []int{0, 1}, Interval: 2, Txns: 4, Cap: 10},
			{Parent: 0, Roots: []int{1}, Interval: 1, Cap: 2, Arrivals: []float64{1, 2}, PerRequest: 1},
		},
		Patches: []workloads.Patch{
			{AtUS: 1, Changes: []workloads.Change{{Function: 0, Version: 1}, {Function: 1, Version: 1}}},
			{AtUS: 2, Changes: []workloads.Change{{Function: 2, Version: 1}}},
			{AtUS: 3, Changes: []workloads.Change{{Function: 1, Version: 0}}, Wrong: true},
			{AtUS: 4, Changes: []workloads.Change{{Function: 0, Version: 0}}},
		},
	}
}

// contents of the generations 1 to 4 of small.
var contents = map[uint32][]int{1: {0, 0, 0}, 2: {1, 1, 0}, 3: {1, 1, 1}, 4: {0, 1, 1}}

func execOf(s *workloads.Spec, fn, ver int) wire.Record {
	e := wire.Exec{Kind: uint16(wire.RecordExec | fn), First: uint8(ver + 1), Last: uint8(ver + 1), Loop: s.Functions[fn].LoopSum(ver)}
	for i := range s.Functions[fn].Parts {
		e.Parts[i] = uint8(ver + 1)
	}
	return e.Record()
}

// clean is a correct run of small: worker 0 has one transaction in each
// generation, worker 1 has its two in generations 2 and 4.
func clean() Run {
	s := small()
	ev := func(kind, a uint16, b uint32, c uint64) wire.Record { return wire.Record{Kind: kind, A: a, B: b, C: c} }
	var w0, w1 []wire.Record
	w0 = append(w0, ev(wire.RecordBirth, 0, 0, 10))
	for g := uint32(1); g <= 4; g++ {
		w0 = append(w0, ev(wire.RecordTxn, 0, g, uint64(g)*10000))
		if g > 1 {
			w0 = append(w0, ev(wire.RecordMoved, 1, g, uint64(g)*10000+100))
		}
		c := contents[g]
		w0 = append(w0, execOf(s, 0, c[0]), execOf(s, 2, c[2]), execOf(s, 1, c[1]))
	}
	w0 = append(w0, ev(wire.RecordDeath, 0, 4, 50000))
	w1 = append(w1, ev(wire.RecordBirth, 0, 0, 15000))
	for i, g := range []uint32{2, 4} {
		at := uint64(g) * 10500
		w1 = append(w1, ev(wire.RecordReqStart, 0, uint32(i), at), ev(wire.RecordTxn, 0, g, at+10), execOf(s, 1, contents[g][1]),
			ev(wire.RecordReqEnd, 0, uint32(i), at+500), ev(wire.RecordOffline, 0, 0, at+600), ev(wire.RecordOnline, 0, g, at+700))
	}
	w1 = append(w1, ev(wire.RecordDeath, 0, 4, 60000))
	report := func(patch uint32, gen, published uint64) wire.Report {
		return wire.Report{Patch: patch, Generation: gen, Stage: stageReleased, PublishedNS: published, SeenNS: published + 10,
			FirstOverNS: published + 500, LastOverNS: published + 2000, ReleasedNS: published + 3000, Threads: 2, Migrated: 1, Pulled: 1}
	}
	t := &wire.Trace{
		TraceHeader: wire.TraceHeader{Seed: 9, Strategy: wire.StrategyWaitfree, StartNS: 1000, BaseGeneration: 1, CrashWorker: -1, ShareGot: 3, ShareWant: 3},
		ReportList: []wire.Report{report(0, 2, 19500), report(1, 3, 29000),
			{Patch: 2, Stage: stageFailed, Error: errnoSTALE}, report(3, 4, 39500)},
	}
	for _, id := range []uint32{wire.CounterFiles, wire.CounterViews, wire.CounterThreads} {
		end := uint64(4) // the newest view stays, and its file
		if id == wire.CounterThreads {
			end = 3
		}
		t.CounterList = append(t.CounterList, wire.Counter{ID: id, Value: 3}, wire.Counter{ID: id, End: 1, Value: end})
	}
	run := Run{Spec: s, Strategy: wire.StrategyWaitfree, Trace: t, HasViews: true}
	setStreams(t, w0, w1)
	return run
}

func setStreams(t *wire.Trace, streams ...[]wire.Record) {
	t.StreamList, t.RecordList = nil, nil
	for i, s := range streams {
		t.StreamList = append(t.StreamList, wire.Stream{Worker: uint32(i), First: uint64(len(t.RecordList)), Count: uint64(len(s)), Started: 1, Ended: 1})
		t.RecordList = append(t.RecordList, s...)
	}
}

func streams(t *wire.Trace) [][]wire.Record {
	var out [][]wire.Record
	for _, s := range t.StreamList {
		out = append(out, slices.Clone(t.Of(s)))
	}
	return out
}

// nth returns the n-th record of a kind in a stream.
func nth(t *testing.T, recs []wire.Record, kind uint16, n int) int {
	t.Helper()
	for i, r := range recs {
		if r.Kind&wire.RecordExec != 0 && kind == wire.RecordExec || r.Kind == kind {
			if n == 0 {
				return i
			}
			n--
		}
	}
	t.Fatalf("no record of kind %d", kind)
	return -1
}

func TestCleanRuns(t *testing.T) {
	v := Check(clean())
	if v.Status != Pass {
		t.Fatalf("%s: %s", v.Status, v.Note)
	}
	want := Counts{Executions: 14, Transactions: 6, Requests: 2, Published: 3, Refused: 1, Migrated: 3, Pulled: 3, Births: 1, Deaths: 2}
	if v.Counts != want {
		t.Errorf("counts %+v, want %+v", v.Counts, want)
	}
	for name, change := range map[string]func(r *Run, s [][]wire.Record){
		"all in the first generation, published late": func(r *Run, s [][]wire.Record) {
			r.Trace.ReportList[3].SeenNS, r.Trace.ReportList[3].LastOverNS = 1<<40, 1<<40
			i := nth(t, s[0], wire.RecordTxn, 3)
			s[0][i].B = 3
			s[0][i+2] = execOf(r.Spec, 0, 1)
		},
		"a patch that tried and met another": func(r *Run, s [][]wire.Record) {
			r.Spec.Patches[3].Try = true
			r.Trace.ReportList[3] = wire.Report{Patch: 3, Result: errnoBUSY}
			i := nth(t, s[0], wire.RecordTxn, 3)
			s[0][i].B = 3
			s[0][i+2] = execOf(r.Spec, 0, 1)
			s[1][nth(t, s[1], wire.RecordTxn, 1)].B = 3
		},
		"a forked child": func(r *Run, s [][]wire.Record) {
			i := nth(t, s[0], wire.RecordTxn, 1)
			s[0] = slices.Insert(s[0], i, wire.Record{Kind: wire.RecordTxn, A: wire.TxnChild, B: 1, C: 19000},
				execOf(r.Spec, 0, 0), execOf(r.Spec, 2, 0), execOf(r.Spec, 1, 0))
		},
		"a quiescence point while waiting": func(r *Run, s [][]wire.Record) {
			i := nth(t, s[1], wire.RecordReqStart, 1)
			s[1] = slices.Insert(s[1], i, wire.Record{Kind: wire.RecordTxn, A: wire.TxnEmpty | wire.TxnMoved, B: 3, C: 29500})
		},
	} {
		r := clean()
		s := streams(r.Trace)
		change(&r, s)
		setStreams(r.Trace, s...)
		if v := Check(r); v.Status != Pass {
			t.Errorf("%s: %s: %s", name, v.Status, v.Note)
		}
	}
}

// TestCaught has for each kind of violation runs that show it and no other kind.
func TestCaught(t *testing.T) {
	type change func(r *Run, s [][]wire.Record)
	edit := func(n int, f func(e *wire.Exec)) change {
		return func(r *Run, s [][]wire.Record) {
			i := nth(t, s[0], wire.RecordExec, n)
			e := s[0][i].Exec()
			f(&e)
			s[0][i] = e.Record()
		}
	}
	drop := func(worker int, kind uint16, n int) change {
		return func(_ *Run, s [][]wire.Record) {
			i := nth(t, s[worker], kind, n)
			s[worker] = slices.Delete(s[worker], i, i+1)
		}
	}
	add := func(worker int, recs ...wire.Record) change {
		return func(_ *Run, s [][]wire.Record) {
			s[worker] = slices.Insert(s[worker], len(s[worker])-1, recs...)
		}
	}
	for _, c := range []struct {
		name   string
		kind   Kind
		change change
	}{
		{"a part of another version", Torn, edit(1, func(e *wire.Exec) { e.Parts[1] = 2 })},
		{"a part did not run", Torn, edit(1, func(e *wire.Exec) { e.Parts[2] = 0 })},
		{"a part too many", Torn, edit(1, func(e *wire.Exec) { e.Parts[3] = 1 })},
		{"left in another version", Torn, edit(1, func(e *wire.Exec) { e.Last = 2 })},
		{"loop of two versions", Torn, edit(1, func(e *wire.Exec) { e.Loop++ })},
		{"a version that does not exist", Torn, edit(1, func(e *wire.Exec) { e.First, e.Last = 9, 9 })},
		{"a call that did not happen", Torn, drop(0, wire.RecordExec, 1)},
		{"a call of another function", Torn, func(r *Run, s [][]wire.Record) {
			s[0][nth(t, s[0], wire.RecordExec, 2)] = execOf(r.Spec, 2, 0)
		}},
		{"old and new function in a transaction", Mixed, func(r *Run, s [][]wire.Record) {
			s[0][nth(t, s[0], wire.RecordExec, 5)] = execOf(r.Spec, 1, 0)
		}},
		{"back to the generation before", Regression, func(r *Run, s [][]wire.Record) {
			// Published so late that nothing but the order tells.
			for i := range r.Trace.ReportList {
				r.Trace.ReportList[i].SeenNS, r.Trace.ReportList[i].LastOverNS = 0, 0
			}
			i := nth(t, s[0], wire.RecordTxn, 3)
			s[0][i].B = 2
			s[0][i+2], s[0][i+3] = execOf(r.Spec, 0, 1), execOf(r.Spec, 2, 0)
		}},
		{"old code after publication", Stale, func(r *Run, s [][]wire.Record) {
			r.Trace.ReportList[3].LastOverNS = 0
			i := nth(t, s[0], wire.RecordTxn, 3)
			s[0][i].B = 3
			s[0][i+2] = execOf(r.Spec, 0, 1)
		}},
		{"old code when all were over", Stale, func(r *Run, s [][]wire.Record) {
			r.Trace.ReportList[0].LastOverNS = 19900 // the first transaction is open till 20000
		}},
		{"older code than its generation", Stale, func(r *Run, s [][]wire.Record) {
			for i := range r.Trace.ReportList {
				r.Trace.ReportList[i].SeenNS, r.Trace.ReportList[i].LastOverNS = 0, 0
			}
			s[0][nth(t, s[0], wire.RecordTxn, 0)].B = 2
		}},
		{"newer code than its generation", Early, func(r *Run, s [][]wire.Record) {
			s[0][nth(t, s[0], wire.RecordTxn, 1)].B = 1
		}},
		{"ended without a word", LostThread, drop(0, wire.RecordDeath, 0)},
		{"never ran", LostThread, drop(1, wire.RecordBirth, 0)},
		{"request not started", LostRequest, drop(1, wire.RecordReqStart, 1)},
		{"request not ended", LostRequest, drop(1, wire.RecordReqEnd, 0)},
		{"request before its time", LostRequest, func(r *Run, s [][]wire.Record) { s[1][1].C = 1500 }},
		{"request twice", DuplicateRequest, add(1, wire.Record{Kind: wire.RecordReqStart, B: 1, C: 55000}, wire.Record{Kind: wire.RecordReqEnd, B: 1, C: 55001})},
		{"request from nowhere", DuplicateRequest, add(1, wire.Record{Kind: wire.RecordReqStart, B: 7, C: 55000})},
		{"value", Memory, add(0, wire.Record{Kind: wire.RecordMemFail, A: 1 | wire.MemValue<<8, C: 1}, wire.Record{Kind: wire.RecordMemWant, C: 2})},
		{"no fault", Memory, add(0, wire.Record{Kind: wire.RecordMemFail, A: wire.MemNoFault << 8})},
		{"fault", Memory, add(0, wire.Record{Kind: wire.RecordMemFail, A: wire.MemFault << 8})},
		{"backward", Memory, add(0, wire.Record{Kind: wire.RecordMemFail, A: wire.MemBackward << 8})},
		{"child differs", Memory, add(0, wire.Record{Kind: wire.RecordMemFail, A: wire.MemChild << 8, C: 1 << 8})},
		{"call", Memory, add(0, wire.Record{Kind: wire.RecordMemFail, A: wire.MemCall << 8, C: 22})},
		{"sum", Memory, func(r *Run, _ [][]wire.Record) { r.Trace.ShareGot-- }},
		{"child crashed", Crash, add(0, wire.Record{Kind: wire.RecordMemFail, A: wire.MemChild << 8, C: wire.EndCrash << 8})},
		{"child died of a signal", Crash, add(0, wire.Record{Kind: wire.RecordMemFail, A: wire.MemChild << 8, C: 11})},
		{"signal", Crash, func(r *Run, _ [][]wire.Record) { r.Trace.End, r.End.Code = wire.EndCrash, wire.EndCrash }},
		{"killed", Crash, func(r *Run, _ [][]wire.Record) {
			r.Trace, r.TraceErr, r.End = nil, errors.New("none"), End{Signal: "SIGSEGV"}
		}},
		{"splat", Kernel, func(r *Run, _ [][]wire.Record) { r.Complaints = []string{"WARNING: CPU: 0 PID: 1 at mm/mm_view.c:1"} }},
		{"files", Leak, func(r *Run, _ [][]wire.Record) { r.Trace.CounterList[1].Value++ }},
		{"views", Leak, func(r *Run, _ [][]wire.Record) { r.Trace.CounterList[3].Value++ }},
		{"view gone", Leak, func(r *Run, _ [][]wire.Record) { r.Trace.CounterList[3].Value-- }},
		{"view under barrier", Leak, func(r *Run, _ [][]wire.Record) { r.Strategy = wire.StrategyBarrier }},
		{"threads", Leak, func(r *Run, _ [][]wire.Record) { r.Trace.CounterList[5].Value++ }},
		{"not released", Leak, func(r *Run, _ [][]wire.Record) { r.Trace.ReportList[1].Stage = 4 }},
		{"accepted the wrong patch", Outcome, func(r *Run, s [][]wire.Record) {
			r.Trace.ReportList[2] = wire.Report{Patch: 2, Stage: stageReleased, Generation: 4}
			r.Trace.ReportList[3].Generation = 5
			i := nth(t, s[0], wire.RecordTxn, 3)
			s[0][i].B, s[0][i+4] = 5, execOf(r.Spec, 1, 0)
			i = nth(t, s[1], wire.RecordTxn, 1)
			s[1][i].B, s[1][i+1] = 5, execOf(r.Spec, 1, 0)
		}},
		{"refused the right patch", Outcome, func(r *Run, s [][]wire.Record) {
			r.Trace.ReportList[1] = wire.Report{Patch: 1, Stage: stageFailed, Error: -14}
			for _, w := range s {
				for i := range w {
					if w[i].Kind == wire.RecordExec|2 {
						w[i] = execOf(r.Spec, 2, 0)
					}
					if w[i].Kind == wire.RecordTxn && w[i].B == 3 {
						w[i].B = 2
					}
				}
			}
		}},
		{"refused, but left its code", Outcome, func(r *Run, s [][]wire.Record) {
			r.Spec.Functions[1].Versions = append(r.Spec.Functions[1].Versions, r.Spec.Functions[1].Versions[0])
			s[0][nth(t, s[0], wire.RecordExec, 11)] = execOf(r.Spec, 1, 2)
		}},
		{"wrong error", Outcome, func(r *Run, _ [][]wire.Record) { r.Trace.ReportList[2].Error = -13 }},
		{"stuck", Outcome, func(r *Run, _ [][]wire.Record) { r.Trace.ReportList[2].Stage, r.Trace.ReportList[2].Error = 1, 0 }},
		{"not accepted", Outcome, func(r *Run, _ [][]wire.Record) { r.Trace.ReportList[2] = wire.Report{Patch: 2, Result: -22} }},
		{"library call", Failure, add(0, wire.Record{Kind: wire.RecordError, A: wire.ErrorQuiescent, B: 0xfffffff7})},
		{"fini", Failure, func(r *Run, _ [][]wire.Record) { r.Trace.FiniError = -16 }},
	} {
		r := clean()
		s := streams(r.Trace)
		c.change(&r, s)
		if r.Trace != nil {
			setStreams(r.Trace, s...)
		}
		v := Check(r)
		if v.Status != Violated || v.ByKind[c.kind] == 0 || len(v.ByKind) != 1 {
			t.Errorf("%s: %s %v, want %s: %v", c.name, v.Status, v.ByKind, c.kind, v.Violations)
		}
		if len(v.Violations) > 0 && v.Note != v.Violations[0].String() {
			t.Errorf("%s: note %q", c.name, v.Note)
		}
	}
}

// hung cuts the clean run off in worker 0's second transaction.
func hung(state wire.State) Run {
	r := clean()
	s := streams(r.Trace)
	s[0] = s[0][:8]
	setStreams(r.Trace, s...)
	r.Trace.End, r.End.Code = wire.EndHang, wire.EndHang
	r.Trace.StreamList[0].Ended = 0
	r.Trace.StateList = []wire.State{state}
	r.Trace.CounterList = nil
	return r
}

func TestHang(t *testing.T) {
	for _, c := range []struct {
		name  string
		state wire.State
		want  Status
	}{
		{"asleep", wire.State{Exists: 1, Letter: 'S'}, Unknown},
		{"slow", wire.State{Exists: 1, Letter: 'R', Txns: [2]uint64{1, 2}, CPUTick: [2]uint64{0, 140}}, Unknown},
		{"starved", wire.State{Exists: 1, Letter: 'R', CPUTick: [2]uint64{10, 30}}, Unknown},
		{"spinning", wire.State{Exists: 1, Letter: 'R', CPUTick: [2]uint64{10, 150}}, Violated},
		{"gone", wire.State{}, Violated},
	} {
		v := Check(hung(c.state))
		if v.Status != c.want || c.want == Violated && v.ByKind[LostThread] != 1 {
			t.Errorf("%s: %s %v: %s", c.name, v.Status, v.ByKind, v.Note)
		}
	}
	// A patch without a report may have taken effect: no violation.
	r := hung(wire.State{Exists: 1})
	r.Trace.ReportList = r.Trace.ReportList[:1]
	r.Trace.ReportList[0].Generation, r.Trace.ReportList[0].Stage = 0, 1
	s := streams(r.Trace)
	s[1] = s[1][:nth(t, s[1], wire.RecordReqStart, 1)]
	ended := r.Trace.StreamList[0].Ended
	setStreams(r.Trace, s...)
	r.Trace.StreamList[0].Ended = ended
	if v := Check(r); v.Status != Unknown {
		t.Errorf("unreported patch: %s: %s", v.Status, v.Note)
	}
}

func TestNeitherPassNorViolation(t *testing.T) {
	for name, c := range map[string]struct {
		want   Status
		change func(*Run)
	}{
		"timed out":     {Unknown, func(r *Run) { r.Trace, r.End = nil, End{TimedOut: true} }},
		"machine gone":  {Unknown, func(r *Run) { r.Trace, r.End = nil, End{NotRun: true} }},
		"killed":        {Unknown, func(r *Run) { r.Trace, r.End = nil, End{Signal: "SIGKILL"} }},
		"no views":      {Unsupported, func(r *Run) { r.Trace, r.End, r.HasViews = nil, End{Code: wire.EndUnsupported}, false }},
		"says no views": {Broken, func(r *Run) { r.Trace, r.End = nil, End{Code: wire.EndUnsupported} }},
		"unsupported barrier": {Broken, func(r *Run) {
			r.Trace, r.End, r.HasViews, r.Strategy = nil, End{Code: wire.EndUnsupported}, false, wire.StrategyBarrier
		}},
		"usage":                 {Broken, func(r *Run) { r.Trace, r.End = nil, End{Code: wire.EndUsage} }},
		"no trace":              {Broken, func(r *Run) { r.Trace = nil }},
		"bad trace":             {Broken, func(r *Run) { r.Trace, r.TraceErr = nil, errors.New("cut") }},
		"dropped":               {Broken, func(r *Run) { r.Trace.StreamList[1].Dropped = 1 }},
		"another spec's":        {Broken, func(r *Run) { r.Trace.Seed++ }},
		"another strategy's":    {Broken, func(r *Run) { r.Trace.Strategy = wire.StrategyBarrier }},
		"a report is missing":   {Broken, func(r *Run) { r.Spec.Patches = append(r.Spec.Patches, r.Spec.Patches[0]) }},
		"never started":         {Broken, func(r *Run) { r.Trace.StreamList[1].Started = 0 }},
		"no counters":           {Broken, func(r *Run) { r.Trace.CounterList = nil }},
		"status and trace part": {Broken, func(r *Run) { r.Trace.End = wire.EndHang }},
	} {
		r := clean()
		c.change(&r)
		v := Check(r)
		if v.Status != c.want || v.Note == "" {
			t.Errorf("%s: %s %q, want %s", name, v.Status, v.Note, c.want)
		}
	}
	// Threads that were born and ended, and did nothing.
	r := clean()
	s := streams(r.Trace)
	r.Spec.Workers[1].Arrivals = nil
	setStreams(r.Trace, []wire.Record{s[0][0], s[0][len(s[0])-1]}, []wire.Record{s[1][0], s[1][len(s[1])-1]})
	if v := Check(r); v.Status != Broken {
		t.Errorf("nothing recorded: %s", v.Status)
	}
}

func TestCombine(t *testing.T) {
	all := []Status{Pass, Violated, Unsupported, Broken, Unknown}
	if Combine() != Broken {
		t.Error("nothing at all is not broken")
	}
	for _, a := range all {
		if Combine(a) != a {
			t.Errorf("%s alone gives %s", a, Combine(a))
		}
		for _, b := range all {
			got := Combine(a, b)
			if got != Combine(b, a) {
				t.Errorf("%s and %s depend on their order", a, b)
			}
			if (a == Violated || b == Violated) != (got == Violated) {
				t.Errorf("%s and %s give %s", a, b, got)
			}
			if got == Pass && (a != Pass || b != Pass) {
				t.Errorf("%s and %s give a pass", a, b)
			}
			for _, c := range all {
				if Combine(a, b, c) != Combine(Combine(a, b), c) {
					t.Errorf("%s %s %s: not associative", a, b, c)
				}
			}
		}
	}
	if Combine("nonsense", Pass) != Broken {
		t.Error("nonsense passes")
	}
}

// TestManyViolations: all are counted, a hundred of a kind are listed.
func TestManyViolations(t *testing.T) {
	r := clean()
	s := streams(r.Trace)
	for range 150 {
		s[0] = slices.Insert(s[0], len(s[0])-1, wire.Record{Kind: wire.RecordMemFail, A: wire.MemValue << 8})
	}
	setStreams(r.Trace, s...)
	v := Check(r)
	if v.ByKind[Memory] != 150 || len(v.Violations) != listed {
		t.Errorf("%d counted, %d listed", v.ByKind[Memory], len(v.Violations))
	}
}
