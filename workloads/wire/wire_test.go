// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	fuzz "github.com/google/gofuzz"

	"github.com/wflp/wflp/workloads/wire/schemagen"
)

// TestGenerated makes both generated files again and compares.
func TestGenerated(t *testing.T) {
	src, err := os.ReadFile("schema.go")
	if err != nil {
		t.Fatal(err)
	}
	codec, header, err := schemagen.Generate(src)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"codec.go": codec, "wire.h": header} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what schema.go gives: run go generate ./workloads/wire", name)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	for _, src := range []string{
		"type T struct { A uint8; B uint32 }", // padding inside
		"type T struct { A uint64; B uint8 }", // padding at the end
		"type T struct { A string }", "type T struct { A *uint8 }", "type T uint8", "func f() {}", "const C = -1", `const C = "x"`,
	} {
		if _, _, err := schemagen.Generate([]byte("package wire\n" + src + "\n")); err == nil {
			t.Errorf("accepted %s", src)
		}
	}
}

// TestCodecAgainstBinary compares the generated codec with encoding/binary,
// which is slow and needs no generator.
func TestCodecAgainstBinary(t *testing.T) {
	f := fuzz.NewWithSeed(1)
	for range 50 {
		check(t, f, appendTraceHeader, decodeTraceHeader)
		check(t, f, appendSpecHeader, decodeSpecHeader)
		check(t, f, appendFunction, decodeFunction)
		check(t, f, appendCodeVersion, decodeCodeVersion)
		check(t, f, appendWorker, decodeWorker)
		check(t, f, appendAction, decodeAction)
		check(t, f, appendRegion, decodeRegion)
		check(t, f, appendPatch, decodePatch)
		check(t, f, appendChange, decodeChange)
		check(t, f, appendStream, decodeStream)
		check(t, f, appendRecord, decodeRecord)
		check(t, f, appendExec, decodeExec)
		check(t, f, appendReport, decodeReport)
		check(t, f, appendCounter, decodeCounter)
		check(t, f, appendState, decodeState)
	}
}

func check[T any](t *testing.T, f *fuzz.Fuzzer, add func([]byte, *T) []byte, get func([]byte, *T)) {
	t.Helper()
	var v, back T
	f.Fuzz(&v)
	b := add(nil, &v)
	want, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("%T: %x, want %x", v, b, want)
	}
	get(b, &back)
	if !reflect.DeepEqual(v, back) {
		t.Errorf("%T: decoded %+v, want %+v", v, back, v)
	}
}

func TestExecIsARecord(t *testing.T) {
	e := Exec{Kind: RecordExec | 7, First: 1, Last: 2, Loop: 3, Parts: [8]uint8{1, 2, 3, 4, 5, 6, 7, 8}}
	var r Record
	decodeRecord(appendExec(nil, &e), &r)
	if r != e.Record() || r.Exec() != e {
		t.Errorf("record %+v of %+v", r, e)
	}
	if f, ok := r.IsExec(); f != 7 || !ok {
		t.Errorf("function %d, %v", f, ok)
	}
}

func TestFiles(t *testing.T) {
	spec := &SpecFile{ImageBytes: []byte{1, 2, 3}, BlobBytes: []byte{4}, FunctionList: []Function{{Entry: 5}}, RootList: []uint32{1, 2, 3},
		ArrivalList: []uint64{9}, WorkerList: make([]Worker, 3), PatchList: []Patch{{AtNS: 3}}}
	b := spec.Encode()
	got, err := DecodeSpec(b)
	if err != nil {
		t.Fatal(err)
	}
	got.SpecHeader = SpecHeader{}
	if !reflect.DeepEqual(got, spec) {
		t.Errorf("spec %+v, want %+v", got, spec)
	}
	trace := &Trace{StreamList: []Stream{{First: 1, Count: 2}}, RecordList: []Record{{A: 1}, {A: 2}, {A: 3}}, CounterList: []Counter{{ID: 1}}}
	tb := trace.Encode()
	back, err := DecodeTrace(tb)
	if err != nil {
		t.Fatal(err)
	}
	if r := back.Of(back.StreamList[0]); len(r) != 2 || r[1].A != 3 {
		t.Errorf("stream has %+v", r)
	}
	trace.StreamList[0].Count = 3
	for name, bad := range map[string][]byte{
		"short": tb[:10], "cut": tb[:len(tb)-1], "magic": append([]byte{0}, tb[1:]...), "a spec": b, "stream": trace.Encode(),
	} {
		if _, err := DecodeTrace(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, cut := range []int{0, SizeSpecHeader, len(b) - 1} {
		if _, err := DecodeSpec(b[:cut]); err == nil || !strings.Contains(err.Error(), "decode") {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

// FuzzDecodeTrace: a crashed executor may leave any bytes.
func FuzzDecodeTrace(f *testing.F) {
	f.Add((&Trace{RecordList: make([]Record, 2), StreamList: []Stream{{Count: 2}}}).Encode())
	f.Fuzz(func(_ *testing.T, b []byte) {
		if tr, err := DecodeTrace(b); err == nil {
			for _, s := range tr.StreamList {
				_ = tr.Of(s)
			}
		}
	})
}
