// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"strconv"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/guestproto"
)

// Mode is how instructions are executed, and so what a measured time means.
type Mode string

// The modes.
const (
	// Measured runs on the processor by KVM: times are real.
	Measured Mode = "measured"
	// Fast emulates with a thread per processor: only ratios of times mean
	// anything, the interleaving and the memory order are those of the host.
	Fast Mode = "fast"
	// Deterministic emulates one instruction at a time and counts them as
	// time: the same input gives the same bytes. It is sequentially
	// consistent, so a missing memory barrier cannot show.
	Deterministic Mode = "deterministic"
)

// IcountShift is log2 of the virtual nanoseconds that an instruction takes in
// mode deterministic. A greater one makes more of the run's time fit into one of
// ours; timers come after fewer instructions then.
//
// A kernel that checks itself takes some eight times as many instructions. With
// the time of them all, it would boot for a minute of its time, and what the
// kernel does not wait longer than that for would fail: ACPI gives a loop of its
// language 30 seconds, and a debug kernel's took 34.
const (
	IcountShift        = 4
	IcountShiftChecked = 1
)

// ShiftFor is IcountShift or IcountShiftChecked.
func ShiftFor(k kernel.Built) int {
	if k.Checks() {
		return IcountShiftChecked
	}
	return IcountShift
}

// Modes lists all modes.
func Modes() []Mode { return []Mode{Measured, Fast, Deterministic} }

// Valid says whether the mode is one of Modes.
func (m Mode) Valid() bool { return m == Measured || m == Fast || m == Deterministic }

// feature is one property of a machine. It yields its part of QEMU's
// arguments and of the kernel's command line, and touches nothing: a machine
// is described, printed and compared without being started.
type feature interface {
	qemu() []string
	kernel() []string
}

// bare strips the machine of all that QEMU adds by itself, so that a new QEMU
// or a user's configuration file does not change what is measured.
type bare struct{}

func (bare) qemu() []string {
	return []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"}
}

// No randomisation, so that addresses in a console log mean something, and
// end on panic rather than wait.
//
// loglevel=5 in place of quiet: WARN and lockdep speak at level 4, which quiet
// suppresses, and a complaint that is not on the console is not seen.
//
// printk.devkmsg=on: the marks of the steps come by /dev/kmsg, of which the kernel
// otherwise drops what exceeds ten lines in five seconds.
func (bare) kernel() []string {
	return []string{"panic=-1", "oops=panic", "loglevel=5", "printk.devkmsg=on", "nokaslr", "norandmaps"}
}

// execution is the mode as QEMU knows it.
type execution struct {
	mode   Mode
	seed   uint64
	levels int
	shift  int // of icount
	tlb    tlb
}

// tlb is which TLB the processors have.
type tlb int

const (
	hostTLB        tlb = iota // that of the host's QEMU
	plainTLB                  // the same, of ours
	adversarialTLB            // see Config.AdversarialTLB
)

// words are properties of the processor. An emulator of ours has PCID, which
// changes how the kernel works; it is for those who ask.
func (t tlb) words() string {
	switch t {
	case plainTLB:
		return ",pcid=off,invpcid=off"
	case adversarialTLB:
		return ",adversarial-tlb=on"
	}
	return ""
}

// cpu is a processor with all that its kind has, but for the fifth level of
// page tables unless that is asked for: kernels that know it would use it.
func (e execution) cpu(kind string) string {
	kind += e.tlb.words()
	if e.levels == 5 {
		return kind
	}
	return kind + ",la57=off"
}

func (e execution) qemu() []string {
	switch e.mode {
	case Measured:
		return []string{"-M", "pc", "-accel", "kvm", "-cpu", e.cpu("host")}
	case Deterministic:
		// Each is needed: without -seed or clock=vm the guest sees the
		// host's randomness or time, sleep=on lets the host's scheduler in.
		return []string{"-M", "pc", "-accel", "tcg,thread=single", "-icount", fmt.Sprintf("shift=%d,sleep=off", e.shift),
			"-rtc", "base=2024-01-01T00:00:00,clock=vm", "-seed", strconv.FormatUint(e.seed, 10), "-cpu", e.cpu("max")}
	default:
		return []string{"-M", "pc", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", e.cpu("max")}
	}
}

// Without lpj each processor calibrates its delay loop against late ticks and
// tries again when they disagree: 64 of them on two host threads took minutes
// to start. It is TSC ticks a jiffy of 4 ms: exact where the TSC is ours, and
// for a 3 GHz host elsewhere, where too long a delay does no harm.
func (e execution) kernel() []string {
	switch e.mode {
	case Deterministic:
		return []string{"tsc_early_khz=1000000", "tsc=reliable", "lpj=4000000"}
	case Fast:
		// Emulated timers are late when the host is busy, and the clock
		// watchdog would blame the TSC, which is the host's and good.
		return []string{"tsc=reliable", "lpj=12000000"}
	}
	return nil
}

// ownFirmware is the folder that an emulator of our own has its firmware in.
type ownFirmware string

func (f ownFirmware) qemu() []string {
	if f == "" {
		return nil
	}
	return []string{"-L", string(f)}
}
func (ownFirmware) kernel() []string { return nil }

// turns make the processors of a deterministic machine take turns whose
// lengths follow from a seed, by a device that only an emulator of our own has.
type turns struct {
	seed uint64
	bits int // 0: none, as in other modes
}

func (s turns) qemu() []string {
	if s.bits == 0 {
		return nil
	}
	return []string{"-device", fmt.Sprintf("isa-icount-slices,id=slices,iobase=%#x,seed=%d,bits=%d", guestproto.SlicePort, s.seed, s.bits)}
}
func (turns) kernel() []string { return nil }

// memory is the machine's memory in MiB.
type memory int

func (m memory) qemu() []string { return []string{"-m", fmt.Sprintf("%dM", int(m))} }
func (memory) kernel() []string { return nil }

// processors are virtual ones: cores of one socket, or apart in a socket each.
type processors struct {
	n     int
	apart bool
}

func (p processors) qemu() []string {
	if p.apart {
		return []string{"-smp", fmt.Sprintf("%d,sockets=%d", p.n, p.n)}
	}
	return []string{"-smp", strconv.Itoa(p.n)}
}
func (processors) kernel() []string { return nil }

// steadyCode keeps the kernel from changing its code when a process makes its
// first view. QEMU before 8.1 may translate code while another thread of it
// changes that code, keep the translation, and so run a breakpoint that has long
// been taken back, by which any kernel goes down that changes a branch often
// enough (try a socket with SO_TIMESTAMP in a loop). With one processor, or one
// thread for all, it cannot; and ours is mended.
type steadyCode struct {
	mode Mode
	cpus int
	ours bool
}

func (steadyCode) qemu() []string { return nil }
func (s steadyCode) kernel() []string {
	if s.mode == Fast && s.cpus > 1 && !s.ours {
		return []string{"mm_view_hooks=on"}
	}
	return nil
}

// nodes are NUMA nodes, each with its part of processors and memory. The last
// gets what a division leaves over; where processors are few, the last
// nodes have none, as expanders of memory do. Without nodes nothing is said of them, so
// that the kernel sees no table of them.
type nodes struct{ n, cpus, memMiB int }

func (d nodes) qemu() []string {
	var args []string
	for i := range d.n {
		mem := d.memMiB / d.n
		if i == d.n-1 {
			mem += d.memMiB % d.n
		}
		node := fmt.Sprintf("node,nodeid=%d,memdev=mem%d", i, i)
		// Rounded up, so that node 0 has the first processor.
		if first, after := (i*d.cpus+d.n-1)/d.n, ((i+1)*d.cpus+d.n-1)/d.n; first < after {
			node += fmt.Sprintf(",cpus=%d-%d", first, after-1)
		}
		args = append(args, "-object", fmt.Sprintf("memory-backend-ram,id=mem%d,size=%dM", i, mem), "-numa", node)
	}
	return args
}
func (nodes) kernel() []string { return nil }

// console is a serial port that goes to a file.
type console string

func (c console) qemu() []string { return []string{"-serial", "file:" + comma(string(c))} }
func (console) kernel() []string { return []string{"console=ttyS0"} }

// exitDevice lets the guest end the machine with a status.
type exitDevice struct{}

func (exitDevice) qemu() []string {
	return []string{"-device", "isa-debug-exit,iobase=0xf4,iosize=1"}
}
func (exitDevice) kernel() []string { return nil }

// outputPort is the way out for frames: a virtio-serial port into a file.
//
// ioeventfd=off makes a write to the queue part of the instruction stream;
// with it on, another thread of QEMU would handle it at some later moment, and
// equal runs would differ. A file takes all that is written, where a socket
// could make the guest wait for us.
type outputPort struct{ path, name string }

func (o outputPort) qemu() []string {
	return []string{
		"-device", "virtio-serial-pci,ioeventfd=off",
		"-chardev", "file,id=out,path=" + comma(o.path),
		"-device", "virtserialport,chardev=out,name=" + o.name,
	}
}
func (outputPort) kernel() []string { return nil }

// bootFiles is what is started.
type bootFiles struct{ image, initrd string }

func (b bootFiles) qemu() []string { return []string{"-kernel", b.image, "-initrd", b.initrd} }
func (bootFiles) kernel() []string { return nil }

// debugger is a socket for gdb; empty: none. The clocks of the machine stand still
// while gdb has stopped it, so that in mode deterministic looking changes nothing.
type debugger string

func (d debugger) qemu() []string {
	if d == "" {
		return nil
	}
	return []string{"-S", "-gdb", "unix:" + comma(string(d)) + ",server=on,wait=off"}
}
func (debugger) kernel() []string { return nil }

// kernelWords are more words for the kernel's command line.
type kernelWords []string

func (kernelWords) qemu() []string     { return nil }
func (k kernelWords) kernel() []string { return k }

// comma doubles commas, which QEMU takes for the next property.
func comma(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] == ',' {
			out = append(out, ',')
		}
		out = append(out, s[i])
	}
	return string(out)
}

// arguments puts a machine together.
func arguments(features []feature) []string {
	var args []string
	var line []byte
	for _, f := range features {
		args = append(args, f.qemu()...)
		for _, w := range f.kernel() {
			if len(line) > 0 {
				line = append(line, ' ')
			}
			line = append(line, w...)
		}
	}
	return append(args, "-append", string(line))
}
