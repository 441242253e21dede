// SPDX-License-Identifier: Apache-2.0

package vmimages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Programs has make build what folder's Makefile does, or the targets of it, and
// returns where that is, outside of the sources. Two processes may do so at once; make itself would
// not like that.
func Programs(ctx context.Context, repoRoot, folder string, targets ...string) (dir string, err error) {
	dir = filepath.Join(repoRoot, "build", "guest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", folder, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", folder, err)
	}
	defer lock.Close() // and with it the lock goes
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("build %s: lock: %w", folder, err)
	}
	// Object files of one name are in more than one folder.
	dir = filepath.Join(dir, filepath.Base(folder))
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", filepath.Join(repoRoot, folder), "BUILD="+dir)
	cmd.Args = append(cmd.Args, targets...)
	for _, kv := range os.Environ() {
		// A make above must not lend this one its job slots or variables.
		if name, _, _ := strings.Cut(kv, "="); !strings.HasPrefix(name, "MAKE") && name != "MFLAGS" {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", folder, err, out)
	}
	return dir, nil
}
