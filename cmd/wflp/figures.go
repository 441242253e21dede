// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	pages "github.com/wflp/wflp/analysis/report"
)

func init() {
	register(subcommand{
		name: "figures", about: "make figures, tables and report of a run again from its records",
		run: runFigures,
	})
}

func runFigures(_ context.Context, inv *invocation) error {
	fs := inv.flags("figures")
	out := fs.String("out", "out/quick", "folder of the run")
	if err := inv.parse(fs); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("figures: unexpected argument %q", fs.Arg(0))
	}
	if err := pages.Make(*out); err != nil {
		return err
	}
	return printClaims(inv, *out)
}
