// SPDX-License-Identifier: Apache-2.0

package vmimages

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The programs of the guest are the same bytes from any checkout, wherever it
// lies: what counts instructions must not depend on somebody's home.
func TestProgramsAreReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles them twice")
	}
	programs := map[string][]string{
		"workloads/executor": {"wflp-exec", "wflp-micro"},
		"fuzz/driver":        {"wflp-fuzz"},
		"kernel/libwflp":     {"libwflp.a"},
	}
	first := map[string][]byte{}
	for _, where := range []string{"here", "in/quite/another/place"} {
		root := filepath.Join(t.TempDir(), where)
		for _, folder := range []string{"kernel/libwflp", "workloads/executor", "workloads/wire", "fuzz/driver", "fuzz/fuzzwire"} {
			if err := os.CopyFS(filepath.Join(root, folder), os.DirFS(filepath.Join("..", folder))); err != nil {
				t.Fatal(err)
			}
		}
		for folder, names := range programs {
			dir, err := Programs(t.Context(), root, folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				got, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(got, []byte(root)) {
					t.Errorf("%s names the folder that it was built in", name)
				}
				if before, again := first[name]; again && !bytes.Equal(before, got) {
					t.Errorf("%s differs when it is built elsewhere", name)
				}
				first[name] = got
			}
		}
	}
}
