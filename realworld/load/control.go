// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/kernel/control"
	"github.com/wflp/wflp/realworld/server"
)

// preloaded has the library that is preloaded change the code. It is spoken to
// as wflp ctl does, but without a process in between, whose start would be part
// of the times.
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

// overWithin is how long threads may take to get over to other code. One that
// never does is what a run is to find out.
const overWithin = 20 * time.Second

func (m preloaded) change(in *instance, undo bool) (server.Over, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), overWithin, fmt.Errorf("not over within %v", overWithin))
	defer cancel()
	var err error
	if undo {
		err = control.Undo(ctx, in.pid)
	} else {
		var file []byte
		if file, err = os.ReadFile(m.patch); err == nil {
			err = control.Apply(ctx, in.pid, file)
		}
	}
	if err != nil {
		return server.Over{}, fmt.Errorf("change code: %w", err)
	}
	s, err := control.Wait(ctx, in.pid)
	if err != nil {
		err = fmt.Errorf("wait for all threads: %w%s", err, behind(s))
	}
	if s == nil || s.Last == nil {
		return server.Over{}, err
	}
	if s.Last.Errno != 0 && err == nil {
		err = fmt.Errorf("change code: error %d", s.Last.Errno)
	}
	return server.Over{PublishedNS: int64(s.Last.PublishedNS), FirstOverNS: int64(s.Last.FirstOverNS), LastOverNS: int64(s.Last.LastOverNS),
		Threads: s.Last.Threads, Migrated: s.Last.Migrated, Pulled: s.Last.Pulled}, err
}

// behind names the threads that are not over.
func behind(s *control.Status) string {
	var out strings.Builder
	if s != nil {
		for _, t := range s.Threads {
			if t.Over != "yes" {
				fmt.Fprintf(&out, "; thread %d (%s, %s): %s", t.TID, t.Name, t.Kind, t.Over)
			}
		}
	}
	return out.String()
}
