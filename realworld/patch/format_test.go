// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The loader's header says what a patch file is; this package says it again.
func TestFormatIsTheHeaders(t *testing.T) {
	include, err := filepath.Abs("../../kernel/libwflp/include")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintln(binary.Size(rawHead{}), binary.Size(rawObject{}), binary.Size(rawFunc{}), binary.Size(rawSym{}),
		idOffset, idOffset+32, 8, 8, 24, 56, 60, 8, 16, 20, formatVersion, uint32(byName), symTLS, funcPart) +
		strings.Join([]string{string(magic[:]), secHead, secObjects, secFuncs, secSyms, secStr, secOrigin}, " ") + "\n"
	dir := t.TempDir()
	const program = `
#include <stddef.h>
#include <stdio.h>
#include <wflp-patch.h>
#define O(s, m) offsetof(struct wflp_patch_##s, m)
int main(void)
{
	printf("%zu %zu %zu %zu %zu %zu %zu %zu %zu %zu %zu %zu %zu %zu %u %u %u %u\n",
	       sizeof(struct wflp_patch_head), sizeof(struct wflp_patch_object), sizeof(struct wflp_patch_func), sizeof(struct wflp_patch_sym),
	       O(head, id), O(head, name_off), O(object, build_id), O(func, old_addr), O(func, old_sha256), O(func, name_off), O(func, flags),
	       O(sym, addr), O(sym, name_off), O(sym, flags),
	       WFLP_PATCH_VERSION, WFLP_PATCH_BY_NAME, WFLP_PATCH_SYM_TLS, WFLP_PATCH_FUNC_PART);
	puts(WFLP_PATCH_MAGIC " " WFLP_PATCH_HEAD " " WFLP_PATCH_OBJECTS " " WFLP_PATCH_FUNCS " " WFLP_PATCH_SYMS " " WFLP_PATCH_STR " " WFLP_PATCH_ORIGIN);
	return 0;
}
`
	if err := os.WriteFile(filepath.Join(dir, "f.c"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "gcc", "-I", include, "-o", "f", "f.c")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "f")).Output()
	if err != nil || string(out) != want {
		t.Errorf("the header has\n%sthis package\n%s%v", out, want, err)
	}
}
