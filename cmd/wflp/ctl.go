// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/wflp/wflp/kernel/control"
)

func init() {
	register(subcommand{
		name: "ctl", about: "patch a running process: ctl [FLAGS] PID status|apply FILE|undo|wait",
		run: runCtl,
	})
}

func runCtl(ctx context.Context, inv *invocation) error {
	fs := inv.flags("ctl")
	asJSON := fs.Bool("json", false, "print the status afterwards as one line of JSON")
	limit := fs.Duration("timeout", 0, "wait: give up after this long (default: never)")
	if err := inv.parse(fs); err != nil {
		return err
	}
	args := fs.Args()
	if len(args) < 2 {
		return usagef("ctl: name a process and what to do: ctl [FLAGS] PID status|apply FILE|undo|wait")
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil || pid <= 0 {
		return usagef("ctl: %q is no process", args[0])
	}
	verb, rest := args[1], args[2:]
	// All threads is what is waited for; the word says so.
	if verb == "wait" && len(rest) == 1 && rest[0] == "--all-threads" {
		rest = nil
	}
	if want := map[string]int{"status": 0, "apply": 1, "undo": 0, "wait": 0}; len(rest) != want[verb] {
		return usagef("ctl: %s takes %d arguments", verb, want[verb])
	}
	switch verb {
	case "status":
		return ctlStatus(ctx, inv, pid, *asJSON, control.Ask)
	case "apply":
		file, err := os.ReadFile(rest[0])
		if err != nil {
			return usagef("read patch: %w", err)
		}
		if err := control.Apply(ctx, pid, file); err != nil {
			return findingError(fmt.Errorf("apply %s to process %d: %w", rest[0], pid, err))
		}
	case "undo":
		if err := control.Undo(ctx, pid); err != nil {
			return findingError(fmt.Errorf("take back the last patch of process %d: %w", pid, err))
		}
	case "wait":
		if *limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not all threads have come over within %v", *limit))
			defer cancel()
		}
		return ctlStatus(ctx, inv, pid, *asJSON, control.Wait)
	default:
		return usagef("ctl: no command %q", verb)
	}
	if *asJSON {
		return ctlJSON(ctx, inv, pid)
	}
	return nil
}

// ctlJSON prints the status and has no opinion on it: a patch was applied, and who
// has come over is the question of wait.
func ctlJSON(ctx context.Context, inv *invocation, pid int) error {
	s, err := control.Ask(ctx, pid)
	if err != nil {
		return err
	}
	return json.NewEncoder(inv.stdout).Encode(s)
}

// ctlStatus prints the status that ask returns. Anything but "no thread can reach old
// code" is a finding.
func ctlStatus(ctx context.Context, inv *invocation, pid int, asJSON bool, ask func(context.Context, int) (*control.Status, error)) error {
	s, err := ask(ctx, pid)
	if s == nil {
		return err
	}
	if asJSON {
		if err := json.NewEncoder(inv.stdout).Encode(s); err != nil {
			return fmt.Errorf("print the status: %w", err)
		}
	} else {
		printStatus(inv.stdout, s)
	}
	if err != nil {
		return findingError(fmt.Errorf("wait for process %d: %w", pid, err))
	}
	if s.Over != "yes" {
		return silentExit(exitFinding)
	}
	return nil
}

func printStatus(w io.Writer, s *control.Status) {
	fmt.Fprintf(w, "process %d, %s, generation %d\n", s.PID, s.Strategy, s.Generation)
	for _, p := range s.Patches {
		fmt.Fprintf(w, "patch %s: %d functions, generation %d, %.12s\n", p.Name, p.Functions, p.Generation, p.ID)
	}
	if l := s.Last; l != nil && l.LastOverNS > 0 {
		fmt.Fprintf(w, "last change: %v from publication to the last thread, %d threads, %d of them moved asleep\n",
			time.Duration(l.LastOverNS-l.PublishedNS), l.Threads, l.Pulled)
	}
	fmt.Fprintf(w, "%8s  %-16s %-12s %-10s %s\n", "thread", "name", "kind", "generation", "newest code")
	for _, t := range s.Threads {
		generation := "-"
		if t.Generation != nil {
			generation = strconv.FormatUint(*t.Generation, 10)
		}
		fmt.Fprintf(w, "%8d  %-16s %-12s %-10s %s\n", t.TID, t.Name, t.Kind, generation, t.Over)
	}
	switch s.Over {
	case "yes":
		fmt.Fprintln(w, "no thread can reach old code")
	case "no":
		fmt.Fprintln(w, "there are threads that can reach old code")
	default:
		fmt.Fprintln(w, "it cannot be told whether a thread can reach old code")
	}
}
