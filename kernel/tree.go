// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/wflp/wflp/internal/build"
)

// ErrTreeExists protects work in a tree from being replaced.
var ErrTreeExists = build.ErrTreeExists

// MakeTree makes a git tree to hack in: the source as one commit, the series
// as commits on top of it. An existing tree is left alone.
func (b *Builder) MakeTree(ctx context.Context, dir string) error {
	if b.Log == nil {
		b.Log = io.Discard
	}
	if isDir(dir) {
		return fmt.Errorf("make kernel tree %s: %w", dir, ErrTreeExists)
	}
	src, err := b.ensureSource(ctx)
	if err != nil {
		return err
	}
	series, err := ReadSeries(b.RepoRoot)
	if err != nil {
		return err
	}
	t := build.Tree{Dir: dir, Source: src.dir, SHA256: src.DebSHA256, Version: src.Version, Series: series, Log: b.Log}
	return t.MakeGit(ctx, "mm_view", "linux-source-6.12 "+src.Version)
}

// ExportPatches writes the commits of a tree that follow the import to
// kernel/patches/, replacing what is there.
func (b *Builder) ExportPatches(ctx context.Context, tree string) (int, error) {
	return build.ExportPatches(ctx, tree, filepath.Join(b.RepoRoot, "kernel", "patches"))
}

// treeSeries is the difference of a tree's files from the imported source as
// one patch, with what is not committed yet.
func treeSeries(ctx context.Context, tree string) ([]Patch, error) {
	base, err := build.ImportCommit(ctx, tree)
	if err != nil {
		return nil, err
	}
	// An index of our own, so that new files count and the user's index
	// stays as it is.
	gitDir, err := output(ctx, tree, "git", "rev-parse", "--absolute-git-dir")
	if err != nil {
		return nil, fmt.Errorf("read kernel tree: %w", err)
	}
	tmp, err := os.MkdirTemp("", "wflp-index-")
	if err != nil {
		return nil, fmt.Errorf("read kernel tree: %w", err)
	}
	defer os.RemoveAll(tmp)
	index := filepath.Join(tmp, "index")
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(gitDir)), "index"))
	if err != nil {
		return nil, fmt.Errorf("read kernel tree: %w", err)
	}
	if err := os.WriteFile(index, data, 0o600); err != nil {
		return nil, fmt.Errorf("read kernel tree: %w", err)
	}
	var diff []byte
	for _, args := range [][]string{{"add", "--all"}, {"diff", "--cached", "--binary", "--no-renames", "--no-ext-diff", "--no-color", base}} {
		cmd := command(ctx, tree, "git", args...)
		cmd.Env = append(cmd.Env, "GIT_INDEX_FILE="+index)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("read kernel tree: git %s: %w\n%s", args[0], err, lastLines(stderr.String(), 20))
		}
		diff = stdout.Bytes()
	}
	if len(diff) == 0 {
		return nil, nil
	}
	return []Patch{{Name: "tree.diff", Data: diff}}, nil
}
