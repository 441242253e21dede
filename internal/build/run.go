// SPDX-License-Identifier: Apache-2.0

// Package build is what it takes to make programs of pinned source packages
// and patch series of ours: tools that end when we do, locks that die with us,
// packages by apt without root, and trees in which only what changed is
// written, so that only that is compiled again.
package build

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command prepares a tool so that it, and whatever it started, ends when ctx
// does: make alone would leave its compilers behind.
func Command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = CleanEnv(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// CleanEnv drops what would make a build depend on who runs it: the flags of
// an outer make (we may be called from one), the variables kbuild listens to,
// and git's idea of where its repository is.
func CleanEnv(env []string) []string {
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "KBUILD_"), strings.HasPrefix(name, "KCONFIG_"), strings.HasPrefix(name, "GIT_"),
			strings.HasPrefix(name, "LC_"), strings.HasPrefix(name, "MAKE"):
			continue
		}
		switch name {
		case "MFLAGS", "GNUMAKEFLAGS", "ARCH", "CROSS_COMPILE", "LLVM", "CC", "LD", "CFLAGS", "CPPFLAGS", "LDFLAGS",
			"KCFLAGS", "KAFLAGS", "KCPPFLAGS", "O", "V", "W", "C", "LANG", "LANGUAGE", "LOCALVERSION", "INSTALL_HDR_PATH", "TZ":
			continue
		}
		out = append(out, kv)
	}
	return append(out, "LC_ALL=C", "TZ=UTC")
}

// Output runs a tool and returns what it wrote; its error carries the end of
// what it complained about.
func Output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := Command(ctx, dir, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("run %s: %w", name, ctx.Err())
		}
		return nil, fmt.Errorf("run %s %s: %w\n%s", name, strings.Join(args, " "), err, LastLines(stderr.String(), 20))
	}
	return stdout.Bytes(), nil
}

// Follow runs a tool, keeps what it says in log, and shows each line to each.
// The error of a tool that failed carries the last 60 lines.
func Follow(cmd *exec.Cmd, log io.Writer, each func(line string)) error {
	pr, pw := io.Pipe()
	cmd.Stdout, cmd.Stderr = pw, pw
	done := make(chan []string)
	go func() {
		var last []string
		sc := bufio.NewScanner(pr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			line := sc.Text()
			fmt.Fprintln(log, line)
			if last = append(last, line); len(last) > 60 {
				last = last[1:]
			}
			each(line)
		}
		// A line too long for the scanner must not block the tool.
		io.Copy(log, pr)
		done <- last
	}()
	err := cmd.Run()
	pw.Close()
	last := <-done
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.Join(last, "\n"))
	}
	return nil
}

// Stage makes a folder appear with all that fill puts into it, or not at all.
func Stage(dir string, fill func(tmp string) error) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".stage*")
	if err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("keep %s: %w", filepath.Base(dir), err)
	}
	return nil
}

// LastLines is the end of a text.
func LastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// Lock takes a lock that dies with this process, so that a crash leaves
// nothing to clean up.
func Lock(ctx context.Context, path string, log io.Writer) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make lock directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	told := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told && log != nil {
			fmt.Fprintf(log, "waiting for another build to release %s\n", filepath.Base(path))
			told = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// WriteFileAtomic replaces path as a whole or not at all.
func WriteFileAtomic(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".wflp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// FirstLine is the first line of what a tool has to say, such as its version.
func FirstLine(ctx context.Context, name string, args ...string) (string, error) {
	out, err := Output(ctx, "", name, args...)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

// SHA256 hashes a file.
func SHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// IsDir says whether there is a folder of that name.
func IsDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// IsFile says whether there is a file of that name.
func IsFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
