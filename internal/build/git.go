// SPDX-License-Identifier: Apache-2.0

package build

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

// MakeGit makes a git tree to hack in: the source as one commit with this
// subject, the series as commits on top of it. An existing tree is left alone.
func (t Tree) MakeGit(ctx context.Context, branch, subject string) error {
	dir := t.Dir
	log := t.Log
	if log == nil {
		log = io.Discard
	}
	if IsDir(dir) {
		return fmt.Errorf("make tree %s: %w", dir, ErrTreeExists)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make tree: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".tree-*")
	if err != nil {
		return fmt.Errorf("make tree: %w", err)
	}
	defer os.RemoveAll(tmp)
	tree := filepath.Join(tmp, "tree")
	fmt.Fprintf(log, "tree: copying %s\n", t.Version)
	// Not hard links: people and editors write into files in place.
	if _, err := Output(ctx, "", "cp", "-a", "--reflink=auto", t.Source, tree); err != nil {
		return fmt.Errorf("make tree: %w", err)
	}
	fmt.Fprintln(log, "tree: importing (a minute or so)")
	git := func(stdin []byte, args ...string) error {
		cmd := Command(ctx, tree, "git", args...)
		cmd.Env = append(cmd.Env, "GIT_AUTHOR_DATE="+treeDate, "GIT_COMMITTER_DATE="+treeDate,
			"GIT_COMMITTER_NAME=wflp", "GIT_COMMITTER_EMAIL=wflp@localhost")
		cmd.Stdin = bytes.NewReader(stdin)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("make tree: git %s: %w\n%s", args[0], err, LastLines(out.String(), 20))
		}
		return nil
	}
	steps := [][]string{
		{"init", "--quiet", "--initial-branch=" + branch},
		{"config", "gc.auto", "0"},
		{"config", "core.autocrlf", "false"},
		{"add", "--all", "--force", "."},
		{"-c", "user.name=wflp", "-c", "user.email=wflp@localhost", "commit", "--quiet", "--no-verify", "-m", subject},
		{"tag", sourceTag},
	}
	for _, s := range steps {
		if err := git(nil, s...); err != nil {
			return err
		}
	}
	for _, p := range t.Series {
		if err := git(p.Data, "am", "--quiet", "--keep-non-patch", "--committer-date-is-author-date", "-"); err != nil {
			return fmt.Errorf("apply %s: %w", p.Name, err)
		}
	}
	if err := os.Rename(tree, dir); err != nil {
		return fmt.Errorf("make tree: %w", err)
	}
	fmt.Fprintf(log, "tree: %s, %d patches on %s\n", dir, len(t.Series), t.Version)
	return nil
}

// ErrTreeExists protects work in a tree from being replaced.
var ErrTreeExists = errors.New("there is one already")

// ExportPatches writes the commits of a git tree that follow the import to the
// folder dst, replacing what is there. The options keep the files free of
// what differs between two exports of the same commits.
func ExportPatches(ctx context.Context, tree, dst string) (int, error) {
	dirty, err := Output(ctx, tree, "git", "status", "--porcelain", "--untracked-files=normal")
	if err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	if len(dirty) > 0 {
		return 0, fmt.Errorf("export patches: %s has changes that are not committed:\n%s", tree, LastLines(string(dirty), 10))
	}
	base, err := ImportCommit(ctx, tree)
	if err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	tmp, err := os.MkdirTemp("", "wflp-patches-")
	if err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	defer os.RemoveAll(tmp)
	if _, err := Output(ctx, tree, "git", "-c", "diff.algorithm=myers", "-c", "core.abbrev=12", "-c", "format.useAutoBase=false",
		"-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "-c", "format.thread=false", "-c", "format.encodeEmailHeaders=true",
		"format-patch", "--zero-commit", "--no-signature", "--no-numbered", "--no-base", "--no-thread", "--subject-prefix=PATCH",
		"--quiet", "--output-directory", tmp, base+"..HEAD"); err != nil {
		return 0, fmt.Errorf("export patches: %w", err)
	}
	fresh, err := ReadSeriesDir(tmp)
	if err != nil {
		return 0, err
	}
	old, err := ReadSeriesDir(dst)
	if err != nil {
		return 0, err
	}
	keep := map[string]bool{}
	for _, p := range fresh {
		keep[p.Name] = true
		if err := WriteFileAtomic(filepath.Join(dst, p.Name), p.Data, 0o644); err != nil {
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

// ImportCommit finds the commit under the series: the tag, or in a tree that
// was made by hand, the root.
func ImportCommit(ctx context.Context, tree string) (string, error) {
	for _, args := range [][]string{{"rev-parse", "--verify", "--quiet", sourceTag + "^{commit}"}, {"rev-list", "--max-parents=0", "HEAD"}} {
		out, err := Output(ctx, tree, "git", args...)
		if id := strings.TrimSpace(string(out)); err == nil && id != "" && !strings.Contains(id, "\n") {
			return id, nil
		}
	}
	return "", fmt.Errorf("find imported source in %s: no tag %s and no single root commit", tree, sourceTag)
}
