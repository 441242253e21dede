// SPDX-License-Identifier: Apache-2.0

package plots

import (
	"fmt"
	"math"
	"strconv"

	"gonum.org/v1/plot"
)

// Unit says what the numbers of an axis are, and so how its ticks read.
type Unit int

const (
	Nanoseconds  Unit = iota // "10 µs"
	Instructions             // "10 k"
	Count                    // "10,000"
	KiB                      // "16 MiB"
	Share                    // "0.5"
)

// Format writes a number of the unit with three significant digits.
func (u Unit) Format(v float64) string {
	switch u {
	case Nanoseconds:
		return scaled(v, 1000, "ns", "µs", "ms", "s")
	case Instructions:
		return scaled(v, 1000, "", "k", "M", "G", "T")
	case KiB:
		return scaled(v, 1024, "KiB", "MiB", "GiB", "TiB")
	case Count:
		return Thousands(int64(math.Round(v)))
	}
	return digits(v)
}

func scaled(v, step float64, names ...string) string {
	i := 0
	// Not 999.6 of one unit, which reads "1000", but 1.00 of the next.
	for i < len(names)-1 && math.Abs(v) >= step*0.9995 {
		v /= step
		i++
	}
	if names[i] == "" {
		return digits(v)
	}
	return digits(v) + " " + names[i]
}

// digits writes three significant digits, and more only before the point.
func digits(v float64) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a >= 1000:
		return Thousands(int64(math.Round(v)))
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	if a < 0.001 { // without an exponent
		round, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
		return strconv.FormatFloat(round, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// Thousands writes an integer with separators: 20,000.
func Thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	neg := ""
	if n < 0 {
		neg, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return neg + s
}

// logTicks puts a labelled tick at each decade (each power of four for sizes),
// at every second or third where they would crowd, and also at 2 and 5 where
// there are few.
type logTicks struct {
	unit Unit
	max  int // labels that fit
}

func (t logTicks) Ticks(lo, hi float64) []plot.Tick {
	base := 10.0
	if t.unit == KiB {
		base = 4
	}
	logb := func(v float64) float64 { return math.Log(v) / math.Log(base) }
	first, last := int(math.Ceil(logb(lo)-1e-9)), int(math.Floor(logb(hi)+1e-9))
	every := 1
	for t.max > 0 && (last-first)/every+1 > t.max {
		every++
	}
	var ticks []plot.Tick
	for e := first - 1; e <= last+1; e++ {
		decade := math.Pow(base, float64(e))
		for _, m := range []float64{1, 2, 3, 4, 5, 6, 7, 8, 9} {
			v := m * decade
			if v < lo*(1-1e-9) || v > hi*(1+1e-9) || m >= base || base == 4 && m > 1 {
				continue
			}
			tick := plot.Tick{Value: v}
			if m == 1 && (e-first)%every == 0 || (m == 2 || m == 5) && last-first < 2 && (last-first < 1 || m == 2 || t.max > 5) {
				tick.Label = t.unit.Format(v)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// linTicks puts about n labelled ticks at round numbers.
type linTicks struct {
	unit Unit
	n    int
	// format, if set, replaces that of the unit.
	format func(float64) string
}

func (t linTicks) Ticks(lo, hi float64) []plot.Tick {
	if !(hi > lo) {
		return nil
	}
	raw := (hi - lo) / float64(max(t.n, 1))
	mag := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * mag
	for _, m := range []float64{1, 2, 2.5, 5} {
		if m*mag >= raw*0.999 {
			step = m * mag
			break
		}
	}
	var ticks []plot.Tick
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi+step*1e-9; i++ {
		v := i*step + 0 // not -0
		label := t.unit.Format(v)
		if t.format != nil {
			label = t.format(v)
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: label})
	}
	return ticks
}

// timeScale is the unit in which a linear time axis up to hi reads well.
func timeScale(hi float64) (div float64, name string) {
	switch {
	case hi >= 2e9:
		return 1e9, "s"
	case hi >= 2e6:
		return 1e6, "ms"
	case hi >= 2e3:
		return 1e3, "µs"
	}
	return 1, "ns"
}

// timeAxis makes a linear axis of nanoseconds and returns its name with the unit.
func timeAxis(axis *plot.Axis, label string, lo, hi float64, n int) string {
	div, name := timeScale(max(math.Abs(lo), math.Abs(hi)))
	axis.Min, axis.Max = lo, hi
	axis.Tick.Marker = linTicks{n: n, format: func(v float64) string { return strconv.FormatFloat(v/div, 'g', 6, 64) }}
	return fmt.Sprintf("%s (%s)", label, name)
}
