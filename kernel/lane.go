// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// seedLane gives the lane of mutants a copy of the variant's own tree and objects,
// if it has none and those are there: the first mutant then takes a minute, not a
// build from nothing. make decides as ever what to compile, by time stamps and by
// the commands that it ran; both name folders, so these names are replaced.
func (b *Builder) seedLane(ctx context.Context, p *plan) error {
	name := p.variant.Name
	if b.Mutant == nil || isDir(b.objDir(p)) {
		return nil
	}
	own := *b
	own.Mutant = nil
	tree := own.tree(p.src, name, nil)
	fromTree, toTree := tree.Dir, b.tree(p.src, b.lane(name), nil).Dir
	fromObj, toObj := own.objDir(p), b.objDir(p)
	if !isDir(fromTree) || !isFile(filepath.Join(fromObj, "vmlinux")) {
		return nil
	}
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "build-"+name), b.Log)
	if err != nil {
		return err
	}
	defer unlock()
	b.logf("kernel %s: copying the objects of %s", b.lane(name), name)
	tmp := toObj + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("copy objects: %w", err)
	}
	if err := tree.CopyTo(ctx, toTree); err != nil {
		return err
	}
	if _, err := output(ctx, "", "cp", "-a", fromObj, tmp); err != nil {
		return fmt.Errorf("copy objects: %w", err)
	}
	if err := rename(tmp, strings.NewReplacer(fromTree, toTree, fromObj, toObj)); err != nil {
		return fmt.Errorf("copy objects: %w", err)
	}
	if err := os.Rename(tmp, toObj); err != nil {
		return fmt.Errorf("copy objects: %w", err)
	}
	return nil
}

// rename replaces names of folders in what make reads of its earlier runs, and in
// links. Time stamps stay.
func rename(dir string, names *strings.Replacer) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch base := d.Name(); {
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if now := names.Replace(to); now != to {
				return errors.Join(os.Remove(path), os.Symlink(now, path))
			}
		case d.Type().IsRegular() && (base == "Makefile" || strings.HasSuffix(base, ".cmd") || strings.HasSuffix(base, ".d")):
			st, err := d.Info()
			if err != nil {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			now := []byte(names.Replace(string(text)))
			if bytes.Equal(now, text) {
				return nil
			}
			if err := os.WriteFile(path, now, st.Mode().Perm()); err != nil {
				return err
			}
			return os.Chtimes(path, st.ModTime(), st.ModTime())
		}
		return nil
	})
}
