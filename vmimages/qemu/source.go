// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wflp/wflp/internal/build"
)

// Pin names one exact source: a Debian source package, its version, and the
// hash of its .dsc file, which in turn has the hashes of all other files.
type Pin struct {
	Package   string `json:"package"`
	Version   string `json:"version"`
	DscSHA256 string `json:"dsc_sha256"`
}

// ReadPin reads vmimages/qemu/source.json of a checkout.
func ReadPin(repoRoot string) (Pin, error) {
	path := filepath.Join(repoRoot, "vmimages", "qemu", "source.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return Pin{}, fmt.Errorf("read pin of QEMU: %w", err)
	}
	var p Pin
	if err := json.Unmarshal(data, &p); err != nil {
		return Pin{}, fmt.Errorf("parse %s: %w", path, err)
	}
	if p.Package == "" || p.Version == "" || len(p.DscSHA256) != sha256.Size*2 {
		return Pin{}, fmt.Errorf("parse %s: a field is missing or malformed", path)
	}
	return p, nil
}

// source is unpacked source, with Debian's own patches applied.
type source struct {
	version, sha256, dir string
}

func sourceAt(cacheDir, version, sha string) source {
	_, plain, epoch := strings.Cut(version, ":")
	if !epoch {
		plain = version
	}
	return source{version, sha, filepath.Join(cacheDir, "source", "qemu-"+plain+"-"+sha[:12])}
}

func (p Pin) source(cacheDir string) source { return sourceAt(cacheDir, p.Version, p.DscSHA256) }

// ensureSource returns the unpacked source, fetching and verifying it first
// where the cache has none.
//
// When Debian has dropped the version from its archive, the newest of the
// release takes its place: it is authenticated by apt alone, which the log
// says, and what is built of it has a digest of its own.
func (b *Builder) ensureSource(ctx context.Context) (source, error) {
	pin, err := ReadPin(b.RepoRoot)
	if err != nil {
		return source{}, err
	}
	src := pin.source(b.CacheDir)
	if build.IsDir(src.dir) {
		return src, nil
	}
	unlock, err := build.Lock(ctx, filepath.Join(b.CacheDir, "locks", "source-qemu"), b.Log)
	if err != nil {
		return source{}, err
	}
	defer unlock()
	if build.IsDir(src.dir) {
		return src, nil
	}
	if b.apt == nil {
		b.apt = &build.Apt{CacheDir: b.CacheDir, Log: b.Log}
	}
	tmp, err := b.scratch()
	if err != nil {
		return source{}, err
	}
	defer os.RemoveAll(tmp)
	b.logf("QEMU: fetching the source of %s %s (about 24 MB)", pin.Package, pin.Version)
	err = b.apt.FetchSource(ctx, tmp, pin.Package+"="+pin.Version)
	if errors.Is(err, build.ErrNotInArchive) {
		b.logf("QEMU: %s %s is no longer in the archive: falling back to the newest of this release (verified by apt only, results get a digest of their own)", pin.Package, pin.Version)
		src, err = source{}, b.apt.FetchSource(ctx, tmp, pin.Package)
	}
	if err != nil {
		return source{}, fmt.Errorf("fetch source of QEMU: %w", err)
	}
	dsc, version, err := readDsc(tmp)
	if err != nil {
		return source{}, err
	}
	sum, err := build.SHA256(dsc)
	if err != nil {
		return source{}, fmt.Errorf("hash source of QEMU: %w", err)
	}
	if src.dir != "" && sum != pin.DscSHA256 {
		return source{}, fmt.Errorf("verify %s: sha256 is %s, pinned is %s", filepath.Base(dsc), sum, pin.DscSHA256)
	}
	if src.dir == "" {
		b.logf("QEMU: using %s %s, sha256 %s", pin.Package, version, sum)
		if src = sourceAt(b.CacheDir, version, sum); build.IsDir(src.dir) {
			return src, nil
		}
	}
	// It compares the files with the hashes in the .dsc. The signature on
	// that one is for apt or for our own hash to stand in for.
	if _, err := build.Output(ctx, tmp, "dpkg-source", "--no-check", "--no-copy", "--extract", dsc, "unpacked"); err != nil {
		return source{}, fmt.Errorf("unpack source of QEMU: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(tmp, "unpacked", ".pc")); err != nil {
		return source{}, fmt.Errorf("unpack source of QEMU: %w", err)
	}
	if err := os.Rename(filepath.Join(tmp, "unpacked"), src.dir); err != nil {
		return source{}, fmt.Errorf("keep source of QEMU: %w", err)
	}
	return src, nil
}

func (b *Builder) scratch() (string, error) {
	dir := filepath.Join(b.CacheDir, "source")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make source cache: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".qemu-*")
	if err != nil {
		return "", fmt.Errorf("make source cache: %w", err)
	}
	return tmp, nil
}

// readDsc finds the one .dsc file in a folder, and the version it is of.
func readDsc(dir string) (path, version string, err error) {
	names, _ := filepath.Glob(filepath.Join(dir, "*.dsc"))
	if len(names) != 1 {
		return "", "", fmt.Errorf("fetch source of QEMU: apt-get left %d .dsc files", len(names))
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		return "", "", fmt.Errorf("read %s: %w", filepath.Base(names[0]), err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "Version: "); ok {
			return names[0], strings.TrimSpace(v), nil
		}
	}
	return "", "", fmt.Errorf("read %s: it has no version", filepath.Base(names[0]))
}

func (b *Builder) tree(src source, series []build.Patch) build.Tree {
	return build.Tree{
		Dir:    filepath.Join(b.CacheDir, "tree", filepath.Base(src.dir)),
		Source: src.dir, SHA256: src.sha256, Version: "QEMU " + src.version, Series: series, Log: b.Log,
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
	return t.MakeGit(ctx, "wflp", "qemu "+src.version)
}

// ExportPatches writes the commits of a tree that follow the import to
// vmimages/qemu/patches, replacing what is there.
func (b *Builder) ExportPatches(ctx context.Context, tree string) (int, error) {
	return build.ExportPatches(ctx, tree, b.patchDir())
}
