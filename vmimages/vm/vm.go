// SPDX-License-Identifier: Apache-2.0

// Package vm boots a kernel in QEMU, gives it a job and hands back what came
// of it. It knows when a machine ended and what the kernel said, and nothing
// about what any of it means.
package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages"
	"github.com/wflp/wflp/vmimages/guestproto"
	"github.com/wflp/wflp/vmimages/qemu"
)

// QEMU is the emulator's program.
const QEMU = "qemu-system-x86_64"

// Limits and defaults of a machine.
const (
	MaxCPUs       = 64 // as the kernel is configured
	MaxNodes      = 8
	DefaultCPUs   = 2
	DefaultMemMiB = 256
	// DefaultSliceBits lets turns be as short as an instruction and as long
	// as a system call. MaxSliceBits is QEMU's limit.
	DefaultSliceBits = 14
	MaxSliceBits     = 24
	NoSlices         = -1
	// DefaultTimeout ends a machine that has no deadline of its own.
	DefaultTimeout = 10 * time.Minute
)

// Config is a machine and what it is to do.
type Config struct {
	Mode     Mode // required; see DefaultMode
	Kernel   kernel.Built
	Image    string // from vmimages.Build
	Job      guestproto.Job
	JobFiles map[string][]byte // relative names land in /job
	CPUs     int               // 0: DefaultCPUs
	MemMiB   int               // 0: DefaultMemMiB
	Nodes    int               // NUMA nodes that share processors and memory; 0: a machine without
	Levels   int               // of page tables, 4 or 5 if the kernel can; 0: 4
	Seed     uint64            // for Deterministic: of what the guest takes for chance
	// Emulator is a QEMU of our own; the zero value is the host's.
	Emulator qemu.Built
	// Schedule is the seed of the interleaving, where it is ours to choose:
	// Deterministic with Emulator. 0: Seed.
	Schedule uint64
	// SliceBits bounds a processor's turn there to less than 2^SliceBits
	// instructions. 0: DefaultSliceBits. NoSlices, with any emulator: another
	// one runs only when a timer is due or this one has nothing to do, so that
	// what an operation costs can be counted.
	SliceBits int
	Timeout   time.Duration // of the host's clock; 0: DefaultTimeout
	// AdversarialTLB gives the processors PCID and a TLB that drops an entry
	// when the architecture says that it must be gone, and never else: a
	// flush that is missing shows. Emulated, with Emulator.
	AdversarialTLB bool
	// From, if set, is what the machine is started from instead of booting.
	// What shapes the machine is then From's; of this Config count Job,
	// JobFiles, Seed, Schedule, SliceBits, Timeout, Dir and Debugger.
	From *Snapshot
	// Dir is where console.log, frames.bin, initrd.cpio and qemu.log go; it
	// is made if need be. Empty: a folder that is removed afterwards.
	Dir    string
	Append []string // more words for the kernel's command line
	// Debugger, if not empty, is the path of a socket at which a debugger is
	// waited for before the first instruction.
	Debugger string
}

// End is how a machine ended.
type End string

// The ends.
const (
	Exited  End = "exited"  // the agent finished the job
	Crashed End = "crashed" // the kernel or QEMU went down
	Timeout End = "timeout" // we ended it, for Config.Timeout was over
	Killed  End = "killed"  // we ended it, for the context was done
)

// Result is what came of a machine.
type Result struct {
	Mode       Mode
	QEMU       string // version
	Args       []string
	Hello      guestproto.Hello
	Steps      []StepResult // one for each step of the job
	Console    []byte
	QEMULog    string // the end of what QEMU itself said
	Complaints []Complaint
	AgentError string // what the agent itself could not do
	StreamErr  error  // the frames ended inside one or were damaged
	End        End
	Duration   time.Duration // host time, start of QEMU to its end
	BootTime   time.Duration // host time, start of QEMU to the agent's first word
}

// StepResult is what came of a step.
type StepResult struct {
	Name           string
	Ran            bool // it began, and its end was reported
	ExitCode       int  // -1 if it did not end by itself
	Signal         string
	TimedOut       bool
	DurationNS     int64 // guest time
	Error          string
	Stdout, Stderr []byte
	Files          map[string][]byte
	Console        []byte // what stands between the step's marks
}

// EventKind tells events apart.
type EventKind string

// The events of a machine, in the order they happen.
const (
	EventStart     EventKind = "start"  // QEMU runs
	EventHello     EventKind = "hello"  // the agent runs
	EventStepBegin EventKind = "begin"  // Step
	EventStdout    EventKind = "stdout" // Step, Data
	EventStderr    EventKind = "stderr" // Step, Data
	EventFile      EventKind = "file"   // Step, Path, Data: a piece
	EventStepEnd   EventKind = "end"    // Step
	EventExit      EventKind = "exit"   // QEMU is gone
)

// Event is something that happened. Every user interface folds these.
type Event struct {
	Kind EventKind
	Time time.Duration // since EventStart, host time
	Step int           // -1 if it belongs to none
	Name string        // of the step
	Data []byte
	Path string
	End  guestproto.StepEnd // of EventStepEnd
}

// BootError says that the guest never came to life. It carries what there is
// to see.
type BootError struct {
	End     End
	Console []byte // its end
	QEMU    string // what QEMU said
}

func (e *BootError) Error() string {
	msg := fmt.Sprintf("boot vm: the guest agent never spoke (machine %s)", e.End)
	if e.QEMU != "" {
		msg += "\nqemu: " + e.QEMU
	}
	if len(e.Console) > 0 {
		msg += "\nconsole ends:\n" + string(e.Console)
	}
	return msg
}

func (cfg *Config) setDefaults() error {
	if cfg.CPUs == 0 {
		cfg.CPUs = DefaultCPUs
	}
	if cfg.MemMiB == 0 {
		cfg.MemMiB = DefaultMemMiB
	}
	if cfg.Levels == 0 {
		cfg.Levels = 4
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Schedule == 0 {
		cfg.Schedule = cfg.Seed
	}
	if cfg.SliceBits == 0 {
		cfg.SliceBits = DefaultSliceBits
	}
	if cfg.SliceBits < NoSlices || cfg.SliceBits > MaxSliceBits {
		return fmt.Errorf("configure vm: slices of %d bits, possible are 1 to %d", cfg.SliceBits, MaxSliceBits)
	}
	if !cfg.Mode.Valid() {
		return fmt.Errorf("configure vm: mode %q is none of %v", cfg.Mode, Modes())
	}
	if cfg.CPUs < 1 || cfg.CPUs > MaxCPUs {
		return fmt.Errorf("configure vm: %d processors, possible are 1 to %d", cfg.CPUs, MaxCPUs)
	}
	if cfg.MemMiB < 64 {
		return fmt.Errorf("configure vm: %d MiB of memory, at least 64 are needed", cfg.MemMiB)
	}
	if cfg.Nodes < 0 || cfg.Nodes > MaxNodes || cfg.Nodes > 0 && cfg.MemMiB/cfg.Nodes < 64 {
		return fmt.Errorf("configure vm: %d nodes with %d MiB, possible are up to %d with 64 each", cfg.Nodes, cfg.MemMiB, MaxNodes)
	}
	if cfg.AdversarialTLB && (cfg.Mode == Measured || !cfg.Emulator.Exists()) {
		return fmt.Errorf("configure vm: the adversarial TLB is part of an emulator of our own, which this machine (mode %s) is not in", cfg.Mode)
	}
	if cfg.Levels != 4 && cfg.Levels != 5 {
		return fmt.Errorf("configure vm: %d levels of page tables, possible are 4 and 5", cfg.Levels)
	}
	return nil
}

// sliced says whether the interleaving is ours to choose.
func (cfg *Config) sliced() bool {
	return cfg.Mode == Deterministic && cfg.Emulator.Exists() && cfg.SliceBits != NoSlices
}

func (cfg *Config) tlb() tlb {
	switch {
	case cfg.AdversarialTLB:
		return adversarialTLB
	case cfg.Emulator.Exists():
		return plainTLB
	}
	return hostTLB
}

// program is the emulator's.
func (cfg *Config) program() string {
	if cfg.Emulator.Exists() {
		return cfg.Emulator.Program()
	}
	return QEMU
}

// kernelImage is the file that the machine starts. The direct entry starts the
// kernel with four levels of page tables, whatever the processor can: it is the
// boot code of bzImage that turns on the fifth.
func (cfg *Config) kernelImage() string {
	if cfg.Mode == Measured || !cfg.Kernel.PVH() || cfg.Levels == 5 {
		return cfg.Kernel.BzImage()
	}
	return cfg.Kernel.VMLinux()
}

// adopt takes what shapes the machine from the one that it is started from.
func (cfg *Config) adopt() {
	s := cfg.From.cfg
	s.From, s.Job, s.JobFiles, s.Timeout, s.Dir, s.Debugger = cfg.From, cfg.Job, cfg.JobFiles, cfg.Timeout, cfg.Dir, cfg.Debugger
	if cfg.Seed != 0 {
		s.Seed, s.Schedule = cfg.Seed, cfg.Seed
	}
	if cfg.Schedule != 0 {
		s.Schedule = cfg.Schedule
	}
	if cfg.SliceBits != 0 {
		s.SliceBits = cfg.SliceBits
	}
	*cfg = s
}

// commandLine is all but the program, with the machine's files in dir.
func (cfg *Config) commandLine(dir string) []string {
	if cfg.From == nil {
		return arguments(cfg.features(dir))
	}
	return append(arguments(cfg.parked(dir, cfg.From.Dir)), "-incoming", "fd:3")
}

// features describes the machine that a configuration asks for, with its
// files in dir.
func (cfg *Config) features(dir string) []feature {
	sliced := turns{seed: cfg.Schedule}
	if cfg.sliced() {
		sliced.bits = cfg.SliceBits
	}
	var own ownFirmware
	if cfg.Emulator.Exists() {
		own = ownFirmware(cfg.Emulator.Firmware())
	}
	return []feature{
		bare{},
		own,
		execution{cfg.Mode, cfg.Seed, cfg.Levels, ShiftFor(cfg.Kernel), cfg.tlb()},
		sliced,
		memory(cfg.MemMiB),
		// The cores of a socket share a cache, which lies in one node only.
		processors{cfg.CPUs, cfg.Nodes > 0},
		steadyCode{cfg.Mode, cfg.CPUs, cfg.Emulator.Exists()},
		nodes{cfg.Nodes, cfg.CPUs, cfg.MemMiB},
		console(filepath.Join(dir, consoleFile)),
		exitDevice{},
		outputPort{filepath.Join(dir, framesFile), guestproto.PortName},
		bootFiles{cfg.kernelImage(), filepath.Join(dir, initrdFile)},
		debugger(cfg.Debugger),
		kernelWords(cfg.Append),
	}
}

const (
	consoleFile = "console.log"
	framesFile  = "frames.bin"
	initrdFile  = "initrd.cpio"
	qemuFile    = "qemu.log"
)

// Command returns the command line that Run would start.
func Command(cfg Config) ([]string, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	dir := cfg.Dir
	if dir == "" {
		dir = "DIR"
	}
	return append([]string{cfg.program()}, arguments(cfg.features(dir))...), nil
}

// QEMUVersion asks the host's emulator for its version.
func QEMUVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, QEMU, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask QEMU for its version: %w", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(line, "QEMU emulator version "), nil
}

// emulatorVersion tells any emulator from any other.
func (cfg *Config) emulatorVersion(ctx context.Context) (string, error) {
	if m := cfg.Emulator.Manifest; cfg.Emulator.Exists() {
		return fmt.Sprintf("%s, wflp %s", m.SourceVersion, m.Digest), nil
	}
	return QEMUVersion(ctx)
}

// EmulatorFor chooses the emulator for a mode. A deterministic machine has its
// interleaving chosen by one of our own, which is built if need be; where that
// is not possible, timers in the guest have to do, and one line says so. Fast
// takes ours if it is there, for what is mended in it. KVM is for the host's.
func EmulatorFor(ctx context.Context, b *qemu.Builder, mode Mode) (qemu.Built, error) {
	switch mode {
	case Deterministic:
		built, err := b.Build(ctx)
		if err != nil && ctx.Err() == nil && b.Log != nil {
			line, _, _ := strings.Cut(err.Error(), "\n")
			fmt.Fprintf(b.Log, "no emulator of our own, its interleavings are made by timers in the guest instead: %s\n", line)
		}
		return built, ctx.Err()
	case Fast:
		built, err := b.Find(ctx)
		if err != nil {
			return qemu.Built{}, ctx.Err()
		}
		return built, nil
	}
	return qemu.Built{}, nil
}

// Run starts a machine, follows it, and sees it to its end, which is one of
// its own, Config.Timeout, or ctx being done. on may be nil; it is called from
// one goroutine at a time.
//
// The error is about the machinery: a result with a crash in it is a result.
// A *BootError comes with a result, too.
func Run(ctx context.Context, cfg Config, on func(Event)) (*Result, error) {
	if cfg.From != nil {
		cfg.adopt()
	}
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if on == nil {
		on = func(Event) {}
	}
	version, err := cfg.emulatorVersion(ctx)
	if err != nil {
		return nil, err
	}
	dir := cfg.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "wflp-vm-"); err != nil {
			return nil, fmt.Errorf("make vm directory: %w", err)
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make vm directory: %w", err)
	}
	if err := cfg.writeFiles(dir); err != nil {
		return nil, err
	}
	// The image may be large, and once QEMU has read it nobody needs it.
	defer os.Remove(filepath.Join(dir, initrdFile))
	defer os.Remove(filepath.Join(dir, jobFile))

	res := &Result{Mode: cfg.Mode, QEMU: version, Args: cfg.commandLine(dir), Steps: make([]StepResult, len(cfg.Job.Steps))}
	for i, s := range cfg.Job.Steps {
		res.Steps[i] = StepResult{Name: s.Name, ExitCode: -1}
	}
	m := &machine{cfg: &cfg, dir: dir, res: res, on: on}
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	if res.Console, err = os.ReadFile(filepath.Join(dir, consoleFile)); err != nil {
		return nil, fmt.Errorf("read console: %w", err)
	}
	res.Complaints = Scan(res.Console)
	for i := range res.Steps {
		res.Steps[i].Console = stepConsole(res.Console, i, res.Steps[i].Name)
	}
	said, err := os.ReadFile(filepath.Join(dir, qemuFile))
	if err != nil {
		return nil, fmt.Errorf("read QEMU's log: %w", err)
	}
	res.QEMULog = strings.TrimSpace(string(tail(said, 2000)))
	if res.Hello.Release == "" {
		return res, &BootError{End: res.End, Console: tail(res.Console, 2000), QEMU: res.QEMULog}
	}
	return res, nil
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return b
}

// writeFiles makes the machine's files. The job is appended to the image: the
// kernel unpacks one archive after the other. The output files are made here,
// so that they can be followed from the first byte.
func (cfg *Config) writeFiles(dir string) error {
	for _, f := range []string{consoleFile, framesFile, qemuFile} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			return fmt.Errorf("make %s: %w", f, err)
		}
	}
	job := cfg.Job
	if job.DeadlineMS == 0 && cfg.Mode != Deterministic {
		// Virtual time may run faster than ours, and the deadline is only
		// for the case that we are not there to end the machine.
		job.DeadlineMS = (cfg.Timeout + time.Minute).Milliseconds()
	}
	if cfg.Mode == Deterministic && !cfg.Emulator.Exists() && cfg.SliceBits != NoSlices {
		job.Timers = max(cfg.Schedule, 1)
	}
	if cfg.From != nil {
		if cfg.sliced() {
			job.Turns = &guestproto.Turns{Seed: cfg.Schedule, Bits: uint8(cfg.SliceBits)}
		}
		return cfg.writeJob(dir, job)
	}
	image, err := os.ReadFile(cfg.Image)
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	archive, err := vmimages.JobArchive(job, cfg.JobFiles)
	if err != nil {
		return err
	}
	if pad := len(image) % 4; pad != 0 {
		image = append(image, make([]byte, 4-pad)...)
	}
	if err := os.WriteFile(filepath.Join(dir, initrdFile), append(image, archive...), 0o644); err != nil {
		return fmt.Errorf("write initrd: %w", err)
	}
	return nil
}

// writeJob makes the files of a machine that is started from one that was kept.
func (cfg *Config) writeJob(dir string, job guestproto.Job) error {
	files := map[string][]byte{}
	for name, data := range cfg.JobFiles {
		files[vmimages.JobPath(name)] = data
	}
	memory, err := guestproto.EncodeJob(job, files)
	if err != nil {
		return err
	}
	// The memory of the job is a device of its own; an initrd is not read.
	if err := os.WriteFile(filepath.Join(dir, initrdFile), nil, 0o644); err != nil {
		return fmt.Errorf("write initrd: %w", err)
	}
	return writeJobMemory(filepath.Join(dir, jobFile), memory)
}

// machine is one running QEMU.
type machine struct {
	cfg   *Config
	dir   string
	res   *Result
	on    func(Event)
	start time.Time
	bye   bool
	// fileErr is the first piece of a file that did not fit the ones before.
	fileErr error
}

func (m *machine) emit(e Event) {
	e.Time = time.Since(m.start)
	m.on(e)
}

// poll is how often the frames are looked at. They arrive in a file, see
// outputPort; looking costs a read of nothing.
const poll = 5 * time.Millisecond

func (m *machine) run(ctx context.Context) error {
	said, err := os.OpenFile(filepath.Join(m.dir, qemuFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("open QEMU's log: %w", err)
	}
	defer said.Close()
	frames, err := os.Open(filepath.Join(m.dir, framesFile))
	if err != nil {
		return fmt.Errorf("open frames: %w", err)
	}
	defer frames.Close()

	cmd := exec.Command(m.cfg.program(), m.res.Args...)
	cmd.Stdout, cmd.Stderr = said, said
	if m.cfg.From != nil {
		state, err := os.Open(filepath.Join(m.cfg.From.Dir, stateFile))
		if err != nil {
			return fmt.Errorf("open snapshot: %w", err)
		}
		defer state.Close()
		cmd.ExtraFiles = []*os.File{state} // number 3, as commandLine says
	}
	m.start = time.Now()
	ended, err := startTied(cmd)
	if err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	limitCPUTime(cmd.Process.Pid, m.cfg)
	m.emit(Event{Kind: EventStart, Step: -1})

	timeout := time.NewTimer(m.cfg.Timeout)
	defer timeout.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var dec guestproto.Decoder
	buf := make([]byte, 1<<20)
	drain := func() {
		for m.res.StreamErr == nil {
			n, _ := frames.Read(buf)
			if n == 0 {
				return
			}
			dec.Write(buf[:n])
			m.frames(&dec)
		}
	}
	end := End("")
	kill := func(why End) {
		end = why
		// The whole group: QEMU has no children now, but a later option
		// may give it some.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
loop:
	for {
		select {
		case <-ended:
			break loop
		case <-tick.C:
			drain()
		case <-timeout.C:
			kill(Timeout)
			break loop
		case <-ctx.Done():
			kill(Killed)
			break loop
		}
	}
	m.res.Duration = time.Since(m.start)
	drain()
	if m.res.StreamErr == nil && dec.Pending() > 0 {
		m.res.StreamErr = errors.New("frames end inside a frame")
	}
	if m.res.StreamErr == nil {
		m.res.StreamErr = m.fileErr
	}
	if end == "" {
		end = Crashed
		if m.bye && cmd.ProcessState.ExitCode() == guestproto.ExitStatus {
			end = Exited
		}
	}
	m.res.End = end
	m.emit(Event{Kind: EventExit, Step: -1})
	return nil
}

// startTied starts a process that does not outlive us, whatever becomes of us:
// the kernel kills it when the thread that started it ends. That thread
// therefore has to live as long as the process does.
func startTied(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		cmd.Wait() // the state is in cmd.ProcessState
		close(done)
	}()
	return done, <-started
}

// limitCPUTime is the last rope: a QEMU that has escaped everything else is
// ended by the kernel when it has burnt more than it could have in its time.
func limitCPUTime(pid int, cfg *Config) {
	s := uint64((cfg.Timeout + 2*time.Minute).Seconds()) * uint64(cfg.CPUs+2)
	// The process is ours, and without the limit it merely has a rope less.
	_ = unix.Prlimit(pid, unix.RLIMIT_CPU, &unix.Rlimit{Cur: s, Max: s}, nil)
}

func (m *machine) frames(dec *guestproto.Decoder) {
	for {
		f, ok, err := dec.Next()
		if err != nil {
			m.res.StreamErr = err
			return
		}
		if !ok {
			return
		}
		m.frame(f)
	}
}

func (m *machine) frame(f guestproto.Frame) {
	switch f.Type {
	case guestproto.TypeHello:
		if err := json.Unmarshal(f.Payload, &m.res.Hello); err != nil {
			m.res.StreamErr = fmt.Errorf("parse hello: %w", err)
			return
		}
		m.res.BootTime = time.Since(m.start)
		m.emit(Event{Kind: EventHello, Step: -1})
		return
	case guestproto.TypeBye:
		m.bye = true
		return
	case guestproto.TypeAgentError:
		m.res.AgentError = string(f.Payload)
		return
	}
	if int64(f.Step) >= int64(len(m.res.Steps)) {
		m.res.StreamErr = fmt.Errorf("frame of type %d names step %d of %d", f.Type, f.Step, len(m.res.Steps))
		return
	}
	s := &m.res.Steps[f.Step]
	e := Event{Step: int(f.Step), Name: s.Name, Data: f.Payload}
	switch f.Type {
	case guestproto.TypeStepBegin:
		e.Kind, e.Data = EventStepBegin, nil
	case guestproto.TypeStdout:
		e.Kind = EventStdout
		s.Stdout = append(s.Stdout, f.Payload...)
	case guestproto.TypeStderr:
		e.Kind = EventStderr
		s.Stderr = append(s.Stderr, f.Payload...)
	case guestproto.TypeFile:
		p, err := guestproto.ParseFilePiece(f.Payload)
		if err != nil {
			m.res.StreamErr = err
			return
		}
		if s.Files == nil {
			s.Files = map[string][]byte{}
		}
		if uint64(len(s.Files[p.Path])) != p.Offset && m.fileErr == nil {
			m.fileErr = fmt.Errorf("file %s: a piece at %d follows %d bytes", p.Path, p.Offset, len(s.Files[p.Path]))
		}
		s.Files[p.Path] = append(s.Files[p.Path], p.Data...)
		e.Kind, e.Path, e.Data = EventFile, p.Path, p.Data
	case guestproto.TypeStepEnd:
		if err := json.Unmarshal(f.Payload, &e.End); err != nil {
			m.res.StreamErr = fmt.Errorf("parse end of step: %w", err)
			return
		}
		e.Kind, e.Data = EventStepEnd, nil
		s.Ran = true
		s.ExitCode, s.Signal, s.TimedOut = e.End.ExitCode, e.End.Signal, e.End.TimedOut
		s.DurationNS, s.Error = e.End.DurationNS, e.End.Error
	default:
		m.res.StreamErr = fmt.Errorf("frame of unknown type %d", f.Type)
		return
	}
	m.emit(e)
}

// stepConsole cuts out what the console says between the marks of a step. A
// step whose end is missing reaches to the next mark, or to the end of the log.
func stepConsole(log []byte, n int, name string) []byte {
	begin := []byte(fmt.Sprintf("wflp: step %d begin %s", n, name))
	i := bytes.Index(log, begin)
	if i < 0 {
		return nil
	}
	rest := log[i+len(begin):]
	if nl := bytes.IndexByte(rest, '\n'); nl >= 0 {
		rest = rest[nl+1:]
	}
	if j := bytes.Index(rest, []byte("wflp: step ")); j >= 0 {
		rest = rest[:j]
		rest = rest[:bytes.LastIndexByte(rest, '\n')+1]
	}
	return rest
}
