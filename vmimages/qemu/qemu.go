// SPDX-License-Identifier: Apache-2.0

// Package qemu turns Debian's source package of QEMU and the patch series in
// patches/ into an emulator of our own: one whose interleaving of processors
// follows from a seed, and that lacks some mistakes of Debian's. It is named by
// the digest of all that went into it.
//
// The package knows how to make an emulator, and nothing about running one.
package qemu

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

// recipeVersion stands for everything in this file that shapes the emulator but
// is not written down elsewhere. Raise it when a change here makes another
// emulator from the same inputs.
const recipeVersion = 2

// Builder makes emulators. RepoRoot and CacheDir must be absolute.
type Builder struct {
	RepoRoot string
	CacheDir string
	// Log receives progress, a line at a time. nil is quiet.
	Log io.Writer

	apt *build.Apt
}

// Built is a finished emulator in the cache.
type Built struct {
	Dir      string
	Manifest Manifest
}

// Program is the emulator itself.
func (b Built) Program() string { return filepath.Join(b.Dir, program) }

// Firmware is the folder with what the emulator puts into its machines.
func (b Built) Firmware() string { return filepath.Join(b.Dir, "share") }

// Exists tells an emulator from the zero value.
func (b Built) Exists() bool { return b.Dir != "" }

const program = "qemu-system-x86_64"

// Manifest lists all that went into an emulator.
type Manifest struct {
	Digest        string `json:"digest"`
	Recipe        int    `json:"recipe"`
	SourceVersion string `json:"source_version"`
	SourceSHA256  string `json:"source_sha256"` // of the .dsc, which has those of the rest
	SeriesSHA256  string `json:"series_sha256"`
	Patches       int    `json:"patches"`
	Compiler      string `json:"compiler"`
	Linker        string `json:"linker"`
	// Firmware are SHA-256s by file name.
	Firmware map[string]string `json:"firmware"`
}

// digest names the emulator: the first 16 digits of a hash of all inputs.
func (m Manifest) digest() string {
	m.Digest, m.Patches = "", 0
	sum := sha256.Sum256(m.json())
	return hex.EncodeToString(sum[:8])
}

func (m Manifest) json() []byte {
	data, err := json.MarshalIndent(m, "", "  ") // maps are sorted
	if err != nil {
		panic(err) // strings and numbers only
	}
	return append(data, '\n')
}

// firmware are the files of Debian's that the machines need: the BIOS, and the
// code that starts a kernel in each of its forms.
var firmware = []string{
	"/usr/share/qemu/kvmvapic.bin",
	"/usr/share/qemu/linuxboot_dma.bin",
	"/usr/share/qemu/pvh.bin",
	"/usr/share/seabios/bios-256k.bin",
}

// configureArgs make the smallest emulator that has what our machines are made
// of; the list of devices is in the series.
var configureArgs = []string{
	"--cc=/usr/bin/gcc", "--meson=/usr/bin/meson", "--prefix=/nonexistent", "--with-pkgversion=wflp", "--with-git-submodules=ignore",
	"--target-list=x86_64-softmmu", "--without-default-features", "--without-default-devices", "--with-devices-x86_64=wflp",
	"--enable-tcg", "--enable-fdt=system", "--disable-kvm", "--disable-user", "--disable-tools", "--disable-docs",
	"--disable-debug-info", "--disable-werror",
}

// tools and libraries are what the build needs: files, and what pkg-config
// knows.
var (
	tools     = []string{"/usr/bin/gcc", "/usr/bin/meson", "/usr/bin/ninja", "/usr/bin/python3", "/usr/bin/pkg-config", "/usr/bin/dpkg-source", "/usr/include/libfdt.h"}
	libraries = []string{"glib-2.0", "pixman-1", "zlib"}
)

// ErrNoTools says that this machine cannot build QEMU, and what it lacks.
var ErrNoTools = errors.New("missing on this machine (make bootstrap installs it)")

// ErrNotBuilt says that the cache does not hold the emulator.
var ErrNotBuilt = errors.New("not built yet")

func (b *Builder) logf(format string, args ...any) {
	if b.Log != nil {
		fmt.Fprintf(b.Log, format+"\n", args...)
	}
}

func (b *Builder) patchDir() string {
	return filepath.Join(b.RepoRoot, "vmimages", "qemu", "patches")
}

// inputs are all inputs but the source.
func (b *Builder) inputs(ctx context.Context) (Manifest, []build.Patch, error) {
	m := Manifest{Recipe: recipeVersion, Firmware: map[string]string{}}
	for _, t := range append(append([]string{}, tools...), firmware...) {
		if !build.IsFile(t) {
			return m, nil, fmt.Errorf("build QEMU: %s is %w", t, ErrNoTools)
		}
	}
	for _, l := range libraries {
		if _, err := build.Output(ctx, "", "/usr/bin/pkg-config", "--exists", l); err != nil {
			return m, nil, fmt.Errorf("build QEMU: the library %s is %w", l, ErrNoTools)
		}
	}
	series, err := build.ReadSeriesDir(b.patchDir())
	if err != nil {
		return m, nil, err
	}
	m.SeriesSHA256, m.Patches = build.SeriesDigest(series), len(series)
	if m.Compiler, err = build.FirstLine(ctx, "/usr/bin/gcc", "--version"); err != nil {
		return m, nil, err
	}
	if m.Linker, err = build.FirstLine(ctx, "/usr/bin/ld", "--version"); err != nil {
		return m, nil, err
	}
	for _, f := range firmware {
		if m.Firmware[filepath.Base(f)], err = build.SHA256(f); err != nil {
			return m, nil, fmt.Errorf("hash firmware: %w", err)
		}
	}
	return m, series, nil
}

func (m Manifest) with(src build.Source) Manifest {
	m.SourceVersion, m.SourceSHA256 = src.Version, src.SHA256
	m.Digest = m.digest()
	return m
}

// Find returns the emulator if it is in the cache, from whichever source.
func (b *Builder) Find(ctx context.Context) (Built, error) {
	want, _, err := b.inputs(ctx)
	if err != nil {
		return Built{}, err
	}
	pin, err := ReadPin(b.RepoRoot)
	if err != nil {
		return Built{}, err
	}
	if found, err := Open(b.dir(want.with(b.sources().At(pin)).Digest)); err == nil {
		return found, nil
	}
	all, err := filepath.Glob(b.dir("*"))
	if err != nil {
		return Built{}, fmt.Errorf("list emulators: %w", err)
	}
	sort.Strings(all)
	for _, dir := range all {
		found, err := Open(dir)
		if err != nil {
			continue
		}
		src := build.Source{Version: found.Manifest.SourceVersion, SHA256: found.Manifest.SourceSHA256}
		if want.with(src).Digest == found.Manifest.Digest {
			return found, nil
		}
	}
	return Built{}, fmt.Errorf("find QEMU: %w", ErrNotBuilt)
}

func (b *Builder) dir(digest string) string {
	return filepath.Join(b.CacheDir, "qemu", digest)
}

// Open reads a finished emulator from its folder.
func Open(dir string) (Built, error) {
	built := Built{Dir: dir}
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return Built{}, fmt.Errorf("read manifest of QEMU: %w", err)
	}
	if err := json.Unmarshal(data, &built.Manifest); err != nil {
		return Built{}, fmt.Errorf("parse manifest of QEMU: %w", err)
	}
	return built, nil
}

// Build returns the emulator, building it if the cache has none. It may be
// called by any number of processes at once.
func (b *Builder) Build(ctx context.Context) (Built, error) {
	m, series, err := b.inputs(ctx)
	if err != nil {
		return Built{}, err
	}
	src, err := b.ensureSource(ctx)
	if err != nil {
		return Built{}, err
	}
	m = m.with(src)
	dir := b.dir(m.Digest)
	if build.IsDir(dir) {
		return Open(dir)
	}
	unlock, err := build.Lock(ctx, filepath.Join(b.CacheDir, "locks", "build-qemu"), b.Log)
	if err != nil {
		return Built{}, err
	}
	defer unlock()
	if build.IsDir(dir) {
		return Open(dir)
	}
	if err := b.build(ctx, m, src, series); err != nil {
		return Built{}, err
	}
	return Open(dir)
}

func (b *Builder) build(ctx context.Context, m Manifest, src build.Source, series []build.Patch) error {
	start := time.Now()
	tree := b.tree(src, series)
	if err := tree.Sync(ctx); err != nil {
		return err
	}
	obj := filepath.Join(b.CacheDir, "build", filepath.Base(src.Dir))
	if err := os.MkdirAll(obj, 0o755); err != nil {
		return fmt.Errorf("make build directory: %w", err)
	}
	logPath := filepath.Join(b.CacheDir, "build", "qemu.log")
	log, err := os.Create(logPath)
	if err != nil {
		return fmt.Errorf("make build log: %w", err)
	}
	defer log.Close()
	b.logf("QEMU %s: building, some minutes (log: %s)", m.Digest, logPath)
	mk := maker{b: b, obj: obj, log: log, start: start}
	if err := mk.configure(ctx, tree.Dir); err != nil {
		return err
	}
	if err := mk.run(ctx, "/usr/bin/ninja", "-j", fmt.Sprint(runtime.NumCPU()), program); err != nil {
		return err
	}
	if err := b.stage(ctx, m, obj); err != nil {
		return err
	}
	b.logf("QEMU %s: built in %d s", m.Digest, int(time.Since(start).Seconds()))
	return nil
}

// stage keeps what was built.
func (b *Builder) stage(ctx context.Context, m Manifest, obj string) error {
	return build.Stage(b.dir(m.Digest), func(tmp string) error {
		if err := os.Mkdir(filepath.Join(tmp, "share"), 0o755); err != nil {
			return fmt.Errorf("keep QEMU: %w", err)
		}
		if _, err := build.Output(ctx, "", "strip", "-o", filepath.Join(tmp, program), filepath.Join(obj, program)); err != nil {
			return fmt.Errorf("keep QEMU: %w", err)
		}
		for _, f := range firmware {
			copied := filepath.Join(tmp, "share", filepath.Base(f))
			if _, err := build.Output(ctx, "", "cp", f, copied); err != nil {
				return fmt.Errorf("keep firmware: %w", err)
			}
			if sum, err := build.SHA256(copied); err != nil || sum != m.Firmware[filepath.Base(f)] {
				return fmt.Errorf("keep firmware: %s has changed meanwhile (%v)", f, err)
			}
		}
		if err := os.WriteFile(filepath.Join(tmp, "manifest.json"), m.json(), 0o644); err != nil {
			return fmt.Errorf("write manifest of QEMU: %w", err)
		}
		return nil
	})
}

// maker runs the tools of QEMU's build.
type maker struct {
	b     *Builder
	obj   string
	log   io.Writer
	start time.Time
}

// configure leaves what it did alone when it would do the same; what changes in
// the tree, ninja sees by itself.
func (mk *maker) configure(ctx context.Context, tree string) error {
	stamp := filepath.Join(mk.obj, ".wflp-configured")
	// An emulator does not name the folders that it was built in, so that it is the
	// same bytes wherever the cache is.
	args := append(slices.Clone(configureArgs), fmt.Sprintf("--extra-cflags=-ffile-prefix-map=%s=. -ffile-prefix-map=%s=.", tree, mk.obj))
	asked := tree + "\n" + strings.Join(args, "\n")
	if have, _ := os.ReadFile(stamp); string(have) == asked && build.IsFile(filepath.Join(mk.obj, "build.ninja")) {
		return nil
	}
	if err := os.RemoveAll(mk.obj); err != nil {
		return fmt.Errorf("configure QEMU: %w", err)
	}
	if err := os.MkdirAll(mk.obj, 0o755); err != nil {
		return fmt.Errorf("configure QEMU: %w", err)
	}
	if err := mk.run(ctx, filepath.Join(tree, "configure"), args...); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(asked), 0o644)
}

// run runs a tool in the build directory, keeps its output in the log, and
// tells how far it is.
func (mk *maker) run(ctx context.Context, name string, args ...string) error {
	cmd := build.Command(ctx, mk.obj, name, args...)
	// Debian's Python has what Debian's meson needs; another one that is
	// first on somebody's path has not.
	cmd.Env = append(cmd.Env, "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "PYTHON=/usr/bin/python3")
	said := time.Now()
	err := build.Follow(cmd, mk.log, func(line string) {
		// ninja begins its lines with [done/all].
		if part, _, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(part, "[") && time.Since(said) >= 10*time.Second {
			said = time.Now()
			mk.b.logf("QEMU: step %s, %d s", strings.TrimPrefix(part, "["), int(time.Since(mk.start).Seconds()))
		}
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("build QEMU: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("build QEMU: %s: %w", filepath.Base(name), err)
	}
	return nil
}
