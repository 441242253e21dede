// SPDX-License-Identifier: Apache-2.0

package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadDsc(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := readDsc(dir); err == nil {
		t.Error("a folder without a .dsc is taken")
	}
	if err := os.WriteFile(filepath.Join(dir, "q_1.dsc"), []byte("Format: 3.0\nVersion: 1:7.2+dfsg-7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, version, err := readDsc(dir); err != nil || version != "1:7.2+dfsg-7" {
		t.Errorf("got %q, %v", version, err)
	}
}

func TestPin(t *testing.T) {
	pin := Pin{"p", "1:7.2+dfsg-7", strings.Repeat("0a", 32)}
	if err := pin.Check(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Pin{{"", pin.Version, pin.DscSHA256}, {"p", "", pin.DscSHA256}, {"p", "1", "00"}, {"p", "1", strings.Repeat("x", 64)}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	patched, plain := &Sources{Apt: &Apt{CacheDir: "/c"}}, &Sources{Apt: &Apt{CacheDir: "/c"}, Unpatched: true}
	a, b := patched.At(pin).Dir, plain.At(pin).Dir
	if a == b || filepath.Dir(a) != "/c/source" || strings.Contains(filepath.Base(a), ":") {
		t.Errorf("sources are in %s and %s", a, b)
	}
}
