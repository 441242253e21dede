// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
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

// Patch is one patch of a series.
type Patch struct {
	Name string
	Data []byte
}

// ReadSeries reads the series of a checkout. An empty series is a series, too.
func ReadSeries(repoRoot string) ([]Patch, error) {
	return ReadSeriesDir(filepath.Join(repoRoot, "kernel", "patches"))
}

// ReadSeriesDir reads the *.patch files of a folder in the order of their names.
func ReadSeriesDir(dir string) ([]Patch, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, fmt.Errorf("list patches: %w", err)
	}
	sort.Strings(names)
	var series []Patch
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			return nil, fmt.Errorf("read patch: %w", err)
		}
		series = append(series, Patch{Name: filepath.Base(n), Data: data})
	}
	return series, nil
}

func seriesDigest(series []Patch) string {
	h := sha256.New()
	for _, p := range series {
		fmt.Fprintf(h, "%s %d\n", p.Name, len(p.Data))
		h.Write(p.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// touchedFiles lists the files that a series creates, changes or removes.
func touchedFiles(series []Patch) ([]string, error) {
	seen := map[string]bool{}
	for _, p := range series {
		for _, line := range strings.Split(string(p.Data), "\n") {
			rest, ok := strings.CutPrefix(line, "diff --git a/")
			if !ok {
				continue
			}
			a, b, ok := strings.Cut(rest, " b/")
			if !ok || !filepath.IsLocal(a) || !filepath.IsLocal(b) {
				return nil, fmt.Errorf("parse %s: odd file name in %q", p.Name, line)
			}
			seen[a], seen[b] = true, true
		}
	}
	var files []string
	for f := range seen {
		files = append(files, f)
	}
	sort.Strings(files)
	return files, nil
}

// treeState says what the patched tree holds.
type treeState struct {
	Source  string   `json:"source"`
	Digest  string   `json:"digest"` // of the series; empty while the tree is being changed
	Touched []string `json:"touched"`
}

// patchedTree returns the source tree of a variant with the series applied.
// The caller holds the variant's lock until its build is over.
//
// A variant has one such tree, and it is changed in place: only files whose
// content differs are written, so their time stamps tell make what to compile
// again. A tree per series would be simpler and would cost a full build for
// each edit of a patch, since the objects' dependency files name the tree. One
// tree for all variants would have them wait for each other.
func (b *Builder) patchedTree(ctx context.Context, src source, variant string, series []Patch) (string, error) {
	dir := filepath.Join(b.CacheDir, "tree", variant+"-"+filepath.Base(src.dir))
	want := treeState{Source: src.DebSHA256, Digest: seriesDigest(series)}
	have := readTreeState(dir)
	if have.Source == want.Source && have.Digest == want.Digest && isDir(dir) {
		return dir, nil
	}
	return dir, b.syncTree(ctx, src, dir, series, want)
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
	return writeFileAtomic(treeStatePath(dir), data, 0o644)
}

func (b *Builder) syncTree(ctx context.Context, src source, dir string, series []Patch, want treeState) error {
	have := readTreeState(dir)
	if !isDir(dir) || have.Source != src.DebSHA256 {
		b.logf("kernel: making the tree for the series")
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
		if _, err := output(ctx, "", "cp", "-al", src.dir, tmp); err != nil {
			return fmt.Errorf("make tree: %w", err)
		}
		if err := os.Rename(tmp, dir); err != nil {
			return fmt.Errorf("make tree: %w", err)
		}
		have = treeState{Source: src.DebSHA256}
	}
	touched, err := touchedFiles(series)
	if err != nil {
		return err
	}
	patched, err := b.applySeries(ctx, src, series, touched)
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
	if err := writeTreeState(dir, treeState{Source: src.DebSHA256, Touched: union}); err != nil {
		return fmt.Errorf("note tree state: %w", err)
	}
	for _, f := range union {
		want, ok := patched[f]
		if !ok {
			if want, err = readTreeFile(filepath.Join(src.dir, f)); err != nil {
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
	return writeFileAtomic(path, want.data, want.mode)
}

// applySeries applies the series to copies of the files it touches. A patch
// that does not apply exactly is an error: fuzz would build something nobody
// has reviewed.
func (b *Builder) applySeries(ctx context.Context, src source, series []Patch, touched []string) (map[string]treeFile, error) {
	scratch, err := os.MkdirTemp(b.CacheDir, ".apply-*")
	if err != nil {
		return nil, fmt.Errorf("make scratch tree: %w", err)
	}
	defer os.RemoveAll(scratch)
	top := filepath.Join(scratch, "tree")
	if err := os.Mkdir(top, 0o755); err != nil {
		return nil, fmt.Errorf("make scratch tree: %w", err)
	}
	for _, f := range touched {
		tf, err := readTreeFile(filepath.Join(src.dir, f))
		if err != nil {
			return nil, fmt.Errorf("read source file: %w", err)
		}
		if tf.absent {
			continue
		}
		if err := writeFileAtomic(filepath.Join(top, f), tf.data, tf.mode); err != nil {
			return nil, fmt.Errorf("copy source file: %w", err)
		}
	}
	for _, p := range series {
		cmd := command(ctx, top, "git", "apply", "--whitespace=nowarn", "-")
		// git apply ignores paths outside the repository it believes to be
		// in, without a word; the cache may well lie inside one.
		cmd.Env = append(cmd.Env, "GIT_CEILING_DIRECTORIES="+scratch)
		cmd.Stdin = bytes.NewReader(p.Data)
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("apply %s to %s: %w\n%s", p.Name, src.Version, err, lastLines(complaint.String(), 20))
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
