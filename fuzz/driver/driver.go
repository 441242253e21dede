// SPDX-License-Identifier: Apache-2.0

// Package driver holds the sources of wflp-fuzz, the program that runs a
// scenario in a guest, so that a reproducer can be made of them.
package driver

import (
	"bytes"
	"embed"
	"fmt"
	"regexp"
)

//go:embed src
var sources embed.FS

var own = regexp.MustCompile(`(?m)^#include "[^"]*"\n|^#define _GNU_SOURCE\n`)

// Reproducer makes one C program of the driver, the generated header that it
// wants, and an encoded scenario. about is a comment for people.
func Reproducer(header []byte, scenario []byte, about string) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "// SPDX-License-Identifier: Apache-2.0\n/*\n%s*/\n#define _GNU_SOURCE\n#define FUZZ_REPRODUCER\n", about)
	add := func(src []byte) { b.Write(own.ReplaceAll(src, nil)) }
	add(header)
	for _, name := range []string{"view.h", "fuzz.h", "probe.c", "ops.c", "driver.c"} {
		src, err := sources.ReadFile("src/" + name)
		if err != nil {
			return nil, fmt.Errorf("make reproducer: %w", err)
		}
		add(src)
	}
	fmt.Fprintf(&b, "\nconst size_t fuzz_scenario_len = %d;\n_Alignas(16) const unsigned char fuzz_scenario[] = {", len(scenario))
	for i, c := range scenario {
		if i%16 == 0 {
			b.WriteString("\n\t")
		}
		fmt.Fprintf(&b, "%d,", c)
	}
	b.WriteString("\n};\n")
	return b.Bytes(), nil
}
