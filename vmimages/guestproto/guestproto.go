// SPDX-License-Identifier: Apache-2.0

// Package guestproto is what host and guest agent say to each other: a job on
// the way in, a stream of frames on the way out. It depends on the standard
// library only, since it is linked into the guest's first process.
package guestproto

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
)

const (
	// JobPath is where the agent finds its job.
	JobPath = "/job/job.json"
	// PortName names the virtio-serial port that frames leave by.
	PortName = "wflp.out"
	// ExitPort is the I/O port of QEMU's isa-debug-exit device.
	ExitPort = 0xf4
	// SlicePort is the first of nine I/O ports by which a guest has a say in
	// how its processors take turns: eight bytes of seed, least first, and
	// the number of bits of a slice, which ends all slices that have begun.
	// Only deterministic machines of an emulator of our own have them; a
	// port that is not there reads as 0xff.
	SlicePort = 0x5f0
	SliceBits = SlicePort + 8
	// ExitValue is written there at an orderly end. QEMU exits with
	// ExitStatus then, which it does for no reason of its own.
	ExitValue  = 0x2a
	ExitStatus = ExitValue<<1 | 1
)

// Job is all that one boot is to do.
type Job struct {
	Steps []Step `json:"steps"`
	Seed  uint64 `json:"seed"`
	// DeadlineMS ends the machine from inside, in case nobody outside is
	// left to do it. 0 is none.
	DeadlineMS int64 `json:"deadline_ms,omitempty"`
	// Timers, if not 0, is the seed of timers that fire at odd moments while
	// steps run. An emulator that counts instructions lets another processor
	// run then: it is what interleavings come from where the emulator does
	// not make them itself.
	Timers uint64 `json:"timers,omitempty"`
	// Turns, if set, are written to SlicePort before the first step.
	Turns *Turns `json:"turns,omitempty"`
	// Park has the agent stop the machine, so that it can be kept, and go on,
	// in each machine that is started from it, with the job it finds in that
	// machine's JobDevice. Nothing else of this job counts then.
	Park bool `json:"park,omitempty"`
}

// Turns are how processors take turns in a deterministic machine.
type Turns struct {
	Seed uint64 `json:"seed"`
	Bits uint8  `json:"bits"`
}

// Registers is what is written to the ports from SlicePort on.
func (t Turns) Registers() []byte {
	return append(binary.LittleEndian.AppendUint64(nil, t.Seed), t.Bits)
}

// A machine that is started from one that was kept gets its job in the memory
// of a device, as the frames of EncodeJob.
const (
	JobVendor, JobDevice = 0x1af4, 0x1110 // ivshmem
	JobResource          = "resource2"
	JobMemory            = 16 << 20
	// ParkPort is the I/O port of a device that pauses the machine when it is
	// written to.
	ParkPort  = 0x5fc
	ParkValue = 1
)

// EncodeJob is a job and its files for JobDevice.
func EncodeJob(job Job, files map[string][]byte) ([]byte, error) {
	out := AppendFrame(nil, JSONFrame(TypeJob, NoStep, job))
	for _, path := range slices.Sorted(maps.Keys(files)) {
		// An empty file is one empty piece.
		for off := 0; off == 0 || off < len(files[path]); off += maxPiece {
			end := min(off+maxPiece, len(files[path]))
			piece := FilePiece{Path: path, Offset: uint64(off), Data: files[path][off:end]}
			out = AppendFrame(out, Frame{Type: TypeFile, Step: NoStep, Payload: piece.Append(nil)})
		}
	}
	out = AppendFrame(out, Frame{Type: TypeBye, Step: NoStep})
	if len(out) > JobMemory {
		return nil, fmt.Errorf("encode job: it takes %d bytes, there is room for %d", len(out), JobMemory)
	}
	return out, nil
}

const maxPiece = MaxPayload / 2

// DecodeJob reads what EncodeJob wrote from memory that may go on after it.
func DecodeJob(memory []byte) (job Job, files []FilePiece, err error) {
	seen := false
	for {
		if len(memory) < headerLen {
			return job, nil, fmt.Errorf("decode job: %w", ErrLength)
		}
		n := headerLen + uint64(binary.LittleEndian.Uint32(memory[12:]))
		if n > uint64(len(memory)) {
			return job, nil, fmt.Errorf("decode job: %w", ErrLength)
		}
		var dec Decoder
		dec.Write(memory[:n])
		f, _, err := dec.Next()
		if err != nil {
			return job, nil, fmt.Errorf("decode job: %w", err)
		}
		memory = memory[n:]
		switch f.Type {
		case TypeJob:
			if err := json.Unmarshal(f.Payload, &job); err != nil {
				return job, nil, fmt.Errorf("decode job: %w", err)
			}
			seen = true
		case TypeFile:
			p, err := ParseFilePiece(f.Payload)
			if err != nil {
				return job, nil, fmt.Errorf("decode job: %w", err)
			}
			files = append(files, p)
		case TypeBye:
			if !seen {
				return job, nil, errors.New("decode job: there is none")
			}
			return job, files, nil
		default:
			return job, nil, fmt.Errorf("decode job: frame of type %d", f.Type)
		}
	}
}

// Step is one program run.
type Step struct {
	Name      string   `json:"name"`
	Argv      []string `json:"argv"`
	Env       []string `json:"env,omitempty"`
	Dir       string   `json:"dir,omitempty"`
	TimeoutMS int64    `json:"timeout_ms,omitempty"` // guest time; 0 is none
	// Collect are files (or patterns) to send when the program has ended.
	Collect []string `json:"collect,omitempty"`
	// Stream sends output while the program runs. Without it output waits
	// in the guest's memory, so that sending it disturbs no measurement.
	Stream bool `json:"stream,omitempty"`
}

// Hello is the first thing an agent says.
type Hello struct {
	Release  string `json:"release"`
	Version  string `json:"version"`
	CPUs     int    `json:"cpus"`
	MemBytes uint64 `json:"mem_bytes"`
	MMView   bool   `json:"mm_view"`
	UptimeNS int64  `json:"uptime_ns"`
}

// StepBegin announces a step.
type StepBegin struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
}

// StepEnd is how a step ended.
type StepEnd struct {
	ExitCode   int    `json:"exit_code"` // -1 after a signal
	Signal     string `json:"signal,omitempty"`
	TimedOut   bool   `json:"timed_out,omitempty"`
	DurationNS int64  `json:"duration_ns"` // guest time
	// Error says what kept the step from running or its files from being sent.
	Error string `json:"error,omitempty"`
}

// Type tells frames apart.
type Type uint16

// The frame types.
const (
	TypeHello      Type = 1 // Hello as JSON
	TypeStepBegin  Type = 2 // StepBegin as JSON
	TypeStdout     Type = 3 // bytes
	TypeStderr     Type = 4 // bytes
	TypeFile       Type = 5 // a piece of a file, see FilePiece
	TypeStepEnd    Type = 6 // StepEnd as JSON
	TypeBye        Type = 7 // empty; nothing follows
	TypeAgentError Type = 8 // text
	TypeJob        Type = 9 // Job as JSON, on the way in
)

// NoStep is the step number of frames that belong to none.
const NoStep = 0xffffffff

// Frame is one message: a header of 20 bytes, little endian
//
//	magic "WFLP" | type u16 | flags u16 | step u32 | length u32 | crc32 u32
//
// and the payload that the length and the checksum are about.
type Frame struct {
	Type    Type
	Flags   uint16
	Step    uint32
	Payload []byte
}

const (
	headerLen = 20
	magic     = "WFLP"
	// MaxPayload bounds a frame, so that a damaged length is seen at once
	// and not after gigabytes.
	MaxPayload = 1 << 20
)

// Errors of the decoder. After one of them the stream cannot be trusted.
var (
	ErrMagic    = errors.New("frame does not start with the magic")
	ErrLength   = errors.New("frame is longer than allowed")
	ErrChecksum = errors.New("frame has a wrong checksum")
)

// AppendFrame appends the encoding of a frame.
func AppendFrame(dst []byte, f Frame) []byte {
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(f.Type))
	dst = binary.LittleEndian.AppendUint16(dst, f.Flags)
	dst = binary.LittleEndian.AppendUint32(dst, f.Step)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(f.Payload)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(f.Payload))
	return append(dst, f.Payload...)
}

// WriteFrame writes a frame in one call of w.
func WriteFrame(w io.Writer, f Frame) error {
	if len(f.Payload) > MaxPayload {
		return fmt.Errorf("write frame: %w", ErrLength)
	}
	_, err := w.Write(AppendFrame(nil, f))
	return err
}

// JSONFrame makes a frame of a value that always has a JSON form.
func JSONFrame(t Type, step uint32, v any) Frame {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return Frame{Type: t, Step: step, Payload: data}
}

// Decoder takes a stream in pieces of any size and yields its frames.
// The zero value is ready.
type Decoder struct {
	buf []byte
	err error
}

// Write gives the decoder the next bytes of the stream.
func (d *Decoder) Write(p []byte) (int, error) {
	d.buf = append(d.buf, p...)
	return len(p), nil
}

// Next yields the next whole frame, or ok false when more bytes are needed.
// An error stays.
func (d *Decoder) Next() (f Frame, ok bool, err error) {
	if d.err != nil {
		return Frame{}, false, d.err
	}
	if len(d.buf) < headerLen {
		return Frame{}, false, nil
	}
	h := d.buf[:headerLen]
	if string(h[:4]) != magic {
		d.err = ErrMagic
		return Frame{}, false, d.err
	}
	n := binary.LittleEndian.Uint32(h[12:])
	if n > MaxPayload {
		d.err = ErrLength
		return Frame{}, false, d.err
	}
	if len(d.buf) < headerLen+int(n) {
		return Frame{}, false, nil
	}
	f = Frame{
		Type:  Type(binary.LittleEndian.Uint16(h[4:])),
		Flags: binary.LittleEndian.Uint16(h[6:]),
		Step:  binary.LittleEndian.Uint32(h[8:]),
	}
	if n > 0 {
		f.Payload = append([]byte(nil), d.buf[headerLen:headerLen+int(n)]...)
	}
	if crc32.ChecksumIEEE(f.Payload) != binary.LittleEndian.Uint32(h[16:]) {
		d.err = ErrChecksum
		return Frame{}, false, d.err
	}
	rest := copy(d.buf, d.buf[headerLen+int(n):])
	d.buf = d.buf[:rest]
	return f, true, nil
}

// Pending is the number of bytes that form no whole frame yet. At the end of
// a stream it tells an end between frames (0) from one inside a frame.
func (d *Decoder) Pending() int { return len(d.buf) }

// FilePiece is the payload of a TypeFile frame. A file arrives as pieces in
// order; an empty file as one empty piece.
type FilePiece struct {
	Path   string
	Offset uint64
	Data   []byte
}

// ErrFilePiece says that a TypeFile payload is malformed.
var ErrFilePiece = errors.New("malformed piece of a file")

// Append appends the piece's encoding: path length u16, path, offset u64, data.
func (p FilePiece) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(p.Path)))
	dst = append(dst, p.Path...)
	dst = binary.LittleEndian.AppendUint64(dst, p.Offset)
	return append(dst, p.Data...)
}

// ParseFilePiece is the inverse of Append.
func ParseFilePiece(b []byte) (FilePiece, error) {
	if len(b) < 2 {
		return FilePiece{}, ErrFilePiece
	}
	n := int(binary.LittleEndian.Uint16(b))
	if len(b) < 2+n+8 {
		return FilePiece{}, ErrFilePiece
	}
	return FilePiece{
		Path:   string(b[2 : 2+n]),
		Offset: binary.LittleEndian.Uint64(b[2+n:]),
		Data:   b[2+n+8:],
	}, nil
}
