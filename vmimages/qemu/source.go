// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wflp/wflp/internal/build"
)

// ReadPin reads vmimages/qemu/source.json of a checkout.
func ReadPin(repoRoot string) (build.Pin, error) {
	path := filepath.Join(repoRoot, "vmimages", "qemu", "source.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return build.Pin{}, fmt.Errorf("read pin of QEMU: %w", err)
	}
	var p build.Pin
	if err := json.Unmarshal(data, &p); err != nil {
		return build.Pin{}, fmt.Errorf("parse %s: %w", path, err)
	}
	if err := p.Check(); err != nil {
		return build.Pin{}, fmt.Errorf("parse %s: %w", path, err)
	}
	return p, nil
}

func (b *Builder) sources() *build.Sources {
	if b.apt == nil {
		b.apt = &build.Apt{CacheDir: b.CacheDir, Log: b.Log}
	}
	return &build.Sources{Apt: b.apt}
}

// ensureSource returns the unpacked source, with Debian's own patches applied.
func (b *Builder) ensureSource(ctx context.Context) (build.Source, error) {
	pin, err := ReadPin(b.RepoRoot)
	if err != nil {
		return build.Source{}, err
	}
	return b.sources().Get(ctx, pin)
}

func (b *Builder) tree(src build.Source, series []build.Patch) build.Tree {
	return build.Tree{
		Dir:    filepath.Join(b.CacheDir, "tree", filepath.Base(src.Dir)),
		Source: src.Dir, SHA256: src.SHA256, Version: "QEMU " + src.Version, Series: series, Log: b.Log,
	}
}

// MakeTree makes a git tree to hack in: the source as one commit, the series
// as commits on top of it. An existing tree is left alone.
func (b *Builder) MakeTree(ctx context.Context, dir string) error {
	src, err := b.ensureSource(ctx)
	if err != nil {
		return err
	}
	series, err := build.ReadSeriesDir(b.patchDir())
	if err != nil {
		return err
	}
	t := b.tree(src, series)
	t.Dir = dir
	return t.MakeGit(ctx, "wflp", "qemu "+src.Version)
}

// ExportPatches writes the commits of a tree that follow the import to
// vmimages/qemu/patches, replacing what is there.
func (b *Builder) ExportPatches(ctx context.Context, tree string) (int, error) {
	return build.ExportPatches(ctx, tree, b.patchDir())
}
