// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// treeState says what the patched tree holds.
type treeState struct {
	Source  string   `json:"source"`
	Digest  string   `json:"digest"` // of the series; empty while the tree is being changed
	Touched []string `json:"touched"`
}

// Tree is source with a series applied to it.
type Tree struct {
	Dir     string // where it is, or is made
	Source  string // the folder with the unpacked source
	SHA256  string // of the source package
	Version string // of the source, for people
	Series  []Patch
	Log     io.Writer
}

// Sync makes the tree what it is to be. The caller holds a lock until whatever
// is built from it is built.
//
// A tree is changed in place: only files whose content differs are written, so
// their time stamps tell make what to compile again. A tree per series would be
// simpler and would cost a full build for each edit of a patch, since the
// objects' dependency files name the tree.
func (t Tree) Sync(ctx context.Context) error {
	want := treeState{Source: t.SHA256, Digest: SeriesDigest(t.Series)}
	have := readTreeState(t.Dir)
	if have.Source == want.Source && have.Digest == want.Digest && IsDir(t.Dir) {
		return nil
	}
	return t.sync(ctx, want)
}

// CopyTo makes another tree with the same files, which share their content until
// one is replaced: files of a tree are never written into.
func (t Tree) CopyTo(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("copy tree: %w", err)
	}
	if _, err := Output(ctx, "", "cp", "-al", t.Dir, dir); err != nil {
		return fmt.Errorf("copy tree: %w", err)
	}
	if err := writeTreeState(dir, readTreeState(t.Dir)); err != nil {
		return fmt.Errorf("copy tree: %w", err)
	}
	return nil
}

func treeStatePath(dir string) string { return dir + ".json" }

func readTreeState(dir string) treeState {
	var st treeState
	data, err := os.ReadFile(treeStatePath(dir))
	if err != nil || json.Unmarshal(data, &st) != nil {
		return treeState{}
	}
	return st
}

func writeTreeState(dir string, st treeState) error {
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return WriteFileAtomic(treeStatePath(dir), data, 0o644)
}

func (t Tree) sync(ctx context.Context, want treeState) error {
	dir := t.Dir
	have := readTreeState(dir)
	if !IsDir(dir) || have.Source != t.SHA256 {
		if t.Log != nil {
			fmt.Fprintf(t.Log, "making the tree for the series on %s\n", t.Version)
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old tree: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return fmt.Errorf("make tree: %w", err)
		}
		tmp := dir + ".new"
		if err := os.RemoveAll(tmp); err != nil {
			return fmt.Errorf("remove old tree: %w", err)
		}
		// Hard links: the tree costs no space, and every change below
		// replaces a file by another rather than writing into it.
		if _, err := Output(ctx, "", "cp", "-al", t.Source, tmp); err != nil {
			return fmt.Errorf("make tree: %w", err)
		}
		if err := os.Rename(tmp, dir); err != nil {
			return fmt.Errorf("make tree: %w", err)
		}
		have = treeState{Source: t.SHA256}
	}
	touched, err := TouchedFiles(t.Series)
	if err != nil {
		return err
	}
	patched, err := t.Apply(ctx, touched)
	if err != nil {
		return err
	}
	all := map[string]bool{}
	for _, f := range have.Touched {
		all[f] = true
	}
	for _, f := range touched {
		all[f] = true
	}
	var union []string
	for f := range all {
		union = append(union, f)
	}
	sort.Strings(union)
	// An interruption from here on leaves a tree that says that it is
	// unfinished and which files are in question.
	if err := writeTreeState(dir, treeState{Source: t.SHA256, Touched: union}); err != nil {
		return fmt.Errorf("note tree state: %w", err)
	}
	for _, f := range union {
		want, ok := patched[f]
		if !ok {
			if want, err = readTreeFile(filepath.Join(t.Source, f)); err != nil {
				return fmt.Errorf("read source file: %w", err)
			}
		}
		if err := setTreeFile(filepath.Join(dir, f), want); err != nil {
			return fmt.Errorf("change tree: %w", err)
		}
	}
	want.Touched = touched
	if err := writeTreeState(dir, want); err != nil {
		return fmt.Errorf("note tree state: %w", err)
	}
	return nil
}

// treeFile is the content of a file, or its absence.
type treeFile struct {
	absent bool
	data   []byte
	mode   os.FileMode
}

func readTreeFile(path string) (treeFile, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return treeFile{absent: true}, nil
	}
	if err != nil {
		return treeFile{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return treeFile{}, err
	}
	return treeFile{data: data, mode: st.Mode().Perm()}, nil
}

func setTreeFile(path string, want treeFile) error {
	have, err := readTreeFile(path)
	if err != nil {
		return err
	}
	switch {
	case want.absent && have.absent:
		return nil
	case want.absent:
		return os.Remove(path)
	case !have.absent && bytes.Equal(have.data, want.data) && have.mode == want.mode:
		return nil
	}
	return WriteFileAtomic(path, want.data, want.mode)
}

// Apply applies the series to copies of the files it touches. A patch that does
// not apply exactly is an error: fuzz would build something nobody has
// reviewed.
func (t Tree) Apply(ctx context.Context, touched []string) (map[string]treeFile, error) {
	if err := os.MkdirAll(filepath.Dir(t.Dir), 0o755); err != nil {
		return nil, fmt.Errorf("make scratch tree: %w", err)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(t.Dir), ".apply-*")
	if err != nil {
		return nil, fmt.Errorf("make scratch tree: %w", err)
	}
	defer os.RemoveAll(scratch)
	top := filepath.Join(scratch, "tree")
	if err := os.Mkdir(top, 0o755); err != nil {
		return nil, fmt.Errorf("make scratch tree: %w", err)
	}
	for _, f := range touched {
		tf, err := readTreeFile(filepath.Join(t.Source, f))
		if err != nil {
			return nil, fmt.Errorf("read source file: %w", err)
		}
		if tf.absent {
			continue
		}
		if err := WriteFileAtomic(filepath.Join(top, f), tf.data, tf.mode); err != nil {
			return nil, fmt.Errorf("copy source file: %w", err)
		}
	}
	for _, p := range t.Series {
		cmd := Command(ctx, top, "git", "apply", "--whitespace=nowarn", "-")
		// git apply ignores paths outside the repository it believes to be
		// in, without a word; the cache may well lie inside one.
		cmd.Env = append(cmd.Env, "GIT_CEILING_DIRECTORIES="+scratch)
		cmd.Stdin = bytes.NewReader(p.Data)
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("apply %s to %s: %w\n%s", p.Name, t.Version, err, LastLines(complaint.String(), 20))
		}
	}
	patched := map[string]treeFile{}
	for _, f := range touched {
		if patched[f], err = readTreeFile(filepath.Join(top, f)); err != nil {
			return nil, fmt.Errorf("read patched file: %w", err)
		}
	}
	return patched, nil
}
