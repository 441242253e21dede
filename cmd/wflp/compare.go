// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	pages "github.com/wflp/wflp/analysis/report"
)

func init() {
	register(subcommand{
		name: "compare", about: "say what changed from one run to another beyond noise",
		run: runCompare,
	})
}

func runCompare(_ context.Context, inv *invocation) error {
	fs := inv.flags("compare")
	page := fs.String("html", "", "write the whole comparison into this file, too")
	asJSON := fs.Bool("json", false, "print JSON in place of a table")
	if err := inv.parse(fs); err != nil {
		return err
	}
	if fs.NArg() != 2 {
		return usagef("compare: want two folders of runs, got %d: wflp compare [-html FILE] [-json] A B", fs.NArg())
	}
	c, err := pages.Compare(fs.Arg(0), fs.Arg(1))
	if errors.Is(err, pages.ErrIncomparable) || errors.Is(err, os.ErrNotExist) {
		return &codeError{exitUsage, err}
	}
	if err != nil {
		return err
	}
	if *page != "" {
		b, err := c.HTML()
		if err != nil {
			return err
		}
		if err := os.WriteFile(*page, b, 0o644); err != nil {
			return fmt.Errorf("write comparison: %w", err)
		}
	}
	if *asJSON {
		e := json.NewEncoder(inv.stdout)
		e.SetIndent("", "  ")
		err = e.Encode(c)
	} else {
		err = c.Print(inv.stdout)
	}
	if err != nil {
		return fmt.Errorf("print comparison: %w", err)
	}
	if c.Found() > 0 {
		return silentExit(exitFinding)
	}
	return nil
}
