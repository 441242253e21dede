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
		t.Skip("compiles the executor twice")
	}
	var first map[string][]byte
	for _, where := range []string{"here", "in/quite/another/place"} {
		root := filepath.Join(t.TempDir(), where)
		for _, folder := range []string{"kernel/libwflp", "workloads/executor", "workloads/wire"} {
			if err := os.CopyFS(filepath.Join(root, folder), os.DirFS(filepath.Join("..", folder))); err != nil {
				t.Fatal(err)
			}
		}
		dir, err := Programs(t.Context(), root, "workloads/executor")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]byte{}
		for _, name := range []string{"wflp-exec", "wflp-micro"} {
			if got[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(got[name], []byte(root)) {
				t.Errorf("%s names the folder that it was built in", name)
			}
			if first != nil && !bytes.Equal(first[name], got[name]) {
				t.Errorf("%s differs when it is built elsewhere", name)
			}
		}
		first = got
	}
}
