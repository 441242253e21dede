// SPDX-License-Identifier: Apache-2.0

// Package guest runs a real program in a machine: a root file system of Debian
// packages, the program built without a fix and with it, the load, and what
// changes the code meanwhile. What came of it are records.
package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/realworld/server"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/qemu"
	"github.com/wflp/wflp/vmimages/vm"
)

// Programs are the files of the host that a run is about.
type Programs struct {
	Without, With string // the program built without the fix, and with it
	Patch         string // empty: none, for strategies that need none
}

// Places in the guest.
const (
	withoutPath = "/real/without"
	withPath    = "/real/with"
	patchPath   = "/real/fix.wflp"
	loadPath    = "/bin/wflp-load"
	outcomePath = "/run/out/outcome.json"
)

// common are packages that all programs need.
var common = []string{"libc6", "libgcc-s1", "zlib1g", "libunwind8", "liblzma5"}

// Image makes the image of a server, and says which version of each package is
// in it.
func Image(ctx context.Context, b *kernel.Builder, srv server.Server, p Programs) (string, map[string]string, error) {
	names := append(slices.Clone(common), srv.Packages...)
	slices.Sort(names)
	pkgs, err := b.Packages(ctx, slices.Compact(names)...)
	if err != nil {
		return "", nil, err
	}
	files, err := tree(pkgs.Root, srv.Binary)
	if err != nil {
		return "", nil, err
	}
	files = append(files, accounts(srv)...)
	for path, text := range srv.Files {
		files = append(files, vmimages.File{Path: path, Data: []byte(text)})
	}
	load, err := goProgram(ctx, b.RepoRoot, "./realworld/load")
	if err != nil {
		return "", nil, err
	}
	files = append(files,
		vmimages.File{Path: loadPath, Data: load},
		vmimages.File{Path: withoutPath, Host: p.Without},
		vmimages.File{Path: withPath, Host: p.With},
		vmimages.File{Path: "/var/run", Link: "/run"})
	if p.Patch != "" {
		library, err := vmimages.Programs(ctx, b.RepoRoot, "kernel/libwflp", "preload")
		if err != nil {
			return "", nil, err
		}
		files = append(files,
			vmimages.File{Path: patchPath, Host: p.Patch},
			vmimages.File{Path: "/usr/lib/wflp/libwflp-preload.so", Host: filepath.Join(library, "libwflp-preload.so")})
	}
	// That a library is missing had better be said here than in the guest.
	if _, err := vmimages.Libraries([]string{p.Without, p.With}, pkgs.Root); err != nil {
		return "", nil, fmt.Errorf("make image of %s: its packages do not have all that the program needs: %w", srv.Name, err)
	}
	image, err := vmimages.Build(ctx, vmimages.Spec{RepoRoot: b.RepoRoot, CacheDir: b.CacheDir, Files: files})
	return image, pkgs.Versions, err
}

// leftOut are what nobody in the guest reads.
var leftOut = []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/lib/x86_64-linux-gnu/gconv", "usr/share/bug"}

// tree lists what the packages have, but for the program that is built here.
func tree(root, program string) ([]vmimages.File, error) {
	var files []vmimages.File
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if slices.Contains(leftOut, rel) {
				return fs.SkipDir
			}
			return nil
		}
		f := vmimages.File{Path: "/" + rel, Host: path}
		if e.Type()&fs.ModeSymlink != 0 {
			f.Host = ""
			if f.Link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		if f.Path != program {
			files = append(files, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	return files, nil
}

// accounts are the users that the packages' scripts would have made.
func accounts(srv server.Server) []vmimages.File {
	passwd := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
	group := "root:x:0:\nnogroup:x:65534:\n"
	for i, u := range srv.Users {
		passwd += fmt.Sprintf("%s:x:%d:%d::/nonexistent:/bin/false\n", u, 101+i, 101+i)
		group += fmt.Sprintf("%s:x:%d:\n", u, 101+i)
	}
	return []vmimages.File{
		{Path: "/etc/passwd", Data: []byte(passwd)},
		{Path: "/etc/group", Data: []byte(group)},
		{Path: "/etc/nsswitch.conf", Data: []byte("passwd: files\ngroup: files\nhosts: files\n")},
		{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n")},
	}
}

// goProgram builds a program for the guest.
func goProgram(ctx context.Context, repoRoot, folder string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wflp-guest-")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", folder, err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, folder)
	cmd.Dir = repoRoot
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", folder, err, msg)
	}
	return os.ReadFile(out)
}

// Config is a boot with a server.
type Config struct {
	Mode     vm.Mode
	Kernel   kernel.Built
	Emulator qemu.Built
	Made     Made
	CPUs     int // the last one is the clients'; at least 2
	MemMiB   int
	Seed     uint64
	Dir      string // of the machine's files; may be empty
	Clients  int
	// CalibrateMS and Runs are as in server.Plan.
	CalibrateMS int
	Runs        []server.Run
}

// Result is what came of a boot.
type Result struct {
	Machine *vm.Result
	Outcome server.Outcome
	// Samples of each run.
	Samples [][]server.Sample
}

// Run boots a machine and has it run a plan.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	name := cfg.Made.Server.Name
	if cfg.CPUs < 2 {
		return nil, fmt.Errorf("run %s: %d processors, and server and clients want one each", name, cfg.CPUs)
	}
	plan := server.Plan{Server: name, Fix: cfg.Made.Fix, Without: withoutPath, With: withPath, ClientCPUs: []int{cfg.CPUs - 1},
		Clients: cfg.Clients, Seed: cfg.Seed, CalibrateMS: cfg.CalibrateMS, Runs: cfg.Runs}
	if cfg.Made.Patch {
		plan.Patch = patchPath
	}
	for i := range cfg.CPUs - 1 {
		plan.ServerCPUs = append(plan.ServerCPUs, i)
	}
	data, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("write plan: %w", err)
	}
	confined, err := json.Marshal(map[string]any{"cpus": plan.ClientCPUs})
	if err != nil {
		return nil, fmt.Errorf("write plan: %w", err)
	}
	limit := 2 * time.Minute
	for _, r := range cfg.Runs {
		limit += 2*time.Duration(r.DurationMS)*time.Millisecond + time.Minute
	}
	res, err := vm.Run(ctx, vm.Config{
		Mode: cfg.Mode, Kernel: cfg.Kernel, Emulator: cfg.Emulator, Image: cfg.Made.Image, CPUs: cfg.CPUs, MemMiB: cfg.MemMiB, Seed: cfg.Seed, Dir: cfg.Dir,
		Timeout: limit + time.Minute, JobFiles: map[string][]byte{"plan.json": data},
		Job: guestproto.Job{Seed: cfg.Seed, Steps: []guestproto.Step{{
			Name: name, TimeoutMS: limit.Milliseconds(), Collect: []string{"/run/out/*"},
			Argv: []string{loadPath, "launch", string(confined), loadPath, "run", "/job/plan.json", outcomePath},
		}}},
	}, nil)
	if err != nil {
		return nil, err
	}
	out := &Result{Machine: res}
	step := res.Steps[0]
	if step.ExitCode != 0 {
		return out, fmt.Errorf("run %s in a machine (%s): exit code %d, timed out: %v: %w\n%s", name, res.End, step.ExitCode, step.TimedOut,
			errors.Join(res.StreamErr, errNoOutcome), lastBytes(step.Stderr, 3000))
	}
	if err := json.Unmarshal(step.Files[outcomePath], &out.Outcome); err != nil {
		return out, fmt.Errorf("read outcome of %s: %w", name, err)
	}
	for _, r := range out.Outcome.Runs {
		data := step.Files[r.Samples]
		samples := make([]server.Sample, len(data)/binary.Size(server.Sample{}))
		if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, samples); err != nil {
			return out, fmt.Errorf("read samples of %s: %w", name, err)
		}
		slices.SortFunc(samples, func(a, b server.Sample) int { return int(a.ArrivalNS - b.ArrivalNS) })
		out.Samples = append(out.Samples, samples)
	}
	return out, nil
}

var errNoOutcome = errors.New("there is no outcome")

func lastBytes(b []byte, n int) string {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return strings.TrimSpace(string(b))
}
