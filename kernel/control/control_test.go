// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

const answer = "wflp-ctl\t1\nstrategy\twaitfree\ngeneration\t2\n" +
	"patch\tab\t1\t3\tfix one\n" +
	"last\t2\t5\t0\t1\t2\t3\t4\t5\t6\t7\t8\t9\t4\t1\t3\n" +
	"thread\t10\tthread\t2\tyes\tmain\nthread\t11\tunregistered\t-\tno\tother\n" +
	"over\tno\nend\tok\n"

func TestStatus(t *testing.T) {
	lines, err := parse([]byte(answer))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseStatus(7, lines)
	if err != nil {
		t.Fatal(err)
	}
	if s.PID != 7 || s.Strategy != "waitfree" || s.Generation != 2 || s.Over != "no" ||
		len(s.Patches) != 1 || s.Patches[0].Name != "fix one" || s.Patches[0].Functions != 3 ||
		s.Last == nil || s.Last.ReleasedNS != 9 || s.Last.Pulled != 3 || len(s.Threads) != 2 ||
		*s.Threads[0].Generation != 2 || s.Threads[1].Generation != nil || s.Threads[1].Over != "no" {
		t.Errorf("status is %+v", s)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, data := range map[string]string{
		"empty":           "",
		"another service": "SSH-2.0\n",
		"newer":           strings.Replace(answer, "wflp-ctl\t1", "wflp-ctl\t2", 1),
		"cut off":         strings.TrimSuffix(answer, "end\tok\n"),
	} {
		if _, err := parse([]byte(data)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	lines, err := parse([]byte(strings.Replace(answer, "generation\t2", "generation\ttwo", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseStatus(7, lines); err == nil {
		t.Error("a generation that is no number: accepted")
	}
}

func TestRefusal(t *testing.T) {
	_, err := parse([]byte("wflp-ctl\t1\nend\terror\t16\ta patch is in progress\n"))
	if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "in progress") {
		t.Errorf("error is %v", err)
	}
}
