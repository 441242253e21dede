// SPDX-License-Identifier: Apache-2.0

package server

import "github.com/wflp/wflp/analysis/record"

// Plan is what the program in the guest is to do: runs of one server, one after
// the other, each with a server that is started for it.
type Plan struct {
	Server string `json:"server"`
	Fix    string `json:"fix"`
	// Paths in the guest: the program without the fix, with it, and the patch.
	Without string `json:"without"`
	With    string `json:"with"`
	Patch   string `json:"patch,omitempty"`
	// Threads of the server run on the first processors, all else on the others.
	ServerCPUs []int  `json:"server_cpus"`
	ClientCPUs []int  `json:"client_cpus"`
	Clients    int    `json:"clients"`
	Seed       uint64 `json:"seed"`
	// CalibrateMS is for how long clients send one request after the other to
	// see how many there can be.
	CalibrateMS int   `json:"calibrate_ms"`
	Runs        []Run `json:"runs"`
}

// Run is one server under load and what is done to its code meanwhile.
type Run struct {
	Strategy record.Strategy `json:"strategy"`
	// UtilisationPct is the offered load in percent of the calibrated rate.
	UtilisationPct int `json:"utilisation_pct"`
	DurationMS     int `json:"duration_ms"`
	// PatchAtMS has the times, from the first arrival, at which the patch is
	// applied, undone, applied again, and so on.
	PatchAtMS []int `json:"patch_at_ms"`
}

// Calibration is what clients and server can do.
type Calibration struct {
	// Rate is the number of requests a second with all clients busy.
	Rate float64 `json:"rate"`
	// The shares of the processors' time, in percent of one processor.
	ServerPct float64 `json:"server_pct"`
	ClientPct float64 `json:"client_pct"`
}

// Outcome is what came of a plan.
type Outcome struct {
	Calibration Calibration  `json:"calibration"`
	Runs        []RunOutcome `json:"runs"`
}

// RunOutcome is what came of a run.
type RunOutcome struct {
	Run
	// Error says why the run is none.
	Error string `json:"error,omitempty"`
	// Argv is the server's command.
	Argv    []string `json:"argv"`
	Threads int      `json:"threads"` // of the server, before the patch
	StartNS int64    `json:"start_ns"`
	Rate    float64  `json:"rate"` // offered, requests a second
	// Requests were scheduled; Lost had no reply at their first try, Wrong the
	// reply to nothing that was asked. Dropped connections were ended by the server.
	Requests int64 `json:"requests"`
	Lost     int64 `json:"lost"`
	Wrong    int64 `json:"wrong"`
	Dropped  int64 `json:"dropped"`
	// Complaints has the first errors of requests.
	Complaints []string       `json:"complaints,omitempty"`
	ServerPct  float64        `json:"server_pct,omitempty"`
	ClientPct  float64        `json:"client_pct"`
	Patches    []PatchOutcome `json:"patches,omitempty"`
	Probes     []ProbeOutcome `json:"probes,omitempty"`
	// Samples is the guest's file of arrivals and latencies, see Sample.
	Samples string `json:"samples"`
}

// PatchOutcome is one patch, or its undoing.
type PatchOutcome struct {
	Undo     bool   `json:"undo,omitempty"`
	QueuedNS int64  `json:"queued_ns"` // before the command was started
	DoneNS   int64  `json:"done_ns"`   // after it said that no thread can run the other code
	Error    string `json:"error,omitempty"`
	Memory   Memory `json:"memory"` // afterwards
	Over
}

// Memory is what the server has resident, and what the machine could still give:
// in that also what the kernel holds for views would be missing.
type Memory struct {
	ResidentKiB  int64 `json:"resident_kib,omitempty"`
	AvailableKiB int64 `json:"available_kib,omitempty"`
}

// Over is what the library in the process says of its newest patch. Times are of
// the guest's monotonic clock; 0 means not reached.
type Over struct {
	PublishedNS int64 `json:"published_ns,omitempty"`
	FirstOverNS int64 `json:"first_over_ns,omitempty"`
	LastOverNS  int64 `json:"last_over_ns,omitempty"`
	Threads     int   `json:"threads,omitempty"`
	Migrated    int   `json:"migrated,omitempty"`
	Pulled      int   `json:"pulled,omitempty"`
}

// ProbeOutcome is one answer to a probe.
type ProbeOutcome struct {
	Patched bool   `json:"patched"` // whether the fix was to be in effect
	Older   bool   `json:"older"`   // whether the connection was older than the patch
	Defect  bool   `json:"defect"`
	Said    string `json:"said"`
	Error   string `json:"error,omitempty"`
}

// Sample is one request; a file of samples has them in binary, little endian.
type Sample struct {
	ArrivalNS int64 // the scheduled one, of the guest's monotonic clock
	LatencyNS int64
	// Bad is not 0 for one that was lost or answered wrongly at its first try;
	// the latency is till the right answer to a further one.
	Bad int64
}
