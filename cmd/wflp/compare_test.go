// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wflp/wflp/analysis/record"
)

// costsRun leaves a run of one operation in a folder; a boot costs a little more
// than the one before.
func costsRun(t *testing.T, profile string, cost int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := record.WriteManifest(dir, record.Manifest{Profile: profile, TimeBases: []record.TimeBase{record.ICount}}); err != nil {
		t.Fatal(err)
	}
	l, err := record.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, variant := range []string{"release", "stock"} {
		for i := range 6 {
			m := record.Micro{Experiment: "E5", Bench: "page-fault", Setting: "view", Batch: 1, ValuesNS: []int64{cost + int64(i), cost + int64(i)}}
			if variant == "stock" {
				m.Setting, m.ValuesNS = "stock", []int64{5000 + int64(i), 5000 + int64(i)}
			}
			u := record.Unit{Key: record.Key("e5", record.ICount, variant, i), Boot: record.Boot{TimeBase: record.ICount, Variant: variant, End: record.EndExited}, Micros: []record.Micro{m}}
			if err := l.Append(u); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCompareCommand(t *testing.T) {
	a, b, more, other := costsRun(t, "quick", 5000), costsRun(t, "quick", 5001), costsRun(t, "quick", 6000), costsRun(t, "full", 5000)
	page := filepath.Join(t.TempDir(), "diff.html")
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{a, b}, exitOK, "None of ", ""},
		{[]string{"-html", page, a, more}, exitFinding, "e5.icount.page-fault.view.cost", ""},
		{[]string{a, other}, exitUsage, "", "profiles are quick and full"},
		{[]string{a}, exitUsage, "", "two folders"},
		{[]string{a, filepath.Join(a, "nothing")}, exitUsage, "", "manifest"},
	} {
		var out, errs bytes.Buffer
		code := run(context.Background(), nil, &out, &errs, append([]string{"compare"}, c.args...))
		if code != c.code || !strings.Contains(out.String(), c.stdout) || !strings.Contains(errs.String(), c.stderr) {
			t.Errorf("compare %v: exit code %d, want %d\n%s%s", c.args, code, c.code, &out, &errs)
		}
	}
	if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte("20 %</td>")) {
		t.Errorf("the page lacks the change: %v", err)
	}
	var out bytes.Buffer
	run(context.Background(), nil, &out, &out, []string{"compare", "-json", a, more})
	var got struct{ Numbers []struct{ Verdict string } }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got.Numbers) == 0 || got.Numbers[0].Verdict != "changed" {
		t.Errorf("JSON: %v\n%s", err, &out)
	}
}
