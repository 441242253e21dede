// SPDX-License-Identifier: Apache-2.0

package campaign

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/wflp/wflp/fuzz/finding"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/internal/build"
)

// Status is where a campaign is. It is a fold over its log.
type Status struct {
	Seed       uint64                    `json:"seed"`
	Blind      bool                      `json:"blind,omitempty"`
	Shard      uint64                    `json:"shard"`
	Shards     uint64                    `json:"shards"`
	Iterations int                       `json:"iterations"`
	Ops        int64                     `json:"ops"`
	Status     map[oracle.Status]int     `json:"status"`
	Origins    map[Origin]*OriginStatus  `json:"origins"`
	Lanes      map[string]*LaneStatus    `json:"lanes"`
	PCs        int                       `json:"pcs"`
	Pairs      int                       `json:"pairs"`
	Corpus     int                       `json:"corpus"`
	Findings   map[string]*FindingStatus `json:"findings"`
	// Machines is how many did not start.
	Machines int     `json:"machines_not_started"`
	ElapsedS float64 `json:"elapsed_s"`
	// Curve is the coverage over the campaign's time, a point wherever it grew by
	// a hundredth.
	Curve []Point `json:"curve"`
}

// OriginStatus tells what an origin was worth.
type OriginStatus struct {
	Iterations int `json:"iterations"`
	Gains      int `json:"gains"` // iterations that covered something new
}

// LaneStatus is how far a lane is.
type LaneStatus struct {
	Iterations int     `json:"iterations"`
	Violations int     `json:"violations"`
	Undecided  int     `json:"undecided"`
	HostS      float64 `json:"host_s"`
	GuestS     float64 `json:"guest_s"`
}

// PerSecond is the iterations in a second of one machine, its start included.
func (l LaneStatus) PerSecond() float64 {
	if l.HostS == 0 {
		return 0
	}
	return float64(l.Iterations) / l.HostS
}

// FindingStatus counts a title.
type FindingStatus struct {
	Folder string  `json:"folder"`
	Count  int     `json:"count"`
	FirstN uint64  `json:"first_n"`
	FirstS float64 `json:"first_s"`
	Lanes  string  `json:"lanes"`
}

// Point is a point of the curve.
type Point struct {
	S     float64 `json:"s"`
	N     int     `json:"n"`
	PCs   int     `json:"pcs"`
	Pairs int     `json:"pairs"`
}

func newStatus(s Settings) Status {
	st := Status{Seed: s.Seed, Blind: s.Blind, Shard: s.Shard, Shards: s.Shards, Status: map[oracle.Status]int{}, Origins: map[Origin]*OriginStatus{},
		Lanes: map[string]*LaneStatus{}, Findings: map[string]*FindingStatus{}}
	for _, l := range s.Lanes {
		st.Lanes[l.String()] = &LaneStatus{}
	}
	return st
}

func (s *Status) fold(e Entry) {
	s.ElapsedS = max(s.ElapsedS, e.AtS)
	if e.Machine {
		s.Machines++
		return
	}
	s.Iterations++
	s.Ops += int64(e.Ops)
	s.Status[e.Status]++
	l := s.Lanes[e.Lane]
	if l == nil {
		l = &LaneStatus{}
		s.Lanes[e.Lane] = l
	}
	l.Iterations++
	l.HostS += e.HostMS / 1000
	l.GuestS += float64(e.GuestNS) / 1e9
	switch e.Status {
	case oracle.Pass:
	case oracle.Violated:
		l.Violations++
	default:
		l.Undecided++
	}
	o := s.Origins[e.Origin]
	if o == nil {
		o = &OriginStatus{}
		s.Origins[e.Origin] = o
	}
	o.Iterations++
	s.PCs += len(e.PCs)
	s.Pairs += len(e.Pairs)
	if len(e.PCs)+len(e.Pairs) > 0 {
		o.Gains++
		s.Corpus++
	}
	if n := len(s.Curve); n == 0 || grown(s.Curve[n-1].PCs, s.PCs) || grown(s.Curve[n-1].Pairs, s.Pairs) {
		s.Curve = append(s.Curve, Point{S: e.AtS, N: s.Iterations, PCs: s.PCs, Pairs: s.Pairs})
	}
	if e.Title != "" {
		f := s.Findings[e.Title]
		if f == nil {
			f = &FindingStatus{Folder: finding.Name(e.Title), FirstN: e.N, FirstS: e.AtS}
			s.Findings[e.Title] = f
		}
		f.Count++
		if !strings.Contains(f.Lanes, e.Lane) {
			f.Lanes = strings.TrimPrefix(f.Lanes+", "+e.Lane, ", ")
		}
	}
}

func grown(from, to int) bool { return to > from+from/100 }

// ReadStatus makes the status of a folder from its log.
func ReadStatus(dir string, s Settings) (Status, error) {
	entries, err := ReadLog(dir)
	if err != nil {
		return Status{}, err
	}
	st := newStatus(s)
	for _, e := range entries {
		st.fold(e)
	}
	return st, nil
}

// Line is the status in a line.
func (s Status) Line() string {
	rate := 0.0
	if s.ElapsedS > 0 {
		rate = float64(s.Iterations) / s.ElapsedS
	}
	line := fmt.Sprintf("%d iterations, %.1f a second, %d operations · %d PCs, %d pairs, corpus %d · %d findings", s.Iterations, rate, s.Ops, s.PCs, s.Pairs, s.Corpus, len(s.Findings))
	undecided := s.Iterations - s.Status[oracle.Pass] - s.Status[oracle.Violated]
	if undecided > 0 {
		line += fmt.Sprintf(" · %d undecided", undecided)
	}
	if s.Machines > 0 {
		line += fmt.Sprintf(" · %d machines did not start", s.Machines)
	}
	return line + " · " + time.Duration(s.ElapsedS*float64(time.Second)).Round(time.Second).String()
}

// Titles lists the findings, the first found first.
func (s Status) Titles() []string {
	out := make([]string, 0, len(s.Findings))
	for t := range s.Findings {
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := s.Findings[out[i]], s.Findings[out[j]]
		if a.FirstS != b.FirstS {
			return a.FirstS < b.FirstS
		}
		return out[i] < out[j]
	})
	return out
}

// every is how often the status files are written while nothing special happens.
const every = 2 * time.Second

// flush tells the status, and writes it now and then; always if told so.
func (c *Campaign) flush(always bool) error {
	c.st.ElapsedS = max(c.st.ElapsedS, c.elapsed().Seconds())
	if c.On != nil {
		c.On(c.st)
	}
	if !always && time.Since(c.flushed) < every {
		return nil
	}
	c.flushed = time.Now()
	b, err := json.MarshalIndent(c.st, "", "  ")
	if err == nil {
		err = build.WriteFileAtomic(filepath.Join(c.Dir, StatusName), append(b, '\n'), 0o644)
	}
	if err == nil {
		b, err = c.st.page()
	}
	if err == nil {
		err = build.WriteFileAtomic(filepath.Join(c.Dir, PageName), b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

//go:embed status.tmpl
var pageText string

var pageTemplate = template.Must(template.New("status").Funcs(template.FuncMap{
	"curve": curve,
	"share": func(part, whole int) string {
		if whole == 0 {
			return "–"
		}
		return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
	},
}).Parse(pageText))

func (s Status) page() ([]byte, error) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// curve draws coverage over time, both in parts of their last value.
func curve(s Status) template.HTML {
	const w, h = 640, 160
	if len(s.Curve) < 2 {
		return ""
	}
	last := s.ElapsedS
	line := func(value func(Point) int, end int, style string) string {
		if end == 0 {
			return ""
		}
		var b strings.Builder
		fmt.Fprintf(&b, `<polyline fill="none" stroke="#222" stroke-width="2" %s points="`, style)
		for _, p := range append(s.Curve, Point{S: last, PCs: s.PCs, Pairs: s.Pairs}) {
			fmt.Fprintf(&b, "%.1f,%.1f ", p.S/last*w, h-float64(value(p))/float64(end)*(h-8))
		}
		return b.String() + `"/>`
	}
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %d %d" width="%d" role="img" aria-label="coverage over time">`, w, h, w) +
		line(func(p Point) int { return p.PCs }, s.PCs, "") + line(func(p Point) int { return p.Pairs }, s.Pairs, `stroke-dasharray="6 4"`) + `</svg>`)
}
