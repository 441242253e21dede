// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/realworld/patch"
)

func TestDescriptions(t *testing.T) {
	if len(Names()) < 3 {
		t.Errorf("programs are %v", Names())
	}
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := descriptions.ReadFile(name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > 60 {
			t.Errorf("%s takes %d lines", name, n)
		}
		if len(p.Fixes) == 0 {
			t.Errorf("%s has no fix", name)
		}
	}
	if _, err := Find("nothing"); err == nil || !strings.Contains(err.Error(), "known are") {
		t.Errorf("an unknown program: %v", err)
	}
}

func TestMistakesInDescriptionsAreSeen(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	good := `{"source": {"package": "p", "version": "1", "dsc_sha256": "` + sum + `"}, "program": "bin/p", "loops": ["run"],
		"builds": {"": {"edits": [{"file": "a", "old": "b", "new": "c"}]}}, "fixes": [{"name": "f", "patches": ["x"], "refused": "data"}]}`
	p, err := parse("p", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Fix("f"); err != nil {
		t.Error(err)
	}
	if _, err := p.Fix("g"); err == nil || !strings.Contains(err.Error(), "known are f") {
		t.Errorf("an unknown fix: %v", err)
	}
	for _, c := range [][3]string{
		{`"loops"`, `"loop"`, "unknown field"},
		{`["run"]`, `[]`, "loops"},
		{sum, "0a", "source"},
		{`"bin/p"`, `"../p"`, "program"},
		{`"old": "b"`, `"old": ""`, "edit"},
		{`["x"]`, `[]`, "no patches"},
		{`"data"`, `"date"`, "refused"},
		{`"name": "f"`, `"name": "f/g"`, "name"},
		{`"patches": ["x"]`, `"patches": ["x"], "build": "other"`, "no build"},
	} {
		if _, err := parse("p", []byte(strings.Replace(good, c[0], c[1], 1))); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s instead of %s: %v", c[1], c[0], err)
		}
	}
}

func TestSeries(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "debian/patches/series", "# first\none.patch\n\ntwo.patch -p1\nthree.patch # why\n")
	for _, n := range []string{"one", "two", "three"} {
		put(t, dir, "debian/patches/"+n+".patch", "--- a/x.c\n+++ b/"+n+".c\n")
	}
	series, err := readSeries(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := func(list []change) string {
		var s []string
		for _, c := range list {
			s = append(s, strings.TrimSuffix(c.name, ".patch"))
		}
		return strings.Join(s, " ")
	}
	for _, c := range [][3]string{{"one.patch", "", "one"}, {"two.patch", "one", "two"}, {"three.patch one.patch", "", "one three"}} {
		base, fix, err := split(series, strings.Fields(c[0]))
		if err != nil || names(base) != c[1] || names(fix) != c[2] {
			t.Errorf("%s: without is %q, the fix %q, %v", c[0], names(base), names(fix), err)
		}
	}
	if _, _, err := split(series, []string{"four.patch"}); err == nil || !strings.Contains(err.Error(), "no patch four.patch") {
		t.Errorf("a patch that is not there: %v", err)
	}
	if got := series[1].touched(); !slices.Equal(got, []string{"two.c"}) {
		t.Errorf("touched are %v", got)
	}
	put(t, dir, "debian/patches/series", "one.patch -p0\n")
	if _, err := readSeries(dir); err == nil {
		t.Error("-p0 is taken")
	}
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := build.WriteFileAtomic(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A fix moves what is below it, which keeps its line numbers all the same.
func TestLinesAreKept(t *testing.T) {
	const before = "int a(void)\n{\n\treturn __LINE__;\n}\nint b(void)\n{\n\treturn __LINE__;\n}\nint c(void)\n{\n\treturn __LINE__;\n}\n"
	dir := t.TempDir()
	for name, edit := range map[string]func(string) string{
		"longer":  func(s string) string { return strings.Replace(s, "{\n", "{\n\tint x;\n\t(void)x;\n", 1) },
		"shorter": func(s string) string { return strings.Replace(s, "int a(void)\n{\n", "int a(void) {\n", 1) },
		"two": func(s string) string {
			return strings.Replace(strings.Replace(s, "{\n", "{\n\n\n", 1), "b(void)\n{", "b(void) {", 1)
		},
		"as long": func(s string) string { return strings.Replace(s, "return __LINE__", "return 1", 1) },
	} {
		put(t, dir, "was.c", before)
		put(t, dir, "now.c", edit(before))
		if err := keepLines(t.Context(), filepath.Join(dir, "was.c"), filepath.Join(dir, "now.c")); err != nil {
			t.Fatal(err)
		}
		put(t, dir, "main.c", "#include \"now.c\"\n#include <stdio.h>\nint main(void) { printf(\"%d\\n\", c()); return 0; }\n")
		if _, err := build.Output(t.Context(), dir, "gcc", "-o", "main", "main.c"); err != nil {
			t.Fatal(err)
		}
		out, err := build.Output(t.Context(), dir, "./main")
		if err != nil || strings.TrimSpace(string(out)) != "11" {
			text, _ := os.ReadFile(filepath.Join(dir, "now.c"))
			t.Errorf("%s: c is in line %s, %v:\n%s", name, out, err, text)
		}
	}
}

// A program is a short description, or what is said of adding one is not so.
func TestDescriptionsAreShort(t *testing.T) {
	for _, name := range Names() {
		text, err := descriptions.ReadFile(name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n >= 60 {
			t.Errorf("%s.json has %d lines", name, n)
		}
	}
}

func TestEditsFitOnce(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "rules", "a b b\n")
	if err := (Edit{"rules", "a", "c"}).apply(dir); err != nil {
		t.Error(err)
	}
	for _, old := range []string{"b", "x"} {
		if err := (Edit{"rules", old, "c"}).apply(dir); err == nil {
			t.Errorf("%s is replaced, which is not there once", old)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "rules")); err != nil || string(text) != "c b b\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestMissingPackagesAreNamed(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "debian/control", "Source: x\nBuild-Depends: libnothing-of-that-name-dev (>= 1), libnot-needed-dev\n\nPackage: x\nArchitecture: any\n")
	_, err := dependencies(t.Context(), dir, &Program{Unneeded: []string{"libnot-needed-dev"}})
	if !errors.Is(err, ErrPackages) || !strings.Contains(err.Error(), "apt-get install libnothing-of-that-name-dev") || strings.Contains(err.Error(), "not-needed") {
		t.Errorf("got %v", err)
	}
}

// TestKnownFixes builds every program with and without every fix that is
// described, and holds the judgement to the description.
func TestKnownFixes(t *testing.T) {
	cache := os.Getenv("WFLP_PATCH_CACHE")
	if cache == "" {
		t.Skip("WFLP_PATCH_CACHE is not set: builds of real programs take minutes")
	}
	b := &Builder{CacheDir: cache, Log: os.Stderr}
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range p.Fixes {
			t.Run(name+" "+f.Name, func(t *testing.T) {
				got, err := b.Patch(t.Context(), p, f)
				if err != nil {
					t.Fatal(err)
				}
				var kinds []patch.Kind
				for _, r := range got.Refused {
					kinds = append(kinds, r.Kind)
				}
				if f.Refused == "" && len(kinds) > 0 || f.Refused != "" && !slices.Contains(kinds, f.Refused) {
					t.Fatalf("refused for %v, want %q: %+v", kinds, f.Refused, got.Refused)
				}
				if f.Refused != "" {
					return
				}
				info, err := patch.Read(got.File)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d functions, %d bytes, relocations %v", len(info.Functions), len(got.File), got.Relocations)
			})
		}
	}
}
