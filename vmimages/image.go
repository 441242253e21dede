// SPDX-License-Identifier: Apache-2.0

// Package vmimages makes the initramfs a guest starts from: the agent as
// /init, the programs a caller names, and busybox for people. The same
// content is the same bytes, whoever builds it, and no root is needed.
package vmimages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/wflp/wflp/vmimages/guestproto"
)

// File is one file of an image.
type File struct {
	// Path is where it is in the guest, absolute.
	Path string
	// Data is its content; Host, if Data is nil, the file it comes from.
	Data []byte
	Host string
	// Link, if set, makes it a symbolic link.
	Link string
}

// Spec is an image.
type Spec struct {
	RepoRoot string // the checkout whose agent is built
	CacheDir string
	// Files are programs and what they need. One that is linked dynamically
	// needs its loader among them; see Libraries.
	Files []File
}

// Build returns the path of the image, making it if the cache has none.
func Build(ctx context.Context, spec Spec) (string, error) {
	agent, err := buildAgent(ctx, spec.RepoRoot)
	if err != nil {
		return "", err
	}
	files := append([]File{{Path: "/init", Data: agent}}, busybox()...)
	for _, f := range spec.Files {
		if f.Data == nil && f.Link == "" {
			if f.Data, err = os.ReadFile(f.Host); err != nil {
				return "", fmt.Errorf("read program for image: %w", err)
			}
		}
		if err := checkLoader(f.Data, spec.Files); err != nil {
			return "", fmt.Errorf("put %s into image: %w", f.Path, err)
		}
		files = append(files, f)
	}
	data, err := Archive(files)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	out := filepath.Join(spec.CacheDir, "images", hex.EncodeToString(sum[:8])+".cpio")
	if st, err := os.Stat(out); err == nil && st.Size() == int64(len(data)) {
		return out, nil
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", fmt.Errorf("make image cache: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		return "", fmt.Errorf("keep image: %w", err)
	}
	return out, nil
}

// JobArchive is what a boot adds to an image: the job and its files. The
// kernel unpacks archives one after the other, so it is simply appended. A
// file with a relative name lands in /job.
func JobArchive(job guestproto.Job, jobFiles map[string][]byte) ([]byte, error) {
	data, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	files := []File{{Path: guestproto.JobPath, Data: data}}
	for name, data := range jobFiles {
		files = append(files, File{Path: JobPath(name), Data: append([]byte{}, data...)})
	}
	return Archive(files)
}

// JobPath is where a file of a job lands: relative names are in /job.
func JobPath(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join("/job", name)
}

// epoch dates all files, so that no archive depends on when it was made.
var epoch = time.Unix(1704067200, 0).UTC()

// Archive packs files, and the folders they need, in a fixed order.
func Archive(files []File) ([]byte, error) {
	entries := map[string]File{}
	for _, f := range files {
		p := path.Clean(f.Path)
		if !path.IsAbs(p) || p == "/" {
			return nil, fmt.Errorf("pack %q: not the absolute path of a file", f.Path)
		}
		if _, twice := entries[p]; twice {
			return nil, fmt.Errorf("pack %s: it is there twice", p)
		}
		entries[p] = f
	}
	dirs := map[string]bool{}
	for p := range entries {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			if _, isFile := entries[d]; isFile {
				return nil, fmt.Errorf("pack %s: %s is a file", p, d)
			}
			dirs[d] = true
		}
	}
	var names []string
	for p := range entries {
		names = append(names, p)
	}
	for d := range dirs {
		names = append(names, d)
	}
	sort.Strings(names) // a folder sorts before what is in it

	var buf bytes.Buffer
	w := cpio.NewWriter(&buf)
	put := func(h *cpio.Header, data []byte) error {
		h.ModTime, h.Links = epoch, 1
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("pack %s: %w", h.Name, err)
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("pack %s: %w", h.Name, err)
		}
		return nil
	}
	// No device nodes: the kernel brings /dev/console itself, and the agent
	// mounts devtmpfs.
	for _, name := range names {
		rel := strings.TrimPrefix(name, "/")
		f, isFile := entries[name]
		var err error
		switch {
		case !isFile:
			err = put(&cpio.Header{Name: rel, Mode: cpio.TypeDir | 0o755}, nil)
		case f.Link != "":
			err = put(&cpio.Header{Name: rel, Mode: cpio.TypeSymlink | 0o777}, []byte(f.Link))
		default:
			err = put(&cpio.Header{Name: rel, Mode: cpio.TypeReg | 0o755}, f.Data)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack archive: %w", err)
	}
	return buf.Bytes(), nil
}

// buildAgent compiles the guest's first process. Go's own cache makes the
// second time cheap.
func buildAgent(ctx context.Context, repoRoot string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wflp-agent-")
	if err != nil {
		return nil, fmt.Errorf("build agent: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "agent")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./vmimages/agent")
	cmd.Dir = repoRoot
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build agent: %w\n%s", err, msg)
	}
	return os.ReadFile(out)
}

// busyboxPath is where Debian's busybox-static puts its program, and
// busyboxTools what a person debugging in the guest reaches for.
const (
	busyboxPath  = "/bin/busybox"
	busyboxTools = "ash sh cat ls ps top kill sleep echo printf true false env id uname free df du mount umount mkdir rm rmdir cp mv ln " +
		"chmod touch dd head tail sort uniq wc cut tr grep sed awk find xargs tee seq date dmesg stat hexdump od vi less more nproc " +
		"taskset timeout time yes tar gzip gunzip md5sum sha256sum sysctl mkswap swapon swapoff test expr basename dirname readlink nice renice"
)

// busybox is the host's static busybox and its names, or nothing where the
// host has none: the guest works without, people have a harder time.
func busybox() []File {
	for _, p := range []string{busyboxPath, "/usr" + busyboxPath} {
		data, err := os.ReadFile(p)
		if err != nil || checkLoader(data, nil) != nil {
			continue
		}
		files := []File{{Path: busyboxPath, Data: data}}
		for _, t := range strings.Fields(busyboxTools) {
			files = append(files, File{Path: "/bin/" + t, Link: "busybox"})
		}
		return files
	}
	return nil
}

// HasBusybox says whether images made here have a userland for people.
func HasBusybox() bool { return len(busybox()) > 0 }

// errDynamic says that a program would not start in the guest.
var errDynamic = errors.New("the program is linked dynamically, and the image has no loader for it (link it with -static)")

// checkLoader refuses ELF programs that ask for an interpreter which is not in
// the image. In the guest they would end as a baffling "no such file or
// directory". A library that is missing is named by the loader itself.
func checkLoader(data []byte, image []File) error {
	if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return nil
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("read ELF header: %w", err)
	}
	interp := interpreter(f)
	if interp == "" || slices.ContainsFunc(image, func(f File) bool { return f.Path == interp }) {
		return nil
	}
	return fmt.Errorf("%w (%s)", errDynamic, interp)
}
