// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed probe/rom.S
var romSource []byte

// romStages is what the ROM prints on a processor that works; see rom.S.
const romStages = "RPLICFUT2"

// romExit is QEMU's exit status after the last stage: 0x31 through isa-debug-exit.
const romExit = 0x31<<1 | 1

// romTime is how long the ROM may take. It needs less than a tenth of it, even
// emulated.
const romTime = 1500 * time.Millisecond

// romMachines are the machines KVM has to work on. They differ in their
// chipset, and half-working KVMs have been seen to differ on them.
var romMachines = []string{"pc", "microvm"}

// KVMAnswer says whether KVM can be used, and why not.
type KVMAnswer struct {
	Usable bool   `json:"usable"`
	Reason string `json:"reason"`
}

// DefaultMode is Measured where KVM works, else Fast.
func DefaultMode(ctx context.Context, cacheDir string) (Mode, error) {
	kvm, err := KVM(ctx, cacheDir)
	if err != nil {
		return "", err
	}
	if kvm.Usable {
		return Measured, nil
	}
	return Fast, nil
}

// KVM tells whether KVM works here: whether a processor of it does all that
// the stages of the ROM ask, not whether /dev/kvm can be opened. The answer is
// remembered until the host boots anew or gets another QEMU.
func KVM(ctx context.Context, cacheDir string) (KVMAnswer, error) {
	// Permission comes and goes with group membership, so it is not part of
	// what is remembered.
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return KVMAnswer{Reason: err.Error()}, nil
	}
	f.Close()
	key, err := kvmKey(ctx)
	if err != nil {
		return KVMAnswer{}, err
	}
	path := filepath.Join(cacheDir, "kvm.json")
	var memo struct {
		Key    string    `json:"key"`
		Answer KVMAnswer `json:"answer"`
	}
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &memo) == nil && memo.Key == key {
		return memo.Answer, nil
	}
	memo.Key = key
	if memo.Answer, err = probeKVM(ctx); err != nil {
		return KVMAnswer{}, err
	}
	data, err := json.Marshal(memo)
	if err != nil {
		return KVMAnswer{}, fmt.Errorf("remember KVM probe: %w", err)
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return KVMAnswer{}, fmt.Errorf("remember KVM probe: %w", err)
	}
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return KVMAnswer{}, fmt.Errorf("remember KVM probe: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return KVMAnswer{}, fmt.Errorf("remember KVM probe: %w", err)
	}
	return memo.Answer, nil
}

func kvmKey(ctx context.Context) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("identify boot of the host: %w", err)
	}
	version, err := QEMUVersion(ctx)
	if err != nil {
		return "", err
	}
	rom := sha256.Sum256(romSource)
	return strings.Join([]string{strings.TrimSpace(string(boot)), version, CPUModel(), hex.EncodeToString(rom[:8])}, "|"), nil
}

// CPUModel is the host processor's name.
func CPUModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for _, line := range strings.Split(string(data), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// probeKVM runs the ROM on all machines. A ROM that does not even pass when
// emulated proves nothing, and is our mistake: that is an error, not a no.
func probeKVM(ctx context.Context) (KVMAnswer, error) {
	rom, cleanup, err := assembleROM(ctx)
	if err != nil {
		return KVMAnswer{}, err
	}
	defer cleanup()
	for _, m := range romMachines {
		r, err := runROM(ctx, rom, m, "kvm", "host")
		if err != nil {
			return KVMAnswer{}, err
		}
		if r.passed() {
			continue
		}
		control, err := runROM(ctx, rom, m, "tcg", "max")
		if err != nil {
			return KVMAnswer{}, err
		}
		if !control.passed() {
			return KVMAnswer{}, fmt.Errorf("probe KVM: the probe fails under emulation, too, on %s: %s", m, control)
		}
		return KVMAnswer{Reason: fmt.Sprintf("probe on machine %s: %s", m, r)}, nil
	}
	return KVMAnswer{Usable: true, Reason: "the probe passed on " + strings.Join(romMachines, " and ")}, nil
}

func assembleROM(ctx context.Context) (path string, cleanup func(), err error) {
	dir, err := os.MkdirTemp("", "wflp-rom-")
	if err != nil {
		return "", nil, fmt.Errorf("assemble probe: %w", err)
	}
	cleanup = func() { os.RemoveAll(dir) }
	src, obj, rom := filepath.Join(dir, "rom.S"), filepath.Join(dir, "rom.o"), filepath.Join(dir, "rom.bin")
	if err := os.WriteFile(src, romSource, 0o600); err != nil {
		cleanup()
		return "", nil, fmt.Errorf("assemble probe: %w", err)
	}
	for _, args := range [][]string{{"as", "--64", "-o", obj, src}, {"objcopy", "-O", "binary", "-j", ".text", obj, rom}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			cleanup()
			return "", nil, fmt.Errorf("assemble probe: %s: %w\n%s", args[0], err, out)
		}
	}
	return rom, cleanup, nil
}

// romRun is how far the ROM came.
type romRun struct {
	stages   string
	exit     int
	timedOut bool
	said     string // by QEMU, first line
	took     time.Duration
}

func (r romRun) passed() bool { return r.stages == romStages && r.exit == romExit && !r.timedOut }

func (r romRun) String() string {
	var what string
	switch {
	case r.said != "":
		what = r.said
	case r.timedOut:
		what = fmt.Sprintf("hangs (ended after %v)", romTime)
	default:
		what = fmt.Sprintf("QEMU exits with %d", r.exit)
	}
	next := "to start"
	if n := len(r.stages); n < len(romStages) && strings.HasPrefix(romStages, r.stages) {
		next = stageNames[romStages[n]]
	}
	return fmt.Sprintf("after stages %q of %q, at %s: %s", r.stages, romStages, next, what)
}

var stageNames = map[byte]string{
	'R': "real mode", 'P': "protected mode", 'L': "long mode", 'I': "int3", 'C': "invlpg and CR3 load",
	'F': "page fault", 'U': "user mode and syscall", 'T': "timer interrupt", '2': "second processor",
}

func runROM(ctx context.Context, rom, machine, accel, cpu string) (romRun, error) {
	dir, err := os.MkdirTemp("", "wflp-rom-")
	if err != nil {
		return romRun{}, fmt.Errorf("run probe: %w", err)
	}
	defer os.RemoveAll(dir)
	letters := filepath.Join(dir, "letters")
	if err := os.WriteFile(letters, nil, 0o600); err != nil {
		return romRun{}, fmt.Errorf("run probe: %w", err)
	}
	cmd := exec.Command(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", machine, "-accel", accel, "-cpu", cpu, "-m", "64M", "-smp", "2", "-bios", rom,
		"-debugcon", "file:"+letters, "-device", "isa-debug-exit,iobase=0xf4,iosize=1")
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		return romRun{}, fmt.Errorf("run probe: %w", err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	start := time.Now()
	ended, err := startTied(cmd)
	if err != nil {
		return romRun{}, fmt.Errorf("run probe: %w", err)
	}
	read := func() string {
		data, _ := os.ReadFile(said.Name())
		return string(data)
	}
	var r romRun
	limit := time.NewTimer(romTime)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	kill := func() {
		cmd.Process.Kill()
		<-ended
	}
wait:
	for {
		select {
		case <-ended:
			break wait
		case <-limit.C:
			r.timedOut = true
			kill()
			break wait
		case <-ctx.Done():
			kill()
			return romRun{}, fmt.Errorf("run probe: %w", ctx.Err())
		case <-tick.C:
			// QEMU stops the machine and stays; there is nothing to wait for.
			if strings.Contains(read(), "KVM internal error") {
				kill()
				break wait
			}
		}
	}
	r.took = time.Since(start)
	r.exit = cmd.ProcessState.ExitCode()
	stages, err := os.ReadFile(letters)
	if err != nil {
		return romRun{}, fmt.Errorf("run probe: %w", err)
	}
	r.stages = string(bytes.TrimSpace(stages))
	r.said, _, _ = strings.Cut(strings.TrimSpace(read()), "\n")
	return r, nil
}
