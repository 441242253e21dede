// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"reflect"
	"testing"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/workloads"
)

func TestHold(t *testing.T) {
	span := func(from, to int64, state string) record.Span {
		return record.Span{FromNS: from, ToNS: to, State: state}
	}
	spans := []record.Span{span(0, 10, record.SpanOld), span(10, 20, record.SpanIdle)}
	for _, c := range []struct{ stops, want []record.Span }{
		{nil, spans},
		{[]record.Span{span(20, 30, record.SpanWait)}, spans},
		{[]record.Span{span(4, 6, record.SpanWait)}, []record.Span{span(0, 4, record.SpanOld), span(4, 6, record.SpanWait), span(6, 10, record.SpanOld), span(10, 20, record.SpanIdle)}},
		{[]record.Span{span(8, 12, record.SpanWait)}, []record.Span{span(0, 8, record.SpanOld), span(8, 12, record.SpanWait), span(12, 20, record.SpanIdle)}},
		{[]record.Span{span(-5, 5, record.SpanWait), span(15, 25, record.SpanWait)},
			[]record.Span{span(0, 5, record.SpanWait), span(5, 10, record.SpanOld), span(10, 15, record.SpanIdle), span(15, 20, record.SpanWait)}},
	} {
		if got := hold(spans, c.stops); !reflect.DeepEqual(got, c.want) {
			t.Errorf("stops %v: %v, want %v", c.stops, got, c.want)
		}
	}
}

func TestLetGo(t *testing.T) {
	span := func(from, to int64, state string) record.Span {
		return record.Span{FromNS: from, ToNS: to, State: state}
	}
	for name, c := range map[string]struct{ before, want record.Move }{
		"at work, and at its quiescence point later": {
			record.Move{AtNS: 40, How: record.HowOwn, Spans: []record.Span{span(0, 4, record.SpanOld), span(4, 8, record.SpanWait), span(8, 40, record.SpanOld), span(40, 50, record.SpanNew)}},
			record.Move{AtNS: 8, How: record.HowOwn, Spans: []record.Span{span(0, 4, record.SpanOld), span(4, 8, record.SpanWait), span(8, 50, record.SpanNew)}}},
		"never at one again": {
			record.Move{Spans: []record.Span{span(0, 50, record.SpanOld)}},
			record.Move{AtNS: 8, How: record.HowOwn, Spans: []record.Span{span(0, 8, record.SpanOld), span(8, 50, record.SpanNew)}}},
		"asleep": {
			record.Move{Spans: []record.Span{span(0, 20, record.SpanIdle), span(20, 50, record.SpanOld)}},
			record.Move{AtNS: 8, How: record.HowOwn, Spans: []record.Span{span(0, 20, record.SpanIdle), span(20, 50, record.SpanNew)}}},
		"born after it": {
			record.Move{AtNS: 10, How: record.HowBorn, Spans: []record.Span{span(10, 50, record.SpanNew)}},
			record.Move{AtNS: 10, How: record.HowBorn, Spans: []record.Span{span(10, 50, record.SpanNew)}}},
		"dead before": {
			record.Move{AtNS: 5, How: record.HowGone, Spans: []record.Span{span(0, 5, record.SpanOld)}},
			record.Move{AtNS: 5, How: record.HowGone, Spans: []record.Span{span(0, 5, record.SpanOld)}}},
	} {
		m := c.before
		if letGo(&m, 8); !reflect.DeepEqual(m, c.want) {
			t.Errorf("%s: %+v, want %+v", name, m, c.want)
		}
	}
}

// TestHostile: what the programs do under global quiescence, and when all are
// stopped, is known; neither needs views.
func TestHostile(t *testing.T) {
	s, err := workloads.Hostile(3, workloads.HostileLock)
	if err != nil {
		t.Fatal(err)
	}
	res := run(t, local(t), []Trial{{Experiment: "E8", Spec: s, Strategy: record.Barrier}, {Experiment: "E8", Spec: s, Strategy: record.StopWorld}})
	if o := res[0].Outcome("lock"); o.Ended || o.Stuck != 4 || res[0].Verdict.Status != oracle.Unknown {
		t.Errorf("a lock held across quiescence points under barrier: %+v, %s", o, res[0].Verdict.Note)
	}
	if o := res[1].Outcome("lock"); !o.Ended || o.LastNS == 0 || o.HeldNS == 0 || res[1].Verdict.Status != oracle.Pass {
		t.Errorf("and stopped: %+v, %s", o, res[1].Verdict.Note)
	}
	if _, err := workloads.Hostile(3, "friendly"); err == nil {
		t.Error("a program that there is not was made")
	}
}
