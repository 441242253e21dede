// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"github.com/wflp/wflp/analysis/record"
)

// A published figure of a comparable system, with what of ours stands beside it.
// Only what its source says in so many words is here; what was measured on which
// machine is as far as the source says.
type publication struct {
	system, figure, machine, source string
	// What of ours answers to it, and why it is not the same.
	ours    func(b *builder) string // ID of a number
	oursIs  string
	caution string
}

var publications = []publication{
	{
		system: "WfPatch", figure: "global quiescence increases tail latencies by a factor of up to 41 (MariaDB)",
		machine: "Linux 5.1, Debian 10; hardware not named in the abstract",
		source:  "Rommel et al., From Global to Local Quiescence: Wait-Free Code Patching of Multi-Threaded Processes, OSDI 2020, abstract",
		ours:    func(b *builder) string { return b.tailID("barrier/none") },
		oursIs:  "p99.9 in the window of a patch, barrier over none",
		caution: "theirs is a database under load on hardware, ours a synthetic program",
	},
	{
		system: "WfPatch", figure: "no noticeable increase in request latencies with wait-free patching, even under high load",
		machine: "as above",
		source:  "same, abstract",
		ours:    func(b *builder) string { return b.tailID("waitfree/none") },
		oursIs:  "p99.9 in the window of a patch, waitfree over none",
		caution: "theirs are six servers on hardware, ours a synthetic program",
	},
	{
		system: "POLUS", figure: "less than 1 % performance degradation, 5 % in one case (vsftpd, sshd, Apache httpd)",
		machine: "not named in the abstract",
		source:  "Chen et al., POLUS: A POwerful Live Updating System, ICSE 2007, abstract",
		ours:    func(*builder) string { return fmt.Sprintf("e5.%s.page-fault.view", record.ICount) },
		oursIs:  "a page fault in a view over the stock kernel, in instructions",
		caution: "theirs is the throughput of servers; in ours the operation that pays most often",
	},
}

// tailID is the number of a ratio in the cell of E2 with most threads.
func (b *builder) tailID(ratio string) string {
	return fmt.Sprintf("e2.%s.%s.%s.p99.9", b.summary.Run.Main, b.tailCell(), ratio)
}

// published sets our figures beside those of others.
func (b *builder) published() {
	tab := &table{Name: "published", Caption: "Published figures of comparable systems, each as its source states it, and ours beside them.",
		Header: []string{"system", "published", "on", "source", "ours", "in this run", "not the same, for"}}
	for _, p := range publications {
		ours := text("not measured")
		if id := p.ours(b); b.ids[id] {
			ours = full(b.find(id))
		}
		tab.Rows = append(tab.Rows, []tableCell{text(p.system), text(p.figure), text(p.machine), text(p.source), text(p.oursIs), ours, text(p.caution)})
	}
	tab.Prose = true
	b.sections = append(b.sections, section{
		ID: "Others", Question: "What do others report?",
		Method: "Figures of other machines, programs and times do not compare with ours, nor with each other. They say what order of magnitude the field knows. Only what could be read in its source is listed.",
		Parts:  []part{{Table: tab}},
	})
}
