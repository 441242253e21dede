// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// MatrixName is the file of a kill matrix. `wflp fuzz matrix` writes it; beside the
// log of a run it is the record of E10.
const MatrixName = "matrix.json"

// Matrix is what a report needs to know of a kill matrix.
type Matrix struct {
	Settings struct {
		Format     int     `json:"format"`
		Seeds      int     `json:"seeds"`
		CapS       float64 `json:"cap_s"`
		Treatments []struct {
			Name string `json:"name"`
		} `json:"treatments"`
		Mutants []Mutant `json:"mutants"`
	} `json:"settings"`
	Cells []MatrixCell `json:"cells"`
}

// Mutant is a defect made on purpose.
type Mutant struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// MatrixCell is one search for one defect.
type MatrixCell struct {
	Mutant    string `json:"mutant"`
	Treatment string `json:"treatment"`
	Seed      uint64 `json:"seed"`
	// found, censored or machine
	State   string  `json:"state"`
	Seconds float64 `json:"s"`
}

// matrixFormat is the version of the matrix that this package reads.
const matrixFormat = 1

// ReadMatrix reads the kill matrix beside a log, or returns nil if there is none.
func ReadMatrix(dir string) (*Matrix, error) {
	b, err := os.ReadFile(filepath.Join(dir, MatrixName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read matrix: %w", err)
	}
	var m Matrix
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read matrix: %s: %w", filepath.Join(dir, MatrixName), err)
	}
	if m.Settings.Format != matrixFormat {
		return nil, fmt.Errorf("read matrix: %s has format %d, this program reads %d", filepath.Join(dir, MatrixName), m.Settings.Format, matrixFormat)
	}
	return &m, nil
}
