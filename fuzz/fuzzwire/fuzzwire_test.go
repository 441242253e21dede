// SPDX-License-Identifier: Apache-2.0

package fuzzwire

import (
	"bytes"
	"os"
	"reflect"
	"testing"

	"github.com/wflp/wflp/workloads/wire/schemagen"
)

func TestGenerated(t *testing.T) {
	src, err := os.ReadFile("schema.go")
	if err != nil {
		t.Fatal(err)
	}
	codec, header, err := schemagen.Generate(src)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"codec.go": codec, "fuzzwire.h": header} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the schema makes: go generate ./fuzz/fuzzwire", name)
		}
	}
}

func TestTraceRoundTrip(t *testing.T) {
	in := &Trace{
		TraceHeader: TraceHeader{Seed: 3, End: EndComplete, Stamps: 9},
		StreamList:  []Stream{{First: 0, Count: 2, By: -1}},
		RecordList:  []Record{{Begin: 1, End: 2, Ret: -11, FD: 100, Kind: OpLoad}, {Begin: 3}},
		ThreadList:  []Thread{{TID: 7, List: 0, Letter: 'D'}},
		PCs:         []uint64{1 << 63},
	}
	b := in.Encode()
	out, err := DecodeTrace(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in.RecordList, out.RecordList) || !reflect.DeepEqual(in.StreamList, out.StreamList) ||
		!reflect.DeepEqual(in.ThreadList, out.ThreadList) || !reflect.DeepEqual(in.PCs, out.PCs) || out.Seed != 3 {
		t.Errorf("in %+v\nout %+v", in, out)
	}
	for n := range b {
		if _, err := DecodeTrace(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken for a trace", n, len(b))
		}
	}
}
