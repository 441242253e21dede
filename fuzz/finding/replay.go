// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"context"
	"fmt"
	"math"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/oracle"
)

// Replayed is what came of a replay.
type Replayed struct {
	Rate
	// Same counts the runs whose console and trace were those of the finding, or
	// of the first run where those are not known, byte for byte.
	Same int
	// Others are the titles of other failures that were seen instead.
	Others map[string]int
	// Last is the result of the last run.
	Last *attempt.Result
}

// Replay runs the finding's attempt n times. Each outcome is told to on, which
// may be nil.
func (f *Finding) Replay(ctx context.Context, run attempt.Runner, n int, on func(run int, r *attempt.Result)) (Replayed, error) {
	out := Replayed{Others: map[string]int{}}
	want := f.Result
	for i := range n {
		res, err := run(ctx, f.Attempt)
		if err != nil {
			return out, fmt.Errorf("replay finding: run %d: %w", i+1, err)
		}
		out.Last = res
		if on != nil {
			on(i+1, res)
		}
		out.count(f.Title, res)
		if got := res.Digest(); want == "" || got == want {
			want = got
			out.Same++
		}
	}
	return out, nil
}

// count adds a run. One in which something else failed is no hit, and is
// undecided if the scenario's turn never came.
func (r *Replayed) count(title string, res *attempt.Result) {
	r.Runs++
	last := res.Outcomes[len(res.Outcomes)-1]
	if last.Title == title {
		r.Hits++
		return
	}
	if o, i := res.First(); i >= 0 {
		if r.Others == nil {
			r.Others = map[string]int{}
		}
		r.Others[o.Title]++
	}
	if last.Verdict.Status != oracle.Pass && last.Verdict.Status != oracle.Violated {
		r.Undecided++
	}
}

// z is the quantile of the normal distribution for an interval of 95 %.
const z = 1.959964

// Interval is the 95 % interval of the rate (Wilson's score interval). It is
// never a point, however many or few hits there were.
func (r Rate) Interval() (low, high float64) {
	if r.Runs == 0 {
		return 0, 1
	}
	n, p := float64(r.Runs), float64(r.Hits)/float64(r.Runs)
	mid := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return max(mid-half, 0), min(mid+half, 1)
}

func (r Rate) String() string {
	low, high := r.Interval()
	s := fmt.Sprintf("%d of %d runs, 95 %% interval %.3f to %.3f", r.Hits, r.Runs, low, high)
	if r.Undecided > 0 {
		s += fmt.Sprintf(", %d undecided", r.Undecided)
	}
	return s
}

// RunsNeeded is how many runs without a hit make it confidence likely that a
// failure of this rate is gone. The rate is taken at the lower end of its
// interval, so that a lucky first sample does not make the answer too bold.
// It is 0 if the rate says nothing.
func (r Rate) RunsNeeded(confidence float64) int {
	low, _ := r.Interval()
	if r.Hits == 0 || low <= 0 || confidence <= 0 || confidence >= 1 {
		return 0
	}
	if low >= 1 {
		return 1
	}
	return max(int(math.Ceil(math.Log(1-confidence)/math.Log(1-low))), 1)
}
