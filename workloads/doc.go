// SPDX-License-Identifier: Apache-2.0

// Package workloads describes the programs that are patched while they run.
//
// A Spec is a pure value: made from a seed, printed, parsed, compared and
// shrunk without a machine. It holds everything that a run depends on but the
// interleaving: which functions there are and what each version of them looks
// like, what every thread does, when requests arrive, which memory operations
// happen where, and which functions change when. Package code turns it into
// machine code and tables, package wire carries those to the executor, package
// trial runs it, and the oracles judge what comes back against the Spec alone.
package workloads
