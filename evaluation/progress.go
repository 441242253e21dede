// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/wflp/wflp/analysis/record"
)

// Progress tells what is done, what runs and what remains. On a terminal it keeps
// one line up to date; elsewhere it prints a line when a unit ends, and now and
// then in between. The zero value is quiet.
type Progress struct {
	W        io.Writer
	Terminal bool

	mu       sync.Mutex
	now      func() time.Time // time.Now but in tests
	total    int
	done     int
	slots    int
	todo     map[string]*work
	order    []string
	spent    time.Duration // on units done in this run
	expected time.Duration // their estimates
	began    time.Time
	drawn    bool
	stop     chan struct{}
	stopped  chan struct{}
}

// work is what is known of a unit that is not done.
type work struct {
	unit    Unit
	steps   int // done
	started time.Time
}

// Every how often a line is printed where there is no terminal, and drawn where
// there is one.
const (
	quietly  = 20 * time.Second
	redrawn  = time.Second
	lineSize = 118
)

func (p *Progress) begin(plan, todo []Unit, slots int) {
	if p == nil || p.W == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		p.now = time.Now
	}
	p.total, p.done, p.slots, p.began = len(plan), len(plan)-len(todo), max(slots, 1), p.now()
	p.todo = map[string]*work{}
	for _, u := range todo {
		p.todo[u.Key] = &work{unit: u}
		p.order = append(p.order, u.Key)
	}
	if p.done > 0 {
		fmt.Fprintf(p.W, "%d of %d units are in the records already\n", p.done, p.total)
	}
	p.stop, p.stopped = make(chan struct{}), make(chan struct{})
	go p.tick()
}

func (p *Progress) tick() {
	defer close(p.stopped)
	every := quietly
	if p.Terminal {
		every = redrawn
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

func (p *Progress) end() {
	if p == nil || p.W == nil {
		return
	}
	close(p.stop)
	<-p.stopped
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

func (p *Progress) start(u Unit) {
	if p == nil || p.W == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.todo[u.Key].started = p.now()
}

func (p *Progress) step(u Unit) {
	if p == nil || p.W == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.todo[u.Key].steps++
}

func (p *Progress) finish(u Unit, rec record.Unit, err error, interrupted bool) {
	if p == nil || p.W == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.todo[u.Key]
	delete(p.todo, u.Key)
	if interrupted && err != nil {
		return
	}
	p.erase()
	took := p.now().Sub(w.started)
	if err != nil {
		fmt.Fprintf(p.W, "%s: %v\n", u.Key, err)
		return
	}
	p.done++
	p.spent += took
	p.expected += u.Estimate
	fmt.Fprintf(p.W, "%-26s %s%s · %d of %d · %s\n", u.Key, took.Round(100*time.Millisecond), tell(rec), p.done, p.total, p.remaining())
}

// tell says what a unit yielded, in a few words.
func tell(u record.Unit) string {
	s := ""
	if len(u.Trials) > 0 {
		var patches, executions, bad, open int64
		for _, t := range u.Trials {
			patches += t.Counts.Patches
			executions += t.Counts.Executions
			switch {
			case t.Verdict == record.Violation && t.Strategy != record.Naive:
				bad++
			case t.Verdict != record.Pass && t.Verdict != record.Violation:
				open++
			}
		}
		s += fmt.Sprintf(" · %d runs, %d patches, %d executions", len(u.Trials), patches, executions)
		if bad > 0 {
			s += fmt.Sprintf(", %d WITH A VIOLATION", bad)
		}
		if open > 0 {
			s += fmt.Sprintf(", %d undecided", open)
		}
	}
	if len(u.Programs) > 0 {
		var requests, patches, bad int64
		for _, p := range u.Programs {
			requests, patches = requests+p.Requests, patches+p.Patches
			if p.Strategy != record.Restart {
				bad += p.Lost + p.Wrong + p.Dropped + p.PatchesFailed
			}
		}
		s += fmt.Sprintf(" · %d servers, %d patches, %d requests", len(u.Programs), patches, requests)
		if bad > 0 {
			s += fmt.Sprintf(", %d LOST, WRONG OR REFUSED", bad)
		}
	}
	if len(u.Micros) > 0 {
		s += fmt.Sprintf(" · %d settings", len(u.Micros))
	}
	if n := len(u.Boot.Complaints); n > 0 {
		s += fmt.Sprintf(" · the kernel complains %d times", n)
	}
	if u.Boot.End != record.EndExited {
		s += " · machine " + u.Boot.End
	}
	return s
}

// say prints a message of its own.
func (p *Progress) say(format string, args ...any) {
	if p == nil || p.W == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.W, format+"\n", args...)
}

func (p *Progress) erase() {
	if p.drawn {
		fmt.Fprint(p.W, "\r\033[K")
		p.drawn = false
	}
}

func (p *Progress) draw() {
	line := fmt.Sprintf("%d of %d units done", p.done, p.total)
	for _, key := range p.order {
		if w := p.todo[key]; w != nil && !w.started.IsZero() {
			line += fmt.Sprintf(" · %s %d/%d", key, w.steps, len(w.unit.Trials)+len(w.unit.Measures))
		}
	}
	line += " · " + p.remaining()
	if !p.Terminal {
		fmt.Fprintln(p.W, line)
		return
	}
	if r := []rune(line); len(r) > lineSize {
		line = string(r[:lineSize])
	}
	fmt.Fprint(p.W, "\r\033[K"+line)
	p.drawn = true
}

// remaining tells the time that has gone and what is about left. Estimates are
// scaled by how far they were off so far.
func (p *Progress) remaining() string {
	now := p.now()
	gone := now.Sub(p.began).Round(time.Second)
	scale := 1.0
	if p.expected > 0 {
		scale = float64(p.spent) / float64(p.expected)
	}
	var left time.Duration
	for _, w := range p.todo {
		t := time.Duration(float64(w.unit.Estimate) * scale)
		if !w.started.IsZero() {
			t = max(t-now.Sub(w.started), 0)
		}
		if !w.unit.Alone {
			t /= time.Duration(p.slots)
		}
		left += t
	}
	if len(p.todo) == 0 {
		return fmt.Sprintf("%s gone", gone)
	}
	return fmt.Sprintf("%s gone, about %s left", gone, left.Round(time.Second))
}
