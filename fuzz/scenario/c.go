// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"strings"

	"github.com/wflp/wflp/fuzz/driver"
	w "github.com/wflp/wflp/fuzz/fuzzwire"
)

// C makes a C program that needs nothing but a compiler and does what the
// scenario does:
//
//	cc -O2 -static -no-pie -mno-red-zone -pthread -o reproducer reproducer.c
//
// It says by its exit status whether a process died (5) or stood still (4).
// Whether what threads saw was right takes the model; the trace for that is
// written to the file that is its argument.
func (s *Scenario) C() ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, " * cc -O2 -static -no-pie -mno-red-zone -pthread -o reproducer reproducer.c\n *\n"+
		" * Exit status: 0 it ran to its end, 4 it stood still, 5 a process died.\n *\n")
	for i, l := range s.Lists {
		how := "when a fork or spawn names it"
		if l.Start {
			how = "from the start"
		}
		fmt.Fprintf(&b, " * Thread %d, %s:\n", i, how)
		for _, o := range l.Ops {
			fmt.Fprintf(&b, " *   %v\n", o)
		}
	}
	return driver.Reproducer(w.Header, s.Encode(), b.String())
}
