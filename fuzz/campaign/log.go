// SPDX-License-Identifier: Apache-2.0

package campaign

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wflp/wflp/fuzz/oracle"
)

// Names within the folder of a campaign.
const (
	SettingsName = "campaign.json"
	LogName      = "log.jsonl"
	CorpusName   = "corpus"
	FindingsName = "findings"
	StatusName   = "status.json"
	PageName     = "status.html"
)

// Origin says where a scenario comes from.
type Origin string

// The origins.
const (
	Fresh  Origin = "fresh"  // generated
	Mutant Origin = "mutant" // of one in the corpus
	Again  Origin = "again"  // one in the corpus, under another schedule
)

// Entry is one iteration: one scenario run once. The log of a campaign is these,
// one a line; all else that a campaign knows is made from them and the corpus.
type Entry struct {
	// N is the number of the iteration: what it runs follows from it, from the
	// campaign's seed, and from the corpus as it was.
	N        uint64        `json:"n"`
	Lane     string        `json:"lane"`
	Schedule uint64        `json:"schedule"`
	Scenario string        `json:"scenario"` // ID
	Origin   Origin        `json:"origin"`
	Parent   string        `json:"parent,omitempty"`
	Status   oracle.Status `json:"status"`
	Title    string        `json:"title,omitempty"`
	Note     string        `json:"note,omitempty"`
	Ops      int           `json:"ops"`
	// PCs and Pairs are what no iteration before it, in this log, had covered.
	PCs   []uint64 `json:"pcs,omitempty"`
	Pairs []uint32 `json:"pairs,omitempty"`
	// GuestNS is the guest's time, HostMS its share of the machine's time on the
	// host, start included.
	GuestNS int64   `json:"guest_ns"`
	HostMS  float64 `json:"host_ms"`
	// AtS is the campaign's own time: the seconds that it has run, without those
	// that it was stopped.
	AtS float64 `json:"at_s"`
	// Machine: this line is of a machine that did not start, and of no iteration.
	Machine bool `json:"machine,omitempty"`
}

// ErrLocked says that another process works in the folder.
var ErrLocked = errors.New("in use by another campaign")

// log appends entries to a file. A line that is not whole, which only a kill
// leaves and only at the end, is cut off when it is opened.
type log struct {
	f *os.File
}

func openLog(dir string) (*log, []Entry, error) {
	path := filepath.Join(dir, LogName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	// The kernel drops this lock when the process ends, however it ends.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open log %s: %w", path, ErrLocked)
	}
	entries, size, err := parseLog(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return &log{f}, entries, nil
}

// parseLog reads whole lines and returns how many bytes these are.
func parseLog(r io.Reader) (entries []Entry, size int64, err error) {
	in := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return entries, size, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read line %d: %w", n, err)
		}
		var e Entry
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		entries = append(entries, e)
		size += int64(len(line))
	}
}

// ReadLog reads the log of a campaign, also of one that runs.
func ReadLog(dir string) ([]Entry, error) {
	f, err := os.Open(filepath.Join(dir, LogName))
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	entries, _, err := parseLog(f)
	if err != nil {
		return nil, fmt.Errorf("read log %s: %w", f.Name(), err)
	}
	return entries, nil
}

// append writes entries in one call: a kill leaves them all, or a torn tail that
// the next start cuts off. What must survive a crash of the host is synced at
// the end and with each finding.
func (l *log) append(entries ...Entry) error {
	var b []byte
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("append to log: %w", err)
		}
		b = append(append(b, line...), '\n')
	}
	if _, err := l.f.Write(b); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

func (l *log) sync() error {
	if err := l.f.Sync(); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

func (l *log) close() error { return errors.Join(l.sync(), l.f.Close()) }
