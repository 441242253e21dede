// SPDX-License-Identifier: Apache-2.0

package plots

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"image"
	_ "image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/wflp/wflp/analysis/stats"
)

var lookAt = flag.String("look", "", "folder in which to leave the figures of the test, to look at")

// gallery is every kind of figure, with made-up numbers.
func gallery() []Figure {
	rng := rand.New(rand.NewPCG(1, 2))
	var around []TimeLine
	var ccdf, cdf []Line
	cdfs := []TimeLine{{Title: "first thread"}, {Title: "last thread"}}
	stall := map[string]float64{"barrier": 3e6, "stopworld": 1.5e6, "restart": 6e6}
	for _, s := range []string{"none", "waitfree", "barrier", "stopworld", "restart", "naive"} {
		t := TimeLine{Title: s}
		for _, q := range []string{"p50", "p99", "max"} {
			l := Line{Label: q, Key: q}
			for x := -5e6; x <= 10e6; x += 0.25e6 {
				y := 60e3 * map[string]float64{"p50": 1, "p99": 6, "max": 25}[q] * math.Exp(rng.NormFloat64()*0.1)
				if x >= 0 && x < stall[s] {
					y += stall[s] - x
				}
				l.X, l.Y = append(l.X, x), append(l.Y, y)
			}
			t.Lines = append(t.Lines, l)
		}
		around = append(around, t)
		l := Line{Label: s, Key: s}
		tail := map[string]float64{"none": 1, "waitfree": 1.3, "barrier": 12, "stopworld": 7, "restart": 30, "naive": 1.1}[s]
		for i := range 200 {
			p := math.Pow(10, -float64(i)/40)
			l.X, l.Y = append(l.X, 50e3*(1+tail*float64(i)*0.1)), append(l.Y, p)
		}
		ccdf = append(ccdf, l)
	}
	for _, s := range []string{"waitfree", "barrier", "stopworld", "restart"} {
		for k := range cdfs {
			l := Line{Label: s, Key: s}
			for i := range 100 {
				base := map[string]float64{"waitfree": 20e3, "barrier": 2e6, "stopworld": 0.9e6, "restart": 6e6}[s]
				l.X, l.Y = append(l.X, base*math.Exp(float64(i)/60)*(1+float64(k)*20/(1+base/1e5))), append(l.Y, float64(i+1)/100)
			}
			cdfs[k].Lines = append(cdfs[k].Lines, l)
		}
	}
	// The shares of defects that a fuzzer has not found yet.
	for i, s := range []string{"guided", "blind", "free"} {
		var lives []stats.Life
		for k, t := 0, 1.0; k < 50; k++ {
			t *= math.Exp(rng.ExpFloat64() * 0.1 * float64(1+i))
			lives = append(lives, stats.Life{T: min(t, 600), Event: t < 600 && k < 40-8*i})
		}
		l := Survival(s, stats.KaplanMeier(lives))
		cdf = append(cdf, l)
	}
	gantt := func(title string, wait bool, n int) Gantt {
		g := Gantt{Title: title, From: -1e6, To: 6e6, Marks: []Mark{{0, "asked"}, {0.4e6, "published"}, {3.4e6, "last over"}}}
		for i := range n {
			at := 0.4e6 + rng.Float64()*3e6
			tr := Track{Over: at}
			switch {
			case i == n-1:
				tr.Spans = []Span{{-1e6, 6e6, "idle"}}
				tr.Pulled = true
			case wait:
				tr.Over = 3.4e6
				tr.Spans = []Span{{-1e6, at, "old"}, {at, 3.4e6, "wait"}, {3.4e6, 6e6, "new"}}
			default:
				tr.Spans = []Span{{-1e6, at, "old"}, {at, 6e6, "new"}}
			}
			g.Tracks = append(g.Tracks, tr)
		}
		return g
	}
	var cost []Line
	for _, op := range []string{"create", "seal", "enter", "fork"} {
		l := Line{Label: op, Key: op}
		for kib := 1024.0; kib <= 4<<20; kib *= 4 {
			y := map[string]float64{"create": 20e3, "seal": 6e3, "enter": 2e3, "fork": 100 * kib}[op] * math.Exp(rng.NormFloat64()*0.05)
			l.X, l.Y = append(l.X, kib), append(l.Y, y)
			l.Lo, l.Hi = append(l.Lo, y*0.8), append(l.Hi, y*1.2)
		}
		cost = append(cost, l)
	}
	ratios := []Ratio{
		{"page fault", "base, no views", 1.001, 0.997, 1.004}, {"page fault", "base, views", 1.003, 0.999, 1.008}, {"page fault", "in a view", 1.011, 1.002, 1.019},
		{"map, unmap", "base, no views", 0.999, 0.99, 1.01}, {"map, unmap", "in a view", 1.034, math.NaN(), math.NaN()},
	}
	note := "emulated, tcg · synthetic"
	return []Figure{
		Around("around", note, 5e6, around),
		CCDF("ccdf", note, "Latency of requests in the window", ccdf),
		CDFs("cdfs", note, "Time after the patch was asked for", "Share of patches", cdfs),
		CDF("survival", note, "Time of looking for it", "Share not found yet", cdf),
		Gantts("gantt", note, []Gantt{gantt("waitfree", false, 9), gantt("barrier", true, 9)}),
		Gantts("gantt-many", note, []Gantt{gantt("waitfree", false, 64), gantt("barrier", true, 64)}),
		Cost("cost", note, "Resident size", KiB, "Cost of one call", Nanoseconds, cost),
		Ratios("ratios", note, "Cost relative to the stock kernel", 1.02, ratios),
		Outcomes("outcomes", note, []string{"waitfree", "barrier", "naive"}, []string{"torn", "mixed", "stale", "lost thread", "crash"}, 0, []int64{300, 300, 300}, [][]int64{{0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}, {250, 41, 0, 3, 12}}),
		Outcomes("fates", note, []string{"blocked, waitfree", "blocked, stopworld"}, []string{"patched", "others patched", "stuck"}, 2, []int64{4, 4}, [][]int64{{3, 0, 1}, {1, 2, 1}}),
	}
}

func TestGallery(t *testing.T) {
	for _, f := range append(gallery(), empty()...) {
		for _, format := range Formats {
			a, err := f.Render(format)
			if err != nil {
				t.Errorf("%s: %v", f.Name, err)
				continue
			}
			b, _ := f.Render(format)
			if !bytes.Equal(a, b) {
				t.Errorf("%s.%s differs when made again", f.Name, format)
			}
			switch format {
			case "png":
				cfg, _, err := image.DecodeConfig(bytes.NewReader(a))
				if want := int(math.Round(f.W.Points() / 72 * pngDPI)); err != nil || abs(cfg.Width-want) > 1 {
					t.Errorf("%s: width %d, want %d, %v", f.Name, cfg.Width, want, err)
				}
			case "svg":
				d := xml.NewDecoder(bytes.NewReader(a))
				for {
					if _, err := d.Token(); err == io.EOF {
						break
					} else if err != nil {
						t.Fatalf("%s: %v", f.Name, err)
					}
				}
				if s := codePage(string(a)); strings.Count(s, "?") != strings.Count(string(a), "?") {
					t.Errorf("%s has characters that its PDF cannot show", f.Name)
				}
				for _, bad := range []string{"NaN", "Inf", "#-"} {
					if bytes.Contains(a, []byte(bad)) {
						t.Errorf("%s.svg contains %s", f.Name, bad)
					}
				}
			}
		}
		if *lookAt != "" {
			if err := os.MkdirAll(*lookAt, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := f.Save(*lookAt); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := gallery()[0].Render("gif"); err == nil {
		t.Error("rendered an unknown format")
	}
}

// empty is every kind of figure without any number, or with ones that have no
// logarithm: drawing must survive whatever a run that was cut short leaves.
func empty() []Figure {
	nan := math.NaN()
	hole := []Line{{Label: "hole", Key: "fork", X: []float64{1, 0, nan, 4}, Y: []float64{0, 1, 1, math.Inf(1)}}, {Label: "one", Key: "seal", X: []float64{3}, Y: []float64{5}}}
	return []Figure{
		Around("e-around", "", 0, nil), Around("e-around1", "", 0, []TimeLine{{Title: "x"}}), Around("e-around2", "", 1, []TimeLine{{Lines: hole}}),
		CCDF("e-ccdf", "", "", nil), CDF("e-cdf", "", "", "", hole), CDF("e-cdf0", "", "", "", nil), CDFs("e-cdfs", "", "", "", nil), CDFs("e-cdfs1", "", "", "", []TimeLine{{Lines: hole}, {}}),
		Gantts("e-gantt", "", nil), Gantts("e-gantt1", "", []Gantt{{}}), Gantts("e-gantt2", "", []Gantt{{From: 0, To: 1, Tracks: []Track{{Over: nan}}}}),
		Cost("e-cost", "", "", KiB, "", Nanoseconds, nil), Cost("e-cost1", "", "", Count, "", Instructions, hole),
		Ratios("e-ratios", "", "", 1.02, nil), Ratios("e-ratios1", "", "", 1.02, []Ratio{{"a", "b", nan, nan, nan}}),
		Outcomes("e-outcomes", "", nil, nil, 0, nil, nil), Outcomes("e-outcomes1", "", []string{"naive"}, []string{"torn"}, 0, []int64{0}, [][]int64{{0}}),
	}
}

// No name may lie on another name or on a curve, for any shape of curves.
func TestLabelsDoNotOverlap(t *testing.T) {
	for seed := range 20 {
		rng := rand.New(rand.NewPCG(uint64(seed), 9))
		var curves [][]vg.Point
		for range 4 {
			var pts []vg.Point
			y, slope := 20+100*rng.Float64(), rng.NormFloat64()*0.3
			for x := 20.0; x < 220; x += 10 {
				y += rng.NormFloat64()*3 + slope*10
				y = min(max(y, 5), 155)
				pts = append(pts, vg.Point{X: vg.Length(x), Y: vg.Length(y)})
			}
			curves = append(curves, pts)
		}
		c := testCanvas(240, 160)
		var boxes []vg.Rectangle
		for i := range curves {
			boxes = append(boxes, placeLabel(&c, fmt.Sprint("label ", i), ink, curves[i], i, curves, boxes))
		}
		for i, b := range boxes {
			for j, o := range boxes[:i] {
				if b.Min.X < o.Max.X && o.Min.X < b.Max.X && b.Min.Y < o.Max.Y && o.Min.Y < b.Max.Y {
					t.Errorf("seed %d: names %d and %d overlap", seed, i, j)
				}
			}
			for j, curve := range curves {
				if boxDistance(b, curve, vg.Length(math.Inf(1))) == 0 {
					t.Errorf("seed %d: name %d lies on curve %d", seed, i, j)
				}
			}
		}
	}
}

// The limit must not change what is below it.
func TestBoxDistanceLimit(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	at := func() vg.Point { return vg.Point{X: vg.Length(rng.Float64() * 100), Y: vg.Length(rng.Float64() * 100)} }
	for range 300 {
		pts := []vg.Point{at(), at(), at()}
		a := at()
		box := vg.Rectangle{Min: a, Max: vg.Point{X: a.X + 10, Y: a.Y + 5}}
		// Second implementation: many points of both.
		want := math.Inf(1)
		for i := 1; i < len(pts); i++ {
			for k := range 401 {
				f := vg.Length(k) / 400
				p := vg.Point{X: pts[i-1].X + f*(pts[i].X-pts[i-1].X), Y: pts[i-1].Y + f*(pts[i].Y-pts[i-1].Y)}
				want = min(want, float64(pointBox(p, box)))
			}
		}
		for _, limit := range []float64{math.Inf(1), 30, 5} {
			if got := float64(boxDistance(box, pts, vg.Length(limit))); math.Abs(got-min(want, limit)) > 0.3 {
				t.Errorf("%v to %v within %v: %v, want %v", box, pts, limit, got, min(want, limit))
			}
		}
	}
}

func abs(i int) int { return max(i, -i) }

func testCanvas(w, h vg.Length) draw.Canvas { return draw.New(vgimg.New(w, h)) }

func labels(t plot.Ticker, lo, hi float64) string {
	var s []string
	for _, tick := range t.Ticks(lo, hi) {
		if !tick.IsMinor() {
			s = append(s, tick.Label)
		}
	}
	return strings.Join(s, " ")
}

func TestCodePage(t *testing.T) {
	for in, want := range map[string]string{"10 µs": "10 \xb5s", "a · b – c × d": "a \xb7 b \x96 c \xd7 d", "≥ 1": "? 1"} {
		if got := codePage(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		got, want string
	}{
		{labels(logTicks{unit: Nanoseconds, max: 7}, 900, 1.1e6), "1 µs 10 µs 100 µs 1 ms"},
		{labels(logTicks{unit: KiB, max: 7}, 1024, 4<<20), "1 MiB 4 MiB 16 MiB 64 MiB 256 MiB 1 GiB 4 GiB"},
		{labels(logTicks{unit: Count, max: 7}, 9, 11000), "10 100 1,000 10,000"},
		{labels(logTicks{unit: Nanoseconds, max: 4}, 1, 1e9), "1 ns 1 µs 1 ms 1 s"},
		{labels(linTicks{unit: Share, n: 5}, 0, 1), "0 0.2 0.4 0.6 0.8 1"},
		{Nanoseconds.Format(999_700), "1 ms"},
		{Nanoseconds.Format(12_345), "12.3 µs"},
		{Instructions.Format(12_345), "12.3 k"},
		{Count.Format(1234567), "1,234,567"},
		{Thousands(-1234), "-1,234"},
		{Share.Format(math.NaN()), "–"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if s := labels(linTicks{n: 5}, 1, 1); s != "" {
		t.Error(s)
	}
	if !strings.Contains(labels(logTicks{unit: Nanoseconds, max: 7}, 1000, 9000), "2 µs") {
		t.Error("a short axis has too few labels")
	}
}
