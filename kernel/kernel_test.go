// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wflp/wflp/internal/build"
)

func TestParseFragment(t *testing.T) {
	got, err := parseFragment("# words\n\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=n\nCONFIG_D=\"x y\"\nCONFIG_E=-1\n")
	want := []option{{Name: "CONFIG_A", Value: "y"}, {Name: "CONFIG_B"}, {Name: "CONFIG_C"}, {Name: "CONFIG_D", Value: `"x y"`}, {Name: "CONFIG_E", Value: "-1"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
	for _, bad := range []string{"A=y", "CONFIG_A", "CONFIG_A=", "# CONFIG_A is not sett", "CONFIG_A=y\nCONFIG_A=y"} {
		if _, err := parseFragment(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	asked := []option{{"CONFIG_ON", "y", "base"}, {"CONFIG_OFF", "", "base"}, {"CONFIG_N", "64", "base"}, {"CONFIG_MM_VIEW", "y", "base"}}
	none := func(string) bool { return false }
	if err := checkConfig(asked, "CONFIG_ON=y\n# CONFIG_OFF is not set\nCONFIG_N=64\nCONFIG_MM_VIEW=y\n", none); err != nil {
		t.Errorf("all as asked: %v", err)
	}
	err := checkConfig(asked, "CONFIG_OFF=y\nCONFIG_N=8\n", none)
	if err == nil {
		t.Fatal("nothing as asked: no error")
	}
	for _, o := range asked {
		if !strings.Contains(err.Error(), o.Name+":") {
			t.Errorf("the error does not name %s: %v", o.Name, err)
		}
	}
	if err := checkConfig(asked[3:], "", absentOptions(nil)); err != nil {
		t.Errorf("an option of the series, without the series: %v", err)
	}
	series := []Patch{{Name: "a", Data: []byte("+config MM_VIEW\n+\tbool\n")}}
	if err := checkConfig(asked[3:], "", absentOptions(series)); err == nil {
		t.Error("an option that the series defines is missing, and no error")
	}
	if absentOptions(nil)("CONFIG_SMP") {
		t.Error("an option of the source is taken for one of the series")
	}
}

// The fragments of this checkout, so that a mistake in one is found without
// building a kernel.
func TestFragmentsOfVariants(t *testing.T) {
	for _, v := range Variants() {
		opts, err := mergeFragments("..", v.Fragments)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		pvh := false
		for _, o := range opts {
			pvh = pvh || o.Name == "CONFIG_PVH" && o.Value == "y"
		}
		if pvh != v.PVH {
			t.Errorf("%s: the table says PVH %v, the fragments %v", v.Name, v.PVH, pvh)
		}
	}
}

func TestLaterFragmentWins(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "kernel", "config")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a": "CONFIG_X=y\nCONFIG_Y=y\n", "b": "# CONFIG_X is not set\n"} {
		if err := os.WriteFile(filepath.Join(dir, name+".config"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opts, err := mergeFragments(root, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := formatOptions(opts), "# CONFIG_X is not set\nCONFIG_Y=y\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDigestCoversEveryInput(t *testing.T) {
	base := Manifest{Variant: "v", Recipe: 1, SourceVersion: "1", SourceSHA256: "a", SeriesSHA256: "b", Options: "c", Make: []string{"f"}, Compiler: "d", Linker: "e"}
	result := map[string]bool{"Digest": true, "Release": true, "Patches": true}
	v := reflect.ValueOf(base)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		changed := base
		switch f := reflect.ValueOf(&changed).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Int:
			f.SetInt(f.Int() + 1)
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"f", "g"}))
		default:
			t.Fatalf("field %s has a kind this test does not know", name)
		}
		if differs := changed.digest() != base.digest(); differs == result[name] {
			t.Errorf("field %s: a change changes the digest: %v", name, differs)
		}
	}
}

func TestSeriesDigestSeesOrderAndBoundaries(t *testing.T) {
	a, b := Patch{Name: "1", Data: []byte("xy")}, Patch{Name: "2", Data: []byte("z")}
	seen := map[string]bool{}
	for _, s := range [][]Patch{nil, {a}, {a, b}, {b, a}, {{Name: "1", Data: []byte("x")}, {Name: "2", Data: []byte("yz")}}} {
		seen[seriesDigest(s)] = true
	}
	if len(seen) != 5 {
		t.Errorf("5 series have %d digests", len(seen))
	}
}

func TestCodeDigestIsOfWhatIsCompiled(t *testing.T) {
	patch := func(subject string, files ...string) Patch {
		text := "Subject: " + subject + "\n---\n"
		for _, f := range files {
			text += "diff --git a/" + f + " b/" + f + "\n+++ b/" + f + "\n+x\n"
		}
		return Patch{Data: []byte(text)}
	}
	code := codeDigest([]Patch{patch("one", "mm/a.c"), patch("two", "mm/b.c")})
	for _, same := range [][]Patch{
		{patch("1", "mm/a.c", "MAINTAINERS"), patch("2", "Documentation/mm/a.rst", "mm/b.c")},
		{patch("one", "mm/a.c"), patch("a test", "tools/testing/selftests/mm/a.c"), patch("two", "mm/b.c")},
	} {
		if codeDigest(same) != code {
			t.Errorf("another kernel: %s", same)
		}
	}
	for _, other := range [][]Patch{
		{patch("one", "mm/a.c")},
		{patch("two", "mm/b.c"), patch("one", "mm/a.c")},
		{patch("one", "mm/a.c"), patch("two", "mm/b.c", "tools/objtool/a.c")},
		{patch("one", "mm/a.c"), patch("two", "mm/MAINTAINERS.c")},
	} {
		if codeDigest(other) == code {
			t.Errorf("the same kernel: %s", other)
		}
	}
}

func TestMaintained(t *testing.T) {
	adds := func(file, more string) Patch {
		return Patch{Data: []byte("diff --git a/" + file + " b/" + file + "\nnew file mode 100644\n+x\n" + more)}
	}
	entry := "diff --git a/MAINTAINERS b/MAINTAINERS\n+F:\tmm/test/view*\n"
	for _, c := range []struct {
		series []Patch
		want   bool
	}{
		{[]Patch{adds("mm/test/view_a.c", "")}, false},
		{[]Patch{adds("mm/test/view_a.c", entry)}, true},
		{[]Patch{adds("mm/test/view_a.c", entry), adds("mm/test/view_b.c", "")}, true},
		{[]Patch{adds("mm/test/view_b.c", ""), adds("mm/test/other.c", entry)}, false},
		{[]Patch{adds("mm/test/view_a.c", entry), {Data: []byte("diff --git a/mm/a.c b/mm/a.c\n+x\n")}}, true},
	} {
		if got := maintained(c.series); got != c.want {
			t.Errorf("%d patches, the last %q: %v", len(c.series), c.series[len(c.series)-1].Data, got)
		}
	}
}

func TestNewestVersion(t *testing.T) {
	madison := ` linux-source-6.12 | 6.12.9-1~deb12u1 | http://x bookworm-security/main amd64 Packages
 linux-source-6.12 | 6.12.101-1~deb12u1 | http://x bookworm-security/main amd64 Packages
 linux-source-6.12 | 6.12.101-2~deb12u1 | http://x bookworm-security/main amd64 Packages
 linux-source-6.12 | odd | http://x
`
	if got := newestVersion(madison); got != "6.12.101-2~deb12u1" {
		t.Errorf("got %q", got)
	}
	if got := newestVersion("N: nothing\n"); got != "" {
		t.Errorf("got %q from nothing", got)
	}
}

// tree is a small source with a builder around it.
func tree(t *testing.T) (*Builder, source) {
	t.Helper()
	cache := t.TempDir()
	src := source{Version: "1", DebSHA256: "s", dir: filepath.Join(cache, "source", "1")}
	for name, text := range map[string]string{"a.c": "one\ntwo\nthree\n", "dir/b.c": "b\n", "c.c": "c\n"} {
		if err := writeFileAtomic(filepath.Join(src.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Builder{CacheDir: cache, Log: io.Discard}, src
}

const (
	changeA = "diff --git a/a.c b/a.c\n--- a/a.c\n+++ b/a.c\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
	// On top of changeA.
	changeA2 = "diff --git a/a.c b/a.c\n--- a/a.c\n+++ b/a.c\n@@ -1,3 +1,3 @@\n one\n-TWO\n+zwei\n three\n"
	addN     = "diff --git a/new/n.c b/new/n.c\nnew file mode 100644\n--- /dev/null\n+++ b/new/n.c\n@@ -0,0 +1 @@\n+n\n"
	removeC  = "diff --git a/c.c b/c.c\ndeleted file mode 100644\n--- a/c.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-c\n"
)

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPatchedTree(t *testing.T) {
	b, src := tree(t)
	pristine := content(t, src.dir)
	for _, tc := range []struct {
		name   string
		series []Patch
		want   map[string]string
	}{
		{"empty", nil, pristine},
		{"one", []Patch{{Name: "1", Data: []byte(changeA)}}, map[string]string{"a.c": "one\nTWO\nthree\n", "dir/b.c": "b\n", "c.c": "c\n"}},
		{"two", []Patch{{Name: "1", Data: []byte(changeA)}, {Name: "2", Data: []byte(changeA2)}}, map[string]string{"a.c": "one\nzwei\nthree\n", "dir/b.c": "b\n", "c.c": "c\n"}},
		{"files", []Patch{{Name: "1", Data: []byte(addN + removeC)}}, map[string]string{"a.c": "one\ntwo\nthree\n", "dir/b.c": "b\n", "new/n.c": "n\n"}},
		{"none again", nil, pristine},
	} {
		dir, err := b.patchedTree(t.Context(), src, "v", tc.series)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if got := content(t, dir); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
		if got := content(t, src.dir); !reflect.DeepEqual(got, pristine) {
			t.Fatalf("%s: the source itself has changed: %v", tc.name, got)
		}
	}
}

func TestTreeTouchesOnlyWhatDiffers(t *testing.T) {
	b, src := tree(t)
	dir, err := b.patchedTree(t.Context(), src, "v", []Patch{{Name: "1", Data: []byte(changeA)}})
	if err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1000, 0)
	for name := range content(t, dir) {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	// Another name, another series, but a.c comes out the same.
	if _, err := b.patchedTree(t.Context(), src, "v", []Patch{{Name: "other", Data: []byte(changeA)}, {Name: "2", Data: []byte(addN)}}); err != nil {
		t.Fatal(err)
	}
	for name := range content(t, dir) {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if touched := !st.ModTime().Equal(old); touched != (name == "new/n.c") {
			t.Errorf("%s: written again: %v", name, touched)
		}
	}
}

func TestTreeRecoversFromInterruption(t *testing.T) {
	b, src := tree(t)
	dir, err := b.patchedTree(t.Context(), src, "v", nil)
	if err != nil {
		t.Fatal(err)
	}
	// As if killed after the state was noted and one file was written.
	if err := writeFileAtomic(dir+".json", []byte(`{"source":"s","digest":"","touched":["a.c","new/n.c"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeFileAtomic(filepath.Join(dir, "new/n.c"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if dir, err = b.patchedTree(t.Context(), src, "v", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := content(t, dir), content(t, src.dir); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPatchThatDoesNotApplyIsAnError(t *testing.T) {
	b, src := tree(t)
	_, err := b.patchedTree(t.Context(), src, "v", []Patch{{Name: "good.patch", Data: []byte(changeA)}, {Name: "bad.patch", Data: []byte(changeA)}})
	if err == nil || !strings.Contains(err.Error(), "bad.patch") {
		t.Errorf("got %v, want an error that names bad.patch", err)
	}
	if _, err := b.patchedTree(t.Context(), src, "v", []Patch{{Name: "x", Data: []byte(strings.ReplaceAll(changeA, "a.c", "../../a.c"))}}); err == nil {
		t.Error("a patch that leaves the tree is applied")
	}
}

func TestMakeTreeAndExport(t *testing.T) {
	b, src := tree(t)
	b.RepoRoot = t.TempDir()
	pin := Pin{Package: "p", Version: "1", DebSHA256: strings.Repeat("0", 64), Tarball: "t", Top: "top"}
	if err := os.Rename(src.dir, b.sourceDir(pin.Version, pin.DebSHA256)); err != nil {
		t.Fatal(err)
	}
	if err := writeFileAtomic(filepath.Join(b.RepoRoot, "kernel", "source.json"),
		[]byte(`{"package":"p","version":"1","deb_sha256":"`+pin.DebSHA256+`","tarball":"t","top":"top"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "linux")
	if err := b.MakeTree(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := b.MakeTree(t.Context(), dir); !errors.Is(err, ErrTreeExists) {
		t.Errorf("a second tree: %v", err)
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=n", "-c", "user.email=e@example.org"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.c"), []byte("one\nTWO\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ExportPatches(t.Context(), dir); err == nil {
		t.Error("a tree with changes that are not committed was exported")
	}
	series, err := treeSeries(t.Context(), dir)
	if err != nil || len(series) != 1 || !bytes.Contains(series[0].Data, []byte("+TWO")) {
		t.Errorf("what is not committed is not built: %v (%v)", series, err)
	}
	git("commit", "-q", "-a", "-m", "a: write two large", "-m", "Because.")
	n, err := b.ExportPatches(t.Context(), dir)
	if err != nil || n != 1 {
		t.Fatalf("exported %d, %v", n, err)
	}
	first, err := ReadSeries(b.RepoRoot)
	if err != nil {
		t.Fatal(err)
	}
	// A tree made of the exported series exports the same bytes.
	again := filepath.Join(t.TempDir(), "linux")
	if err := b.MakeTree(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ExportPatches(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	second, err := ReadSeries(b.RepoRoot)
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("exported, applied, exported: %s\n---\n%s (%v)", first, second, err)
	}
}

func TestLockIsExclusiveAndListensToContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	unlock, err = lockFile(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestEnvironmentOfABuild(t *testing.T) {
	got := build.CleanEnv([]string{"PATH=/bin", "MAKEFLAGS=-j9", "MAKELEVEL=1", "KBUILD_OUTPUT=/x", "GIT_DIR=/y", "LC_ALL=de", "CC=clang", "HOME=/h"})
	want := []string{"PATH=/bin", "HOME=/h", "LC_ALL=C", "TZ=UTC"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestUnknownVariant(t *testing.T) {
	if _, err := VariantByName("nope"); !errors.Is(err, ErrUnknownVariant) || !strings.Contains(err.Error(), "release") {
		t.Errorf("got %v", err)
	}
}

func TestNewWarnings(t *testing.T) {
	before := []string{"mm/a.c:10:5: warning: x", "mm/b.c:1: warning: y", "./inc/h.h:3:1: warning: z"}
	after := []string{"mm/a.c:99:7: warning: x", "mm/a.c:100:7: warning: x", "mm/c.c:1:1: warning: y", "./inc/h.h:30:1: warning: z"}
	var got []string
	for _, f := range newWarnings(before, after) {
		got = append(got, f.Text)
	}
	want := []string{"mm/a.c:100:7: warning: x", "mm/c.c:1:1: warning: y"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFirstErrorOfCompiler(t *testing.T) {
	err := errors.New("run gcc: exit status 1\nx.c: In function 'main':\nx.c:5:9: error: 'Y' undeclared\nx.c:6:1: error: more")
	if got := firstError(err); got != "'Y' undeclared" {
		t.Errorf("the first error is %q", got)
	}
	if got := firstError(errors.New("run gcc: killed")); got != "run gcc: killed" {
		t.Errorf("without a line of the compiler it is %q", got)
	}
}
