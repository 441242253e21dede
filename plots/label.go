// SPDX-License-Identifier: Apache-2.0

package plots

import (
	"image/color"
	"math"
	"sort"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// placeLabel writes a name beside its curve where it touches no curve and no
// other name, is nearer to its own curve than to any other, and is nearest to it
// of all such places.  Where no such place is near, it takes the nearest free one
// and draws a thin line to the curve.  It returns the place taken.
//
// The search is over a lattice of places: simple, and milliseconds are enough for it.
func placeLabel(c *draw.Canvas, txt string, col color.Color, own []vg.Point, self int, curves [][]vg.Point, taken []vg.Rectangle) vg.Rectangle {
	s := style(tickSize, col)
	s.XAlign, s.YAlign = draw.XLeft, draw.YBottom
	w, h := s.Width(txt), tickSize*0.78 // of capitals; what hangs below the line is little
	const step = 2.0
	type place struct {
		box   vg.Rectangle
		score float64
		mine  vg.Length
		other vg.Length
	}
	best := place{score: math.Inf(1)}
	for i := range curves {
		curves[i] = thinned(curves[i])
	}
	visible := clipped(c, thinned(own))
	if len(visible) == 0 {
		visible = own
	}
	for y := c.Min.Y + 1; y+h <= c.Max.Y; y += step {
		for x := c.Min.X + 2; x+w <= c.Max.X; x += step {
			box := vg.Rectangle{Min: vg.Point{X: x, Y: y}, Max: vg.Point{X: x + w, Y: y + h}}
			free := true
			for _, t := range taken {
				if box.Min.X < t.Max.X+2 && t.Min.X < box.Max.X+2 && box.Min.Y < t.Max.Y+0.5 && t.Min.Y < box.Max.Y+0.5 {
					free = false
					break
				}
			}
			if !free {
				continue
			}
			mine := boxDistance(box, visible, vg.Length(best.score))
			if mine < 1.6 {
				continue
			}
			// Far places of a lattice are never better; do not look at other curves.
			score := float64(mine)
			if score >= best.score {
				continue
			}
			others := 2*mine + 1 // farther does not matter
			for i, o := range curves {
				if i != self {
					others = boxDistance(box, o, others)
				}
			}
			if others < 1.6 {
				continue
			}
			// Twice as near to its own as to any other, or it is not clear whose it is.
			score += 3 * float64(max(0, 2*mine+1-others))
			if score < best.score {
				best = place{box, score, mine, others}
			}
		}
	}
	if math.IsInf(best.score, 1) {
		// Nowhere is free: over the curve's end, rather than not at all.
		end := visible[len(visible)-1]
		x := min(max(end.X-w, c.Min.X), c.Max.X-w)
		y := min(end.Y+2, c.Max.Y-h)
		best.box = vg.Rectangle{Min: vg.Point{X: x, Y: y}, Max: vg.Point{X: x + w, Y: y + h}}
	} else if best.mine > 5 || best.other < best.mine {
		from, to := closest(best.box, visible)
		c.StrokeLine2(draw.LineStyle{Color: col, Width: thin}, from.X, from.Y, to.X, to.Y)
	}
	c.FillText(s, vg.Point{X: best.box.Min.X, Y: best.box.Min.Y - tickSize*0.1}, txt)
	return best.box
}

// endLabels writes the names of curves in the margin to the right of c, each at
// the height where its curve ends, moved apart where they would overlap.
func endLabels(c *draw.Canvas, txts []string, cols []color.Color, curves [][]vg.Point) {
	type end struct {
		i    int
		from vg.Point
		y    vg.Length
	}
	var ends []end
	for i, pts := range curves {
		if pts = clipped(c, pts); len(pts) > 0 && txts[i] != "" {
			p := pts[len(pts)-1]
			ends = append(ends, end{i, p, p.Y})
		}
	}
	sort.SliceStable(ends, func(a, b int) bool { return ends[a].from.Y < ends[b].from.Y })
	gap := tickSize + 0.8
	// Up from the lowest, then down from the highest place that there is.
	for k := 1; k < len(ends); k++ {
		ends[k].y = max(ends[k].y, ends[k-1].y+gap)
	}
	top := c.Max.Y + 2
	for k := len(ends) - 1; k >= 0; k-- {
		ends[k].y = min(ends[k].y, top)
		top = ends[k].y - gap
	}
	for _, e := range ends {
		s := style(tickSize, cols[e.i])
		s.XAlign, s.YAlign = draw.XLeft, draw.YBottom
		to := vg.Point{X: c.Max.X + 5, Y: e.y}
		c.StrokeLine2(draw.LineStyle{Color: cols[e.i], Width: thin}, e.from.X+2.5, e.from.Y, to.X-1, to.Y)
		c.FillText(s, vg.Point{X: to.X, Y: to.Y - tickSize*0.44}, txts[e.i])
	}
}

// thinned drops points that lie within half a point of the last one kept: no eye
// and no label sees the difference.
func thinned(pts []vg.Point) []vg.Point {
	var out []vg.Point
	for i, p := range pts {
		if i == 0 || i == len(pts)-1 || dist(p, out[len(out)-1]) > 0.5 {
			out = append(out, p)
		}
	}
	return out
}

// clipped keeps the points within the canvas.
func clipped(c *draw.Canvas, pts []vg.Point) []vg.Point {
	var out []vg.Point
	for _, p := range pts {
		if c.Contains(p) {
			out = append(out, p)
		}
	}
	return out
}

// boxDistance is the distance between a rectangle and a polyline, 0 if they meet,
// and limit if it is not less: what is farther need not be measured.
func boxDistance(r vg.Rectangle, pts []vg.Point, limit vg.Length) vg.Length {
	best := limit
	for i, p := range pts {
		a := pts[max(0, i-1)]
		if max(a.X, p.X) <= r.Min.X-best || min(a.X, p.X) >= r.Max.X+best ||
			max(a.Y, p.Y) <= r.Min.Y-best || min(a.Y, p.Y) >= r.Max.Y+best {
			continue
		}
		if best = min(best, segmentBox(a, p, r)); best == 0 {
			return 0
		}
	}
	return best
}

func pointBox(p vg.Point, r vg.Rectangle) vg.Length {
	dx := max(r.Min.X-p.X, 0, p.X-r.Max.X)
	dy := max(r.Min.Y-p.Y, 0, p.Y-r.Max.Y)
	return vg.Length(math.Sqrt(float64(dx*dx + dy*dy)))
}

func segmentBox(a, b vg.Point, r vg.Rectangle) vg.Length {
	if crosses(a, b, r) {
		return 0
	}
	best := min(pointBox(a, r), pointBox(b, r))
	for _, corner := range corners(r) {
		best = min(best, dist(corner, nearestOn(a, b, corner)))
	}
	return best
}

func corners(r vg.Rectangle) [4]vg.Point {
	return [4]vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}}
}

func nearestOn(a, b, p vg.Point) vg.Point {
	dx, dy := b.X-a.X, b.Y-a.Y
	l := dx*dx + dy*dy
	if l == 0 {
		return a
	}
	t := min(1, max(0, ((p.X-a.X)*dx+(p.Y-a.Y)*dy)/l))
	return vg.Point{X: a.X + t*dx, Y: a.Y + t*dy}
}

// crosses clips the segment to the rectangle (Liang and Barsky).
func crosses(a, b vg.Point, r vg.Rectangle) bool {
	t0, t1 := 0.0, 1.0
	clip := func(p, q float64) bool {
		switch {
		case p == 0:
			return q >= 0
		case p < 0:
			t0 = max(t0, q/p)
		default:
			t1 = min(t1, q/p)
		}
		return t0 <= t1
	}
	dx, dy := float64(b.X-a.X), float64(b.Y-a.Y)
	return clip(-dx, float64(a.X-r.Min.X)) && clip(dx, float64(r.Max.X-a.X)) &&
		clip(-dy, float64(a.Y-r.Min.Y)) && clip(dy, float64(r.Max.Y-a.Y))
}

// closest is the shortest way from a rectangle to a polyline.
func closest(r vg.Rectangle, pts []vg.Point) (from, to vg.Point) {
	best := vg.Length(math.Inf(1))
	try := func(q vg.Point) {
		p := vg.Point{X: min(max(q.X, r.Min.X), r.Max.X), Y: min(max(q.Y, r.Min.Y), r.Max.Y)}
		if d := dist(p, q); d < best {
			best, from, to = d, p, q
		}
	}
	for i, q := range pts {
		try(q)
		if i > 0 {
			for _, corner := range corners(r) {
				try(nearestOn(pts[i-1], q, corner))
			}
		}
	}
	return from, to
}
