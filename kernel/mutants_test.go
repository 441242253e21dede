// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the list of kernel/mutants/README.md")

// table is the list of the README.
func table(ms []Mutant) string {
	var b strings.Builder
	b.WriteString("| | what is wrong | kind | ought to be seen by |\n| --- | --- | --- | --- |\n")
	for _, m := range ms {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", m.ID, m.Name, m.Kind, m.Oracle)
	}
	return b.String()
}

func TestMutants(t *testing.T) {
	ms, err := ReadMutants("..")
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, m := range ms {
		count[m.Target]++
		// A defect of the library is to be seen without a kernel to build.
		if m.Target == TargetLibrary {
			if err := MutatedCopy(t.Context(), "..", m, t.TempDir(), "kernel/libwflp"); err != nil {
				t.Error(err)
			}
		}
	}
	if count[TargetKernel] < 28 || count[TargetLibrary] < 3 {
		t.Errorf("mutants by target: %v", count)
	}
	const begin, end = "<!-- mutants -->\n", "<!-- end -->\n"
	path := filepath.Join("mutants", "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no marks for the list", path)
	}
	if want := table(ms); old != want {
		if !*update {
			t.Fatalf("%s lists other mutants than there are: go test ./kernel -run TestMutants -update", path)
		}
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParseMutant(t *testing.T) {
	const good = "Kind: k\nTarget: kernel\nOracle: o\n  p\nWhy it is a defect: w\n  x\n\ndiff --git a/mm/a.c b/mm/a.c\n--- a/mm/a.c\n"
	m, err := parseMutant(Patch{"0123-a-b2.patch", []byte(good)})
	if err != nil || m.ID != "0123" || m.Name != "a-b2" || m.Kind != "k" || m.Oracle != "o p" || m.Why != "w x" || m.String() != "0123-a-b2" {
		t.Errorf("%+v, %v", m, err)
	}
	for what, c := range map[string][2]string{
		"a name without a number": {"a.patch", good},
		"no kind":                 {"0123-a.patch", strings.Replace(good, "Kind: k\n", "", 1)},
		"two kinds":               {"0123-a.patch", "Kind: j\n" + good},
		"an odd target":           {"0123-a.patch", strings.Replace(good, "kernel", "user", 1)},
		"the wrong target":        {"0123-a.patch", strings.Replace(good, "Target: kernel", "Target: libwflp", 1)},
		"an odd line":             {"0123-a.patch", strings.Replace(good, "  x\n", "x\n", 1)},
		"no file":                 {"0123-a.patch", strings.Replace(good, "diff --git", "diff", 1)},
	} {
		if _, err := parseMutant(Patch{c[0], []byte(c[1])}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := FindMutant("..", "9999"); !errors.Is(err, ErrUnknownMutant) {
		t.Errorf("a mutant that is not there: %v", err)
	}
}

// A mutant is another kernel, in another lane; the series' own digest does not know
// that there are mutants.
func TestMutantIsAnotherKernel(t *testing.T) {
	m := Manifest{Variant: "release", Recipe: 1}
	with := m
	with.Mutant = "0001-a"
	if m.digest() == with.digest() {
		t.Error("a mutant has the digest of the series")
	}
	b := Builder{CacheDir: "/c"}
	mutated := b
	mutated.Mutant = &Mutant{ID: "0001", Name: "a"}
	if b.lane("release") == mutated.lane("release") {
		t.Error("a mutant is built in the lane of the series")
	}
	if got, want := mutated.kernelDir("release", "d"), "/c/kernels/release+0001-a-d"; got != want {
		t.Errorf("folder %s, want %s", got, want)
	}
}

func TestMutantObjects(t *testing.T) {
	for text, want := range map[string]string{
		"diff --git a/mm/a.c b/mm/a.c\ndiff --git a/kernel/b.c b/kernel/b.c\n": "kernel/b.o mm/a.o",
		"diff --git a/include/linux/mm_view.h b/include/linux/mm_view.h\n":     "kernel/exit.o mm/mm_view.o",
	} {
		got, err := mutantObjects(Mutant{Patch: Patch{"p", []byte(text)}})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%v, %v, want %s", got, err, want)
		}
	}
}
