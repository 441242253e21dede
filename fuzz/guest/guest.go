// SPDX-License-Identifier: Apache-2.0

// Package guest runs scenarios in a machine: which program, which files, which
// steps, and which part of what comes back is whose.
package guest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/wflp/wflp/fuzz/model"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
)

// Driver is where a machine has the program that runs scenarios.
const Driver = "/bin/wflp-fuzz"

// Files are what an image needs to run scenarios.
func Files(ctx context.Context, repoRoot string) ([]vmimages.File, error) {
	dir, err := vmimages.Programs(ctx, repoRoot, "fuzz/driver")
	if err != nil {
		return nil, err
	}
	return []vmimages.File{{Path: Driver, Host: filepath.Join(dir, "wflp-fuzz")}}, nil
}

// Job runs scenarios one after the other in one boot.
func Job(list []*scenario.Scenario) (guestproto.Job, map[string][]byte) {
	var job guestproto.Job
	files := map[string][]byte{}
	for i, s := range list {
		name := fmt.Sprintf("s%05d", i)
		files[name] = s.Encode()
		trace := "/tmp/" + name
		job.Steps = append(job.Steps, guestproto.Step{
			Name: name,
			Argv: []string{Driver, "/job/" + name, trace},
			// The driver's own watchdog comes first, with an account of who
			// was stuck; twenty times its limit is what it may take in all.
			TimeoutMS: int64(s.WatchdogMS) * 20,
			Collect:   []string{trace},
		})
	}
	return job, files
}

// Judge makes verdicts of what a machine gave back for a Job of the same list.
func Judge(list []*scenario.Scenario, res *vm.Result) []model.Verdict {
	out := make([]model.Verdict, len(list))
	for i, s := range list {
		out[i] = model.Check(RunOf(s, res, i))
	}
	return out
}

// RunOf collects what a verdict on step i is made from.
func RunOf(s *scenario.Scenario, res *vm.Result, i int) model.Run {
	run := model.Run{Scenario: s, HasViews: res.Hello.MMView}
	if i >= len(res.Steps) {
		run.End.NotRun = true
		return run
	}
	st := res.Steps[i]
	run.End = oracle.End{Code: st.ExitCode, Signal: st.Signal, TimedOut: st.TimedOut, NotRun: !st.Ran}
	for _, b := range st.Files {
		run.Trace = b
	}
	if run.Trace == nil {
		run.TraceErr = errors.New("the machine sent none")
	}
	if st.Error != "" {
		run.TraceErr = errors.New(st.Error)
	}
	for _, c := range vm.Scan(st.Console) {
		if c.Kind != vm.KindMemory && c.Kind != vm.KindRaceElsewhere {
			run.Complaints = append(run.Complaints, c.Title)
		}
	}
	return run
}
