// SPDX-License-Identifier: Apache-2.0

package plots

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Line is one curve of a figure.
type Line struct {
	// Label stands beside the curve.
	Label string
	// Key chooses the look: a strategy, an operation, or a quantile.
	Key  string
	X, Y []float64
	// Ends of an interval at each point; may be nil, or NaN where there is none.
	Lo, Hi []float64
	// Markers puts one at each point; otherwise a few are put along the curve.
	Markers bool
	// Step draws a distribution function: level, then up or down.
	Step bool
}

// panel is one coordinate system.
type panel struct {
	*plot.Plot
	// Names of the axes. The library would place them itself, but on a logarithmic
	// axis it takes the middle to be that of a linear one, and then makes room.
	xName, yName string

	lines  []Line
	labels bool // beside the curves
	margin bool // labels to the right of the panel instead
	bare   bool // no grid
	walls  []float64
}

// right is the room that labels in the margin take.
func (p *panel) right() vg.Length {
	var w vg.Length
	if p.margin {
		for _, l := range p.lines {
			w = max(w, style(tickSize, ink).Width(l.Label)+6)
		}
	}
	return w
}

func newPanel(title string) *panel {
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text = title
	p.Title.TextStyle = style(labelSize+0.5, ink)
	p.Title.TextStyle.XAlign, p.Title.TextStyle.YAlign = draw.XCenter, draw.YTop
	p.Title.Padding = 3
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Width = axisWidth
		a.LineStyle.Color = soft
		a.Tick.LineStyle.Width = axisWidth
		a.Tick.LineStyle.Color = soft
		a.Tick.Length = 2.6
		a.Padding = 2
		a.Label.TextStyle = style(labelSize, ink)
		ts := style(tickSize, ink)
		ts.XAlign, ts.YAlign = a.Tick.Label.XAlign, a.Tick.Label.YAlign
		a.Tick.Label = ts
	}
	return &panel{Plot: p, labels: true}
}

// logX and logY make an axis logarithmic over the positive values given.
func (p *panel) logX(label string, u Unit, labels int, values ...[]float64) {
	p.xName = label
	logAxis(&p.X, u, labels, values)
}

func (p *panel) logY(label string, u Unit, labels int, values ...[]float64) {
	p.yName = label
	logAxis(&p.Y, u, labels, values)
}

func logAxis(a *plot.Axis, u Unit, labels int, values [][]float64) {
	lo, hi := positive(values)
	a.Scale = plot.LogScale{}
	a.Tick.Marker = logTicks{unit: u, max: labels}
	a.Min, a.Max = lo, hi
}

// positive is the range of the values that a logarithm has, with a margin; 1 to
// 10 if there is none.
func positive(values [][]float64) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, vs := range values {
		for _, v := range vs {
			if v > 0 && !math.IsInf(v, 0) {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	if lo > hi {
		return 1, 10
	}
	margin := max(math.Pow(hi/lo, 0.04), 1.15)
	return lo / margin, hi * margin
}

// add draws a curve.
func (p *panel) add(l Line) { p.lines = append(p.lines, l) }

// drawAt draws the panel. All drawing of data happens here, on the data area,
// so that text placement knows where everything is. It returns the data area.
func (p *panel) drawAt(c draw.Canvas) draw.Canvas {
	if !p.bare {
		p.Plot.Add(grid{})
	}
	p.Plot.Draw(c)
	da := p.DataCanvas(c)
	tx, ty := p.Transforms(&da)
	var obstacles [][]vg.Point
	curves := make([][]vg.Point, len(p.lines))
	for i, l := range p.lines {
		curves[i] = p.drawLine(&da, tx, ty, l)
		obstacles = append(obstacles, curves[i])
	}
	switch {
	case !p.labels:
		return da
	case p.margin:
		var txts []string
		var cols []color.Color
		for _, l := range p.lines {
			txts, cols = append(txts, l.Label), append(cols, lookOf(l.Key).color)
		}
		endLabels(&da, txts, cols, curves)
		return da
	}
	for _, w := range p.walls {
		obstacles = append(obstacles, []vg.Point{{X: tx(w), Y: da.Min.Y}, {X: tx(w), Y: da.Max.Y}})
	}
	var boxes []vg.Rectangle
	for i, l := range p.lines {
		if l.Label != "" && len(curves[i]) > 0 {
			boxes = append(boxes, placeLabel(&da, l.Label, lookOf(l.Key).color, curves[i], i, obstacles, boxes))
		}
	}
	return da
}

func (p *panel) drawLine(da *draw.Canvas, tx, ty func(float64) vg.Length, l Line) []vg.Point {
	lk := lookOf(l.Key)
	var pts []vg.Point
	logX, logY := isLog(p.X), isLog(p.Y)
	for i := range l.X {
		x, y := l.X[i], l.Y[i]
		if bad(x, logX) || bad(y, logY) {
			continue
		}
		pt := vg.Point{X: tx(x), Y: ty(y)}
		if l.Step && len(pts) > 0 {
			pts = append(pts, vg.Point{X: pt.X, Y: pts[len(pts)-1].Y})
		}
		pts = append(pts, pt)
		if l.Lo != nil && l.Hi != nil && !bad(l.Lo[i], logY) && !bad(l.Hi[i], logY) {
			lo, hi := ty(l.Lo[i]), ty(l.Hi[i])
			if hi-lo > 1.5 { // else the marker hides it
				s := draw.LineStyle{Color: lk.color, Width: 0.6}
				da.StrokeLine2(s, pt.X, lo, pt.X, hi)
				da.StrokeLine2(s, pt.X-1.5, lo, pt.X+1.5, lo)
				da.StrokeLine2(s, pt.X-1.5, hi, pt.X+1.5, hi)
			}
		}
	}
	if len(pts) == 0 {
		return nil
	}
	da.StrokeLines(lk.line(), da.ClipLinesXY(pts)...)
	marks := pts
	if !l.Markers {
		marks = along(pts, 5)
	}
	for _, m := range marks {
		if da.Contains(m) {
			da.DrawGlyph(lk.marker(1.7), m)
		}
	}
	return pts
}

func isLog(a plot.Axis) bool { _, ok := a.Scale.(plot.LogScale); return ok }

func bad(v float64, log bool) bool {
	return math.IsNaN(v) || math.IsInf(v, 0) || log && v <= 0
}

// along returns n points spread evenly over the length of a curve.
func along(pts []vg.Point, n int) []vg.Point {
	var total vg.Length
	for i := 1; i < len(pts); i++ {
		total += dist(pts[i-1], pts[i])
	}
	if total == 0 || n < 1 {
		return pts[:1]
	}
	var out []vg.Point
	var walked vg.Length
	k := 0
	for i := 1; i < len(pts) && k < n; i++ {
		d := dist(pts[i-1], pts[i])
		for k < n && walked+d >= total*vg.Length(float64(k)+0.5)/vg.Length(n) && d > 0 {
			f := (total*vg.Length(float64(k)+0.5)/vg.Length(n) - walked) / d
			out = append(out, vg.Point{X: pts[i-1].X + f*(pts[i].X-pts[i-1].X), Y: pts[i-1].Y + f*(pts[i].Y-pts[i-1].Y)})
			k++
		}
		walked += d
	}
	return out
}

func dist(a, b vg.Point) vg.Length {
	dx, dy := float64(a.X-b.X), float64(a.Y-b.Y)
	return vg.Length(math.Sqrt(dx*dx + dy*dy))
}

// grid draws faint level lines at the labelled ticks of the Y axis.
type grid struct{}

func (grid) Plot(c draw.Canvas, p *plot.Plot) {
	_, ty := p.Transforms(&c)
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if y := ty(t.Value); !t.IsMinor() && c.ContainsY(y) {
			c.StrokeLine2(draw.LineStyle{Color: faint, Width: thin}, c.Min.X, y, c.Max.X, y)
		}
	}
}

// band shades a range of X behind the data.
type band struct {
	from, to float64
	text     string
}

func (b band) Plot(c draw.Canvas, p *plot.Plot) {
	tx, _ := p.Transforms(&c)
	x0, x1 := max(tx(b.from), c.Min.X), min(tx(b.to), c.Max.X)
	if x1 <= x0 {
		return
	}
	c.FillPolygon(shade, []vg.Point{{X: x0, Y: c.Min.Y}, {X: x1, Y: c.Min.Y}, {X: x1, Y: c.Max.Y}, {X: x0, Y: c.Max.Y}})
	if b.text != "" {
		s := style(noteSize, soft)
		s.XAlign, s.YAlign = draw.XLeft, draw.YTop
		c.FillText(s, vg.Point{X: x0 + 2, Y: c.Max.Y - 1}, b.text)
	}
}

// rule is a vertical line.
type rule struct{ at float64 }

func (r rule) Plot(c draw.Canvas, p *plot.Plot) {
	tx, _ := p.Transforms(&c)
	if x := tx(r.at); c.ContainsX(x) {
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.6}, x, c.Min.Y, x, c.Max.Y)
	}
}

// row draws panels side by side with aligned axes. Only the first keeps its Y
// labels if they share the axis; a name that all X axes share is written once.
func row(c draw.Canvas, shareY bool, panels ...*panel) {
	if len(panels) == 0 {
		return
	}
	const room = labelSize * 1.4
	var left, bottom vg.Length
	if panels[0].yName != "" {
		left = room
	}
	sameX := true
	plots := make([]*plot.Plot, len(panels))
	for i, p := range panels {
		plots[i] = p.Plot
		sameX = sameX && p.xName == panels[0].xName
		if p.xName != "" {
			bottom = room
		}
		if shareY && i > 0 {
			p.Y.Tick.Marker = unlabelled{p.Y.Tick.Marker}
		}
	}
	inner := draw.Crop(c, 2+left, -4, 1+bottom, -2)
	areas := make([]draw.Canvas, len(panels))
	if len(panels) == 1 {
		areas[0] = panels[0].drawAt(draw.Crop(inner, 0, -panels[0].right(), 0, 0))
	} else {
		tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: 7}
		for i, area := range plot.Align([][]*plot.Plot{plots}, tiles, inner)[0] {
			areas[i] = panels[i].drawAt(area)
		}
	}
	s := style(labelSize, ink)
	s.XAlign, s.YAlign = draw.XCenter, draw.YBottom
	y := c.Min.Y + 1
	if sameX {
		middle := (areas[0].Min.X + areas[len(areas)-1].Max.X) / 2
		c.FillText(s, vg.Point{X: middle, Y: y}, panels[0].xName)
	} else {
		for i, p := range panels {
			c.FillText(s, vg.Point{X: areas[i].Center().X, Y: y}, p.xName)
		}
	}
	s.Rotation = math.Pi / 2
	c.FillText(s, vg.Point{X: c.Min.X + labelSize, Y: areas[0].Center().Y}, panels[0].yName)
}

// unlabelled keeps the ticks of an axis and a blank for their labels: a tick
// without any label would be a minor one.
type unlabelled struct{ plot.Ticker }

func (u unlabelled) Ticks(lo, hi float64) []plot.Tick {
	ticks := u.Ticker.Ticks(lo, hi)
	for i := range ticks {
		if !ticks[i].IsMinor() {
			ticks[i].Label = " "
		}
	}
	return ticks
}
