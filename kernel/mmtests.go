// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
)

// MMPackages are what the kernel's mm selftests need of Debian, to be compiled
// and to run.
var MMPackages = []string{"libcap-dev", "libcap2", "libnuma-dev", "libnuma1", "liburing-dev", "liburing2"}

// MMTests are the programs of tools/testing/selftests/mm.
type MMTests struct {
	Programs []Selftest
	// NotBuilt has, by name, why a program could not be compiled.
	NotBuilt map[string]string
	Source   string // version of the kernel's source
}

// mmHelpers are files without a main, and what they are linked to.
var mmHelpers = []struct{ file, prefix string }{
	{"vm_util.c", ""}, {"thp_settings.c", ""}, {"uffd-common.c", "uffd-"},
}

// mmBits is what the kernel's own makefile appends to the names of tests that
// it builds for 32 bits, too.
var mmBits = map[string]string{"protection_keys": "_64", "pkey_sighandler_tests": "_64"}

// mmInclude names what a file forgets to include: stable kernels took a use of
// KSFT_SKIP over into khugepaged.c without the line that brings it.
var mmInclude = map[string]string{"khugepaged": "../kselftest.h"}

// mmRecipe is raised when a change below makes other programs of the same sources.
const mmRecipe = 2

// MMTests builds the kernel's own mm selftests from the source as Debian ships
// it, without the series: linked dynamically, so that a library can be
// preloaded, and against the packages in root besides the host's libc.
//
// The kernel's own makefile is not used: it writes into the source, and stops
// at the first program that cannot be built.
func (b *Builder) MMTests(ctx context.Context, pkgs Packages) (MMTests, error) {
	if b.Log == nil {
		b.Log = io.Discard
	}
	src, err := b.ensureSource(ctx)
	if err != nil {
		return MMTests{}, err
	}
	compiler, err := firstLine(ctx, "gcc", "--version")
	if err != nil {
		return MMTests{}, err
	}
	key, err := json.Marshal([]any{mmRecipe, src.DebSHA256, compiler, pkgs.Versions})
	if err != nil {
		return MMTests{}, fmt.Errorf("name mm selftests: %w", err)
	}
	sum := sha256.Sum256(key)
	dir := filepath.Join(b.CacheDir, "mmtests", hex.EncodeToString(sum[:8]))
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "mmtests"), b.Log)
	if err != nil {
		return MMTests{}, err
	}
	defer unlock()
	if t, err := openMMTests(dir); err == nil {
		return t, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return MMTests{}, fmt.Errorf("make selftest cache: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".build-*")
	if err != nil {
		return MMTests{}, fmt.Errorf("make selftest cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return MMTests{}, fmt.Errorf("make selftest cache: %w", err)
	}
	t, err := b.buildMMTests(ctx, src, pkgs, tmp)
	if err != nil {
		return MMTests{}, err
	}
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return MMTests{}, fmt.Errorf("list mm selftests: %w", err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "mmtests.json"), data, 0o644); err != nil {
		return MMTests{}, fmt.Errorf("list mm selftests: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return MMTests{}, fmt.Errorf("keep mm selftests: %w", err)
	}
	return openMMTests(dir)
}

// openMMTests reads the list; in it paths are relative.
func openMMTests(dir string) (MMTests, error) {
	var t MMTests
	data, err := os.ReadFile(filepath.Join(dir, "mmtests.json"))
	if err != nil {
		return t, fmt.Errorf("open mm selftests: %w", err)
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("parse list of mm selftests: %w", err)
	}
	for i := range t.Programs {
		t.Programs[i].Path = filepath.Join(dir, t.Programs[i].Path)
	}
	return t, nil
}

func (b *Builder) buildMMTests(ctx context.Context, src source, pkgs Packages, out string) (MMTests, error) {
	t := MMTests{NotBuilt: map[string]string{}, Source: src.Version}
	headers := filepath.Join(out, "headers")
	if err := os.MkdirAll(headers, 0o755); err != nil {
		return t, fmt.Errorf("make headers directory: %w", err)
	}
	if _, err := output(ctx, "", "make", "-s", "-C", src.dir, "O="+headers, "ARCH=x86_64", "headers"); err != nil {
		return t, fmt.Errorf("make kernel headers: %w", err)
	}
	// What check_config.sh would write into the source.
	if err := os.WriteFile(filepath.Join(out, "local_config.h"), []byte("#define LOCAL_CONFIG_HAVE_LIBURING 1\n"), 0o644); err != nil {
		return t, fmt.Errorf("configure mm selftests: %w", err)
	}
	dir := filepath.Join(src.dir, selftestDir)
	sources, err := filepath.Glob(filepath.Join(dir, "*.c"))
	if err != nil {
		return t, fmt.Errorf("list mm selftests: %w", err)
	}
	sort.Strings(sources)
	var libs []string
	for _, d := range []string{"usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"} {
		d = filepath.Join(pkgs.Root, d)
		libs = append(libs, "-L", d, "-Wl,-rpath-link,"+d)
	}
	type result struct {
		name string
		err  error
	}
	var wg sync.WaitGroup
	results := make([]result, len(sources))
	slots := make(chan struct{}, runtime.NumCPU())
	for i, s := range sources {
		name := strings.TrimSuffix(filepath.Base(s), ".c")
		args := []string{"-O2", "-g", "-U_FORTIFY_SOURCE", "-no-pie", "-mxsave", "-D_GNU_SOURCE=", "-w",
			"-I", src.dir, "-I", out, "-isystem", filepath.Join(headers, "usr/include"), "-isystem", filepath.Join(src.dir, "tools/include/uapi"),
			"-idirafter", filepath.Join(pkgs.Root, "usr/include"), "-idirafter", filepath.Join(pkgs.Root, "usr/include/x86_64-linux-gnu"),
			// Not the path: some programs make files that are called after __FILE__.
			"-o", filepath.Join(out, name+mmBits[name]), filepath.Base(s)}
		if h := mmInclude[name]; h != "" {
			args = append(args, "-include", h)
		}
		helper := false
		for _, h := range mmHelpers {
			helper = helper || h.file == filepath.Base(s)
			if strings.HasPrefix(name, h.prefix) {
				args = append(args, h.file)
			}
		}
		if helper {
			continue
		}
		args = append(args, libs...)
		args = append(args, "-Wl,--as-needed", "-lcap", "-lnuma", "-luring", "-lrt", "-lpthread", "-ldl", "-lm")
		wg.Add(1)
		go func() {
			defer wg.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			_, err := output(ctx, dir, "gcc", args...)
			results[i] = result{name, err}
		}()
	}
	wg.Wait()
	if ctx.Err() != nil {
		return t, fmt.Errorf("build mm selftests: %w", ctx.Err())
	}
	for _, r := range results {
		switch {
		case r.name == "":
		case r.err != nil:
			t.NotBuilt[r.name] = firstError(r.err)
		default:
			name := r.name + mmBits[r.name]
			t.Programs = append(t.Programs, Selftest{Name: name, Path: name})
		}
	}
	if len(t.Programs) == 0 {
		return t, fmt.Errorf("build mm selftests: %w", errors.New("none of them compiles"))
	}
	if err := os.RemoveAll(headers); err != nil {
		return t, fmt.Errorf("clear headers: %w", err)
	}
	b.logf("kernel %s: %d mm selftests built, %d cannot be", src.Version, len(t.Programs), len(t.NotBuilt))
	return t, nil
}

// firstError is the line of a compiler's complaint that says what is wrong.
func firstError(err error) string {
	for _, l := range strings.Split(err.Error(), "\n") {
		if i := strings.Index(l, "error: "); i >= 0 {
			return l[i+len("error: "):]
		}
	}
	lines := strings.Split(err.Error(), "\n")
	return lines[len(lines)-1]
}
