// SPDX-License-Identifier: Apache-2.0

package vmimages

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"github.com/wflp/wflp/vmimages/guestproto"
)

type entry struct {
	Mode cpio.FileMode
	Data string
}

func unpack(t *testing.T, data []byte) (order []string, entries map[string]entry) {
	t.Helper()
	entries = map[string]entry{}
	r := cpio.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return order, entries
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Linkname != "" {
			body = []byte(h.Linkname)
		}
		order = append(order, h.Name)
		entries[h.Name] = entry{h.Mode, string(body)}
	}
}

func TestArchiveHoldsFilesLinksAndFolders(t *testing.T) {
	data, err := Archive([]File{
		{Path: "/usr/bin/x", Data: []byte("program")},
		{Path: "/init", Data: []byte("i")},
		{Path: "/bin/sh", Link: "busybox"},
	})
	if err != nil {
		t.Fatal(err)
	}
	order, got := unpack(t, data)
	want := map[string]entry{
		"init":      {cpio.TypeReg | 0o755, "i"},
		"usr":       {cpio.TypeDir | 0o755, ""},
		"usr/bin":   {cpio.TypeDir | 0o755, ""},
		"usr/bin/x": {cpio.TypeReg | 0o755, "program"},
		"bin":       {cpio.TypeDir | 0o755, ""},
		"bin/sh":    {cpio.TypeSymlink | 0o777, "busybox"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	at := map[string]int{}
	for i, n := range order {
		at[n] = i
	}
	for n := range want {
		if d := filepath.Dir(n); d != "." && at[d] > at[n] {
			t.Errorf("%s comes before its folder, and the kernel makes no folders", n)
		}
	}
}

func TestArchiveDoesNotDependOnOrder(t *testing.T) {
	a := []File{{Path: "/a", Data: []byte("1")}, {Path: "/d/b", Data: []byte("2")}, {Path: "/d/c", Link: "b"}}
	b := []File{a[2], a[0], a[1]}
	one, err1 := Archive(a)
	two, err2 := Archive(b)
	if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("two orders give %d and %d bytes that differ (%v, %v)", len(one), len(two), err1, err2)
	}
}

func TestArchiveRefuses(t *testing.T) {
	for name, files := range map[string][]File{
		"relative": {{Path: "a"}},
		"root":     {{Path: "/"}},
		"twice":    {{Path: "/a"}, {Path: "/x/../a"}},
		"file/dir": {{Path: "/a"}, {Path: "/a/b"}},
	} {
		if _, err := Archive(files); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestJobArchive(t *testing.T) {
	data, err := JobArchive(guestproto.Job{Seed: 7}, map[string][]byte{"spec": []byte("s"), "/etc/x": nil})
	if err != nil {
		t.Fatal(err)
	}
	_, got := unpack(t, data)
	if got["job/spec"].Data != "s" {
		t.Errorf("a relative name is not in /job: %v", got)
	}
	if _, ok := got["etc/x"]; !ok {
		t.Errorf("an absolute name is not where it says: %v", got)
	}
	if want := `{"steps":null,"seed":7}`; got["job/job.json"].Data != want {
		t.Errorf("job is %q, want %q", got["job/job.json"].Data, want)
	}
}

func TestDynamicProgramNeedsItsLoader(t *testing.T) {
	// Test binaries are static or dynamic depending on the race detector, so
	// a compiler makes one of each.
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	src := filepath.Join(t.TempDir(), "x.c")
	if err := os.WriteFile(src, []byte("int main(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		flag string
		want error
	}{{"-static", nil}, {"-no-pie", errDynamic}} {
		out := strings.TrimSuffix(src, ".c") + tc.flag
		if msg, err := exec.Command(cc, tc.flag, "-o", out, src).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, msg)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkLoader(data, nil); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.flag, err, tc.want)
		}
		files, err := Libraries([]string{out}, t.TempDir(), "/")
		if err != nil {
			t.Fatal(err)
		}
		if dynamic := tc.want != nil; dynamic != (len(files) > 0) {
			t.Errorf("%s: libraries are %v", tc.flag, files)
		}
		if err := checkLoader(data, files); err != nil {
			t.Errorf("%s, with its libraries: %v", tc.flag, err)
		}
	}
	if err := checkLoader([]byte("#!/bin/sh\n"), nil); err != nil {
		t.Errorf("a script: %v", err)
	}
}

func TestImageIsReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the agent")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var sums []string
	for range 2 {
		p, err := Build(t.Context(), Spec{RepoRoot: root, CacheDir: t.TempDir(), Files: []File{{Path: "/bin/hi", Data: []byte("#!/bin/sh\necho hi\n")}}})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		_, files := unpack(t, data)
		if !strings.HasPrefix(files["init"].Data, "\x7fELF") {
			t.Error("the image has no agent")
		}
		sums = append(sums, filepath.Base(p))
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds of one image are %v", sums)
	}
}
