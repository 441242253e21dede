// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
	var said bytes.Buffer
	inv := &invocation{stdout: &said, stderr: &said, args: []string{"run", "-out", out, "-seed", "20", "-blind", "-batch", "4", "-iterations", "300", "-lanes", "release/deterministic"}}
	err = runFuzz(t.Context(), inv)
	var code *codeError
	switch {
	case err == nil:
		t.Logf("%s", &said)
	case errors.As(err, &code) && code.code == exitFinding:
		t.Errorf("there are findings; `wflp fuzz replay FOLDER` shows one again:\n%s", &said)
	default:
		t.Errorf("fuzz run: %v\n%s", err, &said)
	}
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
			var said bytes.Buffer
			inv := &invocation{stdout: &said, stderr: &said}
			f, kit, err := inv.readFinding(t.Context(), dir)
			if err != nil {
				t.Fatalf("%v\n%s", err, &said)
			}
			full := again(t, f, kit)
			cmd := exec.Command("build/wflp", "fuzz", "replay", full)
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
func again(t *testing.T, f *finding.Finding, kit attempt.Kit) string {
	t.Helper()
	var titles []string
	for range 8 {
		res, err := attempt.Machines(kit, "")(t.Context(), f.Attempt)
		if err != nil {
			t.Fatal(err)
		}
		last := res.Outcomes[len(res.Outcomes)-1]
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
