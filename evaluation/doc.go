// SPDX-License-Identifier: Apache-2.0

// Package evaluation plans and runs the experiments.
//
// A plan is a pure function of profile, seed and what the machine can do: an
// ordered list of units. A unit is one boot of a virtual machine and the unit of
// repetition of every statistic; its key names it in the records. The engine runs
// the units that the records do not have yet and appends each as a whole, so a
// run may be killed at any moment and goes on where it was.
//
// What the records mean is the business of package analysis/report.
package evaluation
