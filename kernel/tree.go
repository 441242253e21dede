// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// sourceTag marks the import in a git tree; what follows it is the series.
const sourceTag = "wflp-source"

// treeDate dates the import, so that it has the same commit id everywhere and
// an exported series applies to a tree made elsewhere.
const treeDate = "2024-01-01T00:00:00Z"

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
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make kernel tree: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".tree-*")
	if err != nil {
		return fmt.Errorf("make kernel tree: %w", err)
	}
	defer os.RemoveAll(tmp)
	tree := filepath.Join(tmp, "tree")
	b.logf("kernel tree: copying %s", src.Version)
	// Not hard links: people and editors write into files in place.
	if _, err := output(ctx, "", "cp", "-a", "--reflink=auto", src.dir, tree); err != nil {
		return fmt.Errorf("make kernel tree: %w", err)
	}
	b.logf("kernel tree: importing (a minute or so)")
	git := func(stdin []byte, args ...string) error {
		cmd := command(ctx, tree, "git", args...)
		cmd.Env = append(cmd.Env, "GIT_AUTHOR_DATE="+treeDate, "GIT_COMMITTER_DATE="+treeDate,
			"GIT_COMMITTER_NAME=wflp", "GIT_COMMITTER_EMAIL=wflp@localhost")
		cmd.Stdin = bytes.NewReader(stdin)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("make kernel tree: git %s: %w\n%s", args[0], err, lastLines(out.String(), 20))
		}
		return nil
	}
	steps := [][]string{
		{"init", "--quiet", "--initial-branch=mm_view"},
		{"config", "gc.auto", "0"},
		{"config", "core.autocrlf", "false"},
		{"add", "--all", "--force", "."},
		{"-c", "user.name=wflp", "-c", "user.email=wflp@localhost", "commit", "--quiet", "--no-verify", "-m", "linux-source-6.12 " + src.Version},
		{"tag", sourceTag},
	}
	for _, s := range steps {
		if err := git(nil, s...); err != nil {
			return err
		}
	}
	for _, p := range series {
		if err := git(p.Data, "am", "--quiet", "--keep-non-patch", "--committer-date-is-author-date", "-"); err != nil {
			return fmt.Errorf("apply %s: %w", p.Name, err)
		}
	}
	if err := os.Rename(tree, dir); err != nil {
		return fmt.Errorf("make kernel tree: %w", err)
	}
	b.logf("kernel tree: %s, %d patches on %s", dir, len(series), src.Version)
	return nil
}

// ErrTreeExists protects work in a tree from being replaced.
var ErrTreeExists = errors.New("there is one already")

// ExportPatches writes the commits of a tree that follow the import to
// kernel/patches/, replacing what is there. The options keep the files free of
// what differs between two exports of the same commits.
func (b *Builder) ExportPatches(ctx context.Context, tree string) (int, error) {
	dirty, err := output(ctx, tree, "git", "status", "--porcelain", "--untracked-files=normal")
	if err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	if len(dirty) > 0 {
		return 0, fmt.Errorf("export patches: %s has changes that are not committed:\n%s", tree, lastLines(string(dirty), 10))
	}
	base, err := importCommit(ctx, tree)
	if err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	tmp, err := os.MkdirTemp("", "wflp-patches-")
	if err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	defer os.RemoveAll(tmp)
	if _, err := output(ctx, tree, "git", "-c", "diff.algorithm=myers", "-c", "core.abbrev=12", "-c", "format.useAutoBase=false",
		"-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "-c", "format.thread=false", "-c", "format.encodeEmailHeaders=true",
		"format-patch", "--zero-commit", "--no-signature", "--no-numbered", "--no-base", "--no-thread", "--subject-prefix=PATCH",
		"--quiet", "--output-directory", tmp, base+"..HEAD"); err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	fresh, err := ReadSeriesDir(tmp)
	if err != nil {
		return 0, err
	}
	dst := filepath.Join(b.RepoRoot, "kernel", "patches")
	old, err := ReadSeriesDir(dst)
	if err != nil {
		return 0, err
	}
	keep := map[string]bool{}
	for _, p := range fresh {
		keep[p.Name] = true
		if err := writeFileAtomic(filepath.Join(dst, p.Name), p.Data, 0o644); err != nil {
			return 0, fmt.Errorf("export patches: %w", err)
		}
	}
	for _, p := range old {
		if !keep[p.Name] {
			if err := os.Remove(filepath.Join(dst, p.Name)); err != nil {
				return 0, fmt.Errorf("export patches: %w", err)
			}
		}
	}
	return len(fresh), nil
}

// importCommit finds the commit under the series: the tag, or in a tree that
// was made by hand, the root.
func importCommit(ctx context.Context, tree string) (string, error) {
	for _, args := range [][]string{{"rev-parse", "--verify", "--quiet", sourceTag + "^{commit}"}, {"rev-list", "--max-parents=0", "HEAD"}} {
		out, err := output(ctx, tree, "git", args...)
		if id := strings.TrimSpace(string(out)); err == nil && id != "" && !strings.Contains(id, "\n") {
			return id, nil
		}
	}
	return "", fmt.Errorf("find imported source in %s: no tag %s and no single root commit", tree, sourceTag)
}

// treeSeries is the difference of a tree's files from the imported source as
// one patch, with what is not committed yet.
func treeSeries(ctx context.Context, tree string) ([]Patch, error) {
	base, err := importCommit(ctx, tree)
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
