// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/vm"
)

// Local runs a job on this machine, without a guest: for tests, and to try a
// spec under barrier or naive within milliseconds. There are no views, and
// nobody reads the kernel's log.
type Local struct {
	Executor string // path of wflp-exec
	Dir      string // stands for /job and /tmp of the guest
}

// Run runs the steps one after the other.
func (l Local) Run(ctx context.Context, job guestproto.Job, files map[string][]byte) (*vm.Result, error) {
	here := func(guest string) string {
		switch dir, name := filepath.Split(guest); {
		case guest == Executor:
			return l.Executor
		case dir == "/job/" || dir == "/tmp/":
			return filepath.Join(l.Dir, name)
		}
		return guest
	}
	for name, data := range files {
		if err := os.WriteFile(here(filepath.Join("/job", name)), data, 0o600); err != nil {
			return nil, fmt.Errorf("write job file: %w", err)
		}
	}
	res := &vm.Result{End: vm.Exited}
	start := time.Now()
	for _, step := range job.Steps {
		argv := make([]string, len(step.Argv))
		for i, a := range step.Argv {
			argv[i] = here(a)
		}
		r, err := l.step(ctx, step, argv)
		if err != nil {
			return nil, fmt.Errorf("run step %q: %w", step.Name, err)
		}
		for _, guest := range step.Collect {
			data, err := os.ReadFile(here(guest))
			if errors.Is(err, os.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, fmt.Errorf("collect file: %w", err)
			}
			r.Files[guest] = data
			if err := os.Remove(here(guest)); err != nil {
				return nil, fmt.Errorf("remove collected file: %w", err)
			}
		}
		res.Steps = append(res.Steps, r)
	}
	res.Duration = time.Since(start)
	return res, nil
}

func (l Local) step(ctx context.Context, step guestproto.Step, argv []string) (vm.StepResult, error) {
	r := vm.StepResult{Name: step.Name, Ran: true, Files: map[string][]byte{}}
	limit := ctx
	if step.TimeoutMS > 0 {
		var cancel context.CancelFunc
		limit, cancel = context.WithTimeout(ctx, time.Duration(step.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(limit, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), step.Env...)
	// A child that outlives a killed executor must not hold up the pipes.
	cmd.WaitDelay = 2 * time.Second
	start := time.Now()
	err := cmd.Run()
	r.DurationNS = time.Since(start).Nanoseconds()
	r.Stdout, r.Stderr = stdout.Bytes(), stderr.Bytes()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case limit.Err() != nil:
		r.ExitCode, r.TimedOut = -1, true
	case errors.As(err, &exit):
		r.ExitCode = exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.Signal = unix.SignalName(ws.Signal())
		}
	case err != nil:
		return r, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return r, nil
}
