// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/realworld/server"
)

// confinement is what a process starts with.
type confinement struct {
	server.Unit
	CPUs []int    `json:"cpus"`
	Env  []string `json:"env"`
}

// start starts a command as launch has it. What it says goes to log.
func start(c confinement, argv []string, log *os.File) (*exec.Cmd, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"launch", string(data)}, argv...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return cmd, nil
}

// launch turns this process into the command, confined. The order is systemd's:
// processors and limits, the user, then what takes rights away for good.
func launch(text string, argv []string) error {
	var c confinement
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("launch %s: %w", argv[0], err)
	}
	runtime.LockOSThread() // affinity and filters are a thread's
	var set unix.CPUSet
	for _, cpu := range c.CPUs {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("launch %s: bind to processors %v: %w", argv[0], c.CPUs, err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 65535, Max: 65535}); err != nil {
		return fmt.Errorf("launch %s: set limit of files: %w", argv[0], err)
	}
	if c.User != "" {
		if err := become(c.User); err != nil {
			return fmt.Errorf("launch %s: %w", argv[0], err)
		}
	}
	if err := confine(c.Unit); err != nil {
		return fmt.Errorf("launch %s: %w", argv[0], err)
	}
	return fmt.Errorf("launch %s: %w", argv[0], syscall.Exec(argv[0], argv, append(os.Environ(), c.Env...)))
}

func become(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("become user: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("become user %s: %w", name, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("become user %s: %w", name, err)
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become user %s: %w", name, err)
	}
	return nil
}

// waitListening waits until something listens at an address.
func waitListening(address string, done <-chan error) error {
	for range 3000 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case err := <-done:
			return fmt.Errorf("wait for %s: the program ended: %w", address, errors.Join(err, errEnded))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("wait for %s: nothing listens there", address)
}

var errEnded = errors.New("no longer running")

// child waits for the only child of a process: the sockets are there before it.
func child(pid int) (int, error) {
	var f []string
	for range 1000 {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return 0, fmt.Errorf("find worker: %w", err)
		}
		if f = strings.Fields(string(data)); len(f) == 1 {
			return strconv.Atoi(f[0])
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, fmt.Errorf("find worker of process %d: it has %d children", pid, len(f))
}

func threads(pid int) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	return len(tasks)
}

// memory reads what a process has resident and the machine available; 0 is not known.
func memory(pid int) server.Memory {
	return server.Memory{ResidentKiB: kib(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"), AvailableKiB: kib("/proc/meminfo", "MemAvailable")}
}

func kib(path, field string) int64 {
	data, _ := os.ReadFile(path)
	for _, line := range strings.Split(string(data), "\n") {
		if name, rest, _ := strings.Cut(line, ":"); name == field {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n
		}
	}
	return 0
}

// cpuTime is what a process has used of the processors, its ended threads
// included; 0 if it is gone.
func cpuTime(pid int) int64 {
	var t unix.Timespec
	// As the kernel makes the clock of another process's time.
	if unix.ClockGettime(int32(^pid<<3|2), &t) != nil {
		return 0
	}
	return t.Nano()
}
