// SPDX-License-Identifier: Apache-2.0

package fuzzwire

import (
	_ "embed" // for Header
	"fmt"
)

// Scenario is the file that goes to the driver; Lists of the header and First of
// each list are set by Encode.
type Scenario struct {
	ScenarioHeader
	ListTable []List
	OpTable   []Op
}

// Encode makes the file.
func (s *Scenario) Encode() []byte {
	h := s.ScenarioHeader
	h.Magic, h.Version = MagicScenario, Version
	h.Lists = Table{SizeScenarioHeader, uint64(len(s.ListTable))}
	h.Ops = Table{h.Lists.Off + uint64(len(s.ListTable)*SizeList), uint64(len(s.OpTable))}
	b := appendScenarioHeader(nil, &h)
	for i := range s.ListTable {
		b = appendList(b, &s.ListTable[i])
	}
	for i := range s.OpTable {
		b = appendOp(b, &s.OpTable[i])
	}
	return b
}

// Trace is the file that comes back.
type Trace struct {
	TraceHeader
	StreamList []Stream
	RecordList []Record
	ThreadList []Thread
	PCs        []uint64
}

// Of returns the records of a list.
func (t *Trace) Of(list int) []Record {
	s := t.StreamList[list]
	return t.RecordList[s.First : s.First+s.Count]
}

// Encode makes the file, for traces made by hand.
func (t *Trace) Encode() []byte {
	h := t.TraceHeader
	h.Magic, h.Version = MagicTrace, Version
	off := uint64(SizeTraceHeader)
	table := func(n, size int) Table {
		x := Table{off, uint64(n)}
		off += uint64(n * size)
		return x
	}
	h.Streams = table(len(t.StreamList), SizeStream)
	h.Records = table(len(t.RecordList), SizeRecord)
	h.Threads = table(len(t.ThreadList), SizeThread)
	h.Coverage = table(len(t.PCs), 8)
	b := appendTraceHeader(nil, &h)
	for i := range t.StreamList {
		b = appendStream(b, &t.StreamList[i])
	}
	for i := range t.RecordList {
		b = appendRecord(b, &t.RecordList[i])
	}
	for i := range t.ThreadList {
		b = appendThread(b, &t.ThreadList[i])
	}
	for _, pc := range t.PCs {
		b = le.AppendUint64(b, pc)
	}
	return b
}

// DecodeTrace reads the file. A trace that was cut off is an error.
func DecodeTrace(b []byte) (*Trace, error) {
	t := &Trace{}
	if len(b) < SizeTraceHeader {
		return nil, fmt.Errorf("decode trace: %d bytes are no header", len(b))
	}
	decodeTraceHeader(b, &t.TraceHeader)
	if t.Magic != MagicTrace || t.Version != Version {
		return nil, fmt.Errorf("decode trace: magic %#x version %d", t.Magic, t.Version)
	}
	table := func(name string, x Table, size int, each func(i uint64, b []byte)) error {
		if x.Count > uint64(len(b)) || x.Off > uint64(len(b)) || x.Off+x.Count*uint64(size) > uint64(len(b)) {
			return fmt.Errorf("decode trace: table %s is not in the file", name)
		}
		for i := range x.Count {
			each(i, b[x.Off+i*uint64(size):])
		}
		return nil
	}
	if err := table("streams", t.Streams, SizeStream, func(i uint64, b []byte) {
		t.StreamList = append(t.StreamList, Stream{})
		decodeStream(b, &t.StreamList[i])
	}); err != nil {
		return nil, err
	}
	if err := table("records", t.Records, SizeRecord, func(i uint64, b []byte) {
		t.RecordList = append(t.RecordList, Record{})
		decodeRecord(b, &t.RecordList[i])
	}); err != nil {
		return nil, err
	}
	if err := table("threads", t.Threads, SizeThread, func(i uint64, b []byte) {
		t.ThreadList = append(t.ThreadList, Thread{})
		decodeThread(b, &t.ThreadList[i])
	}); err != nil {
		return nil, err
	}
	if err := table("coverage", t.Coverage, 8, func(_ uint64, b []byte) {
		t.PCs = append(t.PCs, le.Uint64(b))
	}); err != nil {
		return nil, err
	}
	for i, s := range t.StreamList {
		if uint64(s.First)+uint64(s.Count) > uint64(len(t.RecordList)) {
			return nil, fmt.Errorf("decode trace: stream %d is not in the records", i)
		}
	}
	return t, nil
}

// Header is the C header, for programs that are made of the driver's sources.
//
//go:embed fuzzwire.h
var Header []byte
