// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/kernel/control"
	"github.com/wflp/wflp/realworld/server"
)

// scripted is a client whose requests end as told.
type scripted struct {
	take time.Duration
	errs []error // of the first requests
}

func (s *scripted) Close() error { return nil }

func (s *scripted) Do(*rand.Rand) error {
	time.Sleep(s.take)
	if len(s.errs) == 0 {
		return nil
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return err
}

// A server that stands still is charged to every request that was due meanwhile.
func TestLatencyCountsFromTheSchedule(t *testing.T) {
	c := &clients{list: []server.Client{&scripted{take: 20 * time.Millisecond}}}
	samples := c.open(now(), 200*time.Millisecond, 200, 1)
	if len(samples) < 20 {
		t.Fatalf("%d requests in 200 ms at 200 a second", len(samples))
	}
	last := samples[len(samples)-1]
	// Each takes 20 ms, so all but the first tenth are late.
	if want := int64(len(samples)-10) * (20 * time.Millisecond).Nanoseconds(); last.LatencyNS < want/2 {
		t.Errorf("the last of %d requests took %d ns", len(samples), last.LatencyNS)
	}
	for i, s := range samples {
		if s.LatencyNS < (20*time.Millisecond).Nanoseconds() || i > 0 && s.ArrivalNS < samples[i-1].ArrivalNS {
			t.Fatalf("request %d: %+v", i, s)
		}
	}
}

func TestBadRequestsAreCountedOnce(t *testing.T) {
	wrong := fmt.Errorf("get: %w", server.ErrWrong)
	c := &clients{list: []server.Client{&scripted{errs: []error{io.EOF, io.EOF}}, &scripted{errs: []error{wrong}}}}
	samples := c.open(now(), 50*time.Millisecond, 400, 1)
	bad := 0
	for _, s := range samples {
		if s.Bad > 0 {
			bad++
		}
	}
	if c.lost != 1 || c.wrong != 1 || bad != 2 || len(c.complaints) != 2 {
		t.Errorf("lost %d, wrong %d, %d samples are bad, %q", c.lost, c.wrong, bad, c.complaints)
	}
}

func TestArrivalsAreThoseOfTheRate(t *testing.T) {
	c := &clients{}
	for range 4 {
		c.list = append(c.list, &scripted{})
	}
	// A start in the past: nothing is waited for, only the schedule counts.
	start := now() - time.Hour.Nanoseconds()
	n := len(c.open(start, 10*time.Second, 1000, 1))
	if n < 9500 || n > 10500 {
		t.Errorf("%d requests in 10 s at 1000 a second", n)
	}
}

func TestBehind(t *testing.T) {
	s := &control.Status{Threads: []control.Thread{{TID: 7, Name: "worker", Kind: "thread", Over: "no"}, {TID: 8, Over: "yes"}}}
	if got := behind(s); got != "; thread 7 (worker, thread): no" || behind(nil) != "" {
		t.Errorf("%q", got)
	}
}

// filtered says what a policy does to a system call.
func filtered(t *testing.T, p seccomp.Policy, nr int, args ...uint64) uint32 {
	t.Helper()
	program, err := p.Assemble()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	// As the kernel has it, in the byte order of this library's machine.
	const auditArch = 0xc000003e
	data := make([]byte, 64)
	words := []uint32{uint32(nr), auditArch, 0, 0}
	for i := range 6 {
		var a uint64
		if i < len(args) {
			a = args[i]
		}
		words = append(words, uint32(a), uint32(a>>32))
	}
	for i, w := range words {
		binary.BigEndian.PutUint32(data[4*i:], w)
	}
	// The library's machine returns an action's 32 bits as an int.
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestFilters(t *testing.T) {
	ps, err := policies(server.Unit{DenyWriteExecute: true, Families: []string{"AF_INET", "AF_UNIX"}, Allowed: []string{"read", "prctl", "no_such_call_here"}})
	if err != nil || len(ps) != 3 {
		t.Fatalf("%d filters, %v", len(ps), err)
	}
	const allow, kill = uint32(seccomp.ActionAllow), uint32(seccomp.ActionKillProcess)
	deny := func(e unix.Errno) uint32 { return uint32(seccomp.ActionErrno) | uint32(e) }
	const r, w, x = unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC
	for i, c := range []struct {
		policy int
		nr     int
		args   []uint64
		want   uint32
	}{
		{0, unix.SYS_SOCKET, []uint64{unix.AF_INET}, allow},
		{0, unix.SYS_SOCKET, []uint64{unix.AF_UNIX}, allow},
		{0, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK}, deny(unix.EAFNOSUPPORT)},
		{1, unix.SYS_MMAP, []uint64{0, 4096, r | x}, allow},
		{1, unix.SYS_MMAP, []uint64{0, 4096, r | w}, allow},
		{1, unix.SYS_MMAP, []uint64{0, 4096, r | w | x}, deny(unix.EPERM)},
		{1, unix.SYS_MPROTECT, []uint64{0, 4096, r}, allow},
		{1, unix.SYS_MPROTECT, []uint64{0, 4096, r | x}, deny(unix.EPERM)},
		{1, unix.SYS_PKEY_MPROTECT, []uint64{0, 4096, x}, deny(unix.EPERM)},
		{2, unix.SYS_READ, nil, allow},
		{2, unix.SYS_PRCTL, nil, allow},
		{2, unix.SYS_PTRACE, nil, kill},
		{2, 480, nil, kill},
	} {
		if got := filtered(t, ps[c.policy], c.nr, c.args...); got != c.want {
			t.Errorf("%d: call %d of %v: %#x, not %#x", i, c.nr, c.args, got, c.want)
		}
	}
	if _, err := policies(server.Unit{Families: []string{"AF_DECNET"}}); err == nil {
		t.Error("a family that is not known passes")
	}
}

// One connection a client, and one that is made anew is counted.
func TestDials(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	twice := server.Server{Connect: func(dial server.Dial, _ int) (server.Client, error) {
		for range 2 {
			conn, err := dial(l.Addr().String())
			if err != nil {
				return nil, err
			}
			defer conn.Close()
		}
		return &scripted{}, nil
	}}
	if _, err := connect(twice, 3); err == nil || !strings.Contains(err.Error(), "6 connections") {
		t.Errorf("three clients with two connections each: %v", err)
	}
}

func TestMemory(t *testing.T) {
	if m := memory(os.Getpid()); m.ResidentKiB < 1000 || m.AvailableKiB < 1000 {
		t.Errorf("of this process: %+v", m)
	}
	if m := memory(1 << 30); m.ResidentKiB != 0 {
		t.Errorf("of no process: %+v", m)
	}
}

// A server that hangs up is named, a client that does is not.
func TestEndsAreNoted(t *testing.T) {
	c := &clients{}
	for _, mine := range []bool{true, false} {
		a, b := net.Pipe()
		w := &watched{Conn: a, clients: c, id: 7}
		if mine {
			time.AfterFunc(10*time.Millisecond, func() { w.SetReadDeadline(time.Now()) })
		} else {
			b.Close()
		}
		w.Read(make([]byte, 1))
	}
	if c.ended.Load() != 1 || len(c.complaints) != 1 || !strings.Contains(c.complaints[0], "client 7: EOF") {
		t.Errorf("%q", c.complaints)
	}
}
