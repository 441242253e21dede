// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Apt fetches packages, as whoever we are, and verified by apt. It tries the
// machine's own package lists, then lists of ours in the cache: a machine whose
// lists are empty or stale, or that has none of sources, needs no root for this
// either.
type Apt struct {
	CacheDir string
	Log      io.Writer

	own bool // our lists are in use
}

// ErrNotInArchive says that the archive does not have a package, or not in the
// version that was asked for. Debian drops a version some time after the next.
var ErrNotInArchive = errors.New("version is not in the archive")

func (a *Apt) logf(format string, args ...any) {
	if a.Log != nil {
		fmt.Fprintf(a.Log, format+"\n", args...)
	}
}

// Fetch fetches binary packages (NAME or NAME=VERSION) into dir.
func (a *Apt) Fetch(ctx context.Context, dir string, specs ...string) error {
	fetch := func() error {
		args := append(a.options(), "-q", "-o", "APT::Sandbox::User=root", "download")
		_, err := Output(ctx, dir, "apt-get", append(args, specs...)...)
		return err
	}
	err := fetch()
	if err != nil && ctx.Err() == nil && !a.own {
		a.logf("the machine's package lists do not have it: refreshing lists of our own")
		a.own = true
		if err := a.update(ctx); err != nil {
			return err
		}
		err = fetch()
	}
	return notInArchive(err)
}

// Cache asks apt-cache about packages, in the lists that Fetch came to use.
func (a *Apt) Cache(ctx context.Context, args ...string) ([]byte, error) {
	return Output(ctx, "", "apt-cache", append(a.options(), args...)...)
}

// FetchSource fetches the files of a source package (NAME, which is its newest
// version, or NAME=VERSION) into dir.
//
// Few machines have lists of sources, so we make some, for the places that the
// machine has its binary packages of Debian from.
func (a *Apt) FetchSource(ctx context.Context, dir, spec string) error {
	fetch := func(opts []string) error {
		_, err := Output(ctx, dir, "apt-get", append(opts, "-q", "-o", "APT::Sandbox::User=root", "source", "--download-only", spec)...)
		return err
	}
	err := fetch(nil)
	if err == nil || ctx.Err() != nil {
		return err
	}
	places, err := a.places(ctx)
	if err != nil {
		return err
	}
	opts, err := a.sourceLists(ctx, places)
	if err != nil {
		return err
	}
	return notInArchive(fetch(opts))
}

// places are lines for a list of sources, without their first word.
func (a *Apt) places(ctx context.Context) ([]string, error) {
	find := func() ([]string, error) {
		out, err := Output(ctx, "", "apt-get", append(a.options(), "indextargets", "--format",
			"$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages", "Origin: Debian")...)
		if err != nil {
			return nil, fmt.Errorf("ask apt where Debian is: %w", err)
		}
		var places []string
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			if len(strings.Fields(line)) == 3 {
				places = append(places, line)
			}
		}
		return places, nil
	}
	places, err := find()
	if err == nil && len(places) == 0 && !a.own {
		// Before its first update, a machine does not know the origins.
		a.own = true
		if err := a.update(ctx); err != nil {
			return nil, err
		}
		places, err = find()
	}
	if err == nil && len(places) == 0 {
		err = errors.New("ask apt where Debian is: none of its sources is Debian's")
	}
	return places, err
}

// debianKeys are Debian's on every Debian machine.
const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// sourceLists refreshes lists of sources in the cache and returns the options
// that make apt use them.
func (a *Apt) sourceLists(ctx context.Context, places []string) ([]string, error) {
	dir := filepath.Join(a.CacheDir, "apt", "sources")
	var list strings.Builder
	for _, p := range places {
		list.WriteString("deb-src ")
		if IsFile(debianKeys) {
			list.WriteString("[signed-by=" + debianKeys + "] ")
		}
		list.WriteString(p + "\n")
	}
	file := filepath.Join(dir, "sources.list")
	if err := WriteFileAtomic(file, []byte(list.String()), 0o644); err != nil {
		return nil, fmt.Errorf("write list of sources: %w", err)
	}
	if err := makeAptDirs(dir); err != nil {
		return nil, err
	}
	opts := append(aptOptions(dir), "-o", "Dir::Etc::sourcelist="+file, "-o", "Dir::Etc::sourceparts=-")
	a.logf("refreshing lists of source packages of our own")
	if _, err := Output(ctx, "", "apt-get", append(opts, "-q", "update")...); err != nil {
		return nil, fmt.Errorf("refresh lists of sources: %w", err)
	}
	return opts, nil
}

func (a *Apt) update(ctx context.Context) error {
	if err := makeAptDirs(filepath.Join(a.CacheDir, "apt")); err != nil {
		return err
	}
	if _, err := Output(ctx, "", "apt-get", append(a.options(), "-q", "update")...); err != nil {
		return fmt.Errorf("refresh package lists: %w", err)
	}
	return nil
}

func (a *Apt) options() []string {
	if !a.own {
		return nil
	}
	return aptOptions(filepath.Join(a.CacheDir, "apt"))
}

func aptOptions(dir string) []string {
	return []string{
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "APT::Sandbox::User=root",
		"-o", "Debug::NoLocking=1",
	}
}

func makeAptDirs(dir string) error {
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("make apt cache: %w", err)
		}
	}
	return nil
}

// notInArchive tells apt's ways to say so from other errors.
func notInArchive(err error) error {
	if err == nil {
		return nil
	}
	for _, s := range []string{"was not found", "Unable to locate package", "Unable to find a source package", "Can not find version"} {
		if strings.Contains(err.Error(), s) {
			return ErrNotInArchive
		}
	}
	return err
}
