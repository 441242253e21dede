// SPDX-License-Identifier: Apache-2.0

// Command agent is the first process of the guest. It makes the machine
// habitable, runs the steps of its job one after the other, sends what comes
// of them as frames, and switches the machine off.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/vmimages/guestproto"
)

func main() {
	// The agent shares the guest's processors with what is measured; it
	// lives for one job and has no need to collect garbage while one runs.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "agent: this is the first process of a wflp guest, and does nothing elsewhere")
		os.Exit(2)
	}
	a := &agent{}
	err := a.run()
	if err != nil {
		a.kmsg("agent: %v", err)
		a.send(guestproto.Frame{Type: guestproto.TypeAgentError, Step: guestproto.NoStep, Payload: []byte(err.Error())})
	}
	leave()
}

type agent struct {
	mu   sync.Mutex // frames of stdout and stderr are sent by two goroutines
	port *os.File
	log  *os.File
}

// searchPath is where the agent and the steps look for programs.
const searchPath = "/bin:/sbin:/usr/bin:/usr/sbin:/job"

func (a *agent) run() error {
	if err := os.Setenv("PATH", searchPath); err != nil {
		return fmt.Errorf("set search path: %w", err)
	}
	if err := mountAll(); err != nil {
		return err
	}
	var err error
	if a.log, err = os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("open kernel log: %w", err)
	}
	if a.port, err = openPort(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		a.kmsg("agent: %v", err)
	}
	data, err := os.ReadFile(guestproto.JobPath)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	var job guestproto.Job
	if err := json.Unmarshal(data, &job); err != nil {
		return fmt.Errorf("parse job: %w", err)
	}
	if job.Park {
		if job, err = park(); err != nil {
			return err
		}
	}
	a.send(guestproto.JSONFrame(guestproto.TypeHello, guestproto.NoStep, hello()))
	if job.Turns != nil {
		if err := writePorts(guestproto.SlicePort, job.Turns.Registers()); err != nil {
			return fmt.Errorf("set turns of the processors: %w", err)
		}
	}
	if job.DeadlineMS > 0 {
		time.AfterFunc(time.Duration(job.DeadlineMS)*time.Millisecond, func() {
			a.kmsg("agent: deadline of the job is over")
			leave()
		})
	}
	if job.Timers != 0 {
		go interrupt(job.Timers)
	}
	for i, s := range job.Steps {
		a.step(uint32(i), s, job.Seed)
	}
	a.kmsg("bye")
	a.send(guestproto.Frame{Type: guestproto.TypeBye, Step: guestproto.NoStep})
	return nil
}

// park stops the machine, and returns in each that is started from it, with its
// job. What can be done before is done before: it is paid for once.
func park() (guestproto.Job, error) {
	devices, _ := filepath.Glob("/sys/bus/pci/devices/*")
	i := slices.IndexFunc(devices, func(d string) bool {
		return hexFile(filepath.Join(d, "vendor")) == guestproto.JobVendor && hexFile(filepath.Join(d, "device")) == guestproto.JobDevice
	})
	if i < 0 {
		return guestproto.Job{}, errors.New("park: the machine has no device for jobs")
	}
	f, err := os.OpenFile(filepath.Join(devices[i], guestproto.JobResource), os.O_RDWR, 0)
	if err != nil {
		return guestproto.Job{}, fmt.Errorf("park: %w", err)
	}
	defer f.Close()
	memory, err := unix.Mmap(int(f.Fd()), 0, guestproto.JobMemory, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return guestproto.Job{}, fmt.Errorf("park: map memory of jobs: %w", err)
	}
	defer unix.Munmap(memory)
	if err := writePorts(guestproto.ParkPort, []byte{guestproto.ParkValue}); err != nil {
		return guestproto.Job{}, fmt.Errorf("park: %w", err)
	}
	job, files, err := guestproto.DecodeJob(memory)
	if err != nil {
		return job, fmt.Errorf("after parking: %w", err)
	}
	for _, p := range files {
		if err := writePiece(p); err != nil {
			return job, fmt.Errorf("after parking: %w", err)
		}
	}
	return job, nil
}

func hexFile(path string) uint64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(data)), 0, 64)
	return n
}

// writePiece writes a piece of a file; pieces come in order.
func writePiece(p guestproto.FilePiece) error {
	flags := os.O_WRONLY | os.O_CREATE
	if p.Offset == 0 {
		flags |= os.O_TRUNC
		if err := os.MkdirAll(filepath.Dir(p.Path), 0o755); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(p.Path, flags, 0o755)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p.Data, int64(p.Offset))
	return errors.Join(err, f.Close())
}

// writePorts writes bytes to I/O ports that follow each other.
func writePorts(port int64, values []byte) error {
	f, err := os.OpenFile("/dev/port", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(values, port)
	return err
}

// Timers shorter than the first have the guest do nothing but serve them.
const (
	shortestTimer = 20 * time.Microsecond
	longestTimer  = 200 * time.Microsecond
)

// interrupt has a timer fire after each of many seeded times. A thread of its
// own for it costs a microsecond of a processor's time each time, and no
// garbage.
func interrupt(seed uint64) {
	runtime.LockOSThread()
	// Slack would round the times up to each other.
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	rng := rand.New(rand.NewPCG(seed, 0))
	for {
		t := unix.NsecToTimespec(int64(shortestTimer) + rng.Int64N(int64(longestTimer-shortestTimer)))
		unix.Nanosleep(&t, nil)
	}
}

// kmsg writes a line to the kernel log, and so to the console, in order with
// what the kernel has to say. Level 4 passes the console's filter as
// complaints do.
func (a *agent) kmsg(format string, args ...any) {
	if a.log != nil {
		fmt.Fprintf(a.log, "<4>wflp: "+format+"\n", args...)
	}
}

func (a *agent) send(f guestproto.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.port == nil {
		return
	}
	if err := guestproto.WriteFrame(a.port, f); err != nil {
		a.kmsg("agent: send frame: %v", err)
	}
}

type mount struct {
	fs, dir, data string
	// optional file systems are those a kernel may be built without.
	optional bool
}

func mountAll() error {
	for _, m := range []mount{
		{"proc", "/proc", "", false},
		{"sysfs", "/sys", "", false},
		{"devtmpfs", "/dev", "", false},
		{"tmpfs", "/dev/shm", "mode=1777", false},
		{"tmpfs", "/tmp", "mode=1777", false},
		{"tmpfs", "/run", "mode=755", false},
		{"debugfs", "/sys/kernel/debug", "", true},
		{"tracefs", "/sys/kernel/tracing", "", true},
		{"cgroup2", "/sys/fs/cgroup", "", true},
		{"hugetlbfs", "/dev/hugepages", "", true},
	} {
		err := os.MkdirAll(m.dir, 0o755)
		if err == nil {
			err = unix.Mount(m.fs, m.dir, m.fs, 0, m.data)
		}
		if err != nil && !m.optional {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	for _, d := range []string{"/run/out", "/root"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", d, err)
		}
	}
	return nil
}

// openPort finds our virtio-serial port by its name. The driver announces
// ports from a work queue, so the first look may be too early.
func openPort() (*os.File, error) {
	for range 5000 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			data, err := os.ReadFile(n)
			if err == nil && strings.TrimSpace(string(data)) == guestproto.PortName {
				f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(n))), os.O_WRONLY, 0)
				if err != nil {
					return nil, fmt.Errorf("open output port: %w", err)
				}
				return f, nil
			}
		}
		time.Sleep(time.Millisecond)
	}
	return nil, errors.New("find output port: no virtio-serial port named " + guestproto.PortName)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

// sysMMViewCreate is the first of the mechanism's system calls.
const sysMMViewCreate = 480

func hello() guestproto.Hello {
	var h guestproto.Hello
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h.Release = unix.ByteSliceToString(uts.Release[:])
		h.Version = unix.ByteSliceToString(uts.Version[:])
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		h.MemBytes = si.Totalram * uint64(si.Unit)
	}
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		h.CPUs = set.Count()
	}
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) == nil {
		h.UptimeNS = now.Nano()
	}
	// Flags that no version will ever have: the call makes nothing.
	_, _, errno := unix.Syscall(sysMMViewCreate, 0xffffffff, 0, 0)
	h.MMView = errno == unix.EINVAL
	return h
}

func (a *agent) step(n uint32, s guestproto.Step, seed uint64) {
	a.send(guestproto.JSONFrame(guestproto.TypeStepBegin, n, guestproto.StepBegin{Name: s.Name, Argv: s.Argv}))
	a.kmsg("step %d begin %s", n, s.Name)
	end := a.execute(n, s, seed)
	if err := clearProcesses(); err != nil && end.Error == "" {
		end.Error = err.Error()
	}
	a.kmsg("step %d end %s", n, s.Name)
	for _, pattern := range s.Collect {
		if err := a.collect(n, pattern); err != nil && end.Error == "" {
			end.Error = err.Error()
		}
	}
	a.send(guestproto.JSONFrame(guestproto.TypeStepEnd, n, end))
}

func (a *agent) execute(n uint32, s guestproto.Step, seed uint64) (end guestproto.StepEnd) {
	end.ExitCode = -1
	if len(s.Argv) == 0 {
		end.Error = "step has no command"
		return end
	}
	env := append([]string{
		"PATH=" + searchPath, "HOME=/root", "TERM=dumb", "LANG=C",
		fmt.Sprintf("WFLP_SEED=%d", seed),
	}, s.Env...)
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Env, cmd.Dir = env, s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}

	var after []func() // sends what was kept back
	outputs := []struct {
		dst *io.Writer
		t   guestproto.Type
	}{{&cmd.Stdout, guestproto.TypeStdout}, {&cmd.Stderr, guestproto.TypeStderr}}
	for _, o := range outputs {
		if s.Stream {
			*o.dst = &frameWriter{a, o.t, n}
			continue
		}
		f, err := os.CreateTemp("/run", "step-*")
		if err != nil {
			end.Error = fmt.Sprintf("keep output: %v", err)
			return end
		}
		os.Remove(f.Name())
		*o.dst = f
		after = append(after, func() {
			defer f.Close()
			if _, err := f.Seek(0, io.SeekStart); err == nil {
				io.CopyBuffer(struct{ io.Writer }{&frameWriter{a, o.t, n}}, struct{ io.Reader }{f}, make([]byte, 64<<10))
			}
		})
	}
	// A child of the program may outlive it with our pipe in its hands.
	cmd.WaitDelay = time.Second
	var timedOut bool
	start := time.Now()
	if err := cmd.Start(); err != nil {
		// As a shell has it: 127 not found, 126 not executable.
		end.ExitCode, end.Error = 126, fmt.Sprintf("start %s: %v", s.Argv[0], err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			end.ExitCode = 127
		}
		return end
	}
	var timer *time.Timer
	var mu sync.Mutex
	if s.TimeoutMS > 0 {
		timer = time.AfterFunc(time.Duration(s.TimeoutMS)*time.Millisecond, func() {
			mu.Lock()
			timedOut = true
			mu.Unlock()
			unix.Kill(-1, unix.SIGKILL)
		})
	}
	err := cmd.Wait()
	end.DurationNS = time.Since(start).Nanoseconds()
	if timer != nil {
		timer.Stop()
	}
	mu.Lock()
	end.TimedOut = timedOut
	mu.Unlock()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		if ws.Signaled() {
			end.Signal = unix.SignalName(ws.Signal())
		} else {
			end.ExitCode = ws.ExitStatus()
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		end.Error = fmt.Sprintf("wait for %s: %v", s.Argv[0], err)
	}
	for _, f := range after {
		f()
	}
	return end
}

// frameWriter sends what is written to it as frames.
type frameWriter struct {
	a    *agent
	t    guestproto.Type
	step uint32
}

func (w *frameWriter) Write(p []byte) (int, error) {
	w.a.send(guestproto.Frame{Type: w.t, Step: w.step, Payload: p})
	return len(p), nil
}

// clearProcesses ends what a step left running and waits until it is gone: a
// step starts on an empty machine, and a process that cannot be killed is
// news. Threads of the kernel are not touched.
func clearProcesses() error {
	for range 1000 {
		unix.Kill(-1, unix.SIGKILL)
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if errors.Is(err, unix.ECHILD) {
				return nil
			}
			if err != nil || pid == 0 {
				break
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("clear processes: some cannot be killed: " + stuck())
}

// stuck tells which processes are left, and where in the kernel they are.
func stuck() string {
	var out []string
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	sort.Strings(stats)
	for _, s := range stats {
		dir := filepath.Dir(s)
		// Threads of the kernel have no executable and no command line.
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || dir == "/proc/1" {
			continue
		}
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		stack, _ := os.ReadFile(filepath.Join(dir, "stack"))
		if len(cmdline) == 0 {
			continue
		}
		stack, _, _ = bytes.Cut(stack, []byte("\n"))
		out = append(out, strings.TrimSpace(string(comm))+" "+string(stack))
	}
	return strings.Join(out, "; ")
}

func (a *agent) collect(n uint32, pattern string) error {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("collect %s: %w", pattern, err)
	}
	if len(names) == 0 {
		return fmt.Errorf("collect %s: %w", pattern, os.ErrNotExist)
	}
	for _, name := range names {
		if err := a.sendFile(n, name); err != nil {
			return fmt.Errorf("collect %s: %w", name, err)
		}
	}
	return nil
}

func (a *agent) sendFile(n uint32, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 256<<10)
	for off := uint64(0); ; {
		got, err := io.ReadFull(f, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if got > 0 || off == 0 {
			piece := guestproto.FilePiece{Path: name, Offset: off, Data: buf[:got]}
			a.send(guestproto.Frame{Type: guestproto.TypeFile, Step: n, Payload: piece.Append(nil)})
			off += uint64(got)
		}
		if got < len(buf) {
			return nil
		}
	}
}

// leave switches the machine off in a way that QEMU's exit status tells from
// every other end. The console is drained first: what is still in the tty
// would be lost, and with it the equality of two equal runs.
func leave() {
	// With PREEMPT_RT it is a thread that prints the kernel's messages, and nothing
	// tells how far it is. Whoever reads the console looks for our last words.
	var uts unix.Utsname
	if unix.Uname(&uts) == nil && strings.Contains(unix.ByteSliceToString(uts.Version[:]), "PREEMPT_RT") {
		time.Sleep(2 * time.Second)
	}
	if tty, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		unix.IoctlSetInt(int(tty.Fd()), unix.TCSBRK, 1)
		tty.Close()
	}
	writePorts(guestproto.ExitPort, []byte{guestproto.ExitValue})
	// Not reached where the exit device exists.
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}
