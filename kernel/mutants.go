// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What a mutant changes.
const (
	TargetKernel  = "kernel"  // the tree with the series on it
	TargetLibrary = "libwflp" // this repository
)

// Mutant is a defect made on purpose, to see who finds it. None is part of the
// series.
type Mutant struct {
	ID     string // four digits
	Name   string
	Kind   string // of mistake
	Target string
	Oracle string // who ought to see it
	Why    string // what behaves otherwise, and when
	Patch  Patch
}

func (m Mutant) String() string { return m.ID + "-" + m.Name }

// ErrUnknownMutant says that there is no mutant of that number or name.
var ErrUnknownMutant = errors.New("unknown mutant")

// mutantsDir is where a checkout has them.
func mutantsDir(repoRoot string) string { return filepath.Join(repoRoot, "kernel", "mutants") }

// ReadMutants reads kernel/mutants of a checkout, by number.
func ReadMutants(repoRoot string) ([]Mutant, error) {
	patches, err := ReadSeriesDir(mutantsDir(repoRoot))
	if err != nil {
		return nil, err
	}
	var out []Mutant
	for _, p := range patches {
		m, err := parseMutant(p)
		if err != nil {
			return nil, err
		}
		if n := len(out); n > 0 && out[n-1].ID == m.ID {
			return nil, fmt.Errorf("read mutants: %s and %s have the same number", out[n-1], m)
		}
		out = append(out, m)
	}
	return out, nil
}

// FindMutant reads the one of that number, or of that number and name.
func FindMutant(repoRoot, name string) (Mutant, error) {
	all, err := ReadMutants(repoRoot)
	if err != nil {
		return Mutant{}, err
	}
	for _, m := range all {
		if m.ID == name || m.String() == name {
			return m, nil
		}
	}
	return Mutant{}, fmt.Errorf("find mutant %q in kernel/mutants: %w", name, ErrUnknownMutant)
}

var (
	mutantNameRE   = regexp.MustCompile(`^(\d{4})-([a-z0-9]+(?:-[a-z0-9]+)*)\.patch$`)
	mutantHeaderRE = regexp.MustCompile(`^(Kind|Target|Oracle|Why it is a defect): (.*)$`)
)

// parseMutant reads the header of a mutant: lines of the form NAME: TEXT, each of
// which lines that are indented go on with, up to the first file.
func parseMutant(p Patch) (Mutant, error) {
	name := mutantNameRE.FindStringSubmatch(p.Name)
	if name == nil {
		return Mutant{}, fmt.Errorf("read mutant %s: want a name such as 0123-what-is-wrong.patch", p.Name)
	}
	m := Mutant{ID: name[1], Name: name[2], Patch: p}
	fields := map[string]*string{"Kind": &m.Kind, "Target": &m.Target, "Oracle": &m.Oracle, "Why it is a defect": &m.Why}
	head, _, ok := strings.Cut(string(p.Data), "\ndiff --git ")
	if !ok {
		return m, fmt.Errorf("read mutant %s: it changes no file", m)
	}
	var last *string
	for _, line := range strings.Split(head, "\n") {
		if h := mutantHeaderRE.FindStringSubmatch(line); h != nil {
			if last = fields[h[1]]; *last != "" {
				return m, fmt.Errorf("read mutant %s: %q twice", m, h[1])
			}
			*last = h[2]
		} else if rest := strings.TrimSpace(line); rest != "" {
			if last == nil || !strings.HasPrefix(line, " ") {
				return m, fmt.Errorf("read mutant %s: what is %q?", m, line)
			}
			*last += " " + rest
		}
	}
	for _, f := range []string{"Kind", "Target", "Oracle", "Why it is a defect"} {
		if *fields[f] == "" {
			return m, fmt.Errorf("read mutant %s: it has no line %q", m, f+":")
		}
	}
	if m.Target != TargetKernel && m.Target != TargetLibrary {
		return m, fmt.Errorf("read mutant %s: target %q, want %s or %s", m, m.Target, TargetKernel, TargetLibrary)
	}
	files, err := touchedFiles([]Patch{p})
	if err != nil {
		return m, err
	}
	for _, f := range files {
		if in := strings.HasPrefix(f, "kernel/libwflp/"); in != (m.Target == TargetLibrary) {
			return m, fmt.Errorf("read mutant %s: target %s, and it changes %s", m, m.Target, f)
		}
	}
	return m, nil
}

// MutatedCopy makes a copy in dir of what is below the folders of a checkout, with
// the mutant applied. It is what a mutant of the library is built from.
func MutatedCopy(ctx context.Context, repoRoot string, m Mutant, dir string, folders ...string) error {
	for _, f := range folders {
		to := filepath.Join(dir, filepath.Dir(f))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return fmt.Errorf("copy %s for mutant %s: %w", f, m, err)
		}
		if _, err := output(ctx, "", "cp", "-a", filepath.Join(repoRoot, f), to); err != nil {
			return fmt.Errorf("copy %s for mutant %s: %w", f, m, err)
		}
	}
	return gitApply(ctx, dir, m.Patch)
}

// gitApply applies a patch to files that are in no repository, exactly.
func gitApply(ctx context.Context, dir string, p Patch) error {
	cmd := command(ctx, dir, "git", "apply", "--whitespace=nowarn", "-")
	// git apply ignores paths outside the repository it believes to be in,
	// without a word; the folder may well lie inside one.
	cmd.Env = append(cmd.Env, "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	cmd.Stdin = bytes.NewReader(p.Data)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apply %s: %w\n%s", p.Name, err, lastLines(complaint.String(), 20))
	}
	return nil
}

// applyMutant says whether a mutant applies to the series, or to the checkout.
func (b *Builder) applyMutant(ctx context.Context, p *plan, m Mutant) error {
	if m.Target == TargetLibrary {
		tmp, err := os.MkdirTemp("", "wflp-mutant-")
		if err != nil {
			return fmt.Errorf("apply mutant %s: %w", m, err)
		}
		defer os.RemoveAll(tmp)
		return MutatedCopy(ctx, b.RepoRoot, m, tmp, "kernel/libwflp")
	}
	series := append(slices.Clone(p.series), m.Patch)
	touched, err := touchedFiles(series)
	if err != nil {
		return err
	}
	_, err = b.tree(p.src, "check", series).Apply(ctx, touched)
	return err
}

// checkMutants says which mutants do not apply: one that does not proves nothing
// any more.
func (b *Builder) checkMutants(ctx context.Context, p *plan, c *Checked) error {
	all, err := ReadMutants(b.RepoRoot)
	if err != nil {
		return err
	}
	for _, m := range all {
		c.Patches++
		if err := b.applyMutant(ctx, p, m); err != nil {
			if ctx.Err() != nil {
				return err
			}
			c.Findings = append(c.Findings, Finding{"mutants", m.Patch.Name, err.Error()})
		}
	}
	return nil
}

// CompileMutants compiles what each mutant of the kernel touches, as the variant
// is configured. A warning counts as an error: what the compiler sees needs no
// fuzzer. It says how many it compiled.
func (b *Builder) CompileMutants(ctx context.Context, variant string, wanted []Mutant) (Checked, error) {
	var c Checked
	for _, m := range wanted {
		if m.Target != TargetKernel {
			continue
		}
		one := *b
		one.Mutant = &m
		text, err := one.compileMutant(ctx, variant)
		if err != nil {
			return c, err
		}
		c.Patches++
		if text != "" {
			c.Findings = append(c.Findings, Finding{"compile", m.Patch.Name, text})
		}
		b.logf("mutant %s: compiled", m)
	}
	return c, nil
}

var compilerSaysRE = regexp.MustCompile(`(?m)^.*: (?:warning|error): .*$`)

func (b *Builder) compileMutant(ctx context.Context, variant string) (string, error) {
	p, err := b.plan(ctx, variant)
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(b.CacheDir, "locks", "build-"+b.lane(variant)), b.Log)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := b.seedLane(ctx, p); err != nil {
		return "", err
	}
	src, err := b.patchedTree(ctx, p.src, b.lane(variant), p.series)
	if err != nil {
		// It does not apply: checkMutants says so, too.
		return err.Error(), ctx.Err()
	}
	m := maker{b: b, srcDir: src, obj: b.objDir(p), variant: p.variant}
	var log bytes.Buffer
	m.log = &log
	if err := os.MkdirAll(m.obj, 0o755); err != nil {
		return "", fmt.Errorf("make build directory: %w", err)
	}
	if err := m.configure(ctx, p); err != nil {
		return "", err
	}
	targets, err := mutantObjects(*b.Mutant)
	if err != nil {
		return "", err
	}
	cmd := command(ctx, "", "make", m.args(append([]string{"-s"}, targets...)...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("compile mutant %s: %w", b.Mutant, ctx.Err())
	}
	if said := compilerSaysRE.FindAllString(out.String(), -1); len(said) > 0 {
		return strings.Join(said, "\n"), nil
	}
	if err != nil {
		return lastLines(out.String(), 20), nil
	}
	return "", nil
}

// mutantObjects are the objects that a mutant changes. That of a header is seen in
// the file that includes it first of all: the heart of the mechanism.
func mutantObjects(m Mutant) ([]string, error) {
	files, err := touchedFiles([]Patch{m.Patch})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		if strings.HasSuffix(f, ".c") {
			out = append(out, strings.TrimSuffix(f, ".c")+".o")
		} else {
			out = append(out, "mm/mm_view.o", "kernel/exit.o")
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
