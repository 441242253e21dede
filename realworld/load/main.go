// SPDX-License-Identifier: Apache-2.0

// Command wflp-load runs in a guest. It starts a real program as its systemd
// unit would, sends requests at scheduled times over connections that are made
// before, has the program patched meanwhile, and writes down what came of each
// request.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/wflp/wflp/realworld/server"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "run":
		err = runPlan(os.Args[2], os.Args[3])
	case len(os.Args) > 3 && os.Args[1] == "launch":
		err = launch(os.Args[2], os.Args[3:])
	case len(os.Args) == 2 && os.Args[1] == "backend":
		err = backend()
	default:
		err = errors.New("usage: wflp-load run PLAN OUTCOME | launch CONFINEMENT COMMAND… | backend")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wflp-load:", err)
		os.Exit(1)
	}
}

// backend is the web server that haproxy is in front of.
func backend() error {
	return http.ListenAndServe(server.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, server.Body(r.URL.Path))
	}))
}

func runPlan(planFile, outcomeFile string) error {
	data, err := os.ReadFile(planFile)
	if err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	var plan server.Plan
	if err := json.Unmarshal(data, &plan); err != nil {
		return fmt.Errorf("parse plan: %w", err)
	}
	srv, err := server.ByName(plan.Server)
	if err != nil {
		return err
	}
	if err := tune(); err != nil {
		return err
	}
	r := &runner{plan: plan, srv: srv}
	out := server.Outcome{}
	if out.Calibration, err = r.calibrate(); err != nil {
		return fmt.Errorf("calibrate: %w\n%s", err, r.serverSaid())
	}
	for i, run := range plan.Runs {
		o, err := r.run(i, run, out.Calibration.Rate)
		if err != nil {
			o.Error = strings.TrimSpace(err.Error() + "\n" + r.serverSaid())
		}
		out.Runs = append(out.Runs, o)
	}
	if data, err = json.MarshalIndent(out, "", " "); err != nil {
		return fmt.Errorf("write outcome: %w", err)
	}
	if err := os.WriteFile(outcomeFile, data, 0o644); err != nil {
		return fmt.Errorf("write outcome: %w", err)
	}
	return nil
}
