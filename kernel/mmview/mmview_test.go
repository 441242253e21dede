// SPDX-License-Identifier: Apache-2.0

package mmview

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestStatLayout(t *testing.T) {
	var st Stat
	if got := unsafe.Sizeof(st); got != 32 {
		t.Errorf("size %d, the kernel's is 32", got)
	}
	for name, at := range map[string][2]uintptr{
		"Flags":          {unsafe.Offsetof(st.Flags), 8},
		"Threads":        {unsafe.Offsetof(st.Threads), 12},
		"PrivatePages":   {unsafe.Offsetof(st.PrivatePages), 16},
		"OwnTables":      {unsafe.Offsetof(st.OwnTables), 20},
		"Views":          {unsafe.Offsetof(st.Views), 24},
		"ThreadsInViews": {unsafe.Offsetof(st.ThreadsInViews), 28},
	} {
		if at[0] != at[1] {
			t.Errorf("%s at %d, want %d", name, at[0], at[1])
		}
	}
}

// code maps a function that returns version, and nothing else, in eax.
func code(t *testing.T, version uint32) (mem []byte, addr uintptr) {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	mem[0], mem[5] = 0xb8, 0xc3 // mov $version, %eax; ret
	binary.LittleEndian.PutUint32(mem[1:], version)
	if err := unix.Mprotect(mem, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem, uintptr(unsafe.Pointer(&mem[0]))
}

// seen is what the calling thread reads there; what it reads it would run.
func seen(mem []byte) uint32 { return binary.LittleEndian.Uint32(mem[1:]) }

// A skip must prove itself: by two calls, of which neither does anything.
func need(t *testing.T) {
	t.Helper()
	have, err := Supported()
	if err != nil {
		t.Fatal(err)
	}
	_, _, errno := unix.Syscall(sysCreate, ^uintptr(0), 0, 0)
	if lacking := errno == unix.ENOSYS; lacking == have {
		t.Fatalf("Supported() = %v, but mm_view_create(-1): %v", have, errno)
	}
	if !have {
		t.Skip("kernel without mm_view")
	}
}

func TestUnsupported(t *testing.T) {
	have, err := Supported()
	if err != nil {
		t.Fatal(err)
	}
	if have {
		t.Skip("kernel with mm_view")
	}
	v := &View{fd: -2}
	_, create := Create()
	_, pull := v.Pull()
	_, pullThose := v.PullThose(Offline, Offline)
	_, stat := v.Stat()
	for name, err := range map[string]error{
		"Create": create, "Enter": v.Enter(), "EnterBase": EnterBase(), "Seal": v.Seal(),
		"Retire": v.Retire(), "Pull": pull, "PullThose": pullThose, "Stat": stat, "Register": Register(new(uint32)),
	} {
		if !errors.Is(err, unix.ENOSYS) {
			t.Errorf("%s: %v, want ENOSYS", name, err)
		}
	}
}

func TestLife(t *testing.T) {
	need(t)
	runtime.LockOSThread() // for ever: the thread ends with the test
	mem, addr := code(t, 1)
	before, err := StatProcess()
	if err != nil {
		t.Fatal(err)
	}

	v, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Enter(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("enter before seal: %v, want EBUSY", err)
	}
	if n, err := v.Write([]byte{2}, addr+1); n != 1 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	buf := make([]byte, 6)
	if _, err := v.Read(buf, addr); err != nil || buf[1] != 2 || buf[0] != 0xb8 {
		t.Errorf("read %v, %v", buf, err)
	}
	if seen(mem) != 1 {
		t.Error("the base has changed")
	}
	if err := v.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Write([]byte{3}, addr+1); !errors.Is(err, unix.EBUSY) {
		t.Errorf("write after seal: %v, want EBUSY", err)
	}
	if err := v.Enter(); err != nil {
		t.Fatal(err)
	}
	st, err := v.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st.Flags != Sealed || st.Threads != 1 || st.PrivatePages != 1 || st.Views != before.Views+1 {
		t.Errorf("stat inside: %+v", st)
	}
	if id, err := Current(0); err != nil || id != st.ID {
		t.Errorf("current view %d, %v, want %d", id, err, st.ID)
	}
	if seen(mem) != 2 {
		t.Errorf("version %d in the view", seen(mem))
	}
	if empty, err := v.Poll(20 * time.Millisecond); empty || err != nil {
		t.Errorf("poll with a thread inside: %v, %v", empty, err)
	}
	if err := EnterBase(); err != nil {
		t.Fatal(err)
	}
	if seen(mem) != 1 {
		t.Errorf("version %d back in the base", seen(mem))
	}
	if empty, err := v.Poll(time.Second); !empty || err != nil {
		t.Errorf("poll when empty: %v, %v", empty, err)
	}
	if err := v.Retire(); err != nil {
		t.Fatal(err)
	}
	if err := v.Enter(); !errors.Is(err, unix.EBADF) {
		t.Errorf("enter when retired: %v, want EBADF", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.Enter(); !errors.Is(err, unix.EBADF) {
		t.Errorf("enter when closed: %v, want EBADF", err)
	}
	if after, err := StatProcess(); err != nil || after != before {
		t.Errorf("process after: %+v, %v, want %+v", after, err, before)
	}
}

func TestPull(t *testing.T) {
	need(t)
	mem, addr := code(t, 1)
	v, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	if _, err := v.Pull(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("pull before seal: %v, want EBUSY", err)
	}
	if _, err := v.Write([]byte{2}, addr+1); err != nil {
		t.Fatal(err)
	}
	if err := v.Seal(); err != nil {
		t.Fatal(err)
	}

	if _, err := v.PullThose(1, 2|Offline); !errors.Is(err, unix.EINVAL) {
		t.Errorf("pull with a value beyond the mask: %v, want EINVAL", err)
	}

	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	type result struct {
		version uint32
		err     error
	}
	const all, group, other = ^uint32(0), 2 << 1, 1 << 1
	ready, done := make(chan int), make(chan result)
	go func() {
		runtime.LockOSThread()
		word := new(uint32)
		err := Register(word)
		*word = group | Offline
		ready <- unix.Gettid()
		var b [1]byte
		// Raw, so that the runtime does nothing on this thread meanwhile.
		_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(pipe[0]), uintptr(unsafe.Pointer(&b)), 1)
		*word = Online
		r := result{seen(mem), err}
		if err := Register(nil); err != nil && r.err == nil {
			r.err = err
		}
		done <- r
	}()
	tid := <-ready
	moved := 0
	for end := time.Now().Add(5 * time.Second); moved == 0 && time.Now().Before(end); {
		if n, err := v.PullThose(all, other|Offline); n != 0 || err != nil {
			t.Fatalf("pulled %d threads of another group, %v", n, err)
		}
		n, err := v.PullThose(all, group|Offline)
		if err != nil {
			t.Fatal(err)
		}
		moved += n
	}
	st, err := v.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := Current(tid); moved != 1 || err != nil || id != st.ID {
		t.Errorf("pulled %d threads; sleeper in view %d, %v, want %d", moved, id, err, st.ID)
	}
	if _, err := unix.Write(pipe[1], []byte{0}); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.err != nil || r.version != 2 {
		t.Errorf("sleeper woke to version %d, %v", r.version, r.err)
	}
}

func TestRegisterMisaligned(t *testing.T) {
	need(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]uint64, 1)
	p := (*uint32)(unsafe.Add(unsafe.Pointer(&buf[0]), 1))
	if err := Register(p); !errors.Is(err, unix.EINVAL) {
		t.Errorf("misaligned word: %v, want EINVAL", err)
	}
}
