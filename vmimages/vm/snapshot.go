// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/vmimages/guestproto"
)

// Snapshot is a machine that has booted and stands still, a moment before its
// agent reads its job. Config.From starts others from it, which takes a
// fraction of the time that a boot takes.
//
// What it is made of names it, and it comes out the same each time in mode
// Deterministic with an emulator of our own: whoever has its parts can make it
// again rather than be given it.
type Snapshot struct {
	Dir  string
	Key  string
	Boot time.Duration // host time that it took to make; 0 if it was there

	cfg Config
}

// The files of a snapshot: the guest's memory, which each machine started from
// it maps privately, and the state of all else.
const (
	ramFile   = "ram"
	stateFile = "state"
	jobFile   = "job.mem"
	qmpFile   = "qmp"
)

// ErrNoSnapshot says that a machine cannot be kept.
var ErrNoSnapshot = errors.New("such a machine cannot be kept")

// bootSliceBits is SliceBits for the boot of a machine that is to be kept.
const bootSliceBits = 20

// snapshotVersion stands for what shapes a snapshot and is not in its key.
const snapshotVersion = 1

// Keep boots a machine, stops it where its agent would read its job, and keeps
// it in cacheDir, unless it is there already. Of cfg counts what shapes the
// machine: Mode, Kernel, Image, CPUs, MemMiB, Levels, Seed, Emulator, Append and,
// for the boot itself, Timeout. Schedule and SliceBits are for machines that are
// started from it and have none of their own.
func Keep(ctx context.Context, cfg Config, cacheDir string) (*Snapshot, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if cfg.SliceBits == NoSlices {
		return nil, fmt.Errorf("keep vm without slices: %w", ErrNoSnapshot)
	}
	if cfg.Mode == Measured || cfg.Nodes > 0 || !cfg.Emulator.Exists() {
		return nil, fmt.Errorf("keep vm (mode %s, %d nodes, emulator of our own: %v): %w", cfg.Mode, cfg.Nodes, cfg.Emulator.Exists(), ErrNoSnapshot)
	}
	cfg.From, cfg.Dir, cfg.JobFiles = nil, "", nil
	cfg.Job = guestproto.Job{Park: true}
	s := &Snapshot{cfg: cfg}
	// Nobody looks for races in the boot, which takes a third less time in
	// long turns. Jobs set their own.
	cfg.Schedule, cfg.SliceBits = cfg.Seed, bootSliceBits
	key, err := cfg.snapshotKey(ctx)
	if err != nil {
		return nil, err
	}
	s.Dir, s.Key = filepath.Join(cacheDir, "snapshots", key), key
	if build.IsDir(s.Dir) {
		return s, nil
	}
	unlock, err := build.Lock(ctx, filepath.Join(cacheDir, "locks", "snapshot-"+key), nil)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if build.IsDir(s.Dir) {
		return s, nil
	}
	start := time.Now()
	err = build.Stage(s.Dir, func(tmp string) error {
		if err := cfg.bootAndKeep(ctx, tmp); err != nil {
			return err
		}
		for _, f := range []string{initrdFile, jobFile, framesFile} {
			os.Remove(filepath.Join(tmp, f))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.Boot = time.Since(start)
	return s, nil
}

// snapshotKey is a digest of all that a snapshot is made of.
func (cfg *Config) snapshotKey(ctx context.Context) (string, error) {
	emulator, err := cfg.emulatorVersion(ctx)
	if err != nil {
		return "", err
	}
	parts := struct {
		Version       int
		Emulator      string
		Kernel, Image string
		Args          []string
	}{Version: snapshotVersion, Emulator: emulator}
	args := arguments(cfg.parked("DIR", "DIR"))
	if parts.Kernel, err = build.SHA256(cfg.kernelImage()); err != nil {
		return "", fmt.Errorf("hash kernel: %w", err)
	}
	if parts.Image, err = build.SHA256(cfg.Image); err != nil {
		return "", fmt.Errorf("hash image: %w", err)
	}
	for _, a := range args {
		// Where kernel and firmware are does not matter, what they are does.
		a = strings.ReplaceAll(a, cfg.kernelImage(), "KERNEL")
		if cfg.Emulator.Exists() {
			a = strings.ReplaceAll(a, cfg.Emulator.Firmware(), "FIRMWARE")
		}
		parts.Args = append(parts.Args, a)
	}
	data, err := json.Marshal(parts)
	if err != nil {
		return "", fmt.Errorf("name snapshot: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}

// parked are the features of a machine that can be kept, or is started from
// one that was: the memory lies in from, all else in dir.
func (cfg *Config) parked(dir, from string) []feature {
	return append(cfg.features(dir), parking{
		ram: filepath.Join(from, ramFile), job: filepath.Join(dir, jobFile), memMiB: cfg.MemMiB, shared: dir == from,
	})
}

// parking makes a machine one that can be kept.
//
// Its memory is a file. A machine that is to be kept shares it, so that it is
// there when the machine is gone; one that is started from it has a private
// mapping, of which it pays for the pages that it uses. Shared memory is no part
// of the state that migrates (x-ignore-shared, which only an emulator of ours takes from
// its command line).
//
// Its job comes in the memory of another device, which is another file for each
// machine. (master=on: this device goes with its memory, as far as migration is
// concerned, rather than belong to several machines at once.)
//
// announce-rounds=0: a machine that arrives announces itself to networks at
// times of the host's, and was seen to end differently in one run of ten.
// store-global-state=off: else it would arrive paused, as it left.
type parking struct {
	ram, job string
	memMiB   int
	shared   bool
}

func (p parking) qemu() []string {
	share := "off"
	if p.shared {
		share = "on"
	}
	return []string{
		"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,share=%s,mem-path=%s", p.memMiB, share, comma(p.ram)),
		"-machine", "memory-backend=ram",
		"-object", fmt.Sprintf("memory-backend-file,id=job,size=%d,share=on,mem-path=%s", guestproto.JobMemory, comma(p.job)),
		"-device", "ivshmem-plain,memdev=job,master=on",
		"-device", fmt.Sprintf("isa-debug-pause,iobase=%#x", guestproto.ParkPort),
		"-global", "migration.announce-rounds=0", "-global", "migration.x-ignore-shared=on", "-global", "migration.store-global-state=off",
	}
}
func (parking) kernel() []string { return nil }

// writeJobMemory makes the file behind the device that jobs come by.
func writeJobMemory(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	if err := os.Truncate(path, guestproto.JobMemory); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	return nil
}

// bootAndKeep leaves memory and state of a machine that has parked in dir.
func (cfg *Config) bootAndKeep(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if err := cfg.writeFiles(dir); err != nil {
		return err
	}
	if err := writeJobMemory(filepath.Join(dir, jobFile), nil); err != nil {
		return err
	}
	said, err := os.OpenFile(filepath.Join(dir, qemuFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("open QEMU's log: %w", err)
	}
	defer said.Close()
	// The path of a socket is short; that of a cache may not be.
	sock, err := os.MkdirTemp("", "wflp-qmp-")
	if err != nil {
		return fmt.Errorf("keep vm: %w", err)
	}
	defer os.RemoveAll(sock)
	sock = filepath.Join(sock, qmpFile)
	cmd := exec.Command(cfg.program(), append(arguments(cfg.parked(dir, dir)), "-qmp", "unix:"+comma(sock)+",server=on,wait=off")...)
	cmd.Stdout, cmd.Stderr = said, said
	ended, err := startTied(cmd)
	if err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	defer func() {
		cmd.Process.Kill()
		<-ended
	}()
	limitCPUTime(cmd.Process.Pid, cfg)
	kept := make(chan error, 1)
	go func() { kept <- keepParked(ctx, sock, filepath.Join(dir, stateFile)) }()
	select {
	case err = <-kept:
	case <-ended:
		err = errors.New("the machine ended before it parked")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	console, _ := os.ReadFile(filepath.Join(dir, consoleFile))
	text, _ := os.ReadFile(filepath.Join(dir, qemuFile))
	return fmt.Errorf("keep vm: %w", errors.Join(err, &BootError{End: Crashed, Console: tail(console, 2000), QEMU: strings.TrimSpace(string(tail(text, 2000)))}))
}

// keepParked waits until a machine has stopped itself and has its state written.
func keepParked(ctx context.Context, socket, state string) error {
	q, err := dialQMP(ctx, socket)
	if err != nil {
		return err
	}
	defer q.conn.Close()
	if err := q.waitFor("STOP"); err != nil {
		return err
	}
	if _, err := q.do("migrate", map[string]any{"uri": "exec:cat >'" + strings.ReplaceAll(state, "'", `'\''`) + "'"}); err != nil {
		return err
	}
	for {
		answer, err := q.do("query-migrate", nil)
		if err != nil {
			return err
		}
		var progress struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := json.Unmarshal(answer, &progress); err != nil {
			return fmt.Errorf("ask for the state of the machine: %w", err)
		}
		switch progress.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("write state of the machine: %s", progress.Error)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// qmp is a conversation with QEMU's monitor.
type qmp struct {
	conn   net.Conn
	in     *bufio.Reader
	events []string // that came while we waited for something else
}

type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Event  string          `json:"event"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

func dialQMP(ctx context.Context, socket string) (*qmp, error) {
	var conn net.Conn
	for {
		var err error
		if conn, err = new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("speak to QEMU: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	if end, ok := ctx.Deadline(); ok {
		conn.SetDeadline(end)
	}
	q := &qmp{conn: conn, in: bufio.NewReader(conn)}
	if _, err := q.in.ReadBytes('\n'); err != nil { // the greeting
		conn.Close()
		return nil, fmt.Errorf("speak to QEMU: %w", err)
	}
	if _, err := q.do("qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read() (qmpMessage, error) {
	var m qmpMessage
	line, err := q.in.ReadBytes('\n')
	if err != nil {
		return m, fmt.Errorf("hear from QEMU: %w", err)
	}
	if err := json.Unmarshal(bytes.TrimSpace(line), &m); err != nil {
		return m, fmt.Errorf("hear from QEMU: %w", err)
	}
	return m, nil
}

func (q *qmp) do(command string, args map[string]any) (json.RawMessage, error) {
	msg := map[string]any{"execute": command}
	if args != nil {
		msg["arguments"] = args
	}
	data, err := json.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("tell QEMU to %s: %w", command, err)
	}
	if _, err := q.conn.Write(append(data, '\n')); err != nil {
		return nil, fmt.Errorf("tell QEMU to %s: %w", command, err)
	}
	for {
		m, err := q.read()
		switch {
		case err != nil:
			return nil, err
		case m.Error != nil:
			return nil, fmt.Errorf("tell QEMU to %s: %s", command, m.Error.Desc)
		case m.Event != "":
			q.events = append(q.events, m.Event)
		case m.Return != nil:
			return m.Return, nil
		}
	}
}

// waitFor waits for an event, which may have come already.
func (q *qmp) waitFor(event string) error {
	for {
		for _, e := range q.events {
			if e == event {
				return nil
			}
		}
		m, err := q.read()
		if err != nil {
			return err
		}
		if m.Event != "" {
			q.events = append(q.events, m.Event)
		}
	}
}
