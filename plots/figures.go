// SPDX-License-Identifier: Apache-2.0

package plots

import (
	"fmt"
	"image/color"
	"math"
	"sort"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/wflp/wflp/analysis/stats"
)

// TimeLine is a panel with a title. In Around it is latency around the patches
// under one strategy: a line per quantile; X is the arrival in nanoseconds after
// the patch was asked for, Y the latency in nanoseconds.
type TimeLine struct {
	Title string
	Lines []Line
}

// Around draws latency over the time around a patch, a panel per strategy, with
// one scale for all. The window of the patch is shaded.
func Around(name, note string, windowNS float64, panels []TimeLine) Figure {
	// Four panels are as narrow as one can read.
	rows := max(1, (len(panels)+3)/4)
	each := (len(panels) + rows - 1) / rows
	return Figure{Name: name, W: TwoColumns, H: 2.1 * vg.Inch * vg.Length(rows), Note: note, draw: func(c draw.Canvas) {
		var ys [][]float64
		lo, hi := math.Inf(1), math.Inf(-1)
		for _, t := range panels {
			for _, l := range t.Lines {
				ys = append(ys, l.Y)
				for _, x := range l.X {
					if !bad(x, false) {
						lo, hi = min(lo, x), max(hi, x)
					}
				}
			}
		}
		if lo >= hi {
			lo, hi = -1e6, 1e6
		}
		var ps []*panel
		for i, t := range panels {
			p := newPanel(t.Title)
			p.logY("Latency", Nanoseconds, 7, ys...)
			p.xName = timeAxis(&p.X, "Arrival after the patch was asked for", lo, hi, 5)
			b := band{from: 0, to: windowNS}
			if i == 0 {
				b.text = "window"
			}
			p.Plot.Add(b, rule{0})
			p.walls = []float64{0}
			for _, l := range t.Lines {
				p.add(l)
			}
			ps = append(ps, p)
		}
		h := (c.Max.Y - c.Min.Y) / vg.Length(rows)
		for r := range rows {
			mine := ps[min(len(ps), r*each):min(len(ps), (r+1)*each)]
			row(draw.Crop(c, 0, 0, h*vg.Length(rows-1-r), -h*vg.Length(r)), true, mine...)
		}
	}}
}

// CCDF draws the share of requests that took longer, log-log: the far tail is
// what a patch does to requests.
func CCDF(name, note, xLabel string, lines []Line) Figure {
	return Figure{Name: name, W: OneColumn, H: 2.4 * vg.Inch, Note: note, draw: func(c draw.Canvas) {
		p := newPanel("")
		var xs, ys [][]float64
		for _, l := range lines {
			xs, ys = append(xs, l.X), append(ys, l.Y)
		}
		p.logX(xLabel, Nanoseconds, 6, xs...)
		p.logY("Share of requests slower", Share, 7, ys...)
		p.Y.Min, p.Y.Max = min(p.Y.Min, 0.1), 1
		for _, l := range lines {
			l.Step = true
			p.add(l)
		}
		row(c, false, p)
	}}
}

// CDF draws distribution functions over a logarithmic time.
func CDF(name, note, xLabel, yLabel string, lines []Line) Figure {
	return Figure{Name: name, W: OneColumn, H: 2.4 * vg.Inch, Note: note, draw: func(c draw.Canvas) {
		p := newPanel("")
		var xs [][]float64
		for _, l := range lines {
			xs = append(xs, l.X)
		}
		p.logX(xLabel, Nanoseconds, 6, xs...)
		p.yName = yLabel
		p.Y.Min, p.Y.Max = 0, 1
		p.Y.Tick.Marker = linTicks{unit: Share, n: 5}
		for _, l := range lines {
			l.Step = true
			p.add(l)
		}
		row(c, false, p)
	}}
}

// Survival is the line of a curve of Kaplan and Meier over seconds. A logarithmic
// axis has no 0: it begins where all are left, a little before the first.
func Survival(name string, s stats.Survival) Line {
	l := Line{Label: name, Key: name}
	from := 1.0
	if len(s.T) > 0 && s.T[0] > 0 {
		from = s.T[0] / 2
	}
	l.X, l.Y = append(l.X, from*1e9), append(l.Y, 1)
	for i := range s.T {
		l.X, l.Y = append(l.X, s.T[i]*1e9), append(l.Y, s.S[i])
	}
	l.X, l.Y = append(l.X, s.Watched*1e9), append(l.Y, l.Y[len(l.Y)-1])
	return l
}

// CDFs draws distribution functions over a logarithmic time in panels side by
// side, with one scale for all.
func CDFs(name, note, xLabel, yLabel string, panels []TimeLine) Figure {
	return Figure{Name: name, W: TwoColumns, H: 2.2 * vg.Inch, Note: note, draw: func(c draw.Canvas) {
		var xs [][]float64
		for _, t := range panels {
			for _, l := range t.Lines {
				xs = append(xs, l.X)
			}
		}
		var ps []*panel
		for _, t := range panels {
			p := newPanel(t.Title)
			p.logX(xLabel, Nanoseconds, 6, xs...)
			p.yName = yLabel
			p.Y.Min, p.Y.Max = 0, 1
			p.Y.Tick.Marker = linTicks{unit: Share, n: 5}
			for _, l := range t.Lines {
				l.Step = true
				p.add(l)
			}
			ps = append(ps, p)
		}
		row(c, true, ps...)
	}}
}

// Span is a stretch of a thread's time line; its state is old, new, wait or idle.
type Span struct {
	From, To float64
	State    string
}

// Track is one thread of a Gantt chart.
type Track struct {
	Spans []Span
	// When the thread went over, or NaN; pulled says that it was asleep.
	Over   float64
	Pulled bool
}

// Gantt is the way of one patch through a program under one strategy.
type Gantt struct {
	Title string
	// Range shown, and instants with names, in nanoseconds after the patch was
	// asked for.
	From, To float64
	Marks    []Mark
	Tracks   []Track
}

// Mark is a named instant.
type Mark struct {
	At   float64
	Name string
}

// States of a span in the order of the key, and their greys, which also differ
// in a copy: the old code is light, the new dark, and waiting is hatched.
var states = []struct {
	key, name string
	color     color.NRGBA
}{
	{"old", "runs old code", color.NRGBA{0xcf, 0xd8, 0xe3, 0xff}},
	{"wait", "waits for the patch", color.NRGBA{0xff, 0xff, 0xff, 0xff}},
	{"new", "runs new code", color.NRGBA{0x2c, 0x6f, 0xb3, 0xff}},
	{"idle", "asleep or without work", color.NRGBA{0xf1, 0xf1, 0xf1, 0xff}},
}

// Gantts draws time lines of single patches, a panel per strategy, with one scale.
func Gantts(name, note string, charts []Gantt) Figure {
	rows := 1
	for _, g := range charts {
		rows = max(rows, len(g.Tracks))
	}
	// Threads up to a dozen have a finger's width, many share the page.
	h := 0.95*vg.Inch + markRoom + vg.Length(rows)*trackHeight(rows)
	return Figure{Name: name, W: TwoColumns, H: h, Note: note, draw: func(c draw.Canvas) {
		key(c)
		c = draw.Crop(c, 0, 0, 0, -tickSize-5)
		var ps []*panel
		for _, g := range charts {
			p := newPanel(g.Title)
			p.labels, p.bare = false, true
			p.xName = timeAxis(&p.X, "Time after the patch was asked for", g.From, g.To, 5)
			p.yName = "Thread"
			// Thread 0 on top.
			p.Y.Min, p.Y.Max = -0.6, float64(rows)-0.4
			// Room below the tracks for the names of the instants.
			p.Y.Max += float64(markRoom / trackHeight(rows))
			p.Y.Scale = plot.InvertedScale{Normalizer: plot.LinearScale{}}
			var ticks []plot.Tick
			every := max(1, (rows+7)/8)
			for i := 0; i < rows; i += every {
				ticks = append(ticks, plot.Tick{Value: float64(i), Label: fmt.Sprint(i)})
			}
			p.Y.Tick.Marker = plot.ConstantTicks(ticks)
			p.Plot.Add(tracks{g})
			ps = append(ps, p)
		}
		row(c, true, ps...)
	}}
}

// markRoom is the height of two lines of names of instants.
const markRoom = 2*(noteSize+1) + 2

func trackHeight(rows int) vg.Length { return max(2.6, min(9, 200/vg.Length(rows))) }

func key(c draw.Canvas) {
	s := style(tickSize, ink)
	s.YAlign = draw.YTop
	x, y := c.Min.X+30, c.Max.Y-2
	for _, st := range states {
		swatch(c, st.key, x, y-5.2, x+11, y)
		c.FillText(s, vg.Point{X: x + 14, Y: y + 0.4}, st.name)
		x += 14 + s.Width(st.name) + 14
	}
	m := vg.Point{X: x + 3, Y: c.Max.Y - 4.9}
	c.DrawGlyph(draw.GlyphStyle{Color: ink, Radius: 1.6, Shape: draw.CircleGlyph{}}, m)
	c.FillText(s, vg.Point{X: x + 9, Y: y + 0.4}, "goes over itself")
	x += 9 + s.Width("goes over itself") + 14
	c.DrawGlyph(draw.GlyphStyle{Color: ink, Radius: 1.7, Shape: draw.RingGlyph{}}, vg.Point{X: x + 3, Y: m.Y})
	c.FillText(s, vg.Point{X: x + 9, Y: y + 0.4}, "is pulled over asleep")
}

func swatch(c draw.Canvas, state string, x0, y0, x1, y1 vg.Length) {
	for _, st := range states {
		if st.key != state {
			continue
		}
		box := []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}}
		c.FillPolygon(st.color, box)
		switch state {
		case "wait":
			hatch := draw.LineStyle{Color: lookOf("barrier").color, Width: 0.5}
			for d := y0 - y1; x0+d < x1; d += 2.2 {
				a := vg.Point{X: x0 + d, Y: y0}
				b := vg.Point{X: x0 + d + (y1 - y0), Y: y1}
				if a.X < x0 {
					a.Y += x0 - a.X
					a.X = x0
				}
				if b.X > x1 {
					b.Y -= b.X - x1
					b.X = x1
				}
				if b.X > a.X {
					c.StrokeLine2(hatch, a.X, a.Y, b.X, b.Y)
				}
			}
			c.StrokeLines(draw.LineStyle{Color: lookOf("barrier").color, Width: 0.4}, append(box, box[0]))
		case "idle":
			c.StrokeLines(draw.LineStyle{Color: soft, Width: 0.25}, append(box, box[0]))
		}
	}
}

type tracks struct{ g Gantt }

func (t tracks) Plot(c draw.Canvas, p *plot.Plot) {
	tx, ty := p.Transforms(&c)
	unit := ty(0) - ty(1)
	half := unit * 0.36
	clampX := func(v float64) vg.Length { return min(max(tx(v), c.Min.X), c.Max.X) }
	for i, tr := range t.g.Tracks {
		y := ty(float64(i))
		for _, s := range tr.Spans {
			if x0, x1 := clampX(s.From), clampX(s.To); x1 > x0 {
				swatch(c, s.State, x0, y-half, x1, y+half)
			}
		}
	}
	dash := draw.LineStyle{Color: ink, Width: 0.6, Dashes: []vg.Length{2, 1.5}}
	for _, m := range t.g.Marks {
		if x := tx(m.At); c.ContainsX(x) {
			c.StrokeLine2(dash, x, c.Min.Y, x, c.Max.Y)
		}
	}
	r := min(1.7, max(0.9, unit*0.3))
	for i, tr := range t.g.Tracks {
		if x := tx(tr.Over); !math.IsNaN(tr.Over) && c.ContainsX(x) {
			pt := vg.Point{X: x, Y: ty(float64(i))}
			halo := draw.GlyphStyle{Color: color.White, Radius: r + 0.7, Shape: draw.CircleGlyph{}}
			c.DrawGlyph(halo, pt)
			g := draw.GlyphStyle{Color: ink, Radius: r, Shape: draw.CircleGlyph{}}
			if tr.Pulled {
				g.Shape = draw.RingGlyph{}
			}
			c.DrawGlyph(g, pt)
		}
	}
	// Names of the instants below the tracks, each to the right of its line unless
	// that runs into the next one or out of the panel.
	s := style(noteSize, ink)
	s.YAlign = draw.YTop
	marks := append([]Mark(nil), t.g.Marks...)
	sort.SliceStable(marks, func(i, j int) bool { return marks[i].At < marks[j].At })
	var ends [2]vg.Length // of the text written so far, per level
	for i := range ends {
		ends[i] = c.Min.X - 1000
	}
	for _, m := range marks {
		x := tx(m.At)
		if !c.ContainsX(x) {
			continue
		}
		w := s.Width(m.Name)
		from := x + 2
		cramped := from+w > c.Max.X
		for _, o := range marks {
			cramped = cramped || o.At > m.At && from+w > tx(o.At)
		}
		if cramped && x-2-w > max(c.Min.X, ends[0]) {
			from = x - 2 - w
		}
		for level := range ends {
			if from > ends[level]+3 {
				y := c.Min.Y + (noteSize+1)*vg.Length(len(ends)-level)
				// Not struck through by the line of another.
				c.FillPolygon(color.White, []vg.Point{{X: from, Y: y - noteSize}, {X: from + w, Y: y - noteSize}, {X: from + w, Y: y}, {X: from, Y: y}})
				c.FillText(s, vg.Point{X: from, Y: y}, m.Name)
				ends[level] = from + w
				break
			}
		}
	}
}

// Cost draws the cost of operations over a size, log-log.
func Cost(name, note, xLabel string, x Unit, yLabel string, y Unit, lines []Line) Figure {
	return Figure{Name: name, W: OneColumn, H: 2.5 * vg.Inch, Note: note, draw: func(c draw.Canvas) {
		p := newPanel("")
		var xs, ys [][]float64
		for _, l := range lines {
			xs, ys = append(xs, l.X), append(ys, l.Y, l.Lo, l.Hi)
		}
		p.logX(xLabel, x, 5, xs...)
		if ticks := at(x, xs); len(ticks) <= 5 {
			p.X.Tick.Marker = plot.ConstantTicks(ticks)
		}
		p.logY(yLabel, y, 7, ys...)
		// At least a decade: a few percent must not look like a slope.
		if f := math.Sqrt(10 * p.Y.Min / p.Y.Max); f > 1 {
			p.Y.Min, p.Y.Max = p.Y.Min/f, p.Y.Max*f
		}
		p.margin = true
		for _, l := range lines {
			l.Markers = true
			p.add(l)
		}
		row(c, false, p)
	}}
}

// at puts a tick at each value that occurs.
func at(u Unit, values [][]float64) []plot.Tick {
	var ticks []plot.Tick
	seen := map[float64]bool{}
	for _, vs := range values {
		for _, v := range vs {
			if !bad(v, true) && !seen[v] {
				seen[v] = true
				ticks = append(ticks, plot.Tick{Value: v, Label: u.Format(v)})
			}
		}
	}
	return ticks
}

// Ratio is one row of Ratios.
type Ratio struct {
	// Group is printed once for the rows that share it.
	Group, Label string
	// Value and interval; NaN where there is none.
	Value, Lo, Hi float64
}

// Ratios draws ratios to a reference with their intervals. The band from the
// reference to the limit is shaded: what lies in it meets the goal.
func Ratios(name, note, xLabel string, limit float64, rows []Ratio) Figure {
	// Rows of a group are together, with half a row between groups.
	at, apart := make([]float64, len(rows)), []float64{}
	y := 0.0
	for i, r := range rows {
		if i > 0 && r.Group != rows[i-1].Group {
			apart = append(apart, y-0.25)
			y += 0.5
		}
		at[i] = y
		y++
	}
	h := 0.75*vg.Inch + 10*vg.Length(y)
	return Figure{Name: name, W: OneColumn, H: h, Note: note, draw: func(c draw.Canvas) {
		p := newPanel("")
		p.labels = false
		lo, hi := 1.0, limit
		for _, r := range rows {
			for _, v := range []float64{r.Value, r.Lo, r.Hi} {
				if !bad(v, false) {
					lo, hi = min(lo, v), max(hi, v)
				}
			}
		}
		pad := (hi - lo) * 0.12
		p.xName = xLabel
		p.X.Min, p.X.Max = lo-pad, hi+pad*2.6
		p.X.Tick.Marker = linTicks{n: 4, format: func(v float64) string { return fmt.Sprintf("%.4g", v) }}
		p.Y.Min, p.Y.Max = -0.7, y-0.3
		p.Y.Scale = plot.InvertedScale{Normalizer: plot.LinearScale{}}
		p.Y.LineStyle.Width = 0
		p.Y.Tick.Length = 0
		var ticks []plot.Tick
		last := ""
		for i, r := range rows {
			label := r.Label
			if r.Group != last {
				label, last = r.Group+", "+r.Label, r.Group
			}
			ticks = append(ticks, plot.Tick{Value: at[i], Label: label})
		}
		p.Y.Tick.Marker = plot.ConstantTicks(ticks)
		p.Plot.Add(band{from: 1, to: limit}, rule{1}, dots{rows, at, apart})
		p.bare = true
		row(c, false, p)
	}}
}

// dots are the ratios, each at its place from the top, with lines between groups.
type dots struct {
	rows  []Ratio
	at    []float64
	apart []float64
}

func (d dots) Plot(c draw.Canvas, p *plot.Plot) {
	tx, ty := p.Transforms(&c)
	lk := lookOf("waitfree")
	for _, a := range d.apart {
		c.StrokeLine2(draw.LineStyle{Color: faint, Width: thin}, c.Min.X, ty(a), c.Max.X, ty(a))
	}
	for i, r := range d.rows {
		if bad(r.Value, false) {
			continue
		}
		y := ty(d.at[i])
		right := tx(r.Value) + 2
		if !bad(r.Lo, false) && !bad(r.Hi, false) {
			s := draw.LineStyle{Color: lk.color, Width: 0.8}
			c.StrokeLine2(s, tx(r.Lo), y, tx(r.Hi), y)
			c.StrokeLine2(s, tx(r.Lo), y-2, tx(r.Lo), y+2)
			c.StrokeLine2(s, tx(r.Hi), y-2, tx(r.Hi), y+2)
			right = tx(r.Hi)
		}
		c.DrawGlyph(lk.marker(2), vg.Point{X: tx(r.Value), Y: y})
		s := style(noteSize, ink)
		s.YAlign = draw.YCenter
		c.FillText(s, vg.Point{X: right + 4, Y: y + 0.8}, fmt.Sprintf("%.3f", r.Value))
	}
}

// Outcomes draws what became of runs: a row per strategy (or program and
// strategy), a column per kind of outcome, in each cell the number of runs that
// had it. The first kinds, so many as good says, are what one hopes for.
func Outcomes(name, note string, strategies, kinds []string, good int, runs []int64, caught [][]int64) Figure {
	h := 0.38*vg.Inch + 15*vg.Length(len(strategies))
	return Figure{Name: name, W: TwoColumns, H: h, Note: note, draw: func(c draw.Canvas) {
		head, cell := style(tickSize, soft), style(labelSize, ink)
		head.XAlign, head.YAlign = draw.XCenter, draw.YBottom
		left := vg.Length(56)
		for _, st := range strategies {
			left = max(left, cell.Width(st)+8)
		}
		right := vg.Length(64)
		w := (c.Max.X - c.Min.X - left - right) / vg.Length(max(1, len(kinds)))
		top := c.Max.Y - 16
		x := func(j int) vg.Length { return c.Min.X + left + w*vg.Length(j) }
		for j, k := range kinds {
			c.FillText(head, vg.Point{X: x(j) + w/2, Y: top + 3}, k)
		}
		c.FillText(head, vg.Point{X: c.Max.X - right/2, Y: top + 3}, "runs")
		for i, st := range strategies {
			y := top - 15*vg.Length(i+1)
			name := style(labelSize, lookOf(st).color)
			name.XAlign, name.YAlign = draw.XLeft, draw.YCenter
			c.FillText(name, vg.Point{X: c.Min.X + 3, Y: y + 7.5}, st)
			for j := range kinds {
				n := caught[i][j]
				share := 0.0
				if runs[i] > 0 {
					share = float64(n) / float64(runs[i])
				}
				// The root keeps one run in a thousand visible.
				g := uint8(255 - 175*math.Sqrt(share))
				fill := color.NRGBA{255, g, uint8(max(0, int(g)-25)), 255}
				if j < good {
					fill = color.NRGBA{g, uint8(128 + int(g)/2), 255, 255}
				}
				if n == 0 {
					fill = color.NRGBA{0xf4, 0xf7, 0xf4, 0xff}
				}
				box := []vg.Point{{X: x(j) + 1, Y: y + 1}, {X: x(j) + w - 1, Y: y + 1}, {X: x(j) + w - 1, Y: y + 14}, {X: x(j) + 1, Y: y + 14}}
				c.FillPolygon(fill, box)
				s := cell
				s.XAlign, s.YAlign = draw.XCenter, draw.YCenter
				if n == 0 {
					s.Color = soft
				}
				c.FillText(s, vg.Point{X: x(j) + w/2, Y: y + 7.5}, Thousands(n))
			}
			s := cell
			s.XAlign, s.YAlign = draw.XCenter, draw.YCenter
			c.FillText(s, vg.Point{X: c.Max.X - right/2, Y: y + 7.5}, Thousands(runs[i]))
		}
	}}
}
