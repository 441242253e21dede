// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
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
	m, err := parseMutant(Patch{Name: "0123-a-b2.patch", Data: []byte(good)})
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
		if _, err := parseMutant(Patch{Name: c[0], Data: []byte(c[1])}); err == nil {
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
		got, err := mutantObjects(Mutant{Patch: Patch{Name: "p", Data: []byte(text)}})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%v, %v, want %s", got, err, want)
		}
	}
}

// The lane of mutants begins as a copy of the variant's: names of folders follow,
// time stamps stay, and the series' own tree is not written to.
func TestSeedLane(t *testing.T) {
	b, src := tree(t)
	v := Variant{Name: "v", Series: true}
	p := &plan{variant: v, src: src}
	dir, err := b.patchedTree(t.Context(), src, "v", nil)
	if err != nil {
		t.Fatal(err)
	}
	obj := b.objDir(p)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	for name, text := range map[string]string{"vmlinux": dir, "mm/.a.o.cmd": "cc -I" + dir + "/include " + obj, "Makefile": "include " + dir + "/Makefile"} {
		path := filepath.Join(obj, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(obj, "source")); err != nil {
		t.Fatal(err)
	}
	m := *b
	m.Mutant = &Mutant{ID: "0001", Name: "a", Target: TargetKernel}
	if err := m.seedLane(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	to, toTree := m.objDir(p), m.tree(src, "v.mutant", nil).Dir
	for name, want := range map[string]string{"vmlinux": dir, "mm/.a.o.cmd": "cc -I" + toTree + "/include " + to, "Makefile": "include " + toTree + "/Makefile"} {
		got, err := os.ReadFile(filepath.Join(to, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, want %q (%v)", name, got, want, err)
		}
		if st, err := os.Stat(filepath.Join(to, name)); err != nil || !st.ModTime().Equal(old) {
			t.Errorf("%s has another time stamp (%v)", name, err)
		}
	}
	if l, err := os.Readlink(filepath.Join(to, "source")); err != nil || l != toTree {
		t.Errorf("link to %s, want %s (%v)", l, toTree, err)
	}
	if got, want := content(t, toTree), content(t, dir); !reflect.DeepEqual(got, want) {
		t.Errorf("the tree has %v, want %v", got, want)
	}
	want, err := os.ReadFile(dir + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(toTree + ".json"); err != nil || string(got) != string(want) {
		t.Errorf("the tree says that it is made of %q, want %q (%v)", got, want, err)
	}
	// One that is there is left alone.
	if err := os.WriteFile(filepath.Join(to, "Makefile"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.seedLane(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(to, "Makefile")); string(got) != "x" {
		t.Error("a lane that was there has changed")
	}
}
