// SPDX-License-Identifier: Apache-2.0

// Package kernel turns a pinned Debian kernel source, the patch series in
// patches/ and the fragments in config/ into built kernels. A kernel is named
// by the digest of all that went into it, so an unchanged one is never built
// again and two kernels that differ in anything never share a name.
//
// The package knows how to make kernels, and nothing about running them.
package kernel

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
)

// Variant is one flavour of kernel. The zero value is not useful; see Variants.
type Variant struct {
	// Name is what users type, and the suffix of the kernel's release.
	Name string
	// Fragments are the files of config/, without suffix, in order: a later
	// one wins over an earlier one.
	Fragments []string
	// Make are variables on kbuild's command line, NAME=VALUE: what its Makefiles
	// would say for single files, without a change of the source.
	Make []string
	// Series says whether the patch series is applied.
	Series bool
	// PVH says that the machine starts vmlinux itself; a variant without it
	// needs the boot code of its bzImage (KASAN maps its shadow there).
	PVH bool
	// Objects is about how many objects a cold build makes. It serves the
	// progress line only, a wrong number costs nothing but a wrong percentage.
	Objects int
	// About is one line for people.
	About string
}

// Variants is the table of all variants.
func Variants() []Variant {
	return []Variant{
		{Name: "release", Fragments: []string{"base", "release"}, Series: true, PVH: true, Objects: 1400,
			About: "the series, built as one would run it; everything measured runs on this"},
		{Name: "stock", Fragments: []string{"base", "release"}, Series: false, PVH: true, Objects: 1400,
			About: "the same source and configuration without the series"},
		{Name: "debug", Fragments: []string{"base", "debug"}, Series: true, PVH: true, Objects: 1440,
			About: "lockdep, DEBUG_VM, list checks, stall detectors and the view checker"},
		{Name: "kasan", Fragments: []string{"base", "debug", "kasan"}, Series: true, PVH: false, Objects: 1440,
			About: "KASAN in place of lockdep, otherwise as debug"},
		{Name: "fuzz", Fragments: []string{"base", "release", "fuzz"}, Make: instrumented(
			"mm/mm_view", "mm/memory", "mm/mprotect", "mm/mremap", "mm/pgtable-generic"), Series: true, PVH: true, Objects: 1400,
			About: "as release, and tells a fuzzer which code of the mechanism it reached (KCOV)"},
		{Name: "kcsan", Fragments: []string{"base", "debug", "kcsan"}, Series: true, PVH: true, Objects: 1440,
			About: "KCSAN in place of lockdep, otherwise as debug"},
		{Name: "rt", Fragments: []string{"base", "debug", "rt"}, Series: true, PVH: true, Objects: 1440,
			About: "PREEMPT_RT, otherwise as debug, without what Linux does not offer with it"},
	}
}

// instrumented has KCOV see the mechanism and the files that most of its hooks are
// in. All of the kernel would drown these in what every program does. tlb.o stays
// out: Linux has it so, since it runs where coverage cannot be taken down. kbuild
// knows files by their last name only, and the boot code has a memory.o of its own,
// so the folder is asked for.
func instrumented(objects ...string) []string {
	var out []string
	for _, o := range objects {
		dir, name := path.Split(o)
		out = append(out, fmt.Sprintf("KCOV_INSTRUMENT_%s.o=$(if $(filter %s,$(obj)),y)", name, path.Clean(dir)))
	}
	return out
}

// Checks says whether a kernel checks itself, which makes it several times slower
// and its memory smaller: all that have the fragment debug.
func (v Variant) Checks() bool { return slices.Contains(v.Fragments, "debug") }

// VariantByName finds a variant of the table.
func VariantByName(name string) (Variant, error) {
	var names []string
	for _, v := range Variants() {
		if v.Name == name {
			return v, nil
		}
		names = append(names, v.Name)
	}
	sort.Strings(names)
	return Variant{}, fmt.Errorf("find kernel variant %q: %w %v", name, ErrUnknownVariant, names)
}

// ErrUnknownVariant says that a name is not in the table of variants.
var ErrUnknownVariant = fmt.Errorf("unknown variant, there are")

// Built is a finished kernel in the cache.
type Built struct {
	Variant string `json:"variant"`
	Mutant  string `json:"mutant,omitempty"` // none for a kernel of the series
	Digest  string `json:"digest"`
	Release string `json:"release"`
	Dir     string `json:"-"`
}

// VMLinux is the stripped ELF image, for machines that boot by PVH.
func (b Built) VMLinux() string { return filepath.Join(b.Dir, "vmlinux") }

// VMLinuxDebug is the ELF image with its symbols.
func (b Built) VMLinuxDebug() string { return filepath.Join(b.Dir, "vmlinux.debug") }

// BzImage is the compressed image, for machines that boot as a PC does.
func (b Built) BzImage() string { return filepath.Join(b.Dir, "bzImage") }

// Config is the kernel's .config.
func (b Built) Config() string { return filepath.Join(b.Dir, "config") }

// ManifestPath is the file that lists what went into the kernel.
func (b Built) ManifestPath() string { return filepath.Join(b.Dir, "manifest.json") }

// PVH says whether the kernel can be started from its vmlinux.
func (b Built) PVH() bool {
	v, err := VariantByName(b.Variant)
	return err == nil && v.PVH
}

// Checks says whether the kernel checks itself, with lockdep or a sanitizer: it
// takes several times as many instructions for the same then.
func (b Built) Checks() bool {
	v, err := VariantByName(b.Variant)
	return err == nil && v.Checks()
}

// DefaultCacheDir is where kernels, images and toolchains are kept:
// ${XDG_CACHE_HOME:-~/.cache}/wflp.
func DefaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(dir, "wflp"), nil
}

// Build returns the kernel of a variant, building what is missing. It may be
// called by any number of processes at once.
func Build(ctx context.Context, repoRoot, cacheDir, variant string, log io.Writer) (Built, error) {
	b := Builder{RepoRoot: repoRoot, CacheDir: cacheDir, Log: log}
	return b.Build(ctx, variant)
}
