// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/wflp/wflp/internal/build"
)

// recipeVersion stands for everything in this file that shapes a kernel but is
// not written down elsewhere. Raise it when a change here makes another kernel
// from the same inputs.
const recipeVersion = 1

// Builder makes kernels. RepoRoot and CacheDir must be absolute.
type Builder struct {
	RepoRoot string
	CacheDir string
	// Log receives progress, a line at a time. nil is quiet.
	Log io.Writer
	// Tree, if set, is a git tree as MakeTree makes it. Its difference from
	// the imported source, committed or not, is built in place of patches/.
	Tree string
	// First, if set, is how many patches of the series are applied: a point
	// on the way that somebody who bisects may stop at. Such kernels have a
	// tree and objects of their own, so that the whole series keeps its.
	First int
	// Mutant, if set, is applied on top of the series. All mutants of a variant
	// share a tree and objects, which are not those of the series, so that each
	// compiles what it differs in from the one before.
	Mutant *Mutant

	apt *build.Apt
}

func (b *Builder) logf(format string, args ...any) {
	if b.Log != nil {
		fmt.Fprintf(b.Log, format+"\n", args...)
	}
}

// Manifest lists all that went into a kernel.
type Manifest struct {
	Variant       string   `json:"variant"`
	Mutant        string   `json:"mutant,omitempty"`
	Digest        string   `json:"digest"`
	Release       string   `json:"release"`
	Recipe        int      `json:"recipe"`
	SourceVersion string   `json:"source_version"`
	SourceSHA256  string   `json:"source_sha256"`
	SeriesSHA256  string   `json:"series_sha256"` // of its code, see codeDigest
	Patches       int      `json:"patches"`
	Options       string   `json:"options"`
	Make          []string `json:"make,omitempty"`
	Compiler      string   `json:"compiler"`
	Linker        string   `json:"linker"`
}

// digest names the kernel: the first 16 digits of a hash of all inputs.
func (m Manifest) digest() string {
	m.Digest, m.Release, m.Patches = "", "", 0
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// ReadManifest reads what went into a built kernel.
func ReadManifest(built Built) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(built.ManifestPath())
	if err != nil {
		return m, fmt.Errorf("read kernel manifest: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("parse kernel manifest: %w", err)
	}
	return m, nil
}

// plan is all that is known about a kernel before it is built.
type plan struct {
	variant  Variant
	src      source
	series   []Patch
	options  []option
	manifest Manifest
}

func (b *Builder) plan(ctx context.Context, name string) (*plan, error) {
	if b.Log == nil {
		b.Log = io.Discard
	}
	v, err := VariantByName(name)
	if err != nil {
		return nil, err
	}
	p := &plan{variant: v}
	if p.options, err = mergeFragments(b.RepoRoot, v.Fragments); err != nil {
		return nil, err
	}
	if v.Series {
		if b.Tree != "" {
			p.series, err = treeSeries(ctx, b.Tree)
		} else {
			p.series, err = ReadSeries(b.RepoRoot)
		}
		if err != nil {
			return nil, err
		}
		if b.First > len(p.series) {
			return nil, fmt.Errorf("take %d patches: the series has %d", b.First, len(p.series))
		}
		if b.First > 0 {
			p.series = p.series[:b.First]
		}
	}
	var mutant string
	if b.Mutant != nil {
		if b.Mutant.Target != TargetKernel || !v.Series {
			return nil, fmt.Errorf("put mutant %s into a kernel %s: it is of %s, or there is no series", b.Mutant, name, b.Mutant.Target)
		}
		mutant = b.Mutant.String()
		p.series = append(slices.Clone(p.series), b.Mutant.Patch)
	}
	compiler, err := firstLine(ctx, "gcc", "--version")
	if err != nil {
		return nil, err
	}
	linker, err := firstLine(ctx, "ld", "--version")
	if err != nil {
		return nil, err
	}
	if p.src, err = b.ensureSource(ctx); err != nil {
		return nil, err
	}
	p.manifest = Manifest{
		Variant: v.Name, Mutant: mutant, Recipe: recipeVersion,
		SourceVersion: p.src.Version, SourceSHA256: p.src.DebSHA256,
		SeriesSHA256: codeDigest(p.series), Patches: len(p.series),
		Options: formatOptions(p.options), Make: v.Make, Compiler: compiler, Linker: linker,
	}
	p.manifest.Digest = p.manifest.digest()
	return p, nil
}

func (b *Builder) kernelDir(variant, digest string) string {
	if b.Mutant != nil {
		variant += "+" + b.Mutant.String()
	}
	return filepath.Join(b.CacheDir, "kernels", variant+"-"+digest)
}

// objDir is where kbuild puts its objects; it lives on from build to build.
func (b *Builder) objDir(p *plan) string {
	return filepath.Join(b.CacheDir, "build", b.lane(p.variant.Name)+"-"+filepath.Base(p.src.dir))
}

// lane is what builds that may not disturb each other differ in.
func (b *Builder) lane(variant string) string {
	switch {
	case b.First > 0:
		return variant + ".part"
	case b.Mutant != nil:
		return variant + ".mutant"
	}
	return variant
}

// Open reads a finished kernel from its folder.
func Open(dir string) (Built, error) {
	built := Built{Dir: dir}
	m, err := ReadManifest(built)
	if err != nil {
		return Built{}, err
	}
	built.Variant, built.Mutant, built.Digest, built.Release = m.Variant, m.Mutant, m.Digest, m.Release
	return built, nil
}

// ErrNotBuilt says that the cache does not hold the kernel.
var ErrNotBuilt = errors.New("not built yet")

// Find returns the kernel of a variant if it is in the cache.
func (b *Builder) Find(ctx context.Context, variant string) (Built, error) {
	p, err := b.plan(ctx, variant)
	if err != nil {
		return Built{}, err
	}
	dir := b.kernelDir(variant, p.manifest.Digest)
	if !isDir(dir) {
		return Built{}, fmt.Errorf("find kernel %s-%s: %w", variant, p.manifest.Digest, ErrNotBuilt)
	}
	return Open(dir)
}

// Digest is the name that the kernel of a variant has, built or not.
func (b *Builder) Digest(ctx context.Context, variant string) (string, error) {
	p, err := b.plan(ctx, variant)
	if err != nil {
		return "", err
	}
	return p.manifest.Digest, nil
}

// List returns all kernels in the cache, by name.
func (b *Builder) List() ([]Built, error) {
	dirs, err := filepath.Glob(filepath.Join(b.CacheDir, "kernels", "*-*"))
	if err != nil {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	sort.Strings(dirs)
	var out []Built
	for _, d := range dirs {
		if built, err := Open(d); err == nil {
			out = append(out, built)
		}
	}
	return out, nil
}

// Build returns the kernel of a variant, building what is missing.
func (b *Builder) Build(ctx context.Context, variant string) (Built, error) {
	p, err := b.plan(ctx, variant)
	if err != nil {
		return Built{}, err
	}
	dir := b.kernelDir(variant, p.manifest.Digest)
	if isDir(dir) {
		return Open(dir)
	}
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "build-"+b.lane(variant)), b.Log)
	if err != nil {
		return Built{}, err
	}
	defer unlock()
	if isDir(dir) {
		return Open(dir)
	}
	return b.build(ctx, p, dir)
}

func (b *Builder) build(ctx context.Context, p *plan, dir string) (Built, error) {
	start := time.Now()
	if err := b.seedLane(ctx, p); err != nil {
		return Built{}, err
	}
	srcDir := p.src.dir
	if p.variant.Series {
		var err error
		if srcDir, err = b.patchedTree(ctx, p.src, b.lane(p.variant.Name), p.series); err != nil {
			return Built{}, err
		}
	}
	name := p.variant.Name
	obj := b.objDir(p)
	if err := os.MkdirAll(obj, 0o755); err != nil {
		return Built{}, fmt.Errorf("make build directory: %w", err)
	}
	logPath := filepath.Join(b.CacheDir, "build", b.lane(name)+".log")
	logFile, err := os.Create(logPath)
	if err != nil {
		return Built{}, fmt.Errorf("make build log: %w", err)
	}
	defer logFile.Close()
	b.logf("kernel %s-%s: building (log: %s)", name, p.manifest.Digest, logPath)

	m := maker{b: b, srcDir: srcDir, obj: obj, log: logFile, variant: p.variant, start: start}
	if err := m.configure(ctx, p); err != nil {
		return Built{}, err
	}
	if err := m.make(ctx, "-j", fmt.Sprint(runtime.NumCPU()), "vmlinux", "bzImage"); err != nil {
		return Built{}, err
	}
	releaseName, err := output(ctx, srcDir, "make", m.args("-s", "kernelrelease")...)
	if err != nil {
		return Built{}, fmt.Errorf("ask kernel release: %w", err)
	}
	p.manifest.Release = strings.TrimSpace(string(releaseName))
	if err := b.stage(ctx, p, obj, dir); err != nil {
		return Built{}, err
	}
	b.logf("kernel %s-%s: built in %d s", name, p.manifest.Digest, int(time.Since(start).Seconds()))
	return Open(dir)
}

// stage keeps what was built.
func (b *Builder) stage(ctx context.Context, p *plan, obj, dir string) error {
	return build.Stage(dir, func(tmp string) error {
		for from, to := range map[string]string{"vmlinux": "vmlinux.debug", "arch/x86/boot/bzImage": "bzImage", ".config": "config"} {
			if _, err := output(ctx, "", "cp", filepath.Join(obj, from), filepath.Join(tmp, to)); err != nil {
				return fmt.Errorf("keep %s: %w", to, err)
			}
		}
		if _, err := output(ctx, tmp, "strip", "--strip-all", "-o", "vmlinux", "vmlinux.debug"); err != nil {
			return fmt.Errorf("strip vmlinux: %w", err)
		}
		data, err := json.MarshalIndent(p.manifest, "", "  ")
		if err != nil {
			return fmt.Errorf("write manifest: %w", err)
		}
		if err := os.WriteFile(filepath.Join(tmp, "manifest.json"), append(data, '\n'), 0o644); err != nil {
			return fmt.Errorf("write manifest: %w", err)
		}
		return nil
	})
}

// maker runs kbuild for one variant.
type maker struct {
	b           *Builder
	srcDir, obj string
	log         io.Writer
	variant     Variant
	start       time.Time
}

// args pins what kbuild would otherwise take from the machine and the clock.
func (m *maker) args(more ...string) []string {
	return append([]string{
		"-C", m.srcDir, "O=" + m.obj, "ARCH=x86_64",
		"LOCALVERSION=-wflp-" + m.variant.Name,
		"KBUILD_BUILD_TIMESTAMP=2024-01-01 00:00:00 UTC", "KBUILD_BUILD_USER=wflp", "KBUILD_BUILD_HOST=wflp", "KBUILD_BUILD_VERSION=1",
	}, slices.Concat(m.variant.Make, more)...)
}

// configure writes .config, but leaves a finished one alone when it would come
// out the same: its time stamp is what make compares.
func (m *maker) configure(ctx context.Context, p *plan) error {
	dotConfig := filepath.Join(m.obj, ".config")
	stamp := filepath.Join(m.obj, ".wflp-options")
	asked := p.manifest.Options
	exempt := absentOptions(p.series)
	have, _ := os.ReadFile(stamp)
	if string(have) != asked || !isFile(dotConfig) {
		os.Remove(stamp)
		if err := m.make(ctx, "tinyconfig"); err != nil {
			return err
		}
		f, err := os.OpenFile(dotConfig, os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("write kernel config: %w", err)
		}
		if _, err := io.WriteString(f, asked); err != nil {
			f.Close()
			return fmt.Errorf("write kernel config: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("write kernel config: %w", err)
		}
	} else if p.variant.Series {
		// The series may have gained an option since: ask for all again.
		text, err := os.ReadFile(dotConfig)
		if err != nil {
			return fmt.Errorf("read kernel config: %w", err)
		}
		var missing []option
		for _, o := range p.options {
			if seriesOption(o.Name) && !exempt(o.Name) && !strings.Contains(string(text), o.Name+"="+o.Value+"\n") {
				missing = append(missing, o)
			}
		}
		if len(missing) > 0 {
			if err := os.WriteFile(dotConfig, append(text, formatOptions(missing)...), 0o644); err != nil {
				return fmt.Errorf("write kernel config: %w", err)
			}
		}
	}
	if err := m.make(ctx, "olddefconfig"); err != nil {
		return err
	}
	text, err := os.ReadFile(dotConfig)
	if err != nil {
		return fmt.Errorf("read kernel config: %w", err)
	}
	if err := checkConfig(p.options, string(text), exempt); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(asked), 0o644)
}

// make runs make, keeps its output in the log, and tells how far it is.
func (m *maker) make(ctx context.Context, args ...string) error {
	objects, said := 0, time.Now()
	err := build.Follow(command(ctx, "", "make", m.args(args...)...), m.log, func(line string) {
		kind, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "CC" || kind == "AS" {
			objects++
		}
		if objects > 0 && time.Since(said) >= 10*time.Second {
			said = time.Now()
			m.b.logf("kernel %s: %d objects (a cold build has about %d), now %s, %d s",
				m.variant.Name, objects, m.variant.Objects, strings.TrimSpace(file), int(time.Since(m.start).Seconds()))
		}
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("build kernel %s: %w", m.variant.Name, ctx.Err())
	case err != nil:
		return fmt.Errorf("build kernel %s: make %s: %w", m.variant.Name, strings.Join(args, " "), err)
	}
	return nil
}
