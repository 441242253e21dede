// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/finding"
)

// TestFuzzCampaign looks for something in the series. Each scenario is made from
// the campaign's seed alone, so that all who run this on the same files run the
// same scenarios under the same interleavings, however many processors they have.
func TestFuzzCampaign(t *testing.T) {
	if os.Getenv("WFLP_BOOT") == "" {
		t.Skip("WFLP_BOOT is not set")
	}
	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	// What it finds stays there after the test.
	out := filepath.Join(root, "build", "test", "fuzz")
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	ctx, said := bounded(t, 15*time.Minute)
	inv := &invocation{stdout: said, stderr: said, args: []string{"run", "-out", out, "-seed", "20", "-blind", "-batch", "4", "-iterations", "300", "-lanes", "release/deterministic"}}
	err = runFuzz(ctx, inv)
	var code *codeError
	switch {
	case err == nil:
		t.Logf("%s", said)
	case errors.As(err, &code) && code.code == exitFinding:
		t.Errorf("there are findings; `wflp fuzz replay FOLDER` shows one again:\n%s", said)
	default:
		t.Errorf("fuzz run: %v, %v\n%s", err, context.Cause(ctx), said)
	}
}

// bounded gives a test that starts machines a time of its own, and what it says a
// way to the log at once: what only stands in a buffer is lost when go test kills
// a test that takes too long.
func bounded(t *testing.T, limit time.Duration) (context.Context, *loud) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("%s took longer than %s", t.Name(), limit))
	t.Cleanup(cancel)
	began := time.Now()
	said := &loud{}
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(os.Stderr, "%s: %s of at most %s: %s\n", t.Name(), time.Since(began).Round(time.Second), limit, said.last())
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() { close(done) })
	return ctx, said
}

// loud keeps what is written and writes it to stderr as well.
type loud struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

func (l *loud) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.Write(b)
	return os.Stderr.Write(b)
}

// last is the last whole line.
func (l *loud) last() string {
	lines := strings.Split(l.String(), "\n")
	return lines[max(0, len(lines)-2)]
}

func (l *loud) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept.String()
}

// TestFuzzFindings sees findings on seeded defects again, one of each kind of
// oracle: the model, the kernel itself, and the watchdog. Each is made with the
// kernel of this checkout, and then replayed byte for byte from a copy of its
// folder, by a second checkout that knows nothing of the first.
func TestFuzzFindings(t *testing.T) {
	if os.Getenv("WFLP_BOOT") == "" {
		t.Skip("WFLP_BOOT is not set")
	}
	second := checkout(t)
	thin, err := filepath.Glob("../../fuzz/finding/testdata/*")
	if err != nil || len(thin) < 3 {
		t.Fatalf("findings of the repository: %v, %v", thin, err)
	}
	for _, dir := range thin {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			ctx, said := bounded(t, 15*time.Minute)
			inv := &invocation{stdout: said, stderr: said}
			f, kit, err := inv.readFinding(ctx, dir)
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			full := again(ctx, t, f, kit, said)
			cmd := exec.CommandContext(ctx, "build/wflp", "fuzz", "replay", full)
			cmd.Dir = second
			got, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitFinding {
				t.Errorf("replay in another checkout: %v", err)
			}
			if !bytes.Contains(got, []byte("the same byte for byte")) || !bytes.Contains(got, []byte("shown by 1 of 1 runs")) {
				t.Errorf("the replay was another run:\n%s", got)
			}
		})
	}
}

// again makes a whole folder of a finding, and returns a copy of it that shares no
// file with anything. A kernel that another compiler made, or of a series that has
// changed, interleaves in another way, so some more schedules are tried.
func again(ctx context.Context, t *testing.T, f *finding.Finding, kit attempt.Kit, said io.Writer) string {
	t.Helper()
	var titles []string
	for range 8 {
		res, err := attempt.Machines(kit, "")(ctx, f.Attempt)
		if err != nil {
			t.Fatal(err)
		}
		last := res.Outcomes[len(res.Outcomes)-1]
		fmt.Fprintf(said, "schedule %d: machine %s after %.1f s of at most %s, %q\n", f.Attempt.Schedule, res.End, res.Duration.Seconds(), res.Limit, last.Title)
		if titles = append(titles, last.Title); last.Title != f.Title {
			f.Attempt.Schedule++
			continue
		}
		dir, err := finding.Write(t.TempDir(), finding.Info{Title: f.Title, Attempt: f.Attempt}, kit, res)
		if err != nil {
			t.Fatal(err)
		}
		full := filepath.Join(t.TempDir(), filepath.Base(dir))
		if err := os.CopyFS(full, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		return full
	}
	t.Fatalf("no schedule shows %q with defect %s; seen: %q", f.Title, kit.Kernel.Mutant, titles)
	return ""
}

// checkout makes another checkout of these files, with its tools built.
func checkout(t *testing.T) string {
	t.Helper()
	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		t.Fatalf("list the files of the checkout: %v", err)
	}
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", "build/wflp", "./cmd/wflp")
	build.Dir = dir
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the second checkout: %v\n%s", err, said)
	}
	return dir
}
