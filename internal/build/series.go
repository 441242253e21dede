// SPDX-License-Identifier: Apache-2.0

package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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

// ReadSeriesDir reads the *.patch files of a folder in the order of their names.
// None is a series, too.
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

// SeriesDigest hashes a series: names, bounds and content of its patches.
func SeriesDigest(series []Patch) string {
	h := sha256.New()
	for _, p := range series {
		fmt.Fprintf(h, "%s %d\n", p.Name, len(p.Data))
		h.Write(p.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TouchedFiles lists the files that a series creates, changes or removes.
func TouchedFiles(series []Patch) ([]string, error) {
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
