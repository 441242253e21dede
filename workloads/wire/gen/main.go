// SPDX-License-Identifier: Apache-2.0

// Command gen makes codec.go and wire.h from the schema of package wire.
package main

import (
	"fmt"
	"os"

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
	return os.WriteFile("wire.h", header, 0o644)
}
