// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
)

// bootable is a configuration with the release kernel. Tests that boot run
// where WFLP_BOOT is set (make test-vm): they take seconds each and may
// have to build a kernel first. WFLP_BOOT may name the folder of a finished
// kernel to use in its place.
func bootable(t testing.TB, mode Mode) Config {
	t.Helper()
	if os.Getenv("WFLP_BOOT") == "" {
		t.Skip("WFLP_BOOT is not set")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := kernel.DefaultCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	built, err := kernel.Open(os.Getenv("WFLP_BOOT"))
	if err != nil {
		built, err = kernel.Build(t.Context(), root, cache, "release", os.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	image, err := vmimages.Build(t.Context(), vmimages.Spec{RepoRoot: root, CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	if !vmimages.HasBusybox() {
		t.Skip("the host has no static busybox for the guest")
	}
	return Config{Mode: mode, Kernel: built, Image: image, Seed: 1, Timeout: 2 * time.Minute, Dir: t.TempDir()}
}

func shell(name, script string) guestproto.Step {
	return guestproto.Step{Name: name, Argv: []string{"/bin/sh", "-c", script}}
}

func TestBootJob(t *testing.T) {
	cfg := bootable(t, Fast)
	cfg.JobFiles = map[string][]byte{"in": []byte("input")}
	cfg.Job = guestproto.Job{Seed: 9, Steps: []guestproto.Step{
		shell("output", "echo out; echo err >&2; echo $WFLP_SEED; exit 3"),
		shell("files", "cat /job/in >/run/out/copy; head -c 1000000 /dev/zero >/run/out/big; : >/run/out/empty"),
		shell("signal", "kill -SEGV $$"),
		{Name: "timeout", Argv: []string{"/bin/sleep", "1000"}, TimeoutMS: 300},
		{Name: "missing", Argv: []string{"/bin/nothing"}},
		shell("daemon", "sleep 1000 & echo done"),
		shell("alone", "ls -d /proc/[0-9]* | wc -l; grep -l sleep /proc/[0-9]*/comm"),
		{Name: "stream", Argv: []string{"/bin/echo", "live"}, Stream: true},
	}}
	cfg.Job.Steps[1].Collect = []string{"/run/out/*"}
	var order []string
	res, err := Run(t.Context(), cfg, func(e Event) {
		if e.Kind == EventStepBegin || e.Kind == EventStepEnd {
			order = append(order, string(e.Kind)+" "+e.Name)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.End != Exited || res.StreamErr != nil || res.AgentError != "" || len(res.Complaints) != 0 {
		t.Fatalf("end %s, stream %v, agent %q, complaints %v\n%s", res.End, res.StreamErr, res.AgentError, res.Complaints, res.Console)
	}
	if res.Hello.CPUs != DefaultCPUs || !strings.HasSuffix(res.Hello.Release, "-wflp-release") {
		t.Errorf("hello is %+v", res.Hello)
	}
	s := res.Steps
	if s[0].ExitCode != 3 || string(s[0].Stdout) != "out\n9\n" || string(s[0].Stderr) != "err\n" {
		t.Errorf("output: %d %q %q", s[0].ExitCode, s[0].Stdout, s[0].Stderr)
	}
	if f := s[1].Files; string(f["/run/out/copy"]) != "input" || !bytes.Equal(f["/run/out/big"], make([]byte, 1000000)) || f["/run/out/empty"] == nil && len(f) != 3 {
		t.Errorf("files: %d of them, copy %q", len(f), f["/run/out/copy"])
	}
	if s[2].Signal != "SIGSEGV" || s[2].ExitCode != -1 {
		t.Errorf("signal: %+v", s[2])
	}
	if !s[3].TimedOut || s[3].DurationNS < 300e6 || s[3].DurationNS > 60e9 {
		t.Errorf("timeout: %+v", s[3])
	}
	if s[4].ExitCode != 127 || s[4].Error == "" {
		t.Errorf("missing: %+v", s[4])
	}
	if string(s[5].Stdout) != "done\n" {
		t.Errorf("daemon: %q", s[5].Stdout)
	}
	if strings.Contains(string(s[6].Stdout), "comm") {
		t.Errorf("a process outlives its step: %q", s[6].Stdout)
	}
	if string(s[7].Stdout) != "live\n" {
		t.Errorf("stream: %q", s[7].Stdout)
	}
	for i, st := range s {
		if !st.Ran {
			t.Errorf("step %s did not run", st.Name)
		}
		if want := []string{"begin " + st.Name, "end " + st.Name}; len(order) < 2*i+2 || order[2*i] != want[0] || order[2*i+1] != want[1] {
			t.Errorf("events of %s: %v", st.Name, order)
		}
	}
}

func TestBootStepConsole(t *testing.T) {
	cfg := bootable(t, Fast)
	cfg.Job.Steps = []guestproto.Step{
		shell("one", "echo '<4>first' >/dev/kmsg"),
		shell("two", "echo '<4>WARNING: CPU: 0 PID: 1 at made up' >/dev/kmsg"),
	}
	res, err := Run(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := string(res.Steps[0].Console); !strings.Contains(c, "first") || strings.Contains(c, "made up") || strings.Contains(c, "wflp:") {
		t.Errorf("console of one is %q", c)
	}
	if len(res.Complaints) != 1 || len(Scan(res.Steps[1].Console)) != 1 {
		t.Errorf("complaints are %v; console of two is %q", res.Complaints, res.Steps[1].Console)
	}
}

func TestBootDeterministicTwice(t *testing.T) {
	cfg := bootable(t, Deterministic)
	// Things that differ from boot to boot if anything does: randomness,
	// time, addresses, and who wins a race.
	cfg.Job.Steps = []guestproto.Step{
		shell("random", "head -c 32 /dev/urandom | sha256sum; date +%s; cat /proc/uptime /proc/self/maps"),
		shell("race", "i=0; while [ $i -lt 20 ]; do (echo $i a) & (echo $i b) & i=$((i+1)); done; wait; cat /proc/interrupts"),
		{Name: "stream", Argv: []string{"/bin/sh", "-c", "echo a; echo b >&2; echo c"}, Stream: true},
	}
	var frames, consoles [2][]byte
	for i := range 2 {
		cfg.Dir = t.TempDir()
		res, err := Run(t.Context(), cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.End != Exited {
			t.Fatalf("boot %d ended by %s\n%s", i, res.End, res.Console)
		}
		consoles[i] = res.Console
		if frames[i], err = os.ReadFile(filepath.Join(cfg.Dir, framesFile)); err != nil {
			t.Fatal(err)
		}
		if len(frames[i]) < 1000 || len(consoles[i]) < 100 {
			t.Fatalf("only %d bytes of frames and %d of console", len(frames[i]), len(consoles[i]))
		}
	}
	if !bytes.Equal(consoles[0], consoles[1]) {
		t.Errorf("consoles differ:\n%s\n---\n%s", consoles[0], consoles[1])
	}
	if !bytes.Equal(frames[0], frames[1]) {
		t.Errorf("frames differ (%d and %d bytes)", len(frames[0]), len(frames[1]))
	}
	// The control: another seed must give other bytes, or this test would
	// pass with randomness that is not there.
	cfg.Dir, cfg.Seed = t.TempDir(), 2
	if _, err := Run(t.Context(), cfg, nil); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(cfg.Dir, framesFile))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(frames[0], other) {
		t.Error("another seed gives the same bytes")
	}
}

// gone waits for a process to disappear.
func gone(pid int) bool {
	for range 100 {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// qemuPID finds the QEMU that works in a folder.
func qemuPID(dir string) int {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		data, err := os.ReadFile(p)
		if err == nil && bytes.HasPrefix(data, []byte(QEMU)) && bytes.Contains(data, []byte(dir)) {
			pid := 0
			for _, c := range filepath.Base(filepath.Dir(p)) {
				pid = pid*10 + int(c-'0')
			}
			return pid
		}
	}
	return 0
}

func TestBootEnds(t *testing.T) {
	hang := []guestproto.Step{{Name: "hang", Argv: []string{"/bin/sleep", "1000"}}}
	t.Run("timeout", func(t *testing.T) {
		cfg := bootable(t, Fast)
		cfg.Job.Steps, cfg.Timeout = hang, 5*time.Second
		res, err := Run(t.Context(), cfg, nil)
		if err != nil || res.End != Timeout || res.Steps[0].Ran {
			t.Errorf("got %+v, %v", res, err)
		}
		if pid := qemuPID(cfg.Dir); pid != 0 {
			t.Errorf("QEMU %d is left", pid)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		cfg := bootable(t, Fast)
		cfg.Job.Steps = hang
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		pid := 0
		res, err := Run(ctx, cfg, func(e Event) {
			if e.Kind == EventStepBegin {
				pid = qemuPID(cfg.Dir)
				cancel()
			}
		})
		if err != nil || res.End != Killed {
			t.Errorf("got %+v, %v", res, err)
		}
		if pid == 0 || !gone(pid) {
			t.Errorf("QEMU %d is left", pid)
		}
	})
	t.Run("panic", func(t *testing.T) {
		cfg := bootable(t, Fast)
		// The first process cannot end without a panic.
		cfg.Job.Steps = []guestproto.Step{shell("kill init", "kill -SEGV 1; kill -ABRT 1; sleep 100")}
		cfg.Timeout = time.Minute
		res, err := Run(t.Context(), cfg, nil)
		if err != nil || res.End != Crashed || len(res.Complaints) == 0 || res.Complaints[0].Kind != KindPanic {
			t.Errorf("got end %v, complaints %v, %v", res.End, res.Complaints, err)
		}
	})
	t.Run("no boot", func(t *testing.T) {
		cfg := bootable(t, Fast)
		cfg.Append = []string{"rdinit=/nothing", "init=/nothing"}
		cfg.Timeout = time.Minute
		_, err := Run(t.Context(), cfg, nil)
		var be *BootError
		if !errors.As(err, &be) || be.End != Crashed {
			t.Errorf("got %v, want a BootError", err)
		}
	})
}

// Nobody can catch SIGKILL, so what has to hold then is tried on a process of
// its own: this test, run again.
func TestBootDiesWithUs(t *testing.T) {
	if dir := os.Getenv("WFLP_TEST_VICTIM"); dir != "" {
		cfg := bootable(t, Fast)
		cfg.Dir = dir
		cfg.Job.Steps = []guestproto.Step{{Name: "hang", Argv: []string{"/bin/sleep", "1000"}}}
		_, err := Run(t.Context(), cfg, nil)
		t.Fatalf("the victim lives on: %v", err)
	}
	bootable(t, Fast) // builds what is missing, or skips
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBootDiesWithUs$")
	cmd.Env = append(os.Environ(), "WFLP_TEST_VICTIM="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := 0
	for range 1000 {
		if log, _ := os.ReadFile(filepath.Join(dir, consoleFile)); bytes.Contains(log, []byte("step 0 begin")) {
			pid = qemuPID(dir)
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if pid == 0 {
		t.Fatal("the victim never booted its machine")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !gone(pid) {
		syscall.Kill(pid, syscall.SIGKILL)
		t.Errorf("QEMU %d outlives the process that started it", pid)
	}
}

// With the host's QEMU 7.2, one boot in ten of so many ends with a breakpoint that
// the kernel has removed: what "accel/tcg: translate again" in our series mends.
func TestBootManyProcessors(t *testing.T) {
	cfg := emulated(t, Fast)
	cfg.CPUs, cfg.MemMiB = MaxCPUs, 512
	cfg.Job.Steps = []guestproto.Step{shell("count", "nproc")}
	res, err := Run(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(res.Steps[0].Stdout)); got != "64" || len(res.Complaints) != 0 {
		t.Errorf("%s processors, complaints %v", got, res.Complaints)
	}
}

func TestBootProbe(t *testing.T) {
	if os.Getenv("WFLP_BOOT") == "" {
		t.Skip("WFLP_BOOT is not set")
	}
	rom, cleanup, err := assembleROM(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	for _, m := range romMachines {
		r, err := runROM(t.Context(), rom, m, "tcg", "max")
		if err != nil || !r.passed() {
			t.Errorf("%s, emulated: %s (%v)", m, r, err)
		}
		// The control: a processor without long mode must not pass.
		r, err = runROM(t.Context(), rom, m, "tcg", "qemu32")
		if err != nil || r.passed() || r.stages != "RP" {
			t.Errorf("%s without long mode: %s (%v)", m, r, err)
		}
	}
	answer, err := probeKVM(t.Context())
	t.Logf("KVM: %+v, %v", answer, err)
	if err != nil {
		t.Error(err)
	}
}
