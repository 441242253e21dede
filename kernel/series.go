// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/wflp/wflp/internal/build"
)

// ReadSeries reads the series of a checkout. An empty series is a series, too.
func ReadSeries(repoRoot string) ([]Patch, error) {
	return ReadSeriesDir(filepath.Join(repoRoot, "kernel", "patches"))
}

// ReadSeriesDir reads the *.patch files of a folder in the order of their names.
func ReadSeriesDir(dir string) ([]Patch, error) { return build.ReadSeriesDir(dir) }

// tree is the tree of a variant: one for each, since one for all variants would
// have them wait for each other.
func (b *Builder) tree(src source, variant string, series []Patch) build.Tree {
	return build.Tree{
		Dir:    filepath.Join(b.CacheDir, "tree", variant+"-"+filepath.Base(src.dir)),
		Source: src.dir, SHA256: src.DebSHA256, Version: src.Version, Series: series, Log: b.Log,
	}
}

// patchedTree returns the source tree of a variant with the series applied.
// The caller holds the variant's lock until its build is over.
func (b *Builder) patchedTree(ctx context.Context, src source, variant string, series []Patch) (string, error) {
	t := b.tree(src, variant, series)
	return t.Dir, t.Sync(ctx)
}

var (
	// Lines of content begin with a sign or a space, so this begins a file.
	fileRE = regexp.MustCompile(`(?m)^diff --git `)
	// uncompiledRE is of files that no build of a kernel reads.
	uncompiledRE = regexp.MustCompile(`^diff --git a/(MAINTAINERS |Documentation/|tools/testing/selftests/)`)
)

// codeDigest hashes what of a series gets into a kernel: its changes of files in
// their order, but for those of tests and documents, and without what patches say
// to people. So a better test makes no other kernel, and what was measured on a
// kernel stays comparable.
func codeDigest(series []Patch) string {
	var code []Patch
	for _, p := range series {
		end := len(p.Data)
		starts := fileRE.FindAllIndex(p.Data, -1)
		var files []Patch
		for _, at := range slices.Backward(starts) {
			if file := p.Data[at[0]:end]; !uncompiledRE.Match(file) {
				files = append(files, Patch{Data: file})
			}
			end = at[0]
		}
		slices.Reverse(files)
		code = append(code, files...)
	}
	return seriesDigest(code)
}
