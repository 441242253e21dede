// SPDX-License-Identifier: Apache-2.0

package server

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed packages.txt
var pinned string

// pins are the versions of Debian packages that the programs were last tried
// with. Debian's archive has one version of a package: its security updates
// replace what was there, so these are not asked for, but compared.
func pins() map[string]string {
	out := map[string]string{}
	for _, line := range strings.Split(pinned, "\n") {
		if f := strings.Fields(line); len(f) == 2 && f[0] != "#" {
			out[f[0]] = f[1]
		}
	}
	return out
}

// OtherPackages names the packages that are of another version than the
// programs were last tried with.
func OtherPackages(versions map[string]string) []string {
	var out []string
	known := pins()
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if v := versions[name]; v != known[name] {
			was := "not among those that were tried"
			if known[name] != "" {
				was = "tried with " + known[name]
			}
			out = append(out, fmt.Sprintf("package %s is %s, %s", name, v, was))
		}
	}
	return out
}
