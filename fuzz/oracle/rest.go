// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"github.com/wflp/wflp/workloads"
	"github.com/wflp/wflp/workloads/wire"
)

// checkThread is the oracle for lost threads. Without progress is not yet lost:
// a machine may be slow. Lost is one that is gone without a word, or that has
// had a whole second of a CPU and did not get through one transaction, of which
// it takes thousands a second.
func checkThread(v *verdict, run Run, worker int) {
	s, t := run.Spec, run.Trace
	st := t.StreamList[worker]
	var birth, death bool
	for i, r := range t.Of(st) {
		switch r.Kind {
		case wire.RecordBirth:
			birth = true
		case wire.RecordDeath:
			death = true
		case wire.RecordError:
			what := map[uint16]string{wire.ErrorRegister: "register", wire.ErrorUnregister: "unregister", wire.ErrorQuiescent: "quiescent",
				wire.ErrorOffline: "offline", wire.ErrorOnline: "online", wire.ErrorSpawn: "start thread"}[r.A]
			if r.A == wire.ErrorSpawn {
				v.note(Broken, "worker %d: start thread: %d", worker, int32(r.B))
				continue
			}
			v.violate(Failure, worker, i, "%s: %d", what, int32(r.B))
		}
	}
	if birth && s.Workers[worker].Parent >= 0 {
		v.Counts.Births++
	}
	if death {
		v.Counts.Deaths++
	}
	switch t.End {
	case wire.EndComplete:
		if st.Started == 0 {
			v.note(Broken, "worker %d was never started", worker)
		} else if !birth || !death {
			v.violate(LostThread, worker, -1, "born %v, ended %v", birth, death)
		}
	case wire.EndHang:
		for _, state := range t.StateList {
			if int(state.Worker) != worker || death {
				continue
			}
			ticks := state.CPUTick[1] - state.CPUTick[0]
			switch {
			case state.Exists == 0:
				v.violate(LostThread, worker, -1, "thread %d is gone", state.TID)
			case state.Txns[0] == state.Txns[1] && ticks >= 100 && ticks < 1<<40 && bounded(s.Workers[worker]):
				v.violate(LostThread, worker, -1, "thread %d ran for %d ms and did not end transaction %d", state.TID, ticks*10, state.Txns[1])
			}
		}
	}
}

// bounded: a transaction takes far less than a second of CPU time.
func bounded(w workloads.Worker) bool { return w.SpinUS < 100_000 && w.LongUS < 100_000 }

// checkRequests is the oracle for lost and duplicated requests.
func checkRequests(v *verdict, run Run, worker int) {
	t := run.Trace
	arrivals := run.Spec.Workers[worker].Arrivals
	started, ended := make([]int, len(arrivals)), make([]int, len(arrivals))
	for i, r := range t.Of(t.StreamList[worker]) {
		var count []int
		switch r.Kind {
		case wire.RecordReqStart:
			count = started
		case wire.RecordReqEnd:
			count = ended
		default:
			continue
		}
		if int(r.B) >= len(arrivals) {
			v.violate(DuplicateRequest, worker, i, "request %d of %d", r.B, len(arrivals))
			continue
		}
		if count[r.B]++; count[r.B] == 2 {
			v.violate(DuplicateRequest, worker, i, "request %d again", r.B)
		}
		if scheduled := t.StartNS + uint64(arrivals[r.B]*1000); r.C < scheduled {
			v.violate(LostRequest, worker, i, "request %d served %d ns before it arrived", r.B, scheduled-r.C)
		}
	}
	for i := range arrivals {
		v.Counts.Requests += min(ended[i], 1)
		if t.End == wire.EndComplete && (started[i] == 0 || ended[i] == 0) {
			v.violate(LostRequest, worker, -1, "request %d started %d times, ended %d times", i, started[i], ended[i])
		}
	}
}

// checkMemory reports what the executor found: it has the model, since what an
// access must see depends on which thread had the region when.
func checkMemory(v *verdict, t *wire.Trace, worker int) {
	recs := t.Of(t.StreamList[worker])
	v.Counts.MemoryOps += int(t.StreamList[worker].MemOps)
	for i, r := range recs {
		if r.Kind != wire.RecordMemFail {
			continue
		}
		var want uint64
		if i+1 < len(recs) && recs[i+1].Kind == wire.RecordMemWant {
			want = recs[i+1].C
		}
		action, region, page := "action", r.B>>16, r.B&0xffff
		if k := int(r.A & 0xff); k < len(workloads.ActionKinds) {
			action = string(workloads.ActionKinds[k])
		}
		switch r.A >> 8 {
		case wire.MemValue:
			v.violate(Memory, worker, i, "%s: region %d page %d holds %#x, want %#x", action, region, page, r.C, want)
		case wire.MemNoFault:
			v.violate(Memory, worker, i, "%s: region %d page %d: an access went through that must fault", action, region, page)
		case wire.MemFault:
			v.violate(Memory, worker, i, "%s: region %d page %d: an access faulted that must not", action, region, page)
		case wire.MemBackward:
			v.violate(Memory, worker, i, "%s: word %d went back to %d from %d", action, page, r.C, want)
		case wire.MemChild:
			switch status := r.C; {
			case status&0x7f == 0 && status>>8 == wire.EndCrash, status&0x7f != 0 && status&0x7f != 9 && status&0x7f != 14:
				v.violate(Crash, worker, i, "a forked child crashed: wait status %#x", status)
			case status&0x7f != 0:
				v.note(Unknown, "worker %d: a forked child was killed: wait status %#x", worker, status)
			default:
				v.violate(Memory, worker, i, "%s: region %d: a forked child saw something else than its parent", action, region)
			}
		case wire.MemCall:
			if errno := -int(r.C); errno == errnoMEM || errno == errnoAGAIN {
				v.note(Broken, "worker %d: %s: errno %d", worker, action, r.C)
			} else {
				v.violate(Memory, worker, i, "%s: region %d page %d: errno %d", action, region, page, r.C)
			}
		default:
			v.note(Broken, "worker %d: memory record %#x", worker, r.A)
		}
	}
}

const errnoAGAIN = -11

// checkRest is the oracle for leaks, and for what threads share.
func checkRest(v *verdict, run Run) {
	t := run.Trace
	if t.End != wire.EndComplete {
		return
	}
	if t.ShareGot != t.ShareWant {
		v.violate(Memory, -1, -1, "shared words add up to %d, want %d", t.ShareGot, t.ShareWant)
	}
	if t.FiniError != 0 {
		v.violate(Failure, -1, -1, "wflp_fini: %d", t.FiniError)
	}
	start, end := map[uint32]uint64{}, map[uint32]uint64{}
	for _, c := range t.CounterList {
		if c.End == 0 {
			start[c.ID] = c.Value
		} else {
			end[c.ID] = c.Value
		}
	}
	if len(start) == 0 || len(start) != len(end) {
		v.note(Broken, "%d counters at the start, %d at the end", len(start), len(end))
		return
	}
	// Code stays as the last patch left it when the library has gone: under
	// waitfree in the newest view, which has a file, and none beside it.
	var kept uint64
	if run.Strategy == wire.StrategyWaitfree && v.Counts.Published > 0 {
		kept = 1
	}
	// Those that nothing but a leak can raise. Memory can: the C library keeps
	// stacks of threads that ended.
	for _, c := range []struct {
		id   uint32
		name string
		kept uint64
	}{{wire.CounterFiles, "open files", kept}, {wire.CounterViews, "views", kept}, {wire.CounterThreads, "threads", 0}} {
		if want := start[c.id] + c.kept; end[c.id] != want {
			v.violate(Leak, -1, -1, "%s: %d at the start, %d at the end, want %d", c.name, start[c.id], end[c.id], want)
		}
	}
}
