// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/wflp/wflp/internal/build"
)

// Pin names one exact kernel source: a Debian package, its version, and the
// hash of the very file.
type Pin struct {
	Package   string `json:"package"`
	Version   string `json:"version"`
	DebSHA256 string `json:"deb_sha256"`
	Tarball   string `json:"tarball"` // inside the package
	Top       string `json:"top"`     // the folder inside the tarball
}

// ReadPin reads kernel/source.json of a checkout.
func ReadPin(repoRoot string) (Pin, error) {
	path := filepath.Join(repoRoot, "kernel", "source.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return Pin{}, fmt.Errorf("read kernel pin: %w", err)
	}
	var p Pin
	if err := json.Unmarshal(data, &p); err != nil {
		return Pin{}, fmt.Errorf("parse %s: %w", path, err)
	}
	if p.Package == "" || p.Version == "" || len(p.DebSHA256) != sha256.Size*2 || p.Tarball == "" || p.Top == "" {
		return Pin{}, fmt.Errorf("parse %s: %w", path, errIncompletePin)
	}
	return p, nil
}

var errIncompletePin = errors.New("a field is missing or malformed")

// source is unpacked kernel source.
type source struct {
	Version   string `json:"version"`
	DebSHA256 string `json:"deb_sha256"`
	dir       string
}

// ensureSource returns the unpacked source, fetching and verifying it first
// where the cache has none.
//
// Debian drops a version from its archive some time after the next one. Then
// the newest 6.12.y takes its place: it is authenticated by apt alone, which
// the log says, and it has a digest of its own, so no result is ever mixed up.
func (b *Builder) ensureSource(ctx context.Context) (source, error) {
	pin, err := ReadPin(b.RepoRoot)
	if err != nil {
		return source{}, err
	}
	src := source{Version: pin.Version, DebSHA256: pin.DebSHA256, dir: b.sourceDir(pin.Version, pin.DebSHA256)}
	if isDir(src.dir) {
		return src, nil
	}
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "source"), b.Log)
	if err != nil {
		return source{}, err
	}
	defer unlock()
	if isDir(src.dir) {
		return src, nil
	}
	deb, err := b.fetchPinned(ctx, pin)
	if errors.Is(err, build.ErrNotInArchive) {
		b.logf("kernel: %s %s is no longer in the archive: falling back to the newest 6.12.y (verified by apt only, results get a digest of their own)", pin.Package, pin.Version)
		src, deb, err = b.fetchNewest(ctx, pin)
	}
	if err != nil {
		return source{}, err
	}
	if isDir(src.dir) { // only after a fallback
		return src, nil
	}
	if err := b.unpack(ctx, pin, deb, src.dir); err != nil {
		return source{}, err
	}
	return src, nil
}

func (b *Builder) sourceDir(version, sha string) string {
	return filepath.Join(b.CacheDir, "source", version+"-"+sha[:12])
}

func (b *Builder) debDir() string { return filepath.Join(b.CacheDir, "debs") }

// debName is the name apt gives a package file: an epoch's colon is escaped.
func debName(pkg, version string) string {
	return fmt.Sprintf("%s_%s_all.deb", pkg, strings.ReplaceAll(version, ":", "%3a"))
}

func (b *Builder) fetchPinned(ctx context.Context, pin Pin) (string, error) {
	deb := filepath.Join(b.debDir(), debName(pin.Package, pin.Version))
	if sum, err := fileSHA256(deb); err == nil {
		if sum == pin.DebSHA256 {
			return deb, nil
		}
		b.logf("kernel: cached %s has another hash than the pinned one: fetching it again", filepath.Base(deb))
		if err := os.Remove(deb); err != nil {
			return "", fmt.Errorf("remove damaged package: %w", err)
		}
	}
	if err := b.aptDownload(ctx, pin.Package, pin.Version); err != nil {
		return "", err
	}
	sum, err := fileSHA256(deb)
	if err != nil {
		return "", fmt.Errorf("hash downloaded package: %w", err)
	}
	if sum != pin.DebSHA256 {
		os.Remove(deb)
		return "", fmt.Errorf("verify %s: sha256 is %s, pinned is %s", filepath.Base(deb), sum, pin.DebSHA256)
	}
	return deb, nil
}

func (b *Builder) fetchNewest(ctx context.Context, pin Pin) (source, string, error) {
	out, err := b.archive().Cache(ctx, "madison", pin.Package)
	if err != nil {
		return source{}, "", fmt.Errorf("list versions of %s: %w", pin.Package, err)
	}
	version := newestVersion(string(out))
	if version == "" {
		return source{}, "", fmt.Errorf("find %s: no version in the archive; is bookworm-security among the apt sources?", pin.Package)
	}
	if err := b.aptDownload(ctx, pin.Package, version); err != nil {
		return source{}, "", err
	}
	deb := filepath.Join(b.debDir(), debName(pin.Package, version))
	sum, err := fileSHA256(deb)
	if err != nil {
		return source{}, "", fmt.Errorf("hash downloaded package: %w", err)
	}
	b.logf("kernel: using %s %s, sha256 %s", pin.Package, version, sum)
	return source{Version: version, DebSHA256: sum, dir: b.sourceDir(version, sum)}, deb, nil
}

var versionRE = regexp.MustCompile(`^(\d+)\.(\d+)\.(\d+)-(\d+)`)

// newestVersion picks the highest version out of `apt-cache madison`. Debian
// kernel versions are compared by their numbers; what follows them differs
// only by the release the package was made for.
func newestVersion(madison string) string {
	best, bestKey := "", []int(nil)
	for _, line := range strings.Split(madison, "\n") {
		cols := strings.Split(line, "|")
		if len(cols) < 2 {
			continue
		}
		v := strings.TrimSpace(cols[1])
		m := versionRE.FindStringSubmatch(v)
		if m == nil {
			continue
		}
		var key []int
		for _, s := range m[1:] {
			n, _ := strconv.Atoi(s)
			key = append(key, n)
		}
		if best == "" || lessInts(bestKey, key) {
			best, bestKey = v, key
		}
	}
	return best
}

func lessInts(a, b []int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// aptDownload fetches one package.
func (b *Builder) aptDownload(ctx context.Context, pkg, version string) error {
	if err := os.MkdirAll(b.debDir(), 0o755); err != nil {
		return fmt.Errorf("make package cache: %w", err)
	}
	// Downloading beside the final name and renaming keeps a broken
	// connection from leaving half a file under a good name.
	tmp, err := os.MkdirTemp(b.debDir(), ".get-*")
	if err != nil {
		return fmt.Errorf("make package cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	b.logf("kernel: fetching %s %s (about 150 MB)", pkg, version)
	if err := b.archive().Fetch(ctx, tmp, pkg+"="+version); err != nil {
		return fmt.Errorf("fetch %s %s: %w", pkg, version, err)
	}
	got, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(got) != 1 {
		return fmt.Errorf("fetch %s %s: apt-get left %d package files", pkg, version, len(got))
	}
	if err := os.Rename(got[0], filepath.Join(b.debDir(), debName(pkg, version))); err != nil {
		return fmt.Errorf("keep package: %w", err)
	}
	return nil
}

// archive is where packages come from.
func (b *Builder) archive() *build.Apt {
	if b.apt == nil {
		b.apt = &build.Apt{CacheDir: b.CacheDir, Log: b.Log}
	}
	return b.apt
}

// unpack makes dir appear with the whole source in it, or not at all.
func (b *Builder) unpack(ctx context.Context, pin Pin, deb, dir string) error {
	b.logf("kernel: unpacking %s", filepath.Base(deb))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make source cache: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-*")
	if err != nil {
		return fmt.Errorf("make source cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if _, err := output(ctx, tmp, "dpkg-deb", "--extract", deb, "deb"); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	if _, err := output(ctx, tmp, "tar", "--extract", "--xz", "--no-same-owner", "--file", filepath.Join("deb", pin.Tarball)); err != nil {
		return fmt.Errorf("unpack %s: %w", pin.Tarball, err)
	}
	if err := os.Rename(filepath.Join(tmp, pin.Top), dir); err != nil {
		return fmt.Errorf("keep source: %w", err)
	}
	return nil
}
