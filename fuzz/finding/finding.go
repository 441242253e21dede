// SPDX-License-Identifier: Apache-2.0

// Package finding keeps what a fuzzing campaign has found: a folder that holds
// all that is needed to see it again, and what can be done with one: replay,
// minimise, ask whether another kernel still shows it.
package finding

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/vm"
)

// Format is the version of a folder.
const Format = 1

// Names within a folder.
const (
	InfoName    = "finding.json"
	ReadmeName  = "README.md"
	ConsoleName = "console.log"
	VerdictName = "verdict.txt"
	ReproName   = "reproducer.c"
	MachineName = "machine" // what the machine is made of
	imageName   = "initramfs.cpio"
)

// Rate is how often an attempt showed what it was to show.
type Rate struct {
	Hits int `json:"hits"`
	Runs int `json:"runs"`
	// Undecided runs neither showed it nor ended as they should have. They are
	// among Runs, and no hits.
	Undecided int `json:"undecided,omitempty"`
}

// Info describes a finding.
type Info struct {
	Format int    `json:"format"`
	Title  string `json:"title"`
	// Kinds are the kinds of violation of the failing scenario, with how many.
	Kinds map[oracle.Kind]int `json:"kinds"`
	// Attempt is the start of the machine. The scenarios are in files of their
	// own; the last one fails, those before it ran in the same machine.
	Attempt   attempt.Attempt `json:"attempt"`
	Scenarios []string        `json:"scenarios"`
	// Mutant is the defect made on purpose that its kernel has.
	Mutant string `json:"mutant,omitempty"`
	Kernel string `json:"kernel,omitempty"` // digest
	Image  string `json:"image,omitempty"`  // SHA-256
	QEMU   string `json:"qemu,omitempty"`   // version
	// Result is attempt.Result.Digest of the run that found it: in deterministic
	// mode every run of the same machine has the same.
	Result string `json:"result,omitempty"`
	// Again is what came of running it once more right after it was found.
	Again *Rate `json:"again,omitempty"`
	// Exact: those runs were the same byte for byte.
	Exact bool `json:"exact,omitempty"`
	// From is the campaign's seed and the number of the iteration, or the finding
	// that this one was made smaller from.
	From  string    `json:"from,omitempty"`
	Found time.Time `json:"found,omitzero"`
}

// Name is the name of a finding's folder: what can be read of its title, and a
// digest so that no two titles share one.
func Name(title string) string {
	sum := sha256.Sum256([]byte(title))
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 60 {
			break
		}
	}
	return strings.Trim(b.String(), "-") + "-" + hex.EncodeToString(sum[:4])
}

// Finding is a folder that was read.
type Finding struct {
	Dir string
	Info
}

// Write makes a finding's folder in parent: Info with the scenarios, console and
// verdict of the run that showed it. The folder appears whole or not at all. One
// that is there already is left alone: the first that was found stays.
func Write(parent string, info Info, kit attempt.Kit, res *attempt.Result) (dir string, err error) {
	dir = filepath.Join(parent, Name(info.Title))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("keep finding: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return "", fmt.Errorf("keep finding: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", fmt.Errorf("keep finding: %w", err)
	}
	info.Format = Format
	info.Result, info.QEMU = res.Digest(), res.QEMU
	info.Kernel, info.Mutant = kit.Kernel.Digest, kit.Kernel.Mutant
	info.Scenarios = nil
	files := map[string][]byte{ConsoleName: res.Console}
	for i, s := range info.Attempt.Scenarios {
		b, err := s.Marshal()
		if err != nil {
			return "", fmt.Errorf("keep finding: %w", err)
		}
		name := fmt.Sprintf("scenario-%03d.json", i)
		info.Scenarios = append(info.Scenarios, name)
		files[name] = b
	}
	failing := len(info.Attempt.Scenarios) - 1
	o := res.Outcomes[failing]
	files["trace.bin"] = o.Trace
	info.Kinds = o.Verdict.ByKind
	files[VerdictName] = verdict(o)
	// Not every scenario can be a program of its own.
	if c, err := info.Attempt.Scenarios[failing].C(); err == nil {
		files[ReproName] = c
	}
	if err := os.Mkdir(filepath.Join(tmp, MachineName), 0o755); err != nil {
		return "", fmt.Errorf("keep finding: %w", err)
	}
	if info.Image, err = keepMachine(filepath.Join(tmp, MachineName), kit); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return "", fmt.Errorf("keep finding: %w", err)
	}
	files[InfoName] = append(b, '\n')
	files[ReadmeName] = readme(filepath.Base(dir), info)
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), data, 0o644); err != nil {
			return "", fmt.Errorf("keep finding: %w", err)
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		// Two workers may have found the same at once.
		if _, e := os.Stat(dir); e == nil {
			return dir, nil
		}
		return "", fmt.Errorf("keep finding: %w", err)
	}
	return dir, nil
}

// keepMachine puts what the machine is made of into the folder, by links where
// the file system can: findings of one campaign share it. It returns the digest
// of the image.
func keepMachine(dir string, kit attempt.Kit) (string, error) {
	for _, name := range []string{"vmlinux", "vmlinux.debug", "bzImage", "config", "manifest.json"} {
		if err := linkOrCopy(filepath.Join(kit.Kernel.Dir, name), filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("keep kernel of finding: %w", err)
		}
	}
	image := filepath.Join(dir, imageName)
	if err := linkOrCopy(kit.Image, image); err != nil {
		return "", fmt.Errorf("keep image of finding: %w", err)
	}
	return build.SHA256(image)
}

func linkOrCopy(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func verdict(o attempt.Outcome) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s: %d operations\n", o.Title, o.Verdict.Status, o.Verdict.Ops)
	for _, v := range o.Verdict.Violations {
		fmt.Fprintln(&b, v)
	}
	if o.Verdict.Note != "" {
		fmt.Fprintln(&b, o.Verdict.Note)
	}
	return []byte(b.String())
}

func readme(name string, info Info) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", info.Title)
	again := "was not run again"
	if info.Again != nil {
		again = fmt.Sprintf("was shown again by %d of %d runs", info.Again.Hits, info.Again.Runs)
		if info.Exact {
			again += ", the same byte for byte"
		}
	}
	variant := info.Attempt.Setup.Variant
	if info.Mutant != "" {
		variant += " with the seeded defect " + info.Mutant
	}
	fmt.Fprintf(&b, "Kernel %s (%s), mode %s, %d processors, %d MiB, schedule seed %d. It %s.\n\n", variant, info.Kernel,
		info.Attempt.Setup.Mode, info.Attempt.Setup.CPUs, info.Attempt.Setup.MemMiB, info.Attempt.Schedule, again)
	fmt.Fprintf(&b, "In a checkout of wflp, with this folder as `%s`:\n\n```\nmake build\nbuild/wflp fuzz replay %s      # see it again\nbuild/wflp fuzz minimise %s    # make it smaller\nbuild/wflp fuzz debug %s       # look at it with gdb\n```\n\n", name, name, name, name)
	fmt.Fprintf(&b, "| file | |\n| --- | --- |\n| `%s` | what was wrong |\n| `%s` | what the kernel said |\n| `scenario-*.json` | the programs; the last one fails |\n| `trace.bin` | what its threads did |\n| `%s` | the program as C, if it can be one |\n| `%s/` | the kernel and the initial file system that it was found with |\n",
		VerdictName, ConsoleName, ReproName, MachineName)
	return []byte(b.String())
}

// Read reads a folder.
func Read(dir string) (*Finding, error) {
	b, err := os.ReadFile(filepath.Join(dir, InfoName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read finding: %s is no folder of a finding: it has no %s", dir, InfoName)
	}
	if err != nil {
		return nil, fmt.Errorf("read finding: %w", err)
	}
	f := &Finding{Dir: dir}
	if err := json.Unmarshal(b, &f.Info); err != nil {
		return nil, fmt.Errorf("read finding %s: %w", dir, err)
	}
	if f.Format != Format {
		return nil, fmt.Errorf("read finding %s: format %d, this program knows %d", dir, f.Format, Format)
	}
	if len(f.Info.Scenarios) == 0 {
		return nil, fmt.Errorf("read finding %s: it names no scenario", dir)
	}
	for _, name := range f.Info.Scenarios {
		b, err := os.ReadFile(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return nil, fmt.Errorf("read finding: %w", err)
		}
		s, err := scenario.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("read finding %s: %s: %w", dir, name, err)
		}
		f.Attempt.Scenarios = append(f.Attempt.Scenarios, s)
	}
	return f, nil
}

// ErrNoMachine says that a folder is without what the machine was made of: the
// kernel has to be built again.
var ErrNoMachine = errors.New("the folder has no machine")

// Rebuilt makes it a finding of another machine, whose bytes are its own: what
// was recorded is compared with nothing any more.
func (f *Finding) Rebuilt() { f.Kernel, f.Image, f.QEMU, f.Result = "", "", "", "" }

// Kit is what the finding's machine was made of, out of its folder.
func (f *Finding) Kit() (attempt.Kit, error) {
	dir := filepath.Join(f.Dir, MachineName)
	if !build.IsDir(dir) {
		return attempt.Kit{}, fmt.Errorf("read finding %s: %w", f.Dir, ErrNoMachine)
	}
	k := attempt.Kit{Kernel: kernel.Built{Variant: f.Attempt.Setup.Variant, Dir: dir}, Image: filepath.Join(dir, imageName)}
	man, err := kernel.ReadManifest(k.Kernel)
	if err != nil {
		return k, fmt.Errorf("read kernel of finding: %w", err)
	}
	k.Kernel.Digest, k.Kernel.Release, k.Kernel.Mutant = man.Digest, man.Release, man.Mutant
	if man.Digest != f.Kernel {
		return k, fmt.Errorf("read kernel of finding: its folder has %s, the finding was made with %s", man.Digest, f.Kernel)
	}
	got, err := build.SHA256(k.Image)
	if err != nil {
		return k, err
	}
	if got != f.Image {
		return k, fmt.Errorf("read image of finding: %s has digest %.16s, the finding was made with %.16s", k.Image, got, f.Image)
	}
	return k, nil
}

// Deterministic tells whether each run of the finding is the same.
func (f *Finding) Deterministic() bool { return f.Attempt.Setup.Mode == vm.Deterministic }
