// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/realworld/program"
	"github.com/wflp/wflp/realworld/server"
)

// Made is an image with a program, without one of its fixes and with it.
type Made struct {
	Server  server.Server
	Fix     string
	Version string // of the source package
	Image   string
	// Packages are the versions of all that is in the file system.
	Packages map[string]string
	// Patch says that the image has a patch file.
	Patch bool
}

// Maker makes images, each once.
type Maker struct {
	Builder *kernel.Builder
	Log     io.Writer
	// Patches is the folder where patch files are kept.
	Patches string

	mu   sync.Mutex
	made map[string]Made
}

// Make builds a program without a fix and with it, the patch, and the image of
// these, where they are missing.
func (m *Maker) Make(ctx context.Context, name, fix string) (Made, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if made, ok := m.made[name+" "+fix]; ok {
		return made, nil
	}
	p, err := program.Find(name)
	if err != nil {
		return Made{}, err
	}
	f, err := p.Fix(fix)
	if err != nil {
		return Made{}, err
	}
	b := &program.Builder{CacheDir: m.Builder.CacheDir, Log: m.Log}
	patch, err := b.Patch(ctx, p, f)
	if err != nil {
		return Made{}, err
	}
	if patch.File == nil {
		return Made{}, fmt.Errorf("build %s of %s: it was refused, and its description says that it can be applied: %+v", fix, name, patch.Refused)
	}
	file := filepath.Join(m.Patches, name+"-"+fix+".wflp")
	if err := os.MkdirAll(m.Patches, 0o755); err != nil {
		return Made{}, fmt.Errorf("keep patch: %w", err)
	}
	if err := os.WriteFile(file, patch.File, 0o644); err != nil {
		return Made{}, fmt.Errorf("keep patch: %w", err)
	}
	return m.Given(ctx, name, fix, patch.Origin.Version, Programs{Without: patch.Without.Program, With: patch.With.Program, Patch: file})
}

// Given makes the image of programs that are there.
func (m *Maker) Given(ctx context.Context, name, fix, version string, p Programs) (Made, error) {
	srv, err := server.ByName(name)
	if err != nil {
		return Made{}, err
	}
	made := Made{Server: srv, Fix: fix, Version: version, Patch: p.Patch != ""}
	if made.Image, made.Packages, err = Image(ctx, m.Builder, srv, p); err != nil {
		return Made{}, err
	}
	if m.made == nil {
		m.made = map[string]Made{}
	}
	m.made[name+" "+fix] = made
	return made, nil
}

// Fixes are those of a program that can be applied live; "" is every program.
func Fixes(name string) ([][2]string, error) {
	var out [][2]string
	for _, n := range server.Names() {
		if name != "" && n != name {
			continue
		}
		p, err := program.Find(n)
		if err != nil {
			return nil, err
		}
		for _, f := range p.Fixes {
			if f.Refused == "" {
				out = append(out, [2]string{n, f.Name})
			}
		}
	}
	return out, nil
}
