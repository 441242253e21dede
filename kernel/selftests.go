// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// Selftest is a test program of the series, built to run in the guest.
type Selftest struct {
	Name string
	Path string // on the host
}

// selftestDir and selftestGlob say where the series keeps its tests.
const (
	selftestDir  = "tools/testing/selftests/mm"
	selftestGlob = "mm_view*.c"
)

var mainRE = regexp.MustCompile(`(?m)^(int|void)?\s*main\s*\(|^TEST_HARNESS_MAIN`)

// Selftests builds the tests of the series for a kernel variant: static, and
// with the headers of that very kernel. A file without a main is a helper of
// all others.
//
// The kernel's own makefile is not used: it builds every test of the
// directory, and stops when the host lacks a library for one of them.
func (b *Builder) Selftests(ctx context.Context, variant string) ([]Selftest, error) {
	p, err := b.plan(ctx, variant)
	if err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "build-"+variant), b.Log)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !p.variant.Series {
		return nil, fmt.Errorf("build selftests: variant %s is without the series", variant)
	}
	src, err := b.patchedTree(ctx, p.src, variant, p.series)
	if err != nil {
		return nil, err
	}
	sources, err := filepath.Glob(filepath.Join(src, selftestDir, selftestGlob))
	if err != nil {
		return nil, fmt.Errorf("list selftests: %w", err)
	}
	sort.Strings(sources)
	headers := filepath.Join(b.CacheDir, "build", variant+"-headers")
	if err := os.MkdirAll(headers, 0o755); err != nil {
		return nil, fmt.Errorf("make headers directory: %w", err)
	}
	if _, err := output(ctx, "", "make", "-s", "-C", src, "O="+headers, "ARCH=x86_64", "headers"); err != nil {
		return nil, fmt.Errorf("make kernel headers: %w", err)
	}
	out := filepath.Join(b.CacheDir, "build", variant+"-selftests")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, fmt.Errorf("make selftest directory: %w", err)
	}
	var tests, helpers []string
	vmUtil := false
	for _, s := range sources {
		text, err := os.ReadFile(s)
		if err != nil {
			return nil, fmt.Errorf("read selftest: %w", err)
		}
		vmUtil = vmUtil || strings.Contains(string(text), `"vm_util.h"`)
		if mainRE.Match(text) {
			tests = append(tests, s)
		} else {
			helpers = append(helpers, s)
		}
	}
	if vmUtil {
		helpers = append(helpers, filepath.Join(src, selftestDir, "vm_util.c"))
	}
	var done []Selftest
	for _, s := range tests {
		name := strings.TrimSuffix(filepath.Base(s), ".c")
		program := filepath.Join(out, name)
		// -static-pie is not wanted: norandmaps or not, addresses in a
		// report should be those of the symbol table.
		args := []string{"-std=gnu11", "-O2", "-g", "-Wall", "-static", "-no-pie", "-pthread", "-D_GNU_SOURCE=",
			"-isystem", filepath.Join(headers, "usr/include"), "-I", filepath.Join(src, "tools/testing/selftests"), "-o", program, s}
		args = append(args, helpers...)
		args = append(args, "-lrt", "-lm")
		if _, err := output(ctx, filepath.Join(src, selftestDir), "gcc", args...); err != nil {
			return nil, fmt.Errorf("build selftest %s: %w", name, err)
		}
		done = append(done, Selftest{Name: name, Path: program})
	}
	b.logf("kernel %s: %d selftest programs built", variant, len(done))
	return done, nil
}
