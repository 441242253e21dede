// SPDX-License-Identifier: Apache-2.0

// Package report turns the records of a run into what people read: summary.json,
// report.html, figures and tables.
//
// It is a function of manifest.json and records.jsonl: the same two files give
// the same bytes, on any day and any machine.  Nothing that it states comes from
// elsewhere.  Each number is made in one place (builder.num), which files it in
// the summary with its n, its interval and the units of records that it came
// from; tables, figures and claims take it from there.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/analysis/stats"
	"github.com/wflp/wflp/plots"
)

// Schema is the version of summary.json.
const Schema = 1

// Summary is summary.json.
type Summary struct {
	Schema  int      `json:"schema"`
	Run     Run      `json:"run"`
	Claims  []Claim  `json:"claims"`
	Numbers []Number `json:"numbers"`
	Notes   []string `json:"notes"`
}

// Run says which run it was.
type Run struct {
	Profile string          `json:"profile"`
	Seed    record.Seed     `json:"seed"`
	Started string          `json:"started"`
	Version string          `json:"version"`
	Units   int             `json:"units"`
	Host    record.Host     `json:"host"`
	Main    record.TimeBase `json:"main_time_base"`
}

// Number is one number that the report states.
type Number struct {
	// Name, unique in the summary: e2.tcg.threads=4 util=60%.waitfree.p99.9
	ID string `json:"id"`
	// What it is.
	Text string `json:"text"`
	// ns, instructions, ratio, share, count, exponent, KiB, bytes or pages.
	// A count is of what was run or seen; what something takes has another unit.
	Unit string `json:"unit"`
	// The value and its 95 % interval; null where there is none.
	Value *float64 `json:"value"`
	Lo    *float64 `json:"lo"`
	Hi    *float64 `json:"hi"`
	// How many of what it rests on.
	N  int64  `json:"n"`
	Of string `json:"of"`
	// Keys of the units of records that it came from.
	Records []string `json:"records"`
}

// Whether a claim holds. Unknown is what missing or insufficient data yield; it
// is never taken for true.
const (
	True    = "true"
	False   = "false"
	Unknown = "unknown"
)

// Claim is a statement that the records can refute.
type Claim struct {
	ID string `json:"id"`
	// The claim in words.
	Text string `json:"text"`
	// What must be measured for it to hold.
	Expected string `json:"expected"`
	// What was measured.
	Measured string `json:"measured"`
	// true, false or unknown.
	Holds string `json:"holds"`
	// What would refute it.
	Refute string `json:"refuted_by"`
	// One event refutes it, and no number of runs without one makes up for it.
	OneEvent bool `json:"one_event,omitempty"`
	// IDs of the numbers that it rests on.
	Numbers []string `json:"numbers"`
}

// Make makes summary.json, report.html, figures/ and tables/ in the folder of a
// run again, from its records and manifest alone, and the kill matrix beside them.
func Make(outDir string) error {
	m, err := record.ReadManifest(outDir)
	if err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	units, err := record.ReadAll(outDir)
	if err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	matrix, err := record.ReadMatrix(outDir)
	if err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	r, err := build(m, units, matrix)
	if err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	files, err := r.render(plots.Formats...)
	if err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	return write(outDir, files)
}

// write replaces the files of an earlier report. Old figures must not stay, or
// they would be taken for new ones.
func write(dir string, files map[string][]byte) error {
	for _, sub := range []string{"figures", "tables"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			return fmt.Errorf("remove old %s: %w", sub, err)
		}
	}
	for _, name := range sortedKeys(files) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}

// builder collects what the report says.
type builder struct {
	manifest record.Manifest
	units    []record.Unit
	matrix   *record.Matrix // of E10, if there is one
	summary  Summary
	sections []section
	ids      map[string]bool
	dists    map[*record.Hist]stats.Dist
	// bare leaves intervals and figures out: for values that are wanted of hundreds
	// of resampled runs.
	bare bool
	// resamples of each bootstrap, and of the run where it is compared.
	resamples, redraws int
}

// section is one experiment.
type section struct {
	ID, Question, Method string
	Parts                []part
	// Command makes the figures, if it is not wflp evaluate.
	Command string
	// Missing says why there is nothing to see.
	Missing string
}

// part is a figure with its caption, or a table, or both.
type part struct {
	Figure  *plots.Figure
	Caption string
	Table   *table
}

func build(m record.Manifest, units []record.Unit, matrix *record.Matrix) (*builder, error) {
	b := newBuilder(m, units, matrix)
	return b, b.state()
}

func newBuilder(m record.Manifest, units []record.Unit, matrix *record.Matrix) *builder {
	return &builder{manifest: m, units: units, matrix: matrix, dists: map[*record.Hist]stats.Dist{}, resamples: stats.Resamples, redraws: redraws}
}

// state files all that the report states.
func (b *builder) state() error {
	m, units := b.manifest, b.units
	b.ids, b.sections = map[string]bool{}, nil
	for _, u := range units {
		if k, ok := m.Kernels[u.Boot.Variant]; ok && k.Digest != u.Boot.KernelDigest {
			return fmt.Errorf("read unit %s: it was recorded on another %s kernel (%s) than the manifest names (%s)",
				u.Key, u.Boot.Variant, u.Boot.KernelDigest, k.Digest)
		}
	}
	b.summary = Summary{Schema: Schema, Claims: []Claim{}, Numbers: []Number{}, Notes: []string{}}
	b.summary.Run = Run{
		Profile: m.Profile, Seed: m.Seed, Started: m.Started.UTC().Format("2006-01-02 15:04:05 UTC"), Version: m.Version,
		Units: len(units), Host: m.Host, Main: b.mainBase(),
	}
	b.e0()
	b.e1()
	b.console()
	b.e2()
	b.e3()
	b.e4()
	b.e5()
	b.e6()
	b.e7()
	b.e8()
	b.e9()
	b.e10()
	b.e11()
	b.published()
	b.notes()
	return nil
}

// mainBase is the time base that claims about durations rest on first.
func (b *builder) mainBase() record.TimeBase {
	if len(b.manifest.TimeBases) > 0 {
		return b.manifest.TimeBases[0]
	}
	for _, u := range b.units {
		return u.Boot.TimeBase
	}
	return ""
}

// num files a number.
func (b *builder) num(id, text, unit string, v float64, i stats.Interval, n int64, of string, records []string) Number {
	if b.ids[id] {
		panic("report: number " + id + " stated twice") // a mistake in this package
	}
	b.ids[id] = true
	x := Number{ID: id, Text: text, Unit: unit, Value: pointer(v), Lo: pointer(i.Lo), Hi: pointer(i.Hi), N: n, Of: of, Records: distinct(records)}
	if x.Value == nil || x.Lo == nil || x.Hi == nil {
		x.Lo, x.Hi = nil, nil
	}
	b.summary.Numbers = append(b.summary.Numbers, x)
	return x
}

func (b *builder) claim(c Claim, numbers ...Number) {
	c.Numbers = []string{}
	for _, n := range numbers {
		c.Numbers = append(c.Numbers, n.ID)
	}
	b.summary.Claims = append(b.summary.Claims, c)
}

func (b *builder) note(format string, args ...any) {
	b.summary.Notes = append(b.summary.Notes, fmt.Sprintf(format, args...))
}

func (b *builder) json() ([]byte, error) {
	out, err := json.MarshalIndent(b.summary, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode summary: %w", err)
	}
	return append(out, '\n'), nil
}

// render makes all files.
func (b *builder) render(formats ...string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var err error
	if files["summary.json"], err = b.json(); err != nil {
		return nil, err
	}
	svg := map[string]string{}
	for _, s := range b.sections {
		for _, p := range s.Parts {
			if p.Figure != nil {
				for _, format := range formats {
					img, err := p.Figure.Render(format)
					if err != nil {
						return nil, err
					}
					name := "figures/" + p.Figure.Name + "." + format
					if _, dup := files[name]; dup {
						return nil, errors.New("two figures are named " + p.Figure.Name)
					}
					files[name] = img
					if format == "svg" {
						svg[p.Figure.Name] = string(img)
					}
				}
			}
			if p.Table != nil {
				name := "tables/" + p.Table.Name
				if _, dup := files[name+".csv"]; dup {
					return nil, errors.New("two tables are named " + p.Table.Name)
				}
				if files[name+".csv"], err = p.Table.csv(); err != nil {
					return nil, err
				}
				files[name+".tex"] = p.Table.latex()
			}
		}
	}
	claims := claimTable(b.summary.Claims)
	if files["tables/claims.csv"], err = claims.csv(); err != nil {
		return nil, err
	}
	files["tables/claims.tex"] = claims.latex()
	if files["tables/numbers.tex"], err = b.macros(); err != nil {
		return nil, err
	}
	files["figures/captions.tex"] = b.captions()
	if files["report.html"], err = b.html(svg); err != nil {
		return nil, err
	}
	return files, nil
}

// seed of a bootstrap: a function of what it is for, so that adding a number to
// the report does not shift the others.
func seed(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}

// All intervals are made by these four, which seed them by what they are for.

func (b *builder) resampling(id string) stats.Resampling {
	return stats.Resampling{Seed: seed(id), Times: b.resamples}
}

func (b *builder) bootstrap(id string, n int, statistic func(units []int) float64) stats.Interval {
	if b.bare {
		return stats.NoInterval
	}
	return stats.Bootstrap(b.resampling(id), n, statistic)
}

func (b *builder) bootstrap2(id string, n, m int, statistic func(x, y []int) float64) stats.Interval {
	if b.bare {
		return stats.NoInterval
	}
	return stats.Bootstrap2(b.resampling(id), n, m, statistic)
}

func (b *builder) quantiles(id string, units []stats.Dist, shares []float64) ([]float64, []stats.Interval) {
	if !b.bare {
		return stats.Quantiles(b.resampling(id), units, shares)
	}
	all := stats.Merge(units...)
	q, none := make([]float64, len(shares)), make([]stats.Interval, len(shares))
	for i, p := range shares {
		q[i], none[i] = all.Quantile(p), stats.NoInterval
	}
	return q, none
}

func (b *builder) quantileRatios(id string, x, y []stats.Dist, paired bool, shares []float64) ([]float64, []stats.Interval) {
	if !b.bare {
		return stats.QuantileRatios(b.resampling(id), x, y, paired, shares)
	}
	q, none := b.quantiles(id, x, shares)
	of, _ := b.quantiles(id, y, shares)
	for i := range q {
		q[i] /= of[i]
	}
	return q, none
}

// dist decodes a histogram, once however often it is wanted.
func (b *builder) dist(h *record.Hist) stats.Dist {
	if d, ok := b.dists[h]; ok {
		return d
	}
	var p []stats.Point
	h.Buckets(func(v, n int64) { p = append(p, stats.Point{V: float64(v), N: n}) })
	d := stats.NewDist(p)
	b.dists[h] = d
	return d
}

func pointer(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// value is the number, or NaN.
func (n Number) value() float64 {
	if n.Value == nil {
		return math.NaN()
	}
	return *n.Value
}

func (n Number) interval() stats.Interval {
	if n.Lo == nil || n.Hi == nil {
		return stats.NoInterval
	}
	return stats.Interval{Lo: *n.Lo, Hi: *n.Hi}
}

// String is the number as a reader wants it.
func (n Number) String() string {
	if n.Value == nil {
		return "–"
	}
	return format(*n.Value, n.Unit)
}

// Full is the number with its interval.
func (n Number) Full() string {
	if n.Lo == nil || n.Value == nil {
		return n.String()
	}
	return fmt.Sprintf("%s [%s, %s]", n, format(*n.Lo, n.Unit), format(*n.Hi, n.Unit))
}

func format(v float64, unit string) string {
	switch unit {
	case "ns":
		return plots.Nanoseconds.Format(v)
	case "instructions":
		if s := plots.Instructions.Format(v); v == math.Trunc(v) && math.Abs(v) < 1e6 {
			return plots.Thousands(int64(v))
		} else {
			return s
		}
	case "KiB":
		return plots.KiB.Format(v)
	case "count", "pages", "bytes":
		return plots.Thousands(int64(math.Round(v)))
	case "ratio":
		if math.Abs(v) >= 10 {
			return plots.Share.Format(v)
		}
		if math.Abs(v-1) < 0.1 {
			return fmt.Sprintf("%.4f", v)
		}
		return fmt.Sprintf("%.3f", v)
	case "exponent":
		return noMinus(fmt.Sprintf("%.3f", v))
	case "share":
		return plots.Share.Format(v)
	}
	return plots.Share.Format(v)
}

// noMinus takes the sign from a zero.
func noMinus(s string) string {
	if strings.Trim(s, "-0.") == "" {
		return strings.TrimPrefix(s, "-")
	}
	return s
}

// cellText is a cell as a reader wants it: "4 threads, 60 % load".
func cellText(c record.Cell) string {
	var s []string
	if c.Threads != 0 {
		s = append(s, count(int64(c.Threads), "thread"))
	}
	if c.UtilisationPct != 0 {
		s = append(s, fmt.Sprintf("%d %% load", c.UtilisationPct))
	}
	us := func(v int) string { return plots.Nanoseconds.Format(float64(v) * 1000) }
	if c.IntervalUS != 0 {
		s = append(s, "quiescent every "+us(c.IntervalUS))
	}
	if c.LongPct != 0 || c.LongUS != 0 {
		s = append(s, fmt.Sprintf("%d %% of %s", c.LongPct, us(c.LongUS)))
	}
	if c.BlockedThreads != 0 {
		s = append(s, fmt.Sprintf("%d asleep", c.BlockedThreads))
	}
	if c.StallUS != 0 {
		s = append(s, "stalls of "+us(c.StallUS))
	}
	if c.Births != 0 {
		s = append(s, count(int64(c.Births), "birth"))
	}
	if len(s) == 0 {
		return "one setting"
	}
	return strings.Join(s, ", ")
}

func distinct(s []string) []string {
	out := append([]string{}, s...)
	sort.Strings(out)
	k := 0
	for i, v := range out {
		if i == 0 || v != out[k-1] {
			out[k] = v
			k++
		}
	}
	return out[:k]
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	return keys
}

// strategies in the order in which they are shown.
var strategyOrder = []record.Strategy{record.None, record.WaitFree, record.Barrier, record.StopWorld, record.Restart, record.Naive}

func orderedStrategies[V any](m map[record.Strategy]V) []record.Strategy {
	var out []record.Strategy
	known := map[record.Strategy]bool{}
	for _, s := range strategyOrder {
		known[s] = true
		if _, ok := m[s]; ok {
			out = append(out, s)
		}
	}
	for _, s := range sortedKeys(m) {
		if !known[s] {
			out = append(out, s)
		}
	}
	return out
}

// bases that occur among the units that keep accepts, the main one first.
func (b *builder) bases(keep func(record.Unit) bool) []record.TimeBase {
	seen := map[record.TimeBase]bool{}
	for _, u := range b.units {
		if keep(u) {
			seen[u.Boot.TimeBase] = true
		}
	}
	out := sortedKeys(seen)
	main := b.summary.Run.Main
	sort.SliceStable(out, func(i, j int) bool { return out[i] == main && out[j] != main })
	return out
}

func baseName(t record.TimeBase) string {
	switch t {
	case record.KVM:
		return "kvm: real time"
	case record.TCG:
		return "tcg: emulated, ratios only"
	case record.ICount:
		return "icount: virtual time"
	}
	return string(t)
}

// slug makes a file name of a cell.
func slug(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r == '=' || r == '%':
			return -1
		}
		return '-'
	}, strings.ToLower(s))
}

func boots(n int) string { return count(int64(n), "boot") }

func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") {
		return plots.Thousands(n) + " " + strings.TrimSuffix(noun, "y") + "ies"
	}
	if strings.HasSuffix(noun, "ch") { // patch, batch, search
		return plots.Thousands(n) + " " + noun + "es"
	}
	return plots.Thousands(n) + " " + noun + "s"
}
