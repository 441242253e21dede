// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/wflp/wflp/internal/build"
)

func TestDigestCoversEveryInput(t *testing.T) {
	base := Manifest{Recipe: 1, SourceVersion: "v", SourceSHA256: "s", SeriesSHA256: "p", Compiler: "c", Linker: "l", Firmware: map[string]string{"f": "1"}}
	seen := map[string]string{base.digest(): "base"}
	v := reflect.ValueOf(base)
	for i := range v.NumField() {
		m := base
		f := reflect.ValueOf(&m).Elem().Field(i)
		switch name := v.Type().Field(i).Name; f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Int:
			f.SetInt(f.Int() + 1)
		case reflect.Map:
			m.Firmware = map[string]string{"f": "2"}
		default:
			t.Fatalf("field %s is of a kind that this test does not know", name)
		}
		name := v.Type().Field(i).Name
		output := name == "Digest" || name == "Patches" // the series has them
		if other, same := seen[m.digest()]; same != output {
			t.Errorf("%s: digest equals that of %q: %v", name, other, same)
		}
		seen[m.digest()] = name
	}
}

func TestPin(t *testing.T) {
	pin, err := ReadPin("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := pin.Check(); err != nil {
		t.Error(err)
	}
	root := t.TempDir()
	for name, text := range map[string]string{"no file": "", "no version": `{"package":"p","dsc_sha256":"` + strings.Repeat("0", 64) + `"}`, "short hash": `{"package":"p","version":"1","dsc_sha256":"00"}`, "no JSON": "{"} {
		if text != "" {
			if err := build.WriteFileAtomic(filepath.Join(root, "vmimages", "qemu", "source.json"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ReadPin(root); err == nil {
			t.Errorf("%s: no error", name)
		}
		os.Remove(filepath.Join(root, "vmimages", "qemu", "source.json"))
	}
}

// Find knows an emulator by all its inputs but the source, which may be
// another than the pinned one.
func TestFind(t *testing.T) {
	b := &Builder{RepoRoot: "../..", CacheDir: t.TempDir()}
	m, _, err := b.inputs(t.Context())
	if err != nil {
		t.Skip(err)
	}
	if _, err := b.Find(t.Context()); err == nil {
		t.Error("an empty cache has one")
	}
	put := func(m Manifest) {
		t.Helper()
		if err := build.WriteFileAtomic(filepath.Join(b.dir(m.Digest), "manifest.json"), m.json(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	other := m
	other.Compiler += " of yore"
	put(other.with(build.Source{Version: "1", SHA256: strings.Repeat("0", 64)}))
	if found, err := b.Find(t.Context()); err == nil {
		t.Errorf("found one of another compiler: %+v", found.Manifest)
	}
	ours := m.with(build.Source{Version: "1", SHA256: strings.Repeat("1", 64)})
	put(ours)
	if found, err := b.Find(t.Context()); err != nil || found.Manifest.Digest != ours.Digest {
		t.Errorf("found %+v, %v", found.Manifest, err)
	}
}
