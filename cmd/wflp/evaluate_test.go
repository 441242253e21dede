// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/evaluation"
)

// TestBootEvaluate is the whole path in small, as a user goes it: an evaluation
// that is killed once and gone on with, a summary that says what it must, and
// figures made again, byte for byte.
func TestBootEvaluate(t *testing.T) {
	if os.Getenv("WFLP_BOOT") == "" {
		t.Skip("WFLP_BOOT is not set")
	}
	ctx, said := bounded(t, 35*time.Minute)
	dir := t.TempDir()
	wflp, out := filepath.Join(dir, "wflp"), filepath.Join(dir, "out")
	if said, err := exec.Command("go", "build", "-o", wflp, ".").CombinedOutput(); err != nil {
		t.Fatalf("build wflp: %v\n%s", err, said)
	}
	evaluate := []string{"evaluate", "-profile", "smoke", "-out", out}
	// Kernels are built in peace, before anything is killed.
	build := exec.CommandContext(ctx, wflp, "kernel", "build", "release", "stock", "debug", "kasan")
	build.Stdout, build.Stderr = said, said
	if err := build.Run(); err != nil {
		t.Fatalf("build kernels: %v, %v", err, context.Cause(ctx))
	}

	cmd := exec.CommandContext(ctx, wflp, evaluate...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if units, err := record.ReadAll(out); err == nil && len(units) >= 3 {
			break
		}
		if time.Now().After(deadline) || cmd.ProcessState != nil {
			t.Errorf("no unit is recorded:\n%s", said)
			break
		}
	}
	// The machines must be in full swing, not between two of them.
	time.Sleep(2 * time.Second)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	before, err := record.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}

	var again bytes.Buffer
	cmd = exec.CommandContext(ctx, wflp, evaluate...)
	cmd.Stdout = io.MultiWriter(&again, said)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		t.Errorf("go on: %v, %v\n%s", err, context.Cause(ctx), &again)
	}
	if !strings.Contains(again.String(), "are in the records already") {
		t.Errorf("it began anew:\n%s", &again)
	}
	after, err := record.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	durations := map[string]int64{}
	for _, u := range after {
		durations[u.Key] = u.Boot.DurationNS
	}
	for _, u := range before {
		if durations[u.Key] != u.Boot.DurationNS {
			t.Errorf("unit %s was run again", u.Key)
		}
	}
	s, err := evaluation.ReadSummary(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := evaluation.Check(s); err != nil {
		t.Errorf("%v\n%s", err, &again)
	}
	if files, _ := filepath.Glob(filepath.Join(out, "machines", "*")); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}

	first := contents(t, out)
	if said, err := exec.Command(wflp, "figures", "-out", out).CombinedOutput(); err != nil {
		t.Fatalf("figures: %v\n%s", err, said)
	}
	second := contents(t, out)
	if len(first) != len(second) || len(first) < 10 {
		t.Errorf("%d files, then %d", len(first), len(second))
	}
	for name, data := range first {
		if !bytes.Equal(data, second[name]) {
			t.Errorf("%s is another one when made again", name)
		}
	}
}

func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
