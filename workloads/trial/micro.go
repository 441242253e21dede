// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/wflp/wflp/analysis/record"
)

// MicroProgram is where a machine has the micro-benchmarks.
const MicroProgram = "/bin/wflp-micro"

// Missing is something that wflp-micro could not measure, and why.
type Missing struct {
	What, Sweep string
	Value       int64
	Why         string
}

// ParseFootprint reads what wflp-micro prints of memory, one line a look.
func ParseFootprint(out []byte) ([]record.Memory, []Missing, error) {
	var looks []record.Memory
	var missing []Missing
	s := bufio.NewScanner(bytes.NewReader(out))
	for n := 1; s.Scan(); n++ {
		d := json.NewDecoder(bytes.NewReader(s.Bytes()))
		d.DisallowUnknownFields()
		var l struct {
			record.Memory
			What  string `json:"unsupported"`
			Sweep string `json:"sweep"`
			Value int64  `json:"value"`
			Why   string `json:"why"`
		}
		if err := d.Decode(&l); err != nil {
			return nil, nil, fmt.Errorf("parse footprint: line %d: %w", n, err)
		}
		switch {
		case l.What != "":
			missing = append(missing, Missing{What: l.What, Sweep: l.Sweep, Value: l.Value, Why: l.Why})
		case l.Series == "" || l.UsedKiB <= 0:
			return nil, nil, fmt.Errorf("parse footprint: line %d: no look: %s", n, s.Bytes())
		default:
			looks = append(looks, l.Memory)
		}
	}
	return looks, missing, s.Err()
}

// ParseMicro reads what wflp-micro prints, one line a batch, and puts the
// batches of one setting together, in the order measured.
func ParseMicro(out []byte) ([]record.Micro, []Missing, error) {
	type line struct {
		record.Micro
		Rep int   `json:"rep"`
		NS  int64 `json:"ns"`
		// Of a Missing.
		What  string `json:"unsupported"`
		Value int64  `json:"value"`
		Why   string `json:"why"`
	}
	type key struct {
		experiment, bench, setting, sweep      string
		resident                               int64
		mappings, views, threads, batchPerLine int
	}
	var micros []record.Micro
	var missing []Missing
	at := map[key]int{}
	s := bufio.NewScanner(bytes.NewReader(out))
	for n := 1; s.Scan(); n++ {
		d := json.NewDecoder(bytes.NewReader(s.Bytes()))
		d.DisallowUnknownFields()
		var l line
		if err := d.Decode(&l); err != nil {
			return nil, nil, fmt.Errorf("parse micro-benchmarks: line %d: %w", n, err)
		}
		if l.What != "" {
			missing = append(missing, Missing{What: l.What, Sweep: l.Sweep, Value: l.Value, Why: l.Why})
			continue
		}
		if l.Bench == "" || l.Batch < 1 || l.NS < 0 {
			return nil, nil, fmt.Errorf("parse micro-benchmarks: line %d: no measurement: %s", n, s.Bytes())
		}
		k := key{l.Experiment, l.Bench, l.Setting, l.Sweep, l.ResidentKiB, l.Mappings, l.Views, l.Threads, int(l.Batch)}
		i, ok := at[k]
		if !ok {
			i = len(micros)
			at[k] = i
			micros = append(micros, l.Micro)
		}
		if l.Rep != len(micros[i].ValuesNS) {
			return nil, nil, fmt.Errorf("parse micro-benchmarks: line %d: repetition %d of %s, want %d", n, l.Rep, l.Bench, len(micros[i].ValuesNS))
		}
		micros[i].ValuesNS = append(micros[i].ValuesNS, l.NS)
	}
	return micros, missing, s.Err()
}
