// SPDX-License-Identifier: Apache-2.0

// Command gen makes codec.go and a C header from schema.go in the folder that it
// is started in; the header is named for the folder, as is the package.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/wflp/wflp/workloads/wire/schemagen"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	src, err := os.ReadFile("schema.go")
	if err != nil {
		return err
	}
	goSrc, header, err := schemagen.Generate(src)
	if err != nil {
		return err
	}
	if err := os.WriteFile("codec.go", goSrc, 0o644); err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Base(dir)+".h", header, 0o644)
}
