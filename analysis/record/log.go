// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
)

// Names of the files in the folder of a run.
const (
	LogName      = "records.jsonl"
	ManifestName = "manifest.json"
)

// ErrLocked says that another process has the log open for writing.
var ErrLocked = errors.New("in use by another run")

// Log is an open log. Its methods may be called from several goroutines.
type Log struct {
	mu   sync.Mutex
	f    *os.File
	size int64 // of the whole units; what lies beyond is rubbish
	done map[string]bool
	bad  error // a write failed half-way and could not be undone
}

// Open opens the log of a run for appending and creates it if need be.  A unit
// that is not whole, which only a kill or a full disk leaves and only at the end,
// is cut off.  Damage anywhere else is an error: the log is evidence, and is not
// repaired silently.
func Open(dir string) (*Log, error) {
	path := filepath.Join(dir, LogName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l, err := open(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return l, syncDir(dir)
}

func open(f *os.File) (*Log, error) {
	// Two runs in one folder would do everything twice and cut each other's
	// tails off.  The kernel drops this lock when the process ends, however it
	// ends, so a kill leaves nothing to clean up.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, ErrLocked
	}
	units, size, err := parse(f)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, fmt.Errorf("cut partial unit: %w", err)
	}
	l := &Log{f: f, size: size, done: make(map[string]bool, len(units))}
	for _, u := range units {
		l.done[u.Key] = true
	}
	return l, nil
}

// Done says whether the unit of this key is in the log.
func (l *Log) Done(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[key]
}

// Len is the number of units in the log.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.done)
}

// Append adds a unit and returns when it is on disk.  A unit that is there
// already is an error.
func (l *Log) Append(u Unit) error {
	b, err := encode(u)
	if err != nil {
		return fmt.Errorf("append unit %s: %w", u.Key, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.bad != nil:
		return fmt.Errorf("append unit %s: %w", u.Key, l.bad)
	case l.done[u.Key]:
		return fmt.Errorf("append unit %s: it is in the log already", u.Key)
	}
	_, err = l.f.WriteAt(b, l.size)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		// Later units must not follow half a unit.
		if e := l.f.Truncate(l.size); e != nil {
			l.bad = fmt.Errorf("undo partial write: %w", e)
		}
		return fmt.Errorf("append unit %s: %w", u.Key, err)
	}
	l.size += int64(len(b))
	l.done[u.Key] = true
	return nil
}

// Close closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = os.ErrClosed
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

func encode(u Unit) ([]byte, error) {
	if u.Key == "" {
		return nil, errors.New("it has no key")
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	n := 0
	put := func(l Line) error {
		l.Schema, l.Unit = Schema, u.Key
		n++
		return enc.Encode(l)
	}
	err := put(Line{Kind: KindBoot, Boot: &u.Boot})
	for i := 0; i < len(u.Trials) && err == nil; i++ {
		err = put(Line{Kind: KindTrial, Trial: &u.Trials[i]})
	}
	for i := 0; i < len(u.Programs) && err == nil; i++ {
		err = put(Line{Kind: KindProgram, Program: &u.Programs[i]})
	}
	for i := 0; i < len(u.Latencies) && err == nil; i++ {
		err = put(Line{Kind: KindLatency, Latency: &u.Latencies[i]})
	}
	for i := 0; i < len(u.Overs) && err == nil; i++ {
		err = put(Line{Kind: KindOver, Over: &u.Overs[i]})
	}
	for i := 0; i < len(u.Outcomes) && err == nil; i++ {
		err = put(Line{Kind: KindOutcome, Outcome: &u.Outcomes[i]})
	}
	for i := 0; i < len(u.Memories) && err == nil; i++ {
		err = put(Line{Kind: KindMemory, Memory: &u.Memories[i]})
	}
	for i := 0; i < len(u.Micros) && err == nil; i++ {
		err = put(Line{Kind: KindMicro, Micro: &u.Micros[i]})
	}
	if err != nil {
		return nil, err
	}
	end := End{Lines: n, CRC32: sum(crc32.ChecksumIEEE(buf.Bytes()))}
	if err := put(Line{Kind: KindEnd, End: &end}); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func sum(crc uint32) string { return fmt.Sprintf("%08x", crc) }

// ReadAll reads the log of a run: its whole units, sorted by key.  It does not
// lock, so it may be used while a run appends.
func ReadAll(dir string) ([]Unit, error) {
	f, err := os.Open(filepath.Join(dir, LogName))
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	units, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("read log %s: %w", f.Name(), err)
	}
	return units, nil
}

// Parse reads units from r and sorts them by key. A last unit that is not whole
// is left out.
func Parse(r io.Reader) ([]Unit, error) {
	units, _, err := parse(r)
	if err != nil {
		return nil, err
	}
	sort.Slice(units, func(i, j int) bool { return units[i].Key < units[j].Key })
	return units, nil
}

// parse returns the whole units in file order and the length of the part of r
// that they fill.
//
//	…}}\n            whole unit: counts
//	{…}\n{…}\n       begun, and the file ends: dropped
//	{…}\n{…          begun, and the file ends within a line: dropped
//	\0\0\0           a crash of the host may leave zeroes at the end: dropped
//	{…}\n{other      begun, and another unit follows: damage, an error
//
// So a line that does not parse is forgiven only if no whole line follows it.
func parse(r io.Reader) (units []Unit, size int64, err error) {
	br := bufio.NewReaderSize(r, 1<<20)
	var (
		at      int64 // bytes read
		cur     *Unit
		crc     uint32
		n       int
		number  int
		pending error // what is wrong with the last line, unless it is the last
		seen    = map[string]bool{}
	)
	for {
		line, rerr := br.ReadBytes('\n')
		if rerr != nil && rerr != io.EOF {
			return nil, 0, rerr
		}
		if rerr == io.EOF {
			// A line without its newline was being written when the run died.
			return units, size, nil
		}
		if pending != nil {
			return nil, 0, pending
		}
		number++
		at += int64(len(line))
		var l Line
		if err := json.Unmarshal(line, &l); err != nil {
			pending = fmt.Errorf("line %d: %w", number, err)
			continue
		}
		if l.Schema != Schema {
			return nil, 0, fmt.Errorf("line %d: schema %d, this program reads %d", number, l.Schema, Schema)
		}
		if l.Kind == KindBoot {
			if cur != nil {
				return nil, 0, fmt.Errorf("line %d: unit %s begins within unit %s", number, l.Unit, cur.Key)
			}
			if seen[l.Unit] {
				return nil, 0, fmt.Errorf("line %d: unit %s occurs twice", number, l.Unit)
			}
			cur, crc, n = &Unit{Key: l.Unit}, 0, 0
		}
		if cur == nil || cur.Key != l.Unit {
			return nil, 0, fmt.Errorf("line %d: %s of unit %s outside of it", number, l.Kind, l.Unit)
		}
		if l.Kind == KindEnd && l.End != nil {
			if l.End.Lines != n || l.End.CRC32 != sum(crc) {
				return nil, 0, fmt.Errorf("line %d: unit %s is damaged: %d lines with checksum %s, it says %d with %s",
					number, l.Unit, n, sum(crc), l.End.Lines, l.End.CRC32)
			}
			seen[cur.Key] = true
			units = append(units, *cur)
			cur, size = nil, at
			continue
		}
		if err := cur.add(l); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", number, err)
		}
		crc = crc32.Update(crc, crc32.IEEETable, line)
		n++
	}
}

func (u *Unit) add(l Line) error {
	switch {
	case l.Kind == KindBoot && l.Boot != nil:
		u.Boot = *l.Boot
	case l.Kind == KindTrial && l.Trial != nil:
		u.Trials = append(u.Trials, *l.Trial)
	case l.Kind == KindProgram && l.Program != nil:
		u.Programs = append(u.Programs, *l.Program)
	case l.Kind == KindLatency && l.Latency != nil:
		u.Latencies = append(u.Latencies, *l.Latency)
	case l.Kind == KindOver && l.Over != nil:
		u.Overs = append(u.Overs, *l.Over)
	case l.Kind == KindOutcome && l.Outcome != nil:
		u.Outcomes = append(u.Outcomes, *l.Outcome)
	case l.Kind == KindMemory && l.Memory != nil:
		u.Memories = append(u.Memories, *l.Memory)
	case l.Kind == KindMicro && l.Micro != nil:
		u.Micros = append(u.Micros, *l.Micro)
	default:
		return fmt.Errorf("kind %q without such a payload", l.Kind)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
