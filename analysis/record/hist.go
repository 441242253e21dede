// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histograms cover 1 ns to one hour with three significant digits, so a quantile
// read from one is off by at most 0.1 %.
const (
	histLowest  = 1
	histHighest = int64(3600) * 1_000_000_000
	histDigits  = 3
)

// Hist is a histogram of non-negative nanoseconds: an HdrHistogram, which in
// JSON is its compressed V2 encoding in base64, as every HdrHistogram tool reads
// it.  It is sparse, in memory as on disk.  The zero value is empty and ready for
// use; a nil *Hist reads as empty.
type Hist struct {
	h *hdrhistogram.PackedHistogram
}

func (h *Hist) init() {
	if h.h == nil {
		h.h = hdrhistogram.NewPacked(histLowest, histHighest, histDigits)
	}
}

// HistOf returns the histogram of values.
func HistOf(values []int64) (*Hist, error) {
	h := new(Hist)
	for _, v := range values {
		if err := h.Add(v); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// Add counts one value. A value that the histogram cannot hold is an error: it
// must not vanish, or the worst latency would be the one that is missing.
func (h *Hist) Add(ns int64) error {
	h.init()
	if err := h.h.RecordValue(ns); err != nil {
		return fmt.Errorf("add %d ns to histogram: %w", ns, err)
	}
	return nil
}

// N is the number of values.
func (h *Hist) N() int64 {
	if h == nil || h.h == nil {
		return 0
	}
	return h.h.TotalCount()
}

// Buckets calls f for each value that occurs, in increasing order, with its count.
// The value is the greatest of those that the histogram does not tell apart: what
// is read from a histogram may overstate a latency by 0.1 %, and never hides one.
func (h *Hist) Buckets(f func(ns, count int64)) {
	if h == nil || h.h == nil {
		return
	}
	h.h.ForEachBucket(func(v, n int64) bool {
		f(histUpper(v), n)
		return true
	})
}

// MarshalJSON writes the compressed V2 encoding in base64.
func (h *Hist) MarshalJSON() ([]byte, error) {
	if h == nil {
		return []byte("null"), nil
	}
	h.init()
	b, err := h.h.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	return json.Marshal(string(b)) // base64 already
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Hist) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("decode histogram: %w", err)
	}
	p, err := hdrhistogram.DecodePacked([]byte(s))
	if err != nil {
		return fmt.Errorf("decode histogram: %w", err)
	}
	if p.LowestTrackableValue() != histLowest || p.SignificantFigures() != histDigits {
		return fmt.Errorf("decode histogram: lowest value %d with %d digits, want %d with %d",
			p.LowestTrackableValue(), p.SignificantFigures(), histLowest, histDigits)
	}
	h.h = p
	return nil
}

// histUpper is the greatest value in the bucket that begins at v.  Three digits
// take 2048 sub-buckets: below 2048 every value has its own, and each further
// doubling halves the resolution.
func histUpper(v int64) int64 {
	width := int64(1)
	for v/width >= 2048 {
		width *= 2
	}
	return v + width - 1
}
