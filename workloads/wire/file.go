// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"math"
)

// ErrFormat is wrapped by every error about a file that cannot be read.
var ErrFormat = errors.New("malformed file")

// SpecFile is the whole of what the executor is given.
type SpecFile struct {
	SpecHeader
	ImageBytes   []byte
	BlobBytes    []byte
	FunctionList []Function
	VersionList  []CodeVersion
	WorkerList   []Worker
	RootList     []uint32
	ArrivalList  []uint64
	ActionList   []Action
	RegionList   []Region
	PatchList    []Patch
	ChangeList   []Change
}

// Trace is the whole of what the executor recorded.
type Trace struct {
	TraceHeader
	StreamList  []Stream
	RecordList  []Record
	ReportList  []Report
	CounterList []Counter
	StateList   []State
	StopList    []Stop
	FrameList   []Frame
}

// Of returns the records of a stream.
func (t *Trace) Of(s Stream) []Record { return t.RecordList[s.First : s.First+s.Count] }

// Exec reads a record of kind RecordExec as one.
func (r Record) Exec() Exec {
	e := Exec{Kind: r.Kind, First: uint8(r.A), Last: uint8(r.A >> 8), Loop: r.B}
	for i := range e.Parts {
		e.Parts[i] = uint8(r.C >> (8 * i))
	}
	return e
}

// Record writes an Exec as a record.
func (e Exec) Record() Record {
	r := Record{Kind: e.Kind, A: uint16(e.First) | uint16(e.Last)<<8, B: e.Loop}
	for i, p := range e.Parts {
		r.C |= uint64(p) << (8 * i)
	}
	return r
}

// IsExec tells whether the record is an execution, and of which function.
func (r Record) IsExec() (function int, ok bool) {
	return int(r.Kind &^ RecordExec), r.Kind&RecordExec != 0
}

func table[T any](b []byte, t *Table, list []T, size int, add func([]byte, *T) []byte) []byte {
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	*t = Table{Off: uint64(len(b)), Count: uint64(len(list))}
	for i := range list {
		b = add(b, &list[i])
	}
	if got := uint64(len(b)) - t.Off; got != uint64(size*len(list)) {
		panic(fmt.Sprintf("encode table: %d bytes for %d of %d", got, len(list), size))
	}
	return b
}

func entries[T any](b []byte, name string, t Table, size int, get func([]byte, *T)) ([]T, error) {
	end := t.Off + t.Count*uint64(size)
	if t.Count > math.MaxInt32 || t.Off > uint64(len(b)) || end > uint64(len(b)) {
		return nil, fmt.Errorf("decode %s: %w: bytes %d to %d of %d", name, ErrFormat, t.Off, end, len(b))
	}
	if t.Count == 0 {
		return nil, nil
	}
	list := make([]T, t.Count)
	for i := range list {
		get(b[t.Off+uint64(i*size):], &list[i])
	}
	return list, nil
}

func appendU32(b []byte, v *uint32) []byte { return le.AppendUint32(b, *v) }
func appendU64(b []byte, v *uint64) []byte { return le.AppendUint64(b, *v) }
func appendU8(b []byte, v *byte) []byte    { return append(b, *v) }
func decodeU32(b []byte, v *uint32)        { *v = le.Uint32(b) }
func decodeU64(b []byte, v *uint64)        { *v = le.Uint64(b) }
func decodeU8(b []byte, v *byte)           { *v = b[0] }

// Encode returns the file.
func (f *SpecFile) Encode() []byte {
	h := f.SpecHeader
	h.Magic, h.Version = MagicSpec, Version
	b := make([]byte, SizeSpecHeader, SizeSpecHeader+len(f.ImageBytes)+len(f.BlobBytes)+4096)
	b = table(b, &h.Image, f.ImageBytes, 1, appendU8)
	b = table(b, &h.Blob, f.BlobBytes, 1, appendU8)
	b = table(b, &h.Functions, f.FunctionList, SizeFunction, appendFunction)
	b = table(b, &h.Versions, f.VersionList, SizeCodeVersion, appendCodeVersion)
	b = table(b, &h.Workers, f.WorkerList, SizeWorker, appendWorker)
	b = table(b, &h.Roots, f.RootList, 4, appendU32)
	b = table(b, &h.Arrivals, f.ArrivalList, 8, appendU64)
	b = table(b, &h.Actions, f.ActionList, SizeAction, appendAction)
	b = table(b, &h.Regions, f.RegionList, SizeRegion, appendRegion)
	b = table(b, &h.Patches, f.PatchList, SizePatch, appendPatch)
	b = table(b, &h.Changes, f.ChangeList, SizeChange, appendChange)
	copy(b, appendSpecHeader(nil, &h))
	return b
}

// DecodeSpec reads what Encode wrote.
func DecodeSpec(b []byte) (*SpecFile, error) {
	if len(b) < SizeSpecHeader {
		return nil, fmt.Errorf("decode spec: %w: %d bytes", ErrFormat, len(b))
	}
	f := new(SpecFile)
	decodeSpecHeader(b, &f.SpecHeader)
	h := &f.SpecHeader
	if h.Magic != MagicSpec || h.Version != Version {
		return nil, fmt.Errorf("decode spec: %w: magic %#x, version %d", ErrFormat, h.Magic, h.Version)
	}
	errs := make([]error, 11)
	f.ImageBytes, errs[0] = entries(b, "image", h.Image, 1, decodeU8)
	f.BlobBytes, errs[1] = entries(b, "blob", h.Blob, 1, decodeU8)
	f.FunctionList, errs[2] = entries(b, "functions", h.Functions, SizeFunction, decodeFunction)
	f.VersionList, errs[3] = entries(b, "versions", h.Versions, SizeCodeVersion, decodeCodeVersion)
	f.WorkerList, errs[4] = entries(b, "workers", h.Workers, SizeWorker, decodeWorker)
	f.RootList, errs[5] = entries(b, "roots", h.Roots, 4, decodeU32)
	f.ArrivalList, errs[6] = entries(b, "arrivals", h.Arrivals, 8, decodeU64)
	f.ActionList, errs[7] = entries(b, "actions", h.Actions, SizeAction, decodeAction)
	f.RegionList, errs[8] = entries(b, "regions", h.Regions, SizeRegion, decodeRegion)
	f.PatchList, errs[9] = entries(b, "patches", h.Patches, SizePatch, decodePatch)
	f.ChangeList, errs[10] = entries(b, "changes", h.Changes, SizeChange, decodeChange)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return f, nil
}

// Encode returns the file that the executor would write.
func (t *Trace) Encode() []byte {
	h := t.TraceHeader
	h.Magic, h.Version = MagicTrace, Version
	b := make([]byte, SizeTraceHeader, SizeTraceHeader+SizeRecord*len(t.RecordList)+4096)
	b = table(b, &h.Streams, t.StreamList, SizeStream, appendStream)
	b = table(b, &h.Records, t.RecordList, SizeRecord, appendRecord)
	b = table(b, &h.Reports, t.ReportList, SizeReport, appendReport)
	b = table(b, &h.Counters, t.CounterList, SizeCounter, appendCounter)
	b = table(b, &h.States, t.StateList, SizeState, appendState)
	b = table(b, &h.Stops, t.StopList, SizeStop, appendStop)
	b = table(b, &h.Frames, t.FrameList, SizeFrame, appendFrame)
	copy(b, appendTraceHeader(nil, &h))
	return b
}

// DecodeTrace reads the file that the executor wrote.
func DecodeTrace(b []byte) (*Trace, error) {
	if len(b) < SizeTraceHeader {
		return nil, fmt.Errorf("decode trace: %w: %d bytes", ErrFormat, len(b))
	}
	t := new(Trace)
	decodeTraceHeader(b, &t.TraceHeader)
	h := &t.TraceHeader
	if h.Magic != MagicTrace || h.Version != Version {
		return nil, fmt.Errorf("decode trace: %w: magic %#x, version %d", ErrFormat, h.Magic, h.Version)
	}
	errs := make([]error, 7)
	t.StreamList, errs[0] = entries(b, "streams", h.Streams, SizeStream, decodeStream)
	t.RecordList, errs[1] = entries(b, "records", h.Records, SizeRecord, decodeRecord)
	t.ReportList, errs[2] = entries(b, "reports", h.Reports, SizeReport, decodeReport)
	t.CounterList, errs[3] = entries(b, "counters", h.Counters, SizeCounter, decodeCounter)
	t.StateList, errs[4] = entries(b, "states", h.States, SizeState, decodeState)
	t.StopList, errs[5] = entries(b, "stops", h.Stops, SizeStop, decodeStop)
	t.FrameList, errs[6] = entries(b, "frames", h.Frames, SizeFrame, decodeFrame)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, s := range t.StreamList {
		if n := uint64(len(t.RecordList)); s.First > n || s.Count > n-s.First {
			return nil, fmt.Errorf("decode trace: %w: stream %d has records %d to %d of %d", ErrFormat, i, s.First, s.First+s.Count, n)
		}
	}
	for i, s := range t.StopList {
		if n := uint64(len(t.FrameList)); uint64(s.Frame)+uint64(s.Frames) > n {
			return nil, fmt.Errorf("decode trace: %w: stop %d has frames %d to %d of %d", ErrFormat, i, s.Frame, uint64(s.Frame)+uint64(s.Frames), n)
		}
	}
	return t, nil
}
