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

// TestBootCountedTwice counts instructions from two checkouts in different folders:
// what the guest runs, and all that the report says, is the same to the byte.
func TestBootCountedTwice(t *testing.T) {
	if os.Getenv("WFLP_BOOT") == "" {
		t.Skip("WFLP_BOOT is not set")
	}
	ctx, said := bounded(t, 15*time.Minute)
	var runs [2]map[string][]byte
	for i := range runs {
		root, out := checkout(t), t.TempDir()
		cmd := exec.CommandContext(ctx, "build/wflp", "evaluate", "-profile", "smoke", "-mode", "deterministic", "-only", "E5,E11", "-out", out)
		cmd.Dir, cmd.Stdout, cmd.Stderr = root, said, said
		if err := cmd.Run(); err != nil {
			t.Fatalf("evaluate: %v, %v", err, context.Cause(ctx))
		}
		m, err := record.ReadManifest(out)
		if err != nil {
			t.Fatal(err)
		}
		runs[i] = map[string][]byte{"digest of the image": []byte(m.ImageDigest)}
		for path, data := range contents(t, filepath.Join(root, "build/guest")) {
			if strings.Contains(filepath.Base(path), "wflp-") {
				runs[i][strings.TrimPrefix(path, root)] = data
			}
		}
		// The only date is that of the start; the records have how long boots took.
		began := []byte(m.Started.UTC().Format("2006-01-02 15:04:05 UTC"))
		for path, data := range contents(t, out) {
			if name := strings.TrimPrefix(path, out); name != "/"+record.LogName && name != "/"+record.ManifestName {
				runs[i][name] = bytes.ReplaceAll(data, began, nil)
			}
		}
	}
	for _, name := range []string{"/summary.json", "/report.html", "/figures/e5-ratios-icount.pdf", "/tables/numbers.tex", "/build/guest/executor/wflp-micro"} {
		if len(runs[0][name]) == 0 {
			t.Errorf("there is no %s", name)
		}
	}
	if len(runs[0]) != len(runs[1]) {
		t.Errorf("%d files, and %d", len(runs[0]), len(runs[1]))
	}
	for name, data := range runs[0] {
		if !bytes.Equal(data, runs[1][name]) {
			t.Errorf("%s is not the same", name)
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
