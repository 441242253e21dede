// SPDX-License-Identifier: Apache-2.0

// Package conform holds programs that know nothing of views against the claim
// that a view makes no difference to them: the kernel's own mm selftests and
// stress-ng's memory stressors run on the stock kernel, on a kernel with the
// series, and there in a view with private pages, and their results are
// compared test by test.
package conform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Format is how a program tells its results.
type Format string

// The formats.
const (
	FormatKTAP       Format = "ktap"       // a result for each line "ok N" and "not ok N"
	FormatUffd       Format = "uffd"       // "Testing NAME... done"
	FormatKhugepaged Format = "khugepaged" // "Run test: NAME" and "OK", "Fail" or "Skip" below it
	FormatExit       Format = "exit"       // the exit code alone, 4 is a skip
	FormatStress     Format = "stress"     // stress-ng's exit codes
)

// Case is one program with its arguments.
type Case struct {
	Suite  string // "selftests" or "stress-ng"
	Name   string // unique
	Argv   []string
	Setup  string // shell commands that make the machine as the program wants it
	UID    int    // who runs it
	Limit  time.Duration
	Format Format
	// Boot groups cases that run one after the other in one machine.
	Boot  string
	Quick bool // part of the subset that is short
}

// What run_vmtests.sh sets before the tests that want it.
const (
	// 256 MiB of huge pages.
	hugePages = "echo 128 > /proc/sys/vm/nr_hugepages"
	oneHuge   = "echo 1 > /proc/sys/vm/nr_hugepages"
	noHuge    = "echo 0 > /proc/sys/vm/nr_hugepages"
	// va_high_addr_switch.sh asks for five levels of page tables; 4 is a skip.
	fiveLevels = "grep -qw la57 /proc/cpuinfo || exit 4"
	// Some tests push pages out to swap, which is a RAM disk here.
	swap = "grep -q ram0 /proc/swaps || { mkswap /dev/ram0 > /dev/null && swapon /dev/ram0; }"
	// A page that was touched last waits in a batch of the processor that touched it,
	// and MADV_PAGEOUT empties that of its own processor only. So a test that expects
	// each page to be swapped out may not be moved in between, and khugepaged says
	// "Swapout 64 of 512 pages... Fail" if it was.
	oneCPU  = "for c in /sys/devices/system/cpu/cpu[1-9]*/online; do [ ! -e $c ] || echo 0 > $c; done"
	allCPUs = "for c in /sys/devices/system/cpu/cpu[1-9]*/online; do [ ! -e $c ] || echo 1 > $c; done"
)

// selftest is a row of the table below.
type selftest struct {
	boot, argv, setup string
	format            Format
	seconds           int // 0: 120
	quick             bool
	uid               int
}

// selftests are in the order of run_vmtests.sh, and after it what that script
// leaves out. A program that takes minutes under emulation has smaller
// arguments than there; a note beside it says so.
var selftests = []selftest{
	{boot: "hugetlb", argv: "hugepage-mmap", setup: hugePages, format: FormatKTAP},
	{boot: "hugetlb", argv: "hugepage-shm", setup: hugePages + "; echo 268435456 > /proc/sys/kernel/shmmax; echo 4194304 > /proc/sys/kernel/shmall", format: FormatExit},
	{boot: "hugetlb", argv: "map_hugetlb", setup: hugePages, format: FormatKTAP},
	{boot: "hugetlb", argv: "hugepage-mremap", setup: hugePages, format: FormatKTAP},
	{boot: "hugetlb", argv: "hugepage-vmemmap", setup: hugePages, format: FormatExit},
	{boot: "hugetlb", argv: "hugetlb-madvise", setup: hugePages, format: FormatExit},
	{boot: "hugetlb", argv: "hugetlb_dio", setup: hugePages, format: FormatKTAP},
	{boot: "hugetlb", argv: "hugetlb_madv_vs_map", setup: oneHuge, format: FormatExit},
	{boot: "hugetlb", argv: "thuge-gen", setup: hugePages, format: FormatKTAP},
	{boot: "hugetlb", argv: "hugetlb-soft-offline", setup: "echo 8 > /proc/sys/vm/nr_hugepages", format: FormatKTAP},
	{boot: "hugetlb", argv: "hugetlb-read-hwpoison", setup: hugePages, format: FormatKTAP},
	{boot: "small", argv: "map_fixed_noreplace", format: FormatKTAP, quick: true},
	{boot: "gup", argv: "gup_test -u", setup: hugePages, format: FormatKTAP},
	{boot: "gup", argv: "gup_test -a", setup: hugePages, format: FormatKTAP},
	{boot: "gup", argv: "gup_test -ct -F 0x1 0 19 0x1000", setup: hugePages, format: FormatKTAP},
	{boot: "gup", argv: "gup_test -t -L -w -S -n 512", setup: hugePages, format: FormatKTAP},
	{boot: "gup", argv: "gup_test -H -m 64 -b -w -n 123", setup: hugePages, format: FormatKTAP},
	{boot: "gup", argv: "gup_longterm", setup: hugePages, format: FormatKTAP},
	{boot: "uffd-unit", argv: "uffd-unit-tests", setup: hugePages, format: FormatUffd, seconds: 600},
	// The script gives huge pages 128 MiB each.
	{boot: "uffd", argv: "uffd-stress anon 20 16", setup: hugePages, format: FormatExit, seconds: 240},
	{boot: "uffd", argv: "uffd-stress hugetlb 64 8", setup: hugePages, format: FormatExit, seconds: 240},
	{boot: "uffd", argv: "uffd-stress hugetlb-private 64 8", setup: hugePages, format: FormatExit, seconds: 240},
	{boot: "uffd", argv: "uffd-stress shmem 20 16", setup: hugePages, format: FormatExit, seconds: 240},
	{boot: "uffd", argv: "uffd-stress shmem-private 20 16", setup: hugePages, format: FormatExit, seconds: 240},
	{boot: "small", argv: "compaction_test", setup: noHuge, format: FormatKTAP},
	{boot: "small", argv: "on-fault-limit", format: FormatKTAP, uid: 65534, quick: true},
	{boot: "small", argv: "map_populate", format: FormatKTAP, quick: true},
	{boot: "small", argv: "mlock-random-test", format: FormatKTAP},
	{boot: "small", argv: "mlock2-tests", format: FormatKTAP, quick: true},
	{boot: "small", argv: "mrelease_test", format: FormatKTAP},
	{boot: "small", argv: "mremap_test", setup: "echo 1 > /proc/sys/vm/overcommit_memory", format: FormatKTAP, seconds: 240},
	{boot: "small", argv: "virtual_address_range", setup: "echo 1 > /proc/sys/vm/overcommit_memory", format: FormatKTAP},
	{boot: "small", argv: "va_high_addr_switch", setup: fiveLevels, format: FormatExit},
	{boot: "small", argv: "mremap_dontunmap", setup: "echo 0 > /proc/sys/vm/overcommit_memory", format: FormatKTAP, quick: true},
	{boot: "small", argv: "madv_populate", format: FormatKTAP, quick: true},
	{boot: "small", argv: "memfd_secret", format: FormatKTAP},
	// The script has 100 MiB.
	{boot: "ksm", argv: "ksm_tests -H -s 16", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_tests -P -s 16", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_tests -M -p 10", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_tests -U", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_tests -Z -p 10 -z 0", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_tests -Z -p 10 -z 1", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_tests -N -m 1", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_tests -N -m 0", format: FormatKTAP},
	{boot: "ksm", argv: "ksm_functional_tests", setup: swap, format: FormatKTAP},
	{boot: "pkey", argv: "protection_keys_64", setup: noHuge, format: FormatExit, seconds: 300},
	{boot: "pkey", argv: "pkey_sighandler_tests_64", format: FormatKTAP},
	{boot: "small", argv: "soft-dirty", format: FormatKTAP, quick: true},
	{boot: "pagemap", argv: "pagemap_ioctl", setup: hugePages + "; " + swap, format: FormatKTAP, seconds: 300},
	{boot: "cow", argv: "cow", setup: hugePages + "; " + swap, format: FormatKTAP, seconds: 400},
	{boot: "khugepaged", argv: "khugepaged", setup: swap + "; " + oneCPU, format: FormatKhugepaged, seconds: 400},
	{boot: "khugepaged", argv: "khugepaged all:shmem", setup: swap + "; " + oneCPU, format: FormatKhugepaged, seconds: 400},
	{boot: "thp", argv: "khugepaged -s 2", setup: swap + "; " + oneCPU, format: FormatKhugepaged, seconds: 400},
	// The script has 20 s and all of the memory.
	{boot: "thp", argv: "transhuge-stress -d 5 256", setup: allCPUs, format: FormatKTAP},
	{boot: "thp", argv: "split_huge_page_test", setup: swap + "; " + allCPUs, format: FormatKTAP},
	{boot: "small", argv: "migration", format: FormatKTAP},
	{boot: "small", argv: "mkdirty", setup: swap, format: FormatKTAP, quick: true},
	{boot: "small", argv: "mdwe_test", format: FormatKTAP, quick: true},
	{boot: "small", argv: "droppable", format: FormatKTAP},
	{boot: "small", argv: "mseal_test", format: FormatKTAP, quick: true},
	{boot: "small", argv: "seal_elf", format: FormatKTAP, quick: true},
}

// NotRun are the programs of the directory that are not in the table, and why.
var NotRun = map[string]string{
	"hugetlb_fault_after_madv": "two threads race ten thousand times, which takes more than two minutes under emulation",
	"hmm-tests":                "needs the module test_hmm and a device that has memory of its own",
	"write_to_hugetlbfs":       "is a helper of shell scripts that need bash and the hugetlb controller",
}

// stressor is a memory stressor of stress-ng, with what bounds it beside time.
type stressor struct {
	name  string
	ops   int
	more  string // further options
	quick bool
	uid   int
}

// stressors are those of the classes vm and memory in stress-ng, without
// watchdog, which drives a device, and resources, which tries to use up every
// resource there is and leaves to chance how far it comes.
var stressors = []stressor{
	{name: "atomic", ops: 500}, {name: "bad-altstack", ops: 200, quick: true}, {name: "bigheap", ops: 500, more: "--bigheap-growth 64K"}, {name: "brk", ops: 2000, quick: true},
	{name: "bsearch", ops: 20}, {name: "context", ops: 500}, {name: "dev-shm", ops: 200}, {name: "env", ops: 20},
	{name: "full", ops: 200}, {name: "heapsort", ops: 2}, {name: "hsearch", ops: 20}, {name: "judy", ops: 2},
	{name: "list", ops: 50}, {name: "lockbus", ops: 500}, {name: "lsearch", ops: 2}, {name: "madvise", ops: 200, quick: true},
	{name: "malloc", ops: 5000, quick: true}, {name: "matrix", ops: 50}, {name: "matrix-3d", ops: 20}, {name: "mcontend", ops: 200},
	{name: "membarrier", ops: 500}, {name: "memcpy", ops: 20}, {name: "memfd", ops: 20}, {name: "memrate", ops: 2, more: "--memrate-bytes 16M"},
	{name: "memthrash", ops: 20}, {name: "mergesort", ops: 2}, {name: "mincore", ops: 500}, {name: "misaligned", ops: 20},
	{name: "mlock", ops: 500, quick: true}, {name: "mlockmany", ops: 20, more: "--mlockmany-procs 16 --pathological"}, {name: "mmap", ops: 50, more: "--mmap-bytes 32M", quick: true},
	{name: "mmapaddr", ops: 500, quick: true}, {name: "mmapfixed", ops: 500, quick: true}, {name: "mmapfork", ops: 10}, {name: "mmaphuge", ops: 50},
	{name: "mmapmany", ops: 2000}, {name: "mprotect", ops: 2000, quick: true}, {name: "mremap", ops: 100, more: "--mremap-bytes 32M", quick: true}, {name: "msync", ops: 200},
	{name: "msyncmany", ops: 200}, {name: "munmap", ops: 50, quick: true}, {name: "null", ops: 2000}, {name: "numa", ops: 50},
	{name: "oom-pipe", ops: 100}, {name: "pagemove", ops: 20, quick: true}, {name: "pageswap", ops: 200}, {name: "physpage", ops: 200},
	{name: "pipe", ops: 2000}, {name: "pipeherd", ops: 2000}, {name: "prefetch", ops: 5}, {name: "qsort", ops: 2},
	{name: "radixsort", ops: 2}, {name: "randlist", ops: 2}, {name: "remap", ops: 50, quick: true}, {name: "rmap", ops: 500},
	{name: "shellsort", ops: 2}, {name: "shm", ops: 50}, {name: "shm-sysv", ops: 50, more: "--shm-sysv-bytes 4M"}, {name: "skiplist", ops: 2},
	{name: "sparsematrix", ops: 2}, {name: "stack", ops: 50, quick: true}, {name: "stackmmap", ops: 20, quick: true}, {name: "str", ops: 20},
	{name: "stream", ops: 5}, {name: "swap", ops: 20}, {name: "tlb-shootdown", ops: 200, quick: true}, {name: "tmpfs", ops: 50},
	{name: "tree", ops: 2}, {name: "tsearch", ops: 2}, {name: "userfaultfd", ops: 500, quick: true}, {name: "vm", ops: 2000, more: "--vm-bytes 32M", quick: true},
	{name: "vm-addr", ops: 20}, {name: "vm-rw", ops: 50, quick: true}, {name: "vm-segv", ops: 100, quick: true}, {name: "vm-splice", ops: 1000},
	{name: "wcs", ops: 20}, {name: "zero", ops: 2000}, {name: "zlib", ops: 5},
	// Of other classes, and the ways that a process comes into being.
	{name: "clone", ops: 200, quick: true}, {name: "exec", ops: 50, quick: true, uid: 65534}, {name: "fork", ops: 200, quick: true}, {name: "vfork", ops: 200, quick: true},
	{name: "pthread", ops: 500, quick: true}, {name: "sigsegv", ops: 500}, {name: "fault", ops: 500},
}

// stressSeconds is how long a stressor runs at most; most end by their number
// of operations.
const stressSeconds = 2

// stressBoots is over how many machines the stressors are spread.
const stressBoots = 4

// Cases are all cases, in order.
func Cases() []Case {
	var cases []Case
	for _, s := range selftests {
		argv := strings.Fields(s.argv)
		argv[0] = guestTests + "/" + argv[0]
		c := Case{
			Suite: "selftests", Name: s.argv, Argv: argv, Setup: s.setup, UID: s.uid,
			Limit: 120 * time.Second, Format: s.format, Boot: s.boot, Quick: s.quick,
		}
		if s.seconds > 0 {
			c.Limit = time.Duration(s.seconds) * time.Second
		}
		cases = append(cases, c)
	}
	for i, s := range stressors {
		argv := []string{"/usr/bin/stress-ng", "--" + s.name, "2", "--" + s.name + "-ops", strconv.Itoa(s.ops),
			"-t", strconv.Itoa(stressSeconds), "--verify", "--no-rand-seed", "--temp-path", "/tmp"}
		argv = append(argv, strings.Fields(s.more)...)
		cases = append(cases, Case{
			Suite: "stress-ng", Name: "stress-ng " + s.name, Argv: argv, Setup: noHuge, UID: s.uid,
			Limit: 60 * time.Second, Format: FormatStress, Boot: fmt.Sprintf("stress-%d", i*stressBoots/len(stressors)+1), Quick: s.quick,
		})
	}
	return cases
}

// Subset returns the cases of a subset. What is quick runs in one machine.
func Subset(name string) ([]Case, error) {
	cases := Cases()
	switch name {
	case "full":
		return cases, nil
	case "quick":
		cases = slices.DeleteFunc(cases, func(c Case) bool { return !c.Quick })
		for i := range cases {
			cases[i].Boot = "quick"
		}
		return cases, nil
	}
	return nil, fmt.Errorf("select programs: no subset %q", name)
}
