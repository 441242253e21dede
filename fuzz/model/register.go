// SPDX-License-Identifier: Apache-2.0

package model

import "math"

// span is the time of an operation: from before its call to after its return.
type span struct{ b, e uint64 }

const never = math.MaxUint64

// write is a change of a register, at some moment of its span. One that is not
// must may also not have happened.
type write[T any] struct {
	span
	must bool
	by   int // record that did it, -1: none
	v    T
}

// register holds what was written to one place, in no order.
type register[T any] struct{ ws []*write[T] }

func (r *register[T]) add(s span, must bool, by int, v T) {
	r.ws = append(r.ws, &write[T]{s, must, by, v})
}

// at lists the writes whose value a read may return that happens within s, or
// has what was there at eff, which is s.b or before: see package comment. What
// the reader itself wrote does not count.
func (r *register[T]) at(s span, eff uint64, reader int) []*write[T] {
	last := uint64(0)
	for _, w := range r.ws {
		if w.must && w.e < eff && w.b > last && w.by != reader {
			last = w.b
		}
	}
	var out []*write[T]
	for i, w := range r.ws {
		// What one operation does first is over when it is.
		if i+1 < len(r.ws) && !w.must && w.by >= 0 {
			if next := r.ws[i+1]; next.by == w.by && next.must && next.e < eff {
				continue
			}
		}
		if w.b < s.e && w.e >= last && (w.by != reader || reader < 0) {
			out = append(out, w)
		}
	}
	return out
}
