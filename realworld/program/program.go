// SPDX-License-Identifier: Apache-2.0

// Package program has the programs that are patched while they run, each a
// short description of a Debian source package and of fixes for it, and builds
// them: with a fix, and without.
package program

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/realworld/patch"
)

// Program describes a program. Its name is that of its file.
type Program struct {
	Name   string    `json:"-"`
	Source build.Pin `json:"source"`
	// Program is the path of the executable in the built tree.
	Program string `json:"program"`
	// Loops are the functions in which its threads spend their lives.
	Loops []string `json:"loops"`
	// Unneeded are build dependencies of what is left out of the build.
	Unneeded []string `json:"unneeded"`
	// Builds are the ways to build it; "" is Debian's own.
	Builds map[string]Variant `json:"builds"`
	Fixes  []Fix              `json:"fixes"`
}

// Variant is a way to build a program.
type Variant struct {
	About string `json:"about"`
	// Edits are made in the source before the build, each in exactly one place.
	Edits []Edit `json:"edits"`
}

// Edit replaces a text in a file.
type Edit struct {
	File string `json:"file"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Fix is one of the patches in debian/patches, or several that belong together.
type Fix struct {
	Name    string   `json:"name"`
	Patches []string `json:"patches"`
	// Build is the variant that the fix is for.
	Build string `json:"build"`
	// Refused is why the fix cannot be applied to a running program, where
	// that is known. The tests hold the judgement to it.
	Refused patch.Kind `json:"refused"`
}

//go:embed *.json
var descriptions embed.FS

// Names are those of the programs.
func Names() []string {
	files, err := descriptions.ReadDir(".")
	if err != nil {
		panic(err) // it is in the program itself
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".json"))
	}
	return names
}

// Find returns a program by its name.
func Find(name string) (*Program, error) {
	data, err := descriptions.ReadFile(name + ".json")
	if err != nil {
		return nil, fmt.Errorf("there is no program %q: known are %s", name, strings.Join(Names(), ", "))
	}
	p, err := parse(name, data)
	if err != nil {
		return nil, fmt.Errorf("read %s.json: %w", name, err)
	}
	return p, nil
}

func parse(name string, data []byte) (*Program, error) {
	p := &Program{Name: name}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, err
	}
	if err := p.Source.Check(); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if !filepath.IsLocal(p.Program) {
		return nil, fmt.Errorf("program: %q is not a path within the source", p.Program)
	}
	if len(p.Loops) == 0 {
		return nil, errors.New("loops: none, but what only runs at the start is told by them")
	}
	for name, v := range p.Builds {
		for _, e := range v.Edits {
			if !filepath.IsLocal(e.File) || e.Old == "" {
				return nil, fmt.Errorf("build %q: an edit needs a file within the source, and what to replace", name)
			}
		}
	}
	seen := map[string]bool{}
	for _, f := range p.Fixes {
		if f.Name == "" || path.Base(f.Name) != f.Name || seen[f.Name] {
			return nil, fmt.Errorf("fixes: %q is no name, or taken", f.Name)
		}
		seen[f.Name] = true
		if _, ok := p.Builds[f.Build]; !ok {
			return nil, fmt.Errorf("fix %s: there is no build %q", f.Name, f.Build)
		}
		if len(f.Patches) == 0 {
			return nil, fmt.Errorf("fix %s: no patches", f.Name)
		}
		if f.Refused != "" && !slices.Contains(patch.Kinds, f.Refused) {
			return nil, fmt.Errorf("fix %s: refused is none of %v", f.Name, patch.Kinds)
		}
	}
	return p, nil
}

// Fix returns one of the program's fixes by name.
func (p *Program) Fix(name string) (Fix, error) {
	var names []string
	for _, f := range p.Fixes {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return Fix{}, fmt.Errorf("%s has no fix %q: known are %s", p.Name, name, strings.Join(names, ", "))
}
