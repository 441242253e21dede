// SPDX-License-Identifier: Apache-2.0

package guestproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"testing/quick"
)

func decodeAll(t *testing.T, stream []byte, piece int) ([]Frame, error) {
	t.Helper()
	var d Decoder
	var out []Frame
	for len(stream) > 0 {
		n := min(piece, len(stream))
		d.Write(stream[:n])
		stream = stream[n:]
		for {
			f, ok, err := d.Next()
			if err != nil {
				return out, err
			}
			if !ok {
				break
			}
			out = append(out, f)
		}
	}
	if d.Pending() != 0 {
		t.Errorf("%d bytes pending at the end", d.Pending())
	}
	return out, nil
}

func TestFramesSurviveAnyCutting(t *testing.T) {
	in := []Frame{
		JSONFrame(TypeHello, NoStep, Hello{Release: "6.12.1", CPUs: 2}),
		{Type: TypeStdout, Step: 3, Flags: 7, Payload: bytes.Repeat([]byte("WFLP"), 100)},
		{Type: TypeBye, Step: NoStep},
	}
	var stream []byte
	for _, f := range in {
		stream = AppendFrame(stream, f)
	}
	for piece := 1; piece <= len(stream); piece++ {
		out, err := decodeAll(t, stream, piece)
		if err != nil {
			t.Fatalf("pieces of %d: %v", piece, err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("pieces of %d: got %v, want %v", piece, out, in)
		}
	}
}

// The layout is a contract with programs in other languages: bytes, not code.
func TestFrameLayout(t *testing.T) {
	got := AppendFrame(nil, Frame{Type: TypeStderr, Flags: 2, Step: 5, Payload: []byte("abc")})
	want := []byte{'W', 'F', 'L', 'P', 4, 0, 2, 0, 5, 0, 0, 0, 3, 0, 0, 0, 0xc2, 0x41, 0x24, 0x35, 'a', 'b', 'c'}
	if !bytes.Equal(got, want) {
		t.Errorf("got % x\nwant % x", got, want)
	}
}

func TestDamageIsSeen(t *testing.T) {
	good := AppendFrame(nil, Frame{Type: TypeStdout, Payload: []byte("hello")})
	for _, tc := range []struct {
		name   string
		damage func(b []byte)
		want   error
	}{
		{"magic", func(b []byte) { b[0] ^= 1 }, ErrMagic},
		{"payload", func(b []byte) { b[headerLen] ^= 1 }, ErrChecksum},
		{"checksum", func(b []byte) { b[16] ^= 1 }, ErrChecksum},
		{"length", func(b []byte) { binary.LittleEndian.PutUint32(b[12:], MaxPayload+1) }, ErrLength},
	} {
		b := bytes.Clone(good)
		tc.damage(b)
		var d Decoder
		d.Write(b)
		if _, _, err := d.Next(); !errors.Is(err, tc.want) {
			t.Errorf("%s: got error %v, want %v", tc.name, err, tc.want)
		}
		d.Write(good)
		if _, ok, err := d.Next(); ok || err == nil {
			t.Errorf("%s: the decoder went on after an error", tc.name)
		}
	}
}

func TestTooLongFrameIsRefused(t *testing.T) {
	if err := WriteFrame(&bytes.Buffer{}, Frame{Payload: make([]byte, MaxPayload+1)}); !errors.Is(err, ErrLength) {
		t.Errorf("got %v, want %v", err, ErrLength)
	}
}

func TestFilePiece(t *testing.T) {
	same := func(path string, off uint64, data []byte) bool {
		if len(path) > 0xffff {
			return true
		}
		p, err := ParseFilePiece(FilePiece{path, off, data}.Append(nil))
		return err == nil && p.Path == path && p.Offset == off && bytes.Equal(p.Data, data)
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
	whole := FilePiece{"/run/out", 1, nil}.Append(nil)
	for n := range whole {
		if _, err := ParseFilePiece(whole[:n]); !errors.Is(err, ErrFilePiece) {
			t.Errorf("cut to %d bytes: got %v, want %v", n, err, ErrFilePiece)
		}
	}
}

func TestJobForADevice(t *testing.T) {
	job := Job{Seed: 7, Turns: &Turns{Seed: 0x0102030405060708, Bits: 9}, Steps: []Step{{Name: "a", Argv: []string{"/bin/true"}}}}
	big := bytes.Repeat([]byte("0123456789abcdef"), 3*maxPiece/32)
	data, err := EncodeJob(job, map[string][]byte{"/job/big": big, "/job/empty": nil})
	if err != nil {
		t.Fatal(err)
	}
	// The memory of the device goes on after the job.
	got, pieces, err := DecodeJob(append(data, make([]byte, 4096)...))
	if err != nil || !reflect.DeepEqual(got, job) {
		t.Errorf("got %+v, %v", got, err)
	}
	files := map[string][]byte{}
	for _, p := range pieces {
		if uint64(len(files[p.Path])) != p.Offset {
			t.Errorf("%s: a piece at %d follows %d bytes", p.Path, p.Offset, len(files[p.Path]))
		}
		files[p.Path] = append(files[p.Path], p.Data...)
	}
	if _, there := files["/job/empty"]; len(files) != 2 || !there || !bytes.Equal(files["/job/big"], big) {
		t.Errorf("%d files", len(files))
	}
	for name, memory := range map[string][]byte{
		"nothing":   nil,
		"zeros":     make([]byte, 4096),
		"cut":       data[:len(data)/2],
		"no end":    data[:len(data)-headerLen],
		"no job":    AppendFrame(nil, Frame{Type: TypeBye, Step: NoStep}),
		"bit flip":  append([]byte{data[0] ^ 1}, data[1:]...),
		"long tale": AppendFrame(nil, Frame{Type: TypeHello}),
	} {
		if _, _, err := DecodeJob(memory); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := EncodeJob(job, map[string][]byte{"/job/huge": make([]byte, JobMemory)}); err == nil {
		t.Error("a job larger than the memory is taken")
	}
	if got := job.Turns.Registers(); !bytes.Equal(got, []byte{8, 7, 6, 5, 4, 3, 2, 1, 9}) {
		t.Errorf("registers %v", got)
	}
}
