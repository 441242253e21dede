// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/realworld/server"
)

// preloaded has the library that is preloaded change the code. It is spoken to
// over its control socket as wflp ctl does, but without a process in between,
// whose start would be part of the times.
type preloaded struct {
	patch    string
	strategy record.Strategy
	sites    string
}

// preload is where the library is in the guest.
const preload = "/usr/lib/wflp/libwflp-preload.so"

func (m preloaded) env() []string {
	return []string{"LD_PRELOAD=" + preload, "WFLP_STRATEGY=" + string(m.strategy), "WFLP_SITES=" + m.sites}
}

// overWithin is how long a thread may take to get over to other code. One that
// never does is what a run is to find out.
const overWithin = 20 * time.Second

func (m preloaded) change(in *instance, undo bool) (server.Over, error) {
	request, file := "undo", []byte(nil)
	if !undo {
		var err error
		if file, err = os.ReadFile(m.patch); err != nil {
			return server.Over{}, fmt.Errorf("apply patch: %w", err)
		}
		request = fmt.Sprintf("apply %d", len(file))
	}
	if _, err := control(in.pid, request, file); err != nil {
		return server.Over{}, err
	}
	// The state of each thread is the kernel's word; see control.c.
	for deadline := time.Now().Add(overWithin); ; {
		lines, err := control(in.pid, "status", nil)
		if err != nil {
			return server.Over{}, err
		}
		s, err := parseStatus(lines)
		if err != nil || s.over == "yes" {
			return s.last, err
		}
		if time.Now().After(deadline) {
			return s.last, fmt.Errorf("wait for all threads: after %v the answer is %q: %s", overWithin, s.over, strings.Join(s.behind, "; "))
		}
		time.Sleep(time.Millisecond)
	}
}

// control sends a request to the library in a process.
func control(pid int, request string, file []byte) ([]string, error) {
	what, _, _ := strings.Cut(request, " ")
	conn, err := net.DialTimeout("unix", "@wflp/"+strconv.Itoa(pid), dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(append([]byte(request+"\n"), file...)); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	lines, err := reply(conn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return lines, nil
}

// reply reads lines up to the one that says how it went.
func reply(r io.Reader) ([]string, error) {
	var lines []string
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Split(sc.Text(), "\t")
		switch {
		case f[0] != "end":
			lines = append(lines, sc.Text())
		case len(f) > 1 && f[1] == "ok":
			return lines, nil
		default:
			return nil, errors.New(strings.Join(f[1:], " "))
		}
	}
	return nil, errors.Join(errors.New("the answer has no end"), sc.Err())
}

// status is what the library says of itself.
type status struct {
	over   string // yes, no or unknown
	last   server.Over
	behind []string // threads that are not over
}

func parseStatus(lines []string) (status, error) {
	var s status
	for _, line := range lines {
		f := strings.Split(line, "\t")
		switch {
		case f[0] == "over" && len(f) == 2:
			s.over = f[1]
		case f[0] == "thread" && len(f) == 6 && f[4] != "yes":
			s.behind = append(s.behind, fmt.Sprintf("thread %s (%s, %s): %s", f[1], f[5], f[2], f[4]))
		case f[0] == "last" && len(f) == 16:
			// ticket, stage, error; five times till sealed, four more; three counts.
			var n [16]int64
			for i := 1; i < len(f); i++ {
				v, err := strconv.ParseInt(f[i], 10, 64)
				if err != nil {
					return s, fmt.Errorf("read status: %q: %w", line, err)
				}
				n[i] = v
			}
			s.last = server.Over{PublishedNS: n[9], FirstOverNS: n[10], LastOverNS: n[11], Threads: int(n[13]), Migrated: int(n[14]), Pulled: int(n[15])}
			if n[3] != 0 {
				return s, fmt.Errorf("change code: error %d", n[3])
			}
		}
	}
	if s.over == "" {
		return s, errors.New("read status: it does not say whether all threads are over")
	}
	return s, nil
}
