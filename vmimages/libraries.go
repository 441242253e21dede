// SPDX-License-Identifier: Apache-2.0

package vmimages

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// libraryDirs are where Debian's loader looks, the first without being told
// anything; so all libraries of an image go there.
var libraryDirs = []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"}

// Libraries lists what programs that are linked dynamically need in an image:
// their loader, their libraries, and what these need. Each is taken from the
// first of the root directories that has it.
func Libraries(programs []string, roots ...string) ([]File, error) {
	var files []File
	seen := map[string]bool{}
	todo := append([]string{}, programs...)
	for len(todo) > 0 {
		program := todo[0]
		todo = todo[1:]
		interp, needed, err := dynamic(program)
		if err != nil {
			return nil, fmt.Errorf("find libraries of %s: %w", program, err)
		}
		if interp != "" && !seen[interp] {
			seen[interp] = true
			host, err := findFile(roots, interp)
			if err != nil {
				return nil, fmt.Errorf("find loader of %s: %w", program, err)
			}
			files = append(files, File{Path: interp, Host: host})
		}
		for _, n := range needed {
			if seen[n] {
				continue
			}
			seen[n] = true
			lib, err := Library(n, roots...)
			if err != nil {
				return nil, fmt.Errorf("for %s: %w", program, err)
			}
			files = append(files, lib)
			todo = append(todo, lib.Host)
		}
	}
	return files, nil
}

// Library is one library by its name: what a program loads while it runs is
// not among its own.
func Library(name string, roots ...string) (File, error) {
	var places []string
	for _, d := range libraryDirs {
		places = append(places, filepath.Join("/", d, name))
	}
	host, err := findFile(roots, places...)
	if err != nil {
		return File{}, fmt.Errorf("find library %s: %w", name, err)
	}
	return File{Path: filepath.Join("/", libraryDirs[0], name), Host: host}, nil
}

// findFile resolves links, which may point at a version beside them.
func findFile(roots []string, places ...string) (string, error) {
	for _, r := range roots {
		for _, p := range places {
			if host, err := filepath.EvalSymlinks(filepath.Join(r, p)); err == nil {
				return host, nil
			}
		}
	}
	return "", fmt.Errorf("none of %v is in any of %v: %w", places, roots, os.ErrNotExist)
}

// dynamic reads the loader and the direct libraries of a program; both are
// empty for what is static or no ELF file.
func dynamic(path string) (interp string, needed []string, err error) {
	f, err := elf.Open(path)
	var notELF *elf.FormatError
	if errors.As(err, &notELF) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	needed, err = f.ImportedLibraries()
	return interpreter(f), needed, err
}

// interpreter is the loader that a program asks for.
func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			interp, _ := io.ReadAll(io.LimitReader(p.Open(), 256))
			return string(bytes.TrimRight(interp, "\x00"))
		}
	}
	return ""
}
