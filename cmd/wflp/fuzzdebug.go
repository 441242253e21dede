// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/wflp/wflp/fuzz/attempt"
)

// reporters are the functions that the kernel comes through when it has found
// something wrong with itself. A replay stops at the first, with what led there
// on the stack.
var reporters = []string{"panic", "__warn", "die", "kasan_report", "page_fault_oops", "print_circular_bug", "kcsan_report_known_origin"}

func fuzzDebug(ctx context.Context, inv *invocation) error {
	fs := inv.flags("fuzz debug")
	gdb := fs.String("gdb", "gdb", "the debugger")
	batch := fs.Bool("batch", false, "print the stacks at the first stop and end, in place of handing gdb over")
	dir, err := inv.folder(fs)
	if err != nil {
		return err
	}
	f, kit, err := inv.readFinding(ctx, dir)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(*gdb)
	if err != nil {
		return &codeError{exitInfrastructure, fmt.Errorf("find the debugger: %w; `apt-get install gdb` brings one", err)}
	}
	tmp, err := os.MkdirTemp("", "wflp-gdb-")
	if err != nil {
		return fmt.Errorf("debug finding: %w", err)
	}
	defer os.RemoveAll(tmp)
	socket := filepath.Join(tmp, "gdb")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := attempt.Debugged(kit, socket)(ctx, f.Attempt)
		ended <- err
	}()
	for {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		select {
		case err := <-ended:
			return fmt.Errorf("debug finding: the machine ended before gdb came: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	fmt.Fprintf(inv.stdout, "%s\n", f.Title)
	args := []string{"-q", "-nx", filepath.Join(kit.Kernel.Dir, "vmlinux.debug"), "-ex", "set pagination off", "-ex", "set confirm off",
		"-ex", "set breakpoint pending off", "-ex", "target remote " + socket}
	for _, r := range reporters {
		// One that the kernel does not have is refused, and the others are set.
		args = append(args, "-ex", "hbreak "+r)
	}
	args = append(args, "-ex", "continue")
	if *batch {
		args = append([]string{"-batch"}, append(args, "-ex", "thread apply all backtrace", "-ex", "kill")...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inv.stdin, inv.stdout, inv.stderr
	err = cmd.Run()
	cancel()
	<-ended
	if err != nil {
		return fmt.Errorf("run gdb: %w", err)
	}
	return nil
}
