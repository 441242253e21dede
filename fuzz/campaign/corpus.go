// SPDX-License-Identifier: Apache-2.0

package campaign

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wflp/wflp/fuzz/scenario"
	"github.com/wflp/wflp/internal/build"
)

// corpus is the scenarios that covered something new, by what they are: a file
// each, named by its digest, so that two corpora merge by copying.
type corpus struct {
	dir  string
	list []*interesting
	byID map[string]*interesting
}

type interesting struct {
	id string
	s  *scenario.Scenario
	// picked is how often it was the start of another; gained how often that was
	// worth it.
	picked, gained int
}

func openCorpus(dir string) (*corpus, error) {
	c := &corpus{dir: dir, byID: map[string]*interesting{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open corpus: %w", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("open corpus: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("open corpus: %w", err)
		}
		s, err := scenario.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("open corpus: %s: %w", name, err)
		}
		c.add(s)
	}
	return c, nil
}

func (c *corpus) add(s *scenario.Scenario) *interesting {
	id := s.ID()
	if e := c.byID[id]; e != nil {
		return e
	}
	e := &interesting{id: id, s: s}
	c.byID[id] = e
	c.list = append(c.list, e)
	return e
}

// keep adds a scenario and writes its file.
func (c *corpus) keep(s *scenario.Scenario) error {
	if c.byID[s.ID()] != nil {
		return nil
	}
	b, err := s.Marshal()
	if err != nil {
		return fmt.Errorf("keep scenario: %w", err)
	}
	if err := build.WriteFileAtomic(filepath.Join(c.dir, s.ID()+".json"), b, 0o644); err != nil {
		return fmt.Errorf("keep scenario: %w", err)
	}
	c.add(s)
	return nil
}

// pick chooses a scenario to start from: one that was rarely picked, or that was
// often worth it, sooner.
func (c *corpus) pick(rng *rand.Rand) *interesting {
	weight := func(e *interesting) float64 { return float64(1+e.gained) / float64(1+e.picked) }
	var sum float64
	for _, e := range c.list {
		sum += weight(e)
	}
	x := rng.Float64() * sum
	for _, e := range c.list {
		if x -= weight(e); x <= 0 {
			return e
		}
	}
	return c.list[len(c.list)-1]
}

// donors are a few others to take parts from.
func (c *corpus) donors(rng *rand.Rand) []*scenario.Scenario {
	var out []*scenario.Scenario
	for range min(3, len(c.list)) {
		out = append(out, c.list[rng.IntN(len(c.list))].s)
	}
	return out
}

// Merge puts what other campaigns have found into the folder of one, which may
// be new: scenarios and findings by their content. Their logs stay where they
// are; what their scenarios cover is learnt again by running them.
func Merge(dir string, from ...string) (scenarios, findings int, err error) {
	for _, src := range from {
		if _, err := os.Stat(filepath.Join(src, SettingsName)); err != nil {
			return scenarios, findings, fmt.Errorf("merge campaigns: %s is no folder of a campaign: it has no %s", src, SettingsName)
		}
	}
	c, err := openCorpus(filepath.Join(dir, CorpusName))
	if err != nil {
		return 0, 0, fmt.Errorf("merge campaigns: %w", err)
	}
	to := filepath.Join(dir, FindingsName)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return 0, 0, fmt.Errorf("merge campaigns: %w", err)
	}
	for _, src := range from {
		other, err := openCorpus(filepath.Join(src, CorpusName))
		if err != nil {
			return scenarios, findings, fmt.Errorf("merge campaigns: %w", err)
		}
		for _, e := range other.list {
			if c.byID[e.id] != nil {
				continue
			}
			if err := c.keep(e.s); err != nil {
				return scenarios, findings, fmt.Errorf("merge campaigns: %w", err)
			}
			scenarios++
		}
		names, err := os.ReadDir(filepath.Join(src, FindingsName))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return scenarios, findings, fmt.Errorf("merge campaigns: %w", err)
		}
		for _, n := range names {
			target := filepath.Join(to, n.Name())
			if _, err := os.Stat(target); err == nil || strings.HasPrefix(n.Name(), ".") {
				continue // the same title
			}
			tmp, err := os.MkdirTemp(to, ".new-")
			if err == nil {
				err = errors.Join(os.CopyFS(tmp, os.DirFS(filepath.Join(src, FindingsName, n.Name()))), os.Chmod(tmp, 0o755))
			}
			if err == nil {
				err = os.Rename(tmp, target)
			}
			if err != nil {
				return scenarios, findings, fmt.Errorf("merge campaigns: %w", err)
			}
			findings++
		}
	}
	return scenarios, findings, nil
}
