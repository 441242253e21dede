// SPDX-License-Identifier: Apache-2.0

package evaluation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/qemu"
	"github.com/wflp/wflp/vmimages/vm"
	"github.com/wflp/wflp/workloads/trial"
)

// Maker makes what the machines of a run are made of.
type Maker struct {
	Builder *kernel.Builder
	// Kernels, by variant, are folders of finished kernels to take in place of
	// building them: to try a kernel that the series does not make yet.
	Kernels map[string]string
	// Library, if set, is a mutant that the programs are linked with.
	Library *kernel.Mutant
}

// Kit is what the machines of a run are made of.
type Kit struct {
	Kernels map[string]kernel.Built
	Image   string
	// Emulator is the QEMU of our own if it has been built, for machines of
	// mode fast; see vm.EmulatorFor.
	Emulator qemu.Built
}

// EmulatorFor is the emulator for machines of a mode, and the bound of their
// slices: deterministic ones count what operations cost, for which the other
// processors had better not run in between.
func (k *Kit) EmulatorFor(mode vm.Mode) (emulator qemu.Built, sliceBits int) {
	switch mode {
	case vm.Fast:
		return k.Emulator, 0
	case vm.Deterministic:
		return qemu.Built{}, vm.NoSlices
	}
	return qemu.Built{}, 0
}

// Make builds the kernels of the variants and the image, where they are missing.
func (m Maker) Make(ctx context.Context, variants []string) (*Kit, error) {
	k := &Kit{Kernels: map[string]kernel.Built{}}
	for _, v := range variants {
		built, err := m.Kernel(ctx, v)
		if err != nil {
			return nil, err
		}
		k.Kernels[v] = built
	}
	root, err := m.root(ctx)
	if err != nil {
		return nil, err
	}
	programs, err := buildPrograms(ctx, root)
	if err != nil {
		return nil, err
	}
	if k.Emulator, err = vm.EmulatorFor(ctx, &qemu.Builder{RepoRoot: m.Builder.RepoRoot, CacheDir: m.Builder.CacheDir, Log: m.Builder.Log}, vm.Fast); err != nil {
		return nil, err
	}
	k.Image, err = vmimages.Build(ctx, vmimages.Spec{RepoRoot: m.Builder.RepoRoot, CacheDir: m.Builder.CacheDir, Files: programs})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// root is the checkout that the programs are built from, or a copy of it with a
// mutant of the library.
func (m Maker) root(ctx context.Context) (string, error) {
	if m.Library == nil {
		return m.Builder.RepoRoot, nil
	}
	dir := filepath.Join(m.Builder.CacheDir, "mutants", m.Library.String())
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("copy checkout: %w", err)
	}
	return dir, kernel.MutatedCopy(ctx, m.Builder.RepoRoot, *m.Library, dir, "kernel/libwflp", "workloads", "fuzz")
}

// Kernel builds the kernel of a variant, where it is missing.
func (m Maker) Kernel(ctx context.Context, variant string) (kernel.Built, error) {
	dir, ok := m.Kernels[variant]
	if !ok {
		return m.Builder.Build(ctx, variant)
	}
	built := kernel.Built{Variant: variant, Dir: dir}
	man, err := kernel.ReadManifest(built)
	if err != nil {
		return built, err
	}
	built.Digest, built.Release = man.Digest, man.Release
	return built, nil
}

// buildPrograms builds the executor and the micro-benchmarks.
func buildPrograms(ctx context.Context, root string) ([]vmimages.File, error) {
	dir, err := vmimages.Programs(ctx, root, "workloads/executor")
	if err != nil {
		return nil, err
	}
	return []vmimages.File{
		{Path: trial.Executor, Host: filepath.Join(dir, "wflp-exec")},
		{Path: trial.MicroProgram, Host: filepath.Join(dir, "wflp-micro")},
	}, nil
}

// Manifest describes the kit and the machine. What the run is called and how it
// was set is the caller's to add.
func (k *Kit) Manifest(ctx context.Context, m Maker) (record.Manifest, error) {
	out := record.Manifest{Started: time.Now().UTC().Truncate(time.Second), Kernels: map[string]record.Kernel{}, Host: host()}
	var err error
	for v, b := range k.Kernels {
		x := record.Kernel{Release: b.Release, Digest: b.Digest}
		if x.ConfigDigest, err = digest(b.Config()); err != nil {
			return out, err
		}
		man, err := kernel.ReadManifest(b)
		if err != nil {
			return out, err
		}
		x.Compiler = man.Compiler
		out.Kernels[v] = x
	}
	if out.ImageDigest, err = digest(k.Image); err != nil {
		return out, err
	}
	if out.QEMU, err = vm.QEMUVersion(ctx); err != nil {
		return out, err
	}
	path, err := exec.LookPath(vm.QEMU)
	if err != nil {
		return out, fmt.Errorf("find QEMU: %w", err)
	}
	if out.QEMUDigest, err = digest(path); err != nil {
		return out, err
	}
	if k.Emulator.Exists() {
		ours, err := digest(k.Emulator.Program())
		if err != nil {
			return out, err
		}
		m := k.Emulator.Manifest
		out.QEMU += fmt.Sprintf("; mode fast in %s, wflp %s", m.SourceVersion, m.Digest)
		both := sha256.Sum256([]byte(out.QEMUDigest + ours))
		out.QEMUDigest = hex.EncodeToString(both[:])
	}
	kvm, err := vm.KVM(ctx, m.Builder.CacheDir)
	if err != nil {
		return out, err
	}
	out.Acceleration = "KVM is usable: " + kvm.Reason
	if !kvm.Usable {
		out.Acceleration = "KVM is not usable: " + kvm.Reason
	}
	out.Version = version(ctx, m.Builder.RepoRoot)
	return out, nil
}

// version is the commit of the checkout; -dirty if tracked files differ from it.
func version(ctx context.Context, root string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	rev, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changed, err := git("status", "--porcelain", "--untracked-files=no"); err != nil || changed != "" {
		rev += "-dirty"
	}
	return rev
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("digest file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("digest %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// host describes this machine, without its name.
func host() record.Host {
	h := record.Host{CPU: vm.CPUModel(), Cores: runtime.NumCPU(), MemMiB: memInfo("MemTotal")}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		for _, line := range strings.Split(string(b), "\n") {
			if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				h.Distro = strings.Trim(v, `"`)
			}
		}
	}
	return h
}

// memInfo reads a field of /proc/meminfo in MiB, 0 if there is none.
func memInfo(field string) int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		name, rest, _ := strings.Cut(line, ":")
		if name == field {
			kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kib / 1024
		}
	}
	return 0
}

// Ability is what this machine can do; mode "" is the default one. It is made of
// what stays as it is: a run that goes on tomorrow must have today's plan.
func (m Maker) Ability(ctx context.Context, mode vm.Mode) (Ability, error) {
	// A quarter is for the host, and for QEMU's own needs.
	a := Ability{Mode: mode, Cores: runtime.NumCPU(), MemMiB: memInfo("MemTotal") * 3 / 4}
	if a.MemMiB == 0 {
		return a, errors.New("read memory of this machine: /proc/meminfo does not say")
	}
	if mode == "" {
		var err error
		if a.Mode, err = vm.DefaultMode(ctx, m.Builder.CacheDir); err != nil {
			return a, err
		}
	}
	return a, nil
}
