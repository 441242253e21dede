// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Packages are Debian packages, unpacked side by side as in a root directory.
type Packages struct {
	Root     string            `json:"-"`
	Versions map[string]string `json:"versions"` // by package
}

// Packages fetches the newest version that the archive has of each package,
// verified by apt, and unpacks it. Nothing is installed. What was fetched once
// is what every later call gets, until the cache is deleted.
func (b *Builder) Packages(ctx context.Context, names ...string) (Packages, error) {
	names = append([]string{}, names...)
	sort.Strings(names)
	sum := sha256.Sum256([]byte(strings.Join(names, "\n")))
	dir := filepath.Join(b.CacheDir, "packages", hex.EncodeToString(sum[:8]))
	if p, err := openPackages(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "packages"), b.Log)
	if err != nil {
		return Packages{}, err
	}
	defer unlock()
	if p, err := openPackages(dir); err == nil {
		return p, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Packages{}, fmt.Errorf("make package cache: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".get-*")
	if err != nil {
		return Packages{}, fmt.Errorf("make package cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	b.logf("packages: fetching %s", strings.Join(names, " "))
	if err := b.archive().Fetch(ctx, tmp, names...); err != nil {
		return Packages{}, fmt.Errorf("fetch packages: %w", err)
	}
	got, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	p := Packages{Versions: map[string]string{}}
	for _, deb := range got {
		// NAME_VERSION_ARCHITECTURE.deb, the colon of an epoch escaped.
		part := strings.Split(filepath.Base(deb), "_")
		if len(part) != 3 {
			return Packages{}, fmt.Errorf("unpack %s: not the name of a package file", filepath.Base(deb))
		}
		p.Versions[part[0]] = strings.ReplaceAll(part[1], "%3a", ":")
		if _, err := output(ctx, tmp, "dpkg-deb", "--extract", deb, "root"); err != nil {
			return Packages{}, fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
		if err := os.Remove(deb); err != nil {
			return Packages{}, fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	for _, n := range names {
		if p.Versions[n] == "" {
			return Packages{}, fmt.Errorf("fetch package %s: apt-get left no file", n)
		}
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return Packages{}, fmt.Errorf("list packages: %w", err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "packages.json"), append(data, '\n'), 0o644); err != nil {
		return Packages{}, fmt.Errorf("list packages: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return Packages{}, fmt.Errorf("keep packages: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return Packages{}, fmt.Errorf("keep packages: %w", err)
	}
	return openPackages(dir)
}

func openPackages(dir string) (Packages, error) {
	p := Packages{Root: filepath.Join(dir, "root")}
	data, err := os.ReadFile(filepath.Join(dir, "packages.json"))
	if err != nil {
		return p, fmt.Errorf("open packages: %w", err)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("parse list of packages: %w", err)
	}
	return p, nil
}
