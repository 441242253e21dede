// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/oracle"
)

// reporters are the functions that the kernel comes through when it has found
// something wrong with itself. A replay stops at the first, with what led there
// on the stack.
var reporters = []string{"panic", "__warn", "die", "kasan_report", "page_fault_oops", "print_circular_bug", "kcsan_report_known_origin"}

// looker is what the driver's watchdog comes through when it looks where those
// threads are that do not go on.
const looker = "proc_pid_wchan"

// kstack walks the frame pointers, through interrupts and exceptions as well: the
// kernel marks a frame of these, which gdb does not know, by an odd address of the
// registers that were saved.
const kstack = `define kstack
  info symbol $rip
  set $kstack_bp = (unsigned long)$rbp
  set $kstack_n = 0
  while $kstack_bp > 0xffff800000000000 && $kstack_n < 64
    if $kstack_bp & 1
      info symbol *(unsigned long *)($kstack_bp - 1 + 16 * 8)
      set $kstack_bp = *(unsigned long *)($kstack_bp - 1 + 4 * 8)
    else
      info symbol *(unsigned long *)($kstack_bp + 8)
      set $kstack_bp = *(unsigned long *)$kstack_bp
    end
    set $kstack_n = $kstack_n + 1
  end
end
document kstack
The stack of this processor in the kernel, through interrupts and exceptions.
end
`

func fuzzDebug(ctx context.Context, inv *invocation) error {
	fs := inv.flags("fuzz debug")
	gdb := fs.String("gdb", "gdb", "the debugger")
	batch := fs.Bool("batch", false, "print the stacks at the first stop and end, in place of handing gdb over")
	where := fs.String("break", "", "stop at these functions of the kernel, with commas (default: where it reports something, and where the watchdog looks at what hangs)")
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
			if err == nil {
				err = errors.New("it did not wait")
			}
			return fmt.Errorf("debug finding: the machine ended before gdb came: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	fmt.Fprintf(inv.stdout, "%s\n", f.Title)
	script := filepath.Join(tmp, "kstack.gdb")
	if err := os.WriteFile(script, []byte(kstack), 0o644); err != nil {
		return fmt.Errorf("debug finding: %w", err)
	}
	stops := reporters
	if f.Kinds[oracle.Hang] > 0 {
		stops = append(stops, looker)
	}
	if *where != "" {
		stops = strings.Split(*where, ",")
	}
	args := []string{"-q", "-nx", filepath.Join(kit.Kernel.Dir, "vmlinux.debug"), "-ex", "set pagination off", "-ex", "set confirm off",
		"-ex", "set breakpoint pending off", "-x", script, "-ex", "target remote " + socket}
	for _, r := range stops {
		// One that the kernel does not have is refused, and the others are set.
		args = append(args, "-ex", "hbreak "+r)
	}
	args = append(args, "-ex", "continue")
	if *batch {
		args = append([]string{"-batch"}, append(args, "-ex", "thread apply all kstack", "-ex", "detach")...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inv.stdin, inv.stdout, inv.stderr
	err = cmd.Run()
	cancel()
	<-ended
	if err != nil && *batch {
		return &codeError{exitInfrastructure, fmt.Errorf("run gdb: %w; did the machine come to its end without a stop? -break names other functions", err)}
	}
	if err != nil {
		return fmt.Errorf("run gdb: %w", err)
	}
	return nil
}
