// SPDX-License-Identifier: Apache-2.0

// Package control asks a process that runs with libwflp-preload.so what its threads
// run, and has it apply patches and take them back.
package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// protocol is the version that this package speaks.
const protocol = "1"

// requestLimit bounds one exchange; nothing that a process is asked for takes long.
const requestLimit = 30 * time.Second

// Thread is one thread of the process.
type Thread struct {
	TID int `json:"tid"`
	// Kind is thread, helper (one of the library's) or unregistered.
	Kind string `json:"kind"`
	// Generation is what it runs, nil if the library does not know.
	Generation *uint64 `json:"generation"`
	// Over is yes, no or unknown: whether it runs the newest code.
	Over string `json:"over"`
	Name string `json:"name"`
}

// Patch is one that is applied.
type Patch struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	Functions  int    `json:"functions"`
	Name       string `json:"name"`
}

// Transaction is the last patch or undo. Times are CLOCK_MONOTONIC, 0 where a stage
// has not been reached.
type Transaction struct {
	Ticket      int64  `json:"ticket"`
	Stage       int    `json:"stage"`
	Errno       int    `json:"errno"`
	QueuedNS    uint64 `json:"queued_ns"`
	PreparingNS uint64 `json:"preparing_ns"`
	CreateNS    uint64 `json:"create_ns"`
	WrittenNS   uint64 `json:"written_ns"`
	SealedNS    uint64 `json:"sealed_ns"`
	PublishedNS uint64 `json:"published_ns"`
	FirstOverNS uint64 `json:"first_over_ns"`
	LastOverNS  uint64 `json:"last_over_ns"`
	ReleasedNS  uint64 `json:"released_ns"`
	Threads     int    `json:"threads"`
	Migrated    int    `json:"migrated"`
	Pulled      int    `json:"pulled"`
}

// Status is what a process says of itself.
type Status struct {
	PID        int          `json:"pid"`
	Strategy   string       `json:"strategy"`
	Generation uint64       `json:"generation"`
	Patches    []Patch      `json:"patches"`
	Last       *Transaction `json:"last,omitempty"`
	Threads    []Thread     `json:"threads"`
	// Over is yes only if no thread can reach code that was replaced.
	Over string `json:"over"`
}

// Error is a refusal by the process.
type Error struct {
	Errno syscall.Errno
	Text  string
}

func (e *Error) Error() string { return e.Text }

// Unwrap makes errors.Is know the number.
func (e *Error) Unwrap() error { return e.Errno }

// exchange sends a request and returns the fields of each line of the answer.
func exchange(ctx context.Context, pid int, request []byte) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", fmt.Sprintf("@wflp/%d", pid))
	if err != nil {
		return nil, fmt.Errorf("connect to process %d (does it run with libwflp-preload.so?): %w", pid, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := checkPeer(conn.(*net.UnixConn), pid); err != nil {
		return nil, err
	}
	// A process that refuses at once does not read the request.
	_, sent := conn.Write(request)
	data, err := io.ReadAll(io.LimitReader(conn, 16<<20))
	if err != nil && len(data) == 0 {
		return nil, fmt.Errorf("ask process %d: %w", pid, errors.Join(sent, err))
	}
	return parse(data)
}

// checkPeer makes sure that it is the process itself that answers: names of abstract
// sockets are anybody's.
func checkPeer(conn *net.UnixConn, pid int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("look who answers: %w", err)
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return fmt.Errorf("look who answers: %w", err)
	}
	if int(cred.Pid) != pid {
		return fmt.Errorf("ask process %d: it is process %d that answers", pid, cred.Pid)
	}
	return nil
}

func parse(data []byte) ([][]string, error) {
	var lines [][]string
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		lines = append(lines, strings.Split(sc.Text(), "\t"))
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(lines) == 0 || lines[0][0] != "wflp-ctl" || len(lines[0]) < 2 {
		return nil, errors.New("read the answer: it is none of libwflp-preload.so")
	}
	if lines[0][1] != protocol {
		return nil, fmt.Errorf("read the answer: it has version %s, and %s is known", lines[0][1], protocol)
	}
	end := lines[len(lines)-1]
	if end[0] != "end" || len(end) < 2 {
		return nil, errors.New("read the answer: it is cut off")
	}
	if end[1] != "ok" {
		e := &Error{Text: "unknown error"}
		if len(end) >= 4 {
			n, _ := strconv.Atoi(end[2])
			e.Errno, e.Text = syscall.Errno(n), end[3]
		}
		return nil, e
	}
	return lines[1 : len(lines)-1], nil
}

// Ask returns the status of a process.
func Ask(ctx context.Context, pid int) (*Status, error) {
	lines, err := exchange(ctx, pid, []byte("status\n"))
	if err != nil {
		return nil, err
	}
	return parseStatus(pid, lines)
}

// fields reads numbers one after the other and remembers the first that is none.
type fields struct {
	rest []string
	err  error
}

func (f *fields) text() string {
	if len(f.rest) == 0 {
		f.err = cmpErr(f.err, errors.New("a field is missing"))
		return ""
	}
	s := f.rest[0]
	f.rest = f.rest[1:]
	return s
}

func (f *fields) number() uint64 {
	n, err := strconv.ParseUint(f.text(), 10, 64)
	f.err = cmpErr(f.err, err)
	return n
}

// signed is an int64, as error numbers and tickets are.
func (f *fields) signed() int64 {
	n, err := strconv.ParseInt(f.text(), 10, 64)
	f.err = cmpErr(f.err, err)
	return n
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func parseStatus(pid int, lines [][]string) (*Status, error) {
	s := &Status{PID: pid, Over: "unknown", Patches: []Patch{}, Threads: []Thread{}}
	for _, line := range lines {
		f := &fields{rest: line[1:]}
		switch line[0] {
		case "strategy":
			s.Strategy = f.text()
		case "generation":
			s.Generation = f.number()
		case "patch":
			s.Patches = append(s.Patches, Patch{
				ID: f.text(), Generation: f.number(), Functions: int(f.number()), Name: f.text(),
			})
		case "last":
			s.Last = &Transaction{
				Ticket: f.signed(), Stage: int(f.signed()), Errno: int(-f.signed()),
				QueuedNS: f.number(), PreparingNS: f.number(), CreateNS: f.number(),
				WrittenNS: f.number(), SealedNS: f.number(), PublishedNS: f.number(),
				FirstOverNS: f.number(), LastOverNS: f.number(), ReleasedNS: f.number(),
				Threads: int(f.number()), Migrated: int(f.number()), Pulled: int(f.number()),
			}
		case "thread":
			t := Thread{TID: int(f.number()), Kind: f.text()}
			if g := f.text(); g != "-" {
				n, err := strconv.ParseUint(g, 10, 64)
				f.err = cmpErr(f.err, err)
				t.Generation = &n
			}
			t.Over, t.Name = f.text(), f.text()
			s.Threads = append(s.Threads, t)
		case "over":
			s.Over = f.text()
		}
		if f.err != nil {
			return nil, fmt.Errorf("read the answer: line %q: %w", strings.Join(line, " "), f.err)
		}
	}
	return s, nil
}

// Apply has a process apply a patch file. It returns when the new code is published;
// threads come over after that.
func Apply(ctx context.Context, pid int, file []byte) error {
	_, err := exchange(ctx, pid, append(fmt.Appendf(nil, "apply %d\n", len(file)), file...))
	return err
}

// Undo has a process take back the patch that it applied last.
func Undo(ctx context.Context, pid int) error {
	_, err := exchange(ctx, pid, []byte("undo\n"))
	return err
}

// waitEvery is how often Wait asks; a thread is never asked, so it costs them nothing.
const waitEvery = 20 * time.Millisecond

// Wait asks until no thread can reach old code, and returns the last answer also when
// ctx ends first.
func Wait(ctx context.Context, pid int) (*Status, error) {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		s, err := Ask(ctx, pid)
		if err != nil || s.Over == "yes" {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
