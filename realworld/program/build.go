// SPDX-License-Identifier: Apache-2.0

package program

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
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/realworld/patch"
)

// recipeVersion stands for everything in this package that shapes a build but
// is in none of its inputs. Raise it when a change here makes another build of
// the same.
const recipeVersion = 1

// sectionFlags are all that we add to Debian's flags.
const sectionFlags = "-ffunction-sections -fdata-sections"

// Builder builds programs and patches. CacheDir must be absolute.
type Builder struct {
	CacheDir string
	// Log receives progress, a line at a time. nil is quiet.
	Log io.Writer

	sources *build.Sources
}

// Tree is a built source.
type Tree struct {
	Dir string
	// Program is the executable, with its symbols.
	Program string
}

// Patch is what came of a fix.
type Patch struct {
	*patch.Result
	Origin Origin
	// Without is the build that the patch is for, With the one that it leads to.
	Without, With Tree
	// File is the patch file, nil where the fix was refused.
	File []byte
}

// Origin says where a patch came from.
type Origin struct {
	Program  string         `json:"program"`
	Fix      string         `json:"fix"`
	Source   string         `json:"source"`
	Version  string         `json:"version"`
	Dsc      string         `json:"dsc_sha256"`
	Build    string         `json:"build,omitempty"`
	About    string         `json:"about,omitempty"`
	Series   []string       `json:"series"`
	Diffs    []Diff         `json:"diffs"`
	Compiler string         `json:"compiler"`
	Flags    string         `json:"flags"`
	Replaced []string       `json:"replaced"`
	Added    []string       `json:"added,omitempty"`
	Carried  []string       `json:"carried,omitempty"`
	Relocs   map[string]int `json:"relocations"`
	Notes    []string       `json:"notes"`
}

// Diff names a diff.
type Diff struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

func (b *Builder) logf(format string, args ...any) {
	if b.Log != nil {
		fmt.Fprintf(b.Log, format+"\n", args...)
	}
}

// source returns the unpacked source without Debian's patches, and what it is.
func (b *Builder) source(ctx context.Context, p *Program) (build.Source, []change, error) {
	if b.sources == nil {
		b.sources = &build.Sources{Apt: &build.Apt{CacheDir: b.CacheDir, Log: b.Log}, Unpatched: true}
	}
	src, err := b.sources.Get(ctx, p.Source)
	if err != nil {
		return build.Source{}, nil, err
	}
	series, err := readSeries(src.Dir)
	return src, series, err
}

// Patch builds a program without and with one of its fixes, and makes a patch
// of the difference. That the fix is refused is no error.
func (b *Builder) Patch(ctx context.Context, p *Program, f Fix) (*Patch, error) {
	src, series, err := b.source(ctx, p)
	if err != nil {
		return nil, err
	}
	base, fix, err := split(series, f.Patches)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", p.Source.Package, src.Version, err)
	}
	return b.patch(ctx, p, src, f, base, fix)
}

// PatchOf does the same for any diff to the package as Debian has it.
func (b *Builder) PatchOf(ctx context.Context, p *Program, variant, name string, diff []byte) (*Patch, error) {
	if _, ok := p.Builds[variant]; !ok {
		return nil, fmt.Errorf("%s has no build %q", p.Name, variant)
	}
	src, series, err := b.source(ctx, p)
	if err != nil {
		return nil, err
	}
	return b.patch(ctx, p, src, Fix{Name: name, Build: variant}, series, []change{{name, diff}})
}

func (b *Builder) patch(ctx context.Context, p *Program, src build.Source, f Fix, base, fix []change) (*Patch, error) {
	out := &Patch{Origin: Origin{Program: p.Name, Fix: f.Name, Source: p.Source.Package, Version: src.Version, Dsc: src.SHA256,
		Build: f.Build, About: p.Builds[f.Build].About, Flags: "those of the package, and " + sectionFlags}}
	var err error
	if out.Origin.Compiler, err = build.FirstLine(ctx, "gcc", "--version"); err != nil {
		return nil, err
	}
	for _, c := range base {
		out.Origin.Series = append(out.Origin.Series, c.name)
	}
	var touched []string
	for _, c := range fix {
		sum := sha256.Sum256(c.data)
		out.Origin.Diffs = append(out.Origin.Diffs, Diff{c.name, hex.EncodeToString(sum[:])})
		touched = append(touched, c.touched()...)
	}
	if out.Without, err = b.build(ctx, p, src, f.Build, base, nil); err != nil {
		return nil, err
	}
	if out.With, err = b.build(ctx, p, src, f.Build, base, fix); err != nil {
		return nil, err
	}
	was, err := patch.Open(out.Without.Dir, p.Program)
	if err != nil {
		return nil, err
	}
	now, err := patch.Open(out.With.Dir, p.Program)
	if err != nil {
		return nil, err
	}
	if out.Result, err = patch.Judge(patch.Request{Name: p.Name + " " + f.Name, Old: was, New: now, Loops: p.Loops, Touched: touched}); err != nil {
		return nil, err
	}
	if len(out.Refused) > 0 {
		return out, nil
	}
	o := &out.Origin
	o.Replaced, o.Added, o.Carried, o.Relocs, o.Notes = out.Replaced, out.Added, out.Carried, out.Relocations, out.Notes
	text, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write origin: %w", err)
	}
	if out.File, err = out.Result.File(append(text, '\n')); err != nil {
		return nil, err
	}
	return out, nil
}

// inputs are all that goes into a build. What they are hashed to names it.
type inputs struct {
	Recipe       int
	Source       string
	Edits        []Edit
	Base, Fix    []Diff
	Compiler     string
	Dependencies string // versions of the Debian packages that it is built with
}

func diffs(list []change) []Diff {
	var out []Diff
	for _, c := range list {
		sum := sha256.Sum256(c.data)
		out = append(out, Diff{c.name, hex.EncodeToString(sum[:])})
	}
	return out
}

// build builds a source in a state of its series, if the cache does not have it.
func (b *Builder) build(ctx context.Context, p *Program, src build.Source, variant string, base, fix []change) (Tree, error) {
	versions, err := dependencies(ctx, src.Dir, p)
	if err != nil {
		return Tree{}, fmt.Errorf("build %s: %w", p.Name, err)
	}
	compiler, err := build.FirstLine(ctx, "gcc", "--version")
	if err != nil {
		return Tree{}, err
	}
	edits := p.Builds[variant].Edits
	in, err := json.Marshal(inputs{recipeVersion, src.SHA256, edits, diffs(base), diffs(fix), compiler, versions})
	if err != nil {
		return Tree{}, fmt.Errorf("build %s: %w", p.Name, err)
	}
	sum := sha256.Sum256(in)
	dir := filepath.Join(b.CacheDir, "realworld", p.Name+"-"+hex.EncodeToString(sum[:8]))
	tree := Tree{Dir: dir, Program: filepath.Join(dir, p.Program)}
	if build.IsDir(dir) {
		return tree, nil
	}
	// One place for all builds of a program: what has its folder's name in it
	// (debugging information, for one) is the same in all.
	work := filepath.Join(b.CacheDir, "build", "realworld-"+p.Name)
	unlock, err := build.Lock(ctx, filepath.Join(b.CacheDir, "locks", "realworld-"+p.Name), b.Log)
	if err != nil {
		return Tree{}, err
	}
	defer unlock()
	if build.IsDir(dir) {
		return tree, nil
	}
	what := "as far as " + last(base)
	if len(fix) > 0 {
		what = "with " + last(fix)
	}
	b.logf("building %s %s %s", p.Source.Package, src.Version, what)
	if err := b.fill(ctx, work, src, edits, base, fix); err != nil {
		return Tree{}, fmt.Errorf("build %s: %w", p.Name, err)
	}
	if err := compile(ctx, work, dir+".log"); err != nil {
		return Tree{}, fmt.Errorf("build %s %s: %w", p.Name, what, err)
	}
	if !build.IsFile(filepath.Join(work, p.Program)) {
		return Tree{}, fmt.Errorf("build %s: the package's rules have left no %s", p.Name, p.Program)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Tree{}, fmt.Errorf("keep build of %s: %w", p.Name, err)
	}
	if err := os.Rename(work, dir); err != nil {
		return Tree{}, fmt.Errorf("keep build of %s: %w", p.Name, err)
	}
	return tree, nil
}

func last(list []change) string {
	if len(list) == 0 {
		return "the unpatched source"
	}
	return list[len(list)-1].name
}

// fill makes the tree to be built.
func (b *Builder) fill(ctx context.Context, work string, src build.Source, edits []Edit, base, fix []change) error {
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(work), 0o755); err != nil {
		return err
	}
	if _, err := build.Output(ctx, "", "cp", "-a", "--reflink=auto", src.Dir, work); err != nil {
		return err
	}
	for _, c := range base {
		if err := c.apply(ctx, work); err != nil {
			return err
		}
	}
	for _, e := range edits {
		if err := e.apply(work); err != nil {
			return err
		}
	}
	return fixTree(ctx, work, fix)
}

// fixTree applies a fix, and leaves the line numbers of what it does not
// change as they were.
func fixTree(ctx context.Context, work string, fix []change) error {
	before, err := os.MkdirTemp("", "wflp-fix-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(before)
	var sources []string
	for _, c := range fix {
		for _, t := range c.touched() {
			if !slices.Contains([]string{".c", ".h"}, filepath.Ext(t)) || !filepath.IsLocal(t) || slices.Contains(sources, t) || !build.IsFile(filepath.Join(work, t)) {
				continue
			}
			data, err := os.ReadFile(filepath.Join(work, t))
			if err != nil {
				return err
			}
			if err := build.WriteFileAtomic(filepath.Join(before, t), data, 0o644); err != nil {
				return err
			}
			sources = append(sources, t)
		}
	}
	for _, c := range fix {
		if err := c.apply(ctx, work); err != nil {
			return err
		}
	}
	for _, t := range sources {
		if err := keepLines(ctx, filepath.Join(before, t), filepath.Join(work, t)); err != nil {
			return err
		}
	}
	return nil
}

func (e Edit) apply(dir string) error {
	name := filepath.Join(dir, e.File)
	st, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("edit %s: %w", e.File, err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("edit %s: %w", e.File, err)
	}
	if n := strings.Count(string(text), e.Old); n != 1 {
		return fmt.Errorf("edit %s: %q is there %d times, not once", e.File, e.Old, n)
	}
	return build.WriteFileAtomic(name, []byte(strings.Replace(string(text), e.Old, e.New, 1)), st.Mode().Perm())
}

// compile runs the package's own build, so that configuration and flags are
// Debian's. Its checks are not run, nothing is installed or stripped.
func compile(ctx context.Context, dir, logName string) error {
	log, err := createLog(logName)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := build.Command(ctx, dir, "debian/rules", "build-arch")
	var env []string
	for _, kv := range cmd.Env {
		if !strings.HasPrefix(kv, "DEB_") && !strings.HasPrefix(kv, "SOURCE_DATE_EPOCH=") {
			env = append(env, kv)
		}
	}
	cmd.Env = append(env, "LC_ALL=C.UTF-8", "TZ=UTC", "DEB_CFLAGS_APPEND="+sectionFlags,
		fmt.Sprintf("DEB_BUILD_OPTIONS=nocheck nostrip noautodbgsym parallel=%d", runtime.NumCPU()))
	if err := build.Follow(cmd, log, func(string) {}); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return nil
}

func createLog(name string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, fmt.Errorf("write log: %w", err)
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("write log: %w", err)
	}
	return f, nil
}

// ErrPackages says that Debian packages are missing, and which.
var ErrPackages = errors.New("packages of Debian are missing")

var unmetRE = regexp.MustCompile(`\([^)]*\)`)

// dependencies checks that what the package is built with is installed, and
// returns the versions, since headers and static libraries shape the code.
func dependencies(ctx context.Context, dir string, p *Program) (string, error) {
	cmd := build.Command(ctx, dir, "dpkg-checkbuilddeps", "-B", "-P", "nocheck")
	cmd.Env = append(cmd.Env, "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		_, list, ok := strings.Cut(string(out), "dependencies:")
		if !ok {
			return "", fmt.Errorf("check build dependencies: %w\n%s", err, out)
		}
		var missing []string
		for _, name := range strings.Fields(unmetRE.ReplaceAllString(strings.ReplaceAll(list, "|", " "), "")) {
			if name == "debhelper-compat" {
				name = "debhelper"
			}
			if !slices.Contains(p.Unneeded, name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return "", fmt.Errorf("%w: as root, apt-get install %s", ErrPackages, strings.Join(missing, " "))
		}
	}
	control, err := os.ReadFile(filepath.Join(dir, "debian", "control"))
	if err != nil {
		return "", fmt.Errorf("check build dependencies: %w", err)
	}
	names := []string{"binutils", "dpkg-dev", "gcc", "libc6-dev"}
	for _, m := range regexp.MustCompile(`\blib[a-z0-9.+-]+-dev\b`).FindAllString(string(control), -1) {
		if !slices.Contains(names, m) {
			names = append(names, m)
		}
	}
	slices.Sort(names)
	query := build.Command(ctx, "", "dpkg-query", append([]string{"--show", "--showformat", "${Package}=${Version}\n"}, names...)...)
	versions, _ := query.Output() // it complains of those that the build does without
	if len(versions) == 0 {
		return "", errors.New("check build dependencies: dpkg knows no package")
	}
	return string(versions), nil
}
