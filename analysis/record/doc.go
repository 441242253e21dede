// SPDX-License-Identifier: Apache-2.0

// Package record is the data model of an evaluation: what a run writes down,
// and the only thing that statistics, figures and reports are made from.
//
// A run is a folder with a manifest (manifest.json: what the machine was) and a
// log (records.jsonl: what happened).  The log is append-only JSON Lines.  It
// grows by units: a unit is all that one boot of a virtual machine yielded, it
// has a key that names the planned work, and it is in the log either whole or
// not at all.  A run that was killed opens the log again, asks Done for each
// key of its plan, and does what is missing:
//
//	log, err := record.Open(dir)
//	for _, key := range plan {
//		if log.Done(key) {
//			continue
//		}
//		unit := boot(key)       // record.Unit{Key: key, Boot: ..., Trials: ...}
//		err = log.Append(unit)  // atomic, synced
//	}
//	err = log.Close()
//
// Readers use ReadAll (or Parse), which returns whole units only, sorted by key:
// the order in which parallel boots happened to end does not reach the report.
//
// Everything is raw: counts, guest clock readings, batches, histograms.  What is
// derived (differences, quantiles, ratios) is derived by the reader, so that a
// better statistic never needs another run.
package record
