// SPDX-License-Identifier: Apache-2.0

// Command wflp builds kernels, boots machines, runs programs in them and
// evaluates wait-free live patching. It holds no logic of its own: each
// subcommand, in a file of its name, turns flags into the configuration of a
// package and prints what comes back.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/wflp/wflp/kernel"
)

// Exit codes tell whose turn it is: the user's (usage), the machine's
// (infrastructure, boot), or the developer's (finding). `wflp vm` hands back
// the code of the command in the guest instead of exitFinding.
const (
	exitOK             = 0
	exitFinding        = 1
	exitUsage          = 2
	exitInfrastructure = 3
	exitBoot           = 4
	exitInterrupted    = 130
)

// codeError is an error that knows its exit code.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}
func (e *codeError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...)}
}

func findingError(err error) error { return &codeError{exitFinding, err} }

func bootError(err error) error { return &codeError{exitBoot, err} }

// silentExit ends with a code and says nothing more.
func silentExit(code int) error {
	if code == 0 {
		return nil
	}
	return &codeError{code: code}
}

// invocation is what a subcommand gets to see of the world.
type invocation struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	args           []string
}

// flags makes a flag set that reports mistakes as usage errors.
func (inv *invocation) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet("wflp "+name, flag.ContinueOnError)
	fs.SetOutput(inv.stderr)
	return fs
}

// parse parses flags; what is left is in fs.Args().
func (inv *invocation) parse(fs *flag.FlagSet) error {
	err := fs.Parse(inv.args)
	if errors.Is(err, flag.ErrHelp) {
		return silentExit(exitUsage)
	}
	if err != nil { // fs has printed it
		return &codeError{code: exitUsage}
	}
	return nil
}

type subcommand struct {
	name, about string
	run         func(ctx context.Context, inv *invocation) error
}

// subcommands is filled by the init functions of the files of this package,
// so that a new subcommand is one new file.
var subcommands = map[string]subcommand{}

func register(c subcommand) { subcommands[c.name] = c }

func usage(w io.Writer) {
	fmt.Fprintf(w, "usage: wflp COMMAND [FLAGS] [ARGUMENTS]\n\n")
	var names []string
	for n := range subcommands {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		c := subcommands[n]
		fmt.Fprintf(w, "  %-10s %s\n", n, c.about)
	}
	fmt.Fprintf(w, "\nwflp COMMAND -h tells the flags. Exit codes: %d finding, %d usage, %d infrastructure, %d boot, %d refused.\n",
		exitFinding, exitUsage, exitInfrastructure, exitBoot, exitRefused)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Stdin, os.Stdout, os.Stderr, os.Args[1:]))
}

func run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout)
		return exitOK
	}
	c, ok := subcommands[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "wflp: no command %q\n", args[0])
		usage(stderr)
		return exitUsage
	}
	err := c.run(ctx, &invocation{stdin: stdin, stdout: stdout, stderr: stderr, args: args[1:]})
	if err == nil {
		return exitOK
	}
	var ce *codeError
	switch {
	case errors.As(err, &ce):
		if ce.err != nil {
			fmt.Fprintf(stderr, "wflp %s: %v\n", c.name, err)
		}
		return ce.code
	case ctx.Err() != nil:
		fmt.Fprintf(stderr, "wflp %s: interrupted\n", c.name)
		return exitInterrupted
	case errors.Is(err, kernel.ErrUnknownVariant):
		fmt.Fprintf(stderr, "wflp %s: %v\n", c.name, err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "wflp %s: %v\n", c.name, err)
	return exitInfrastructure
}

// repoRoot finds the checkout that the kernel series and the programs of the
// image come from: $WFLP_ROOT, or the first folder at or above the current one
// that holds our go.mod.
func repoRoot() (string, error) {
	if r := os.Getenv("WFLP_ROOT"); r != "" {
		return filepath.Abs(r)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find checkout: %w", err)
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module github.com/wflp/wflp\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", usagef("find checkout: run wflp inside a checkout, or set WFLP_ROOT")
		}
		dir = parent
	}
}

// builder is the kernel builder for this checkout and this user's cache.
func (inv *invocation) builder() (*kernel.Builder, error) {
	root, err := repoRoot()
	if err != nil {
		return nil, err
	}
	cache, err := kernel.DefaultCacheDir()
	if err != nil {
		return nil, err
	}
	return &kernel.Builder{RepoRoot: root, CacheDir: cache, Log: inv.stderr}, nil
}
