// SPDX-License-Identifier: Apache-2.0

// Package mmview binds the view calls of a patched kernel: mm_view_create(2),
// mm_view_enter(2) and mm_view_ctl(2). A view is a second set of page tables
// over the memory of this process, in which a few pages of code differ.
//
// Which view code runs in is a property of the thread, not of the goroutine: a
// goroutine that uses Enter, Register or Current must call
// runtime.LockOSThread first and, if it leaves the thread anywhere but in the
// base view, must never unlock it. The Go runtime then ends the thread together
// with the goroutine. A thread that the runtime starts from a locked thread is
// cloned from a template thread, so it does not inherit the view.
package mmview

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls and operations, as in <linux/mm_view.h>.
const (
	sysCreate = 480
	sysEnter  = 481
	sysCtl    = 482

	opSeal     = 1
	opRetire   = 2
	opStat     = 3
	opPull     = 4
	opRegister = 5
)

// What the word given to Register says of its thread.
const (
	Online  uint32 = 0
	Offline uint32 = 1 // in the lowest bit: at a safe point, PULL may move the thread while it sleeps
)

// Flags of Stat.
const (
	Sealed  uint32 = 1
	Retired uint32 = 2
)

// Stat is struct mm_view_stat. Views and ThreadsInViews count for the whole
// process, the rest for one view.
type Stat struct {
	ID             uint64
	Flags          uint32
	Threads        uint32
	PrivatePages   uint32
	OwnTables      uint32
	Views          uint32
	ThreadsInViews uint32
}

// View is a view of this process. It is safe for concurrent use as far as its
// file descriptor is: Close must come last.
type View struct {
	fd int
}

func ctl(fd int, op uint, arg unsafe.Pointer, size uintptr) (int, error) {
	for {
		// The int32 keeps fd -1 what it is in a 64-bit register.
		n, _, errno := unix.Syscall6(sysCtl, uintptr(int32(fd)), uintptr(op), uintptr(arg), size, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR: // the runtime preempts by signals
		default:
			return 0, errno
		}
	}
}

// Supported reports whether this kernel has views; any other trouble than
// their absence, such as a seccomp filter, is an error.
func Supported() (bool, error) {
	_, err := StatProcess()
	if errors.Is(err, unix.ENOSYS) {
		return false, nil
	}
	return err == nil, err
}

// Create makes a view with the content of the calling thread's current view.
func Create() (*View, error) {
	fd, _, errno := unix.Syscall(sysCreate, 0, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("create view: %w", errno)
	}
	return &View{fd: int(fd)}, nil
}

// Fd returns the file descriptor, for use with poll and the like.
func (v *View) Fd() int { return v.fd }

// Write changes the view's code at addr; only before Seal. On error what had
// been written is told, and is in the view.
func (v *View) Write(code []byte, addr uintptr) (int, error) {
	done := 0
	for done < len(code) {
		n, err := unix.Pwrite(v.fd, code[done:], int64(addr)+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, fmt.Errorf("write view at %#x: %w", addr+uintptr(done), err)
		case n == 0:
			return done, fmt.Errorf("write view at %#x: %w", addr+uintptr(done), io.ErrShortWrite)
		default:
			done += n
		}
	}
	return done, nil
}

// Read reads memory at addr as a thread in the view sees it.
func (v *View) Read(buf []byte, addr uintptr) (int, error) {
	done := 0
	for done < len(buf) {
		n, err := unix.Pread(v.fd, buf[done:], int64(addr)+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, fmt.Errorf("read view at %#x: %w", addr+uintptr(done), err)
		case n == 0:
			return done, fmt.Errorf("read view at %#x: %w", addr+uintptr(done), io.ErrUnexpectedEOF)
		default:
			done += n
		}
	}
	return done, nil
}

// Seal freezes the content; from then on threads may enter.
func (v *View) Seal() error { return v.ctl("seal", opSeal) }

// Retire lets no thread enter any more. Those inside stay until they leave.
func (v *View) Retire() error { return v.ctl("retire", opRetire) }

func (v *View) ctl(name string, op uint) error {
	if _, err := ctl(v.fd, op, nil, 0); err != nil {
		return fmt.Errorf("%s view: %w", name, err)
	}
	return nil
}

// Pull takes over every registered thread that sleeps and is offline. It
// returns how many that were.
func (v *View) Pull() (int, error) {
	n, err := ctl(v.fd, opPull, nil, 0)
	if err != nil {
		return 0, fmt.Errorf("pull into view: %w", err)
	}
	return n, nil
}

// PullThose is Pull for those threads only whose word has value in the bits of
// mask. Both have the bit Offline set, and value has no bit that mask lacks; the
// other bits are the program's own, to tell groups of threads apart.
func (v *View) PullThose(mask, value uint32) (int, error) {
	who := struct{ mask, value uint32 }{mask, value}
	n, err := ctl(v.fd, opPull, unsafe.Pointer(&who), unsafe.Sizeof(who))
	if err != nil {
		return 0, fmt.Errorf("pull threads %#x/%#x into view: %w", value, mask, err)
	}
	return n, nil
}

// Stat describes the view.
func (v *View) Stat() (Stat, error) { return stat(v.fd) }

// StatProcess fills in only what counts for the whole process.
func StatProcess() (Stat, error) { return stat(-1) }

func stat(fd int) (Stat, error) {
	var st Stat
	if _, err := ctl(fd, opStat, unsafe.Pointer(&st), unsafe.Sizeof(st)); err != nil {
		return Stat{}, fmt.Errorf("stat view: %w", err)
	}
	return st, nil
}

// Poll waits until no thread is in the view, at most timeout (negative: for
// ever), and reports whether that was reached.
func (v *View) Poll(timeout time.Duration) (bool, error) {
	deadline := time.Now().Add(timeout)
	for {
		ms := -1
		if timeout >= 0 {
			// Round up, so that a wait does not end before its time.
			ms = int((max(time.Until(deadline), 0) + time.Millisecond - 1) / time.Millisecond)
		}
		fds := []unix.PollFd{{Fd: int32(v.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, ms)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, fmt.Errorf("poll view: %w", err)
		case n == 0:
			return false, nil
		case fds[0].Revents&unix.POLLNVAL != 0:
			return false, fmt.Errorf("poll view: %w", unix.EBADF)
		}
		return fds[0].Revents&unix.POLLIN != 0, nil
	}
}

// Close gives up the view; it goes when its last thread has left.
func (v *View) Close() error {
	fd := v.fd
	v.fd = -2 // neither a descriptor nor the base
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close view: %w", err)
	}
	return nil
}

// Enter moves the calling thread into the view. See the package comment on
// runtime.LockOSThread.
func (v *View) Enter() error { return enter(v.fd) }

// EnterBase moves the calling thread out of any view.
func EnterBase() error { return enter(-1) }

func enter(fd int) error {
	// RawSyscall: entering waits for nothing, so the scheduler need not know,
	// and it could not move us anyway.
	if _, _, errno := unix.RawSyscall(sysEnter, uintptr(int32(fd)), 0, 0); errno != 0 {
		return fmt.Errorf("enter view: %w", errno)
	}
	return nil
}

// words keeps what the kernel holds the address of: reachable, so that it is
// not collected, and by that on the heap, where nothing moves.
var words sync.Map // tid -> *uint32

// Register names the word that says whether the calling thread may be pulled
// while it sleeps (Offline) or not (Online); nil takes it back. A Go thread
// runs the runtime's code at any time, so only a thread whose patchable code
// is elsewhere (mapped machine code) can honestly be Offline.
func Register(word *uint32) error {
	size := unsafe.Sizeof(*word)
	if word == nil {
		size = 0
	}
	if _, err := ctl(-1, opRegister, unsafe.Pointer(word), size); err != nil {
		return fmt.Errorf("register word: %w", err)
	}
	tid := unix.Gettid()
	if word == nil {
		words.Delete(tid)
	} else {
		words.Store(tid, word)
	}
	runtime.KeepAlive(word)
	return nil
}

// Current returns the id of the view that a thread of this process is in; 0 is
// the base. tid 0 is the calling thread.
func Current(tid int) (uint64, error) {
	if tid == 0 {
		tid = unix.Gettid()
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/mm_view", tid))
	if err != nil {
		return 0, fmt.Errorf("read view of thread: %w", err)
	}
	id, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse view of thread %d: %w", tid, err)
	}
	return id, nil
}
