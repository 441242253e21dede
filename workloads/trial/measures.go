// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/workloads/wire"
)

// Request is one request as it was served.
type Request struct {
	Worker int
	ID     int
	// Arrival is the scheduled one, from which the latency counts; both in
	// nanoseconds of the guest's clock.
	Arrival, Start, End int64
}

// Latency is the time from the scheduled arrival to the end.
func (r Request) Latency() int64 { return r.End - r.Arrival }

// Requests lists the requests of a run by their arrival.
func (r Result) Requests() []Request {
	var out []Request
	if r.Trace == nil {
		return nil
	}
	for w, st := range r.Trace.StreamList {
		arrivals := r.Spec.Workers[w].Arrivals
		byID := map[uint32]int{}
		for _, rec := range r.Trace.Of(st) {
			switch rec.Kind {
			case wire.RecordReqStart:
				if int(rec.B) >= len(arrivals) {
					continue // the oracles have said so
				}
				byID[rec.B] = len(out)
				out = append(out, Request{Worker: w, ID: int(rec.B), Start: int64(rec.C),
					Arrival: int64(r.Trace.StartNS + uint64(arrivals[rec.B]*1000))})
			case wire.RecordReqEnd:
				if i, ok := byID[rec.B]; ok {
					out[i].End = int64(rec.C)
				}
			}
		}
	}
	out = slices.DeleteFunc(out, func(q Request) bool { return q.End == 0 })
	slices.SortStableFunc(out, func(a, b Request) int { return cmp.Compare(a.Arrival, b.Arrival) })
	return out
}

func (r Result) reports() []wire.Report {
	if r.Trace == nil {
		return nil
	}
	return r.Trace.ReportList
}

// Queued lists the times at which patches were handed over, or under none would
// have been.
func (r Result) Queued() []int64 {
	var out []int64
	for _, p := range r.reports() {
		at := p.QueuedNS
		if at == 0 {
			at = p.AppliedNS
		}
		out = append(out, int64(at))
	}
	return out
}

// Windows says how requests are laid around patches, see record.Latency.
type Windows struct {
	Window time.Duration // of a patch
	// The time around a patch: Bins bins of Bin, the first FirstBin bins after it
	// was queued (negative: before).
	Bin      time.Duration
	FirstBin int
	Bins     int
	// Warmup returns how many of the leading latencies are warm-up; nil: none.
	Warmup func(latencies []int64) int
}

// Latency is the run's line of latencies.
func (r Result) Latency(w Windows) (record.Latency, error) {
	queued := r.Queued()
	l := record.Latency{Experiment: r.Experiment, SpecID: r.Spec.ID(), Strategy: r.Strategy, Cell: r.Cell,
		Patches: int64(len(queued)), WindowNS: w.Window.Nanoseconds(), Window: new(record.Hist), Steady: new(record.Hist),
		BinNS: w.Bin.Nanoseconds(), FirstBin: w.FirstBin}
	for range w.Bins {
		l.Bins = append(l.Bins, new(record.Hist))
	}
	for _, p := range r.reports() {
		l.HandedOver += int64(p.HandedOver)
		l.LostKiB += int64(p.Lost)
	}
	reqs := r.Requests()
	if w.Warmup != nil {
		lat := make([]int64, len(reqs))
		for i, q := range reqs {
			lat[i] = q.Latency()
		}
		n := w.Warmup(lat)
		l.WarmupRequests = int64(n)
		reqs = reqs[n:]
	}
	for _, q := range reqs {
		hist := l.Steady
		for _, at := range queued {
			d := q.Arrival - at
			if d >= 0 && d < l.WindowNS {
				hist = l.Window
			}
			if l.BinNS > 0 {
				if bin := floorDiv(d, l.BinNS) - int64(w.FirstBin); bin >= 0 && bin < int64(w.Bins) {
					if err := l.Bins[bin].Add(q.Latency()); err != nil {
						return l, fmt.Errorf("bin latency: %w", err)
					}
				}
			}
		}
		if err := hist.Add(q.Latency()); err != nil {
			return l, fmt.Errorf("add latency: %w", err)
		}
	}
	return l, nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && a < 0 {
		q--
	}
	return q
}

// Overs is the way of each patch, with each thread's, and what the threads did
// from margin before the patch was queued till margin after it was over.
func (r Result) Overs(margin time.Duration) []record.Over {
	if r.Trace == nil || r.Strategy == record.None {
		return nil
	}
	var out []record.Over
	for _, p := range r.Trace.ReportList {
		o := record.Over{Experiment: r.Experiment, SpecID: r.Spec.ID(), Strategy: r.Strategy, Cell: r.Cell,
			Patch: int(p.Patch), Error: -int(p.Error), QueuedNS: int64(p.QueuedNS), PreparingNS: int64(p.PreparingNS), CreatedNS: int64(p.CreateNS),
			WrittenNS: int64(p.WrittenNS), SealedNS: int64(p.SealedNS), PublishedNS: int64(p.PublishedNS), FirstOverNS: int64(p.FirstOverNS),
			LastOverNS: int64(p.LastOverNS), ReleasedNS: int64(p.ReleasedNS),
			Threads: int(p.Threads), Migrated: int(p.Migrated), Pulled: int(p.Pulled)}
		if p.Result != 0 {
			o.Error, o.QueuedNS = -int(p.Result), int64(p.AppliedNS)
		}
		if p.Generation != 0 {
			from := o.QueuedNS - margin.Nanoseconds()
			to := max(o.LastOverNS, o.PublishedNS) + margin.Nanoseconds()
			stops := r.stops(p.Patch, &o)
			for w, st := range r.Trace.StreamList {
				if m, ok := move(r.Trace.Of(st), w, p, r.Strategy != record.WaitFree, from, to); ok {
					m.Spans = hold(m.Spans, stops)
					if r.Strategy == record.StopWorld {
						letGo(&m, o.ReleasedNS)
					}
					for _, s := range m.Spans {
						if s.State == record.SpanWait {
							o.HeldNS = max(o.HeldNS, s.ToNS-s.FromNS)
						}
					}
					o.Moves = append(o.Moves, m)
				}
			}
		}
		out = append(out, o)
	}
	return out
}

// Outcome is what became of the only patch of a hostile program.
func (r Result) Outcome(program string) record.Outcome {
	o := record.Outcome{Experiment: r.Experiment, SpecID: r.Spec.ID(), Strategy: r.Strategy, Program: program}
	if r.Trace == nil {
		return o
	}
	o.Ended = r.Trace.End == wire.EndComplete
	for _, s := range r.Trace.StateList {
		// Hundredths of a second: one may be what the look itself took.
		if s.Exists != 0 && s.Txns[0] == s.Txns[1] && s.CPUTick[1] <= s.CPUTick[0]+1 {
			o.Stuck++
		}
	}
	for _, x := range r.Overs(0) {
		since := func(ns int64) int64 {
			if ns == 0 {
				return 0
			}
			return ns - x.QueuedNS
		}
		o.Error, o.HeldNS = x.Error, x.HeldNS
		o.PublishedNS, o.FirstNS, o.LastNS = since(x.PublishedNS), since(x.FirstOverNS), since(x.LastOverNS)
	}
	return o
}

// stops are the times for which a patch had all threads stopped.
func (r Result) stops(patch uint32, o *record.Over) []record.Span {
	var out []record.Span
	for _, s := range r.Trace.StopList {
		if s.Patch == patch {
			out = append(out, record.Span{FromNS: int64(s.BeginNS), ToNS: int64(s.EndNS), State: record.SpanWait})
			o.Stops++
			o.StoppedNS += int64(s.EndNS - s.BeginNS)
		}
	}
	return out
}

// hold puts times at which a thread was stopped over what it did, which it knew
// nothing of.
func hold(spans, stops []record.Span) []record.Span {
	for _, stop := range stops {
		var out []record.Span
		for _, s := range spans {
			before, after := s, s
			before.ToNS, after.FromNS = min(s.ToNS, stop.FromNS), max(s.FromNS, stop.ToNS)
			held := record.Span{FromNS: max(s.FromNS, stop.FromNS), ToNS: min(s.ToNS, stop.ToNS), State: record.SpanWait}
			for _, x := range []record.Span{before, held, after} {
				if x.FromNS >= x.ToNS {
					continue
				}
				if n := len(out) - 1; n >= 0 && out[n].State == x.State && out[n].ToNS == x.FromNS {
					out[n].ToNS = x.ToNS
					continue
				}
				out = append(out, x)
			}
		}
		spans = out
	}
	return spans
}

// letGo has a thread that was stopped run new code from then on: it was put under
// it, and what the thread noted at its next quiescence point only says so.
func letGo(m *record.Move, at int64) {
	var out []record.Span
	there := false
	for _, s := range m.Spans {
		there = there || s.FromNS < at && s.ToNS >= at
		if s.State != record.SpanOld || s.ToNS <= at {
			out = append(out, s)
			continue
		}
		if s.FromNS < at {
			out = append(out, record.Span{FromNS: s.FromNS, ToNS: at, State: record.SpanOld})
		}
		out = append(out, record.Span{FromNS: max(s.FromNS, at), ToNS: s.ToNS, State: record.SpanNew})
	}
	for i := 1; i < len(out); {
		if a, b := &out[i-1], out[i]; a.State == b.State && a.ToNS == b.FromNS {
			a.ToNS = b.ToNS
			out = slices.Delete(out, i, i+1)
			continue
		}
		i++
	}
	m.Spans = out
	if there && m.How != record.HowBorn {
		m.AtNS, m.How = at, record.HowOwn
	}
}

// move is one thread's way over; false if it was not there.
func move(recs []wire.Record, worker int, p wire.Report, inPlace bool, from, to int64) (record.Move, bool) {
	m := record.Move{Thread: worker}
	var born, died, offline int64
	var spans []record.Span
	state, since := "", int64(0)
	enter := func(next string, at int64) {
		if state != "" && at > since {
			a, b := max(since, from), min(at, to)
			if last := len(spans) - 1; a < b && last >= 0 && spans[last].State == state && spans[last].ToNS == a {
				spans[last].ToNS = b
			} else if a < b {
				spans = append(spans, record.Span{FromNS: a, ToNS: b, State: state})
			}
		}
		state, since = next, at
	}
	ran := func(gen uint32) string {
		if uint64(gen) >= p.Generation {
			return record.SpanNew
		}
		return record.SpanOld
	}
	over := func(at int64, how string) {
		if m.How == "" {
			m.AtNS, m.How = at, how
		}
	}
	for i, rec := range recs {
		at := int64(rec.C)
		var moved *wire.Record // told by the next record: after the quiescence point
		if rec.Kind == wire.RecordTxn && i+1 < len(recs) && recs[i+1].Kind == wire.RecordMoved {
			moved = &recs[i+1]
		}
		switch rec.Kind {
		case wire.RecordBirth:
			born = at
			enter(record.SpanIdle, at)
		case wire.RecordTxn:
			if rec.A&wire.TxnChild != 0 {
				continue
			}
			if moved != nil {
				enter(record.SpanWait, at)
				at = int64(moved.C)
			}
			enter(ran(rec.B), at)
			if ran(rec.B) == record.SpanNew {
				// One that was not there when it was published was born in it.
				if born > int64(p.PublishedNS) {
					over(born, record.HowBorn)
				}
				over(at, record.HowOwn)
			}
		case wire.RecordOffline:
			offline = at
			enter(record.SpanIdle, at)
		case wire.RecordOnline:
			next := record.SpanIdle
			if rec.A&wire.OnlineMoved != 0 {
				next = record.SpanWait
			}
			enter(next, at)
			if ran(rec.B) == record.SpanNew {
				// It woke in new code; or, where code is changed in place and no
				// thread can tell, it slept when the patch was published, which
				// then counts it as arrived. When exactly it got over, asleep, is
				// not known: at the latest when all were.
				asleep := inPlace && offline <= int64(p.PublishedNS) && at >= int64(p.PublishedNS)
				how := record.HowOwn
				if rec.A&wire.OnlinePulled != 0 || asleep {
					how = record.HowPulled
					if last := int64(p.LastOverNS); last != 0 {
						at = min(at, last)
					}
				}
				over(at, how)
			}
		case wire.RecordReqStart:
			enter(state, at)
		case wire.RecordReqEnd:
			enter(record.SpanIdle, at)
		case wire.RecordDeath:
			died = at
			enter("", at)
		}
	}
	enter("", to)
	if born > to || died != 0 && died < from || len(recs) == 0 {
		return m, false
	}
	if m.How == "" && died != 0 {
		over(died, record.HowGone)
	}
	m.Spans = spans
	return m, true
}
