// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// Finding is something a checker has against the series.
type Finding struct {
	Checker string // checkpatch or sparse
	Where   string // the patch or the file
	Text    string
}

// Checked is what Check did.
type Checked struct {
	Patches  int // seen by checkpatch, or mutants that were to apply
	Files    int // seen by sparse
	Findings []Finding
}

// Check runs the kernel's own checkers over the series: checkpatch --strict on
// each patch, and sparse on each file that the series touches, of which only
// warnings count that the file does not give without the series.
func (b *Builder) Check(ctx context.Context) (Checked, error) {
	var c Checked
	p, err := b.plan(ctx, "release")
	if err != nil {
		return c, err
	}
	for i, patch := range p.series {
		text, err := checkpatch(ctx, p.src.dir, patch, maintained(p.series[:i+1]))
		if err != nil {
			return c, err
		}
		c.Patches++
		if text != "" {
			c.Findings = append(c.Findings, Finding{"checkpatch", patch.Name, text})
		}
	}
	if err := b.checkMutants(ctx, p, &c); err != nil {
		return c, err
	}
	touched, err := touchedFiles(p.series)
	if err != nil {
		return c, err
	}
	after, files, err := b.sparse(ctx, "release", touched)
	if err != nil {
		return c, err
	}
	before, _, err := b.sparse(ctx, "stock", touched)
	if err != nil {
		return c, err
	}
	c.Files = files
	c.Findings = append(c.Findings, newWarnings(before, after)...)
	return c, nil
}

var (
	patternRE = regexp.MustCompile(`(?m)^\+F:\t(.+)$`)
	newFileRE = regexp.MustCompile(`(?m)^diff --git a/(\S+) .*\nnew file mode `)
)

// maintained tells whether the files that the last patch of a series adds are in
// MAINTAINERS by then. checkpatch asks for that of each patch that adds a file and
// leaves MAINTAINERS alone, as it sees no other patch.
func maintained(series []Patch) bool {
	var patterns []string
	for _, p := range series {
		for _, m := range patternRE.FindAllSubmatch(p.Data, -1) {
			patterns = append(patterns, string(m[1]))
		}
	}
	for _, m := range newFileRE.FindAllSubmatch(series[len(series)-1].Data, -1) {
		if !slices.ContainsFunc(patterns, func(pattern string) bool {
			ok, err := path.Match(pattern, string(m[1]))
			return ok && err == nil
		}) {
			return false
		}
	}
	return true
}

// checkpatch returns what it complains of, or nothing.
func checkpatch(ctx context.Context, src string, patch Patch, maintained bool) (string, error) {
	f, err := os.CreateTemp("", "wflp-*.patch")
	if err != nil {
		return "", fmt.Errorf("run checkpatch: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(patch.Data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("run checkpatch: %w", err)
	}
	args := []string{"scripts/checkpatch.pl", "--strict", "--quiet", "--no-summary", "--show-types", "--color=never"}
	if maintained {
		args = append(args, "--ignore=FILE_PATH_CHANGES")
	}
	cmd := command(ctx, src, "perl", append(args, f.Name())...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("run checkpatch: %w", ctx.Err())
	}
	text := strings.TrimSpace(strings.ReplaceAll(out.String(), f.Name(), patch.Name))
	if err != nil && text == "" {
		return "", fmt.Errorf("run checkpatch on %s: %w", patch.Name, err)
	}
	return text, nil
}

// sparse checks the C files among names that a variant builds, and returns
// the warnings with the number of files.
func (b *Builder) sparse(ctx context.Context, variant string, names []string) (warnings []string, files int, err error) {
	p, err := b.plan(ctx, variant)
	if err != nil {
		return nil, 0, err
	}
	// The objects of the finished build tell which files there are.
	if _, err := b.Build(ctx, variant); err != nil {
		return nil, 0, err
	}
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "build-"+variant), b.Log)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	src := p.src.dir
	if p.variant.Series {
		if src, err = b.patchedTree(ctx, p.src, variant, p.series); err != nil {
			return nil, 0, err
		}
	}
	m := maker{b: b, srcDir: src, obj: b.objDir(p), variant: p.variant}
	// A kernel found in the cache may have been built long ago, in folders
	// that have seen another configuration since.
	m.log = &bytes.Buffer{}
	if err := m.configure(ctx, p); err != nil {
		return nil, 0, err
	}
	var targets []string
	for _, n := range names {
		obj := strings.TrimSuffix(n, ".c") + ".o"
		if strings.HasSuffix(n, ".c") && isFile(filepath.Join(src, n)) && isFile(filepath.Join(m.obj, obj)) {
			targets = append(targets, obj)
		}
	}
	if len(targets) == 0 {
		return nil, 0, nil
	}
	b.logf("kernel %s: sparse on %d files", variant, len(targets))
	cmd := command(ctx, "", "make", m.args(append([]string{"-s", "C=2"}, targets...)...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, 0, fmt.Errorf("run sparse: %w", ctx.Err())
		}
		return nil, 0, fmt.Errorf("run sparse: %w\n%s", err, lastLines(out.String(), 20))
	}
	for _, line := range strings.Split(out.String(), "\n") {
		// gcc speaks, too, where an object is out of date: then a #warning about the
		// configuration is in the one list and not in the other.
		if strings.HasSuffix(line, "[-Wcpp]") {
			continue
		}
		if strings.Contains(line, ": warning: ") || strings.Contains(line, ": error: ") {
			warnings = append(warnings, strings.ReplaceAll(line, src+"/", ""))
		}
	}
	return warnings, len(targets), nil
}

var positionRE = regexp.MustCompile(`:\d+(:\d+)?: `)

// newWarnings are those of after that before does not have. Line numbers do
// not count, the number of equal warnings does.
func newWarnings(before, after []string) []Finding {
	norm := func(w string) string { return positionRE.ReplaceAllString(strings.TrimPrefix(w, "../"), ": ") }
	known := map[string]int{}
	for _, w := range before {
		known[norm(w)]++
	}
	var fs []Finding
	for _, w := range after {
		if known[norm(w)] > 0 {
			known[norm(w)]--
			continue
		}
		file, _, _ := strings.Cut(w, ":")
		fs = append(fs, Finding{"sparse", file, w})
	}
	sort.SliceStable(fs, func(i, j int) bool { return fs[i].Where < fs[j].Where })
	return fs
}
