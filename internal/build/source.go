// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Pin names one exact source: a Debian source package, its version, and the
// hash of its .dsc file, which in turn has the hashes of all other files.
type Pin struct {
	Package   string `json:"package"`
	Version   string `json:"version"`
	DscSHA256 string `json:"dsc_sha256"`
}

// Check says what is wrong with a pin.
func (p Pin) Check() error {
	sum, err := hex.DecodeString(p.DscSHA256)
	if p.Package == "" || p.Version == "" || err != nil || len(sum) != sha256.Size {
		return errors.New("package, version or dsc_sha256 is missing or malformed")
	}
	return nil
}

// Source is the unpacked source of a package.
type Source struct {
	Version, SHA256, Dir string
}

// Sources keeps unpacked source packages in the cache.
type Sources struct {
	Apt *Apt
	// Unpatched leaves out Debian's own patches, which are in debian/patches.
	Unpatched bool
}

// At is where the cache has a source, or would have it.
func (s *Sources) At(pin Pin) Source {
	_, plain, epoch := strings.Cut(pin.Version, ":")
	if !epoch {
		plain = pin.Version
	}
	name := pin.Package + "-" + plain + "-" + pin.DscSHA256[:12]
	if s.Unpatched {
		name += "-unpatched"
	}
	return Source{pin.Version, pin.DscSHA256, filepath.Join(s.Apt.CacheDir, "source", name)}
}

// Get returns a source, fetching and verifying it first where the cache has
// none.
//
// When Debian has dropped the version from its archive, the newest of the
// release takes its place: it is authenticated by apt alone, which the log
// says.
func (s *Sources) Get(ctx context.Context, pin Pin) (Source, error) {
	src := s.At(pin)
	if IsDir(src.Dir) {
		return src, nil
	}
	unlock, err := Lock(ctx, filepath.Join(s.Apt.CacheDir, "locks", "source-"+pin.Package), s.Apt.Log)
	if err != nil {
		return Source{}, err
	}
	defer unlock()
	if IsDir(src.Dir) {
		return src, nil
	}
	dir := filepath.Join(s.Apt.CacheDir, "source")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Source{}, fmt.Errorf("make source cache: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, "."+pin.Package+"-*")
	if err != nil {
		return Source{}, fmt.Errorf("make source cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	s.Apt.logf("fetching the source of %s %s", pin.Package, pin.Version)
	pinned := true
	err = s.Apt.FetchSource(ctx, tmp, pin.Package+"="+pin.Version)
	if errors.Is(err, ErrNotInArchive) {
		pinned = false
		s.Apt.logf("%s %s is no longer in the archive: falling back to the newest of this release (verified by apt only, results get a digest of their own)", pin.Package, pin.Version)
		err = s.Apt.FetchSource(ctx, tmp, pin.Package)
	}
	if err != nil {
		return Source{}, fmt.Errorf("fetch source of %s: %w", pin.Package, err)
	}
	dsc, version, err := readDsc(tmp)
	if err != nil {
		return Source{}, fmt.Errorf("fetch source of %s: %w", pin.Package, err)
	}
	sum, err := SHA256(dsc)
	if err != nil {
		return Source{}, fmt.Errorf("hash source of %s: %w", pin.Package, err)
	}
	if pinned && sum != pin.DscSHA256 {
		return Source{}, fmt.Errorf("verify %s: sha256 is %s, pinned is %s", filepath.Base(dsc), sum, pin.DscSHA256)
	}
	if !pinned {
		s.Apt.logf("using %s %s, sha256 %s", pin.Package, version, sum)
		if src = s.At(Pin{pin.Package, version, sum}); IsDir(src.Dir) {
			return src, nil
		}
	}
	// It compares the files with the hashes in the .dsc. The signature on
	// that one is for apt or for our own hash to stand in for.
	args := []string{"--no-check", "--no-copy", "--extract"}
	if s.Unpatched {
		args = append(args, "--skip-patches")
	}
	if _, err := Output(ctx, tmp, "dpkg-source", append(args, dsc, "unpacked")...); err != nil {
		return Source{}, fmt.Errorf("unpack source of %s: %w", pin.Package, err)
	}
	if err := os.RemoveAll(filepath.Join(tmp, "unpacked", ".pc")); err != nil {
		return Source{}, fmt.Errorf("unpack source of %s: %w", pin.Package, err)
	}
	if err := os.Rename(filepath.Join(tmp, "unpacked"), src.Dir); err != nil {
		return Source{}, fmt.Errorf("keep source of %s: %w", pin.Package, err)
	}
	return src, nil
}

// readDsc finds the one .dsc file in a folder, and the version it is of.
func readDsc(dir string) (path, version string, err error) {
	names, _ := filepath.Glob(filepath.Join(dir, "*.dsc"))
	if len(names) != 1 {
		return "", "", fmt.Errorf("apt-get left %d .dsc files", len(names))
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
