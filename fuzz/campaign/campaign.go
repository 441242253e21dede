// SPDX-License-Identifier: Apache-2.0

// Package campaign fuzzes the mechanism: it makes scenarios, runs them in
// machines, judges them, keeps those that covered something new to make others
// from, and keeps what was found. Killed at any moment and started again, it goes
// on: an iteration is in the log whole or not at all, and everything else it knows
// is made from the log and the corpus.
package campaign

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/wflp/wflp/fuzz/attempt"
	"github.com/wflp/wflp/fuzz/finding"
	"github.com/wflp/wflp/fuzz/oracle"
	"github.com/wflp/wflp/fuzz/scenario"
	"github.com/wflp/wflp/internal/build"
	"github.com/wflp/wflp/vmimages/vm"
)

// Lane is a kind of machine that takes its turn in a campaign.
type Lane struct {
	attempt.Setup
	// Weight is how many of the iterations are its own, against the other lanes.
	Weight int `json:"weight"`
	// Batch is how many scenarios one machine runs before it is thrown away.
	Batch int `json:"batch"`
	// Kernel, Image and Emulator are digests of what its machines are made of.
	Kernel   string `json:"kernel"`
	Image    string `json:"image"`
	Emulator string `json:"emulator"`
}

// MadeOf notes what the lane's machines are made of.
func (l *Lane) MadeOf(kit attempt.Kit) {
	l.Kernel, l.Image, l.Emulator = kit.Kernel.Digest, filepath.Base(kit.Image), cmp.Or(kit.Emulator.Manifest.Digest, "host")
}

// slots is how many of the host's processors a machine keeps busy.
func (l Lane) slots() int64 {
	if l.Mode == vm.Deterministic {
		return 1
	}
	return int64(l.CPUs)
}

// Settings are what a campaign is. A folder belongs to one of them.
type Settings struct {
	Format int    `json:"format"`
	Seed   uint64 `json:"seed"`
	Lanes  []Lane `json:"lanes"`
	// Blind campaigns generate each scenario afresh, whatever was covered.
	Blind bool `json:"blind,omitempty"`
	// Shard of Shards: it runs the iterations N for which N mod Shards is Shard.
	Shard  uint64 `json:"shard,omitempty"`
	Shards uint64 `json:"shards,omitempty"`
}

// Bounds end a campaign; 0 is no bound. They are no part of what it is: it can be
// gone on with under others.
type Bounds struct {
	Time       time.Duration // of the campaign's own, over all its starts
	More       time.Duration // of this start
	Iterations int           // over all its starts
	Findings   int           // titles
}

// Campaign is one that runs.
type Campaign struct {
	Dir      string
	Settings Settings
	Bounds   Bounds
	// Jobs is how many processors of the host it keeps busy.
	Jobs int
	Kits map[string]attempt.Kit // by Setup.String()
	// Try makes an attempt; nil: in machines made of Kits.
	Try attempt.Runner
	// Confirm is how often a new title is run again, outside of deterministic
	// mode; there it is once.
	Confirm int
	// Able says that this host is known to run machines of all lanes in their time.
	// A campaign that is not told so learns it from its own.
	Able bool
	// On is told the status when it has changed, from one goroutine at a time.
	On func(Status)

	mu      sync.Mutex
	log     *log
	corpus  *corpus
	st      Status
	pcs     map[uint64]bool
	pairs   map[uint32]bool
	next    uint64
	done    map[uint64]bool
	titles  map[string]bool
	stood   map[string]int // machines in a row that got nowhere, by lane
	began   time.Time
	before  time.Duration // of earlier starts
	flushed time.Time
}

// Format is the version of a campaign's folder.
const Format = 1

// Run runs the campaign until a bound is reached or ctx is done. An interrupt is
// no error: what was done is in the folder.
func (c *Campaign) Run(ctx context.Context) error {
	if c.Try == nil {
		c.Try = func(ctx context.Context, a attempt.Attempt) (*attempt.Result, error) {
			return attempt.Machines(c.Kits[a.Setup.String()], "")(ctx, a)
		}
	}
	if err := c.open(); err != nil {
		return err
	}
	defer c.log.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := semaphore.NewWeighted(int64(max(c.Jobs, 1)))
	var wg sync.WaitGroup
	var failed error
	for ctx.Err() == nil {
		a := c.assign()
		if a == nil {
			// A machine that goes down gives back what it did not come to.
			wg.Wait()
			if a = c.assign(); a == nil {
				break
			}
		}
		need := min(a.lane.slots(), int64(max(c.Jobs, 1)))
		if slots.Acquire(ctx, need) != nil || c.expired() {
			break
		}
		wg.Go(func() {
			defer slots.Release(need)
			if err := c.run(ctx, a); err != nil {
				c.mu.Lock()
				if failed == nil && ctx.Err() == nil {
					failed = err
				}
				c.mu.Unlock()
				cancel()
			}
		})
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(failed, c.flush(true))
}

// open reads what there is.
func (c *Campaign) open() error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return fmt.Errorf("open campaign: %w", err)
	}
	c.Settings.Format = Format
	c.Settings.Shards = max(c.Settings.Shards, 1)
	if c.Settings.Shard >= c.Settings.Shards {
		return fmt.Errorf("open campaign: shard %d of %d: the first is 0", c.Settings.Shard, c.Settings.Shards)
	}
	var err error
	var entries []Entry
	if c.log, entries, err = openLog(c.Dir); err != nil {
		return fmt.Errorf("open campaign: %w", err)
	}
	if err := c.settle(); err != nil {
		c.log.close()
		return err
	}
	if c.corpus, err = openCorpus(filepath.Join(c.Dir, CorpusName)); err != nil {
		c.log.close()
		return fmt.Errorf("open campaign: %w", err)
	}
	c.pcs, c.pairs = map[uint64]bool{}, map[uint32]bool{}
	c.done, c.titles, c.stood = map[uint64]bool{}, map[string]bool{}, map[string]int{}
	c.st = newStatus(c.Settings)
	for _, e := range entries {
		c.fold(e)
		c.before = max(c.before, time.Duration(e.AtS*float64(time.Second)))
	}
	c.next = c.Settings.Shard
	c.began = time.Now()
	return nil
}

// settle writes the settings into a new folder, or sees that they are those of
// the old one.
func (c *Campaign) settle() error {
	path := filepath.Join(c.Dir, SettingsName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if b, err = json.MarshalIndent(c.Settings, "", "  "); err == nil {
			err = build.WriteFileAtomic(path, append(b, '\n'), 0o644)
		}
		if err != nil {
			return fmt.Errorf("open campaign: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("open campaign: %w", err)
	}
	var old Settings
	if err := json.Unmarshal(b, &old); err != nil {
		return fmt.Errorf("open campaign: %s: %w", path, err)
	}
	if d := differences(old, c.Settings); d != "" {
		return fmt.Errorf("open campaign: %s was begun with another %s; choose another folder, or go on with what it was begun with", c.Dir, d)
	}
	return nil
}

// differences names the first setting that is not the same.
func differences(a, b Settings) string {
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range va.NumField() {
		if !reflect.DeepEqual(va.Field(i).Interface(), vb.Field(i).Interface()) {
			f := va.Type().Field(i)
			return fmt.Sprintf("%s (%v, now %v)", f.Name, va.Field(i).Interface(), vb.Field(i).Interface())
		}
	}
	return ""
}

// assignment is what a machine is to do.
type assignment struct {
	lane  Lane
	a     attempt.Attempt
	items []item
}

type item struct {
	n      uint64
	origin Origin
	parent *interesting
}

// lane draws a lane by the weights.
func (s Settings) lane(rng *rand.Rand) Lane {
	sum := 0
	for _, l := range s.Lanes {
		sum += l.Weight
	}
	x := rng.IntN(sum)
	for _, l := range s.Lanes {
		if x -= l.Weight; x < 0 {
			return l
		}
	}
	panic("unreachable: x is below the sum of the weights")
}

// assign makes the next assignment; nil if a bound is reached.
func (c *Campaign) assign() *assignment {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expiredLocked() || c.full() {
		return nil
	}
	for c.done[c.next] {
		c.next += c.Settings.Shards
	}
	// The lane follows from the number of the first iteration alone, so that a
	// campaign that goes on uses the same one for it.
	rng := rand.New(rand.NewPCG(c.Settings.Seed, c.next))
	out := &assignment{lane: c.Settings.lane(rng)}
	out.a = attempt.Attempt{Setup: out.lane.Setup, Schedule: rng.Uint64() >> 1}
	for range max(out.lane.Batch, 1) {
		if c.full() {
			break
		}
		s, it := c.choose(c.next)
		out.a.Scenarios = append(out.a.Scenarios, s)
		out.items = append(out.items, it)
		c.done[c.next] = true // taken; what is not in the log at the next start is run then
		c.next += c.Settings.Shards
		for c.done[c.next] {
			c.next += c.Settings.Shards
		}
	}
	return out
}

// choose makes the scenario of iteration n.
func (c *Campaign) choose(n uint64) (*scenario.Scenario, item) {
	rng := rand.New(rand.NewPCG(c.Settings.Seed^0x9e3779b97f4a7c15, n))
	x := rng.Float64()
	if c.Settings.Blind || len(c.corpus.list) < 4 || x < 0.25 {
		return scenario.Generate(rng.Uint64(), scenario.Knobs{}), item{n: n, origin: Fresh}
	}
	e := c.corpus.pick(rng)
	e.picked++
	if x < 0.45 {
		return e.s, item{n, Again, e}
	}
	return e.s.Mutate(rng.Uint64(), c.corpus.donors(rng)), item{n, Mutant, e}
}

// expired says that what was assigned and not begun is not to be begun.
func (c *Campaign) expired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expiredLocked()
}

func (c *Campaign) expiredLocked() bool {
	b := c.Bounds
	return b.Time > 0 && c.elapsed() >= b.Time || b.More > 0 && time.Since(c.began) >= b.More || b.Findings > 0 && len(c.titles) >= b.Findings
}

// full says that all iterations are assigned.
func (c *Campaign) full() bool {
	return c.Bounds.Iterations > 0 && len(c.done) >= c.Bounds.Iterations
}

func (c *Campaign) elapsed() time.Duration { return c.before + time.Since(c.began) }

// starts is how often a machine that does not come up is tried.
const starts = 3

// standing is how many machines of a lane in a row may stand until their time is
// over, not one scenario judged, before the campaign gives up.
const standing = 5

// StandError says that the machines of a lane start and then get nowhere. It
// carries what there is to see of the last one.
type StandError struct {
	Lane    string
	Attempt attempt.Attempt // the last one
	Limit   time.Duration   // that each was given
	Console []byte          // its end
	QEMU    string          // what QEMU said
}

func (e *StandError) Error() string {
	msg := fmt.Sprintf("%d machines of %s in a row started and were ended after their limit of %s, and no scenario could be judged: either this host is far too slow for them, or QEMU or the kernel stands still",
		standing, e.Lane, e.Limit)
	if e.QEMU != "" {
		msg += "\nqemu: " + e.QEMU
	}
	if len(e.Console) > 0 {
		return msg + "\nconsole of the last one ends:\n" + string(e.Console)
	}
	return msg + "\nthe last one wrote nothing to its console"
}

// gets counts the machines of a lane that got nowhere.
func (c *Campaign) gets(as *assignment, res *attempt.Result) error {
	lane := as.lane.String()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !res.Stood() {
		c.stood[lane] = 0
		return nil
	}
	if c.stood[lane]++; c.stood[lane] < standing {
		return nil
	}
	return &StandError{Lane: lane, Attempt: as.a, Limit: res.Limit, Console: res.Console[max(0, len(res.Console)-consoleEnd):], QEMU: res.QEMULog}
}

// consoleEnd is how much of a console an error carries.
const consoleEnd = 2000

// run makes an attempt and takes down what came of it.
func (c *Campaign) run(ctx context.Context, as *assignment) error {
	var res *attempt.Result
	for try := 1; ; try++ {
		var err error
		res, err = c.Try(ctx, as.a)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		var be *vm.BootError
		if !errors.As(err, &be) {
			return err
		}
		why, _, _ := strings.Cut(be.Error(), "\n")
		e := Entry{Machine: true, Lane: as.lane.String(), Schedule: as.a.Schedule, Note: why, AtS: c.elapsed().Seconds()}
		if err := c.enter(e); err != nil {
			return err
		}
		if try == starts {
			return fmt.Errorf("a machine of %s did not start %d times in a row: %w", as.lane, starts, err)
		}
	}
	if ctx.Err() != nil && res.End == vm.Killed {
		return nil // not an end of its own
	}
	return errors.Join(c.take(ctx, as, res), c.gets(as, res))
}

// take logs the outcomes. Those whose turn never came, since the machine went
// down before, are free to be assigned again.
func (c *Campaign) take(ctx context.Context, as *assignment, res *attempt.Result) error {
	begun := 0
	for _, o := range res.Outcomes {
		if o.Begun {
			begun++
		}
	}
	share := res.Duration.Seconds() * 1000 / float64(max(begun, 1))
	for i, o := range res.Outcomes {
		it := as.items[i]
		if !o.Begun {
			c.mu.Lock()
			delete(c.done, it.n)
			c.next = min(c.next, it.n)
			c.mu.Unlock()
			continue
		}
		e := Entry{N: it.n, Lane: as.lane.String(), Schedule: as.a.Schedule, Scenario: o.Scenario.ID(), Origin: it.origin,
			Status: o.Verdict.Status, Title: o.Title, Ops: o.Verdict.Ops, GuestNS: o.GuestNS, HostMS: share, AtS: c.elapsed().Seconds()}
		if it.parent != nil {
			e.Parent = it.parent.id
		}
		if o.Title == attempt.Stands {
			ok, err := c.stands(ctx, as, i)
			if err != nil || ctx.Err() != nil {
				return err
			}
			if e.Title = ""; ok {
				e.Title, e.Status, e.Note = o.Title, oracle.Violated, stood(res.Limit)
			}
		}
		if o.Verdict.Status != oracle.Pass {
			e.Note = o.Verdict.Note
		}
		if e.Title != "" {
			if err := c.found(ctx, as, i, res, e); err != nil {
				return err
			}
		}
		if err := c.learn(&e, o, it); err != nil {
			return err
		}
	}
	return nil
}

// patience is how many times its limit a machine that stood is given when it is
// asked whether it stands or was slow.
const patience = 4

func stood(limit time.Duration) string {
	return fmt.Sprintf("it stood for %s, and again for %d times as long", limit, patience)
}

// stands says whether a machine of deterministic mode that was ended after its
// limit stands: others of its lane got somewhere on this host, and with the same
// seeds and much more time it does not get out of the same scenario.
func (c *Campaign) stands(ctx context.Context, as *assignment, i int) (bool, error) {
	c.mu.Lock()
	l := c.st.Lanes[as.lane.String()]
	ask := (c.Able || l != nil && l.Iterations > l.Undecided) && !c.titles[attempt.Stands]
	c.mu.Unlock()
	if !ask {
		return false, nil
	}
	a := as.a
	a.Scenarios, a.Patience = a.Scenarios[:i+1], patience
	res, err := c.Try(ctx, a)
	if err != nil {
		return false, fmt.Errorf("give a machine that stood more time: %w", err)
	}
	return res.Outcomes[i].Title == attempt.Stands, nil
}

// learn adds what is new of an outcome, and logs it.
func (c *Campaign) learn(e *Entry, o attempt.Outcome, it item) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pc := range o.Verdict.PCs {
		if !c.pcs[pc] {
			e.PCs = append(e.PCs, pc)
		}
	}
	for _, p := range o.Verdict.Pairs {
		if !c.pairs[p] {
			e.Pairs = append(e.Pairs, p)
		}
	}
	if len(e.PCs)+len(e.Pairs) > 0 {
		// The file comes before the line that speaks of it.
		if err := c.corpus.keep(o.Scenario); err != nil {
			return err
		}
	}
	return c.enterLocked(*e)
}

func (c *Campaign) enter(e Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.enterLocked(e)
}

func (c *Campaign) enterLocked(e Entry) error {
	if err := c.log.append(e); err != nil {
		return err
	}
	c.fold(e)
	return c.flush(false)
}

// fold adds an entry to what the campaign knows. A start that goes on folds the
// whole log.
func (c *Campaign) fold(e Entry) {
	c.st.fold(e)
	if e.Machine {
		return
	}
	c.done[e.N] = true
	for _, pc := range e.PCs {
		c.pcs[pc] = true
	}
	for _, p := range e.Pairs {
		c.pairs[p] = true
	}
	if len(e.PCs)+len(e.Pairs) > 0 {
		if p := c.corpus.byID[e.Parent]; p != nil {
			p.gained++
		}
	}
	if e.Title != "" {
		c.titles[e.Title] = true
	}
}

// found keeps the first of each title, after it has been run again.
func (c *Campaign) found(ctx context.Context, as *assignment, i int, res *attempt.Result, e Entry) error {
	c.mu.Lock()
	known := c.titles[e.Title]
	c.titles[e.Title] = true
	c.mu.Unlock()
	if known {
		return nil
	}
	upTo := *res
	upTo.Outcomes = res.Outcomes[:i+1]
	a := as.a
	a.Scenarios = a.Scenarios[:i+1]
	info := finding.Info{Title: e.Title, Attempt: a, Found: time.Now().UTC().Truncate(time.Second),
		From: fmt.Sprintf("campaign of seed %d, iteration %d", c.Settings.Seed, e.N)}
	// What ran after it in the same machine is on the console, too; the finding is
	// of a machine without that.
	runs := max(c.Confirm, 1)
	if as.lane.Mode == vm.Deterministic {
		runs = 1
	}
	f := &finding.Finding{Info: info}
	var first *attempt.Result
	if i+1 < len(as.a.Scenarios) {
		r, err := c.Try(ctx, a)
		if err != nil {
			return fmt.Errorf("run finding again: %w", err)
		}
		if first = r; r.Outcomes[i].Title != e.Title {
			// Not the same without what came after, or not every time.
			first = &upTo
		}
	} else {
		first = &upTo
	}
	if e.Title == attempt.Stands {
		v := &first.Outcomes[i].Verdict
		v.Status, v.Note, v.ByKind = oracle.Violated, stood(res.Limit), map[oracle.Kind]int{oracle.Hang: 1}
	}
	f.Info.Result = first.Digest()
	again, err := f.Replay(ctx, c.Try, runs, nil)
	if err != nil {
		return fmt.Errorf("run finding again: %w", err)
	}
	if ctx.Err() != nil {
		// It is not in the log either, so it is found once more.
		return ctx.Err()
	}
	info.Again, info.Exact = &again.Rate, as.lane.Mode == vm.Deterministic && again.Hits == again.Runs && again.Same == again.Runs
	if _, err := finding.Write(filepath.Join(c.Dir, FindingsName), info, c.Kits[as.lane.String()], first); err != nil {
		return err
	}
	return c.log.sync()
}
