// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/analysis/record"
	"github.com/wflp/wflp/realworld/server"
)

// Places in the guest.
const (
	outDir    = "/run/out"
	serverLog = "/run/server.log"
)

// runner runs the runs of a plan.
type runner struct {
	plan server.Plan
	srv  server.Server
}

// instance is the server as it runs.
type instance struct {
	cmd    *exec.Cmd
	done   chan error
	pid    int // of the process that serves
	argv   []string
	beside []*exec.Cmd
}

func read(path string) (string, error) {
	data, err := os.ReadFile(path)
	return string(data), err
}

// prepare makes what the packages' scripts and the unit make before a start.
func (r *runner) prepare(program string) error {
	for _, dir := range r.srv.Folders {
		u, err := user.Lookup(r.srv.Users[0])
		if err != nil {
			return fmt.Errorf("prepare %s: %w", dir, err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, uid, gid)); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	if err := os.Remove(r.srv.Binary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("put program in place: %w", err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(r.srv.Binary), 0o755), os.Symlink(program, r.srv.Binary)); err != nil {
		return fmt.Errorf("put program in place: %w", err)
	}
	return nil
}

// start starts a program as the server, and what it needs beside it.
func (r *runner) start(program string, env []string) (*instance, error) {
	if err := r.prepare(program); err != nil {
		return nil, err
	}
	log, err := os.Create(serverLog)
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	defer log.Close()
	in := &instance{}
	for _, b := range r.srv.Beside {
		cmd, err := start(confinement{CPUs: r.plan.ClientCPUs}, b.Argv, log)
		if err == nil {
			in.beside = append(in.beside, cmd)
			err = waitListening(b.Address, nil)
		}
		if err != nil {
			in.stop()
			return nil, err
		}
	}
	if err := r.serve(in, env, log); err != nil {
		in.stop()
		return nil, err
	}
	return in, nil
}

// serve starts the server itself.
func (r *runner) serve(in *instance, env []string, log *os.File) error {
	text, err := read(r.srv.Unit)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	unit, err := server.ParseUnit(text)
	if err != nil {
		return err
	}
	if in.argv, err = r.srv.Command(read); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if in.cmd, err = start(confinement{Unit: unit, CPUs: r.plan.ServerCPUs, Env: env}, in.argv, log); err != nil {
		return err
	}
	in.done = make(chan error, 1)
	go func() { in.done <- in.cmd.Wait() }()
	if err := waitListening(r.srv.Address, in.done); err != nil {
		return err
	}
	in.pid = in.cmd.Process.Pid
	if r.srv.Worker {
		in.pid, err = child(in.pid)
	}
	return err
}

// end ends the server as systemd does, and waits until it is gone.
func (in *instance) end() error {
	if in.cmd == nil {
		return nil
	}
	in.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-in.done:
		in.cmd = nil
		return nil
	case <-time.After(90 * time.Second):
		in.cmd.Process.Kill()
		return errors.New("end server: it did not end within 90 s")
	}
}

func (in *instance) stop() {
	in.end()
	for _, cmd := range in.beside {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// serverSaid is the end of what the server printed.
func (r *runner) serverSaid() string {
	data, _ := os.ReadFile(serverLog)
	if len(data) > 2000 {
		data = data[len(data)-2000:]
	}
	return "server: " + strings.TrimSpace(string(data))
}

// shares measures what server and clients take of the processors.
type shares struct{ at, server, client int64 }

func (r *runner) shares(in *instance) shares {
	return shares{now(), cpuTime(in.pid), cpuTime(os.Getpid())}
}

func (a shares) since(b shares) (server, client float64) {
	d := float64(a.at-b.at) / 100
	return float64(a.server-b.server) / d, float64(a.client-b.client) / d
}

// calibrate finds out how many requests a second there can be.
func (r *runner) calibrate() (server.Calibration, error) {
	// Each client may hold one in a system call of its own.
	runtime.GOMAXPROCS(r.plan.Clients + 8)
	var c server.Calibration
	in, err := r.start(r.plan.Without, nil)
	if err != nil {
		return c, err
	}
	defer in.stop()
	cl, err := connect(r.srv, r.plan.Clients)
	if err != nil {
		return c, err
	}
	defer cl.close()
	d := time.Duration(r.plan.CalibrateMS) * time.Millisecond
	cl.busy(d/2, r.plan.Seed) // the first requests fill caches and stores
	before := r.shares(in)
	c.Rate = cl.busy(d, r.plan.Seed+1)
	c.ServerPct, c.ClientPct = r.shares(in).since(before)
	if cl.lost+cl.wrong > 0 {
		return c, fmt.Errorf("requests failed: %s", strings.Join(cl.complaints, "; "))
	}
	return c, nil
}

func (r *runner) run(n int, run server.Run, capacity float64) (server.RunOutcome, error) {
	o := server.RunOutcome{Run: run, Rate: capacity * float64(run.UtilisationPct) / 100}
	how, err := r.method(run.Strategy)
	if err != nil {
		return o, err
	}
	in, err := r.start(r.plan.Without, how.env())
	if err != nil {
		return o, err
	}
	defer in.stop()
	o.Argv = in.argv
	cl, err := connect(r.srv, r.plan.Clients)
	if err != nil {
		return o, err
	}
	defer cl.close()
	o.Threads = threads(in.pid)
	// A refusal may close the connection that it came over, so each question
	// has one of its own.
	probe := r.srv.Probe(r.plan.Fix)
	if probe != nil {
		o.Probes = append(o.Probes, r.fresh(probe, false))
	}
	before := r.shares(in)
	o.StartNS = now() + (100 * time.Millisecond).Nanoseconds()
	patched := make(chan struct{})
	go func() {
		defer close(patched)
		for i, ms := range run.PatchAtMS {
			undo := i%2 == 1
			// Made now, and not with the others: a server hangs up on who says nothing for long.
			var witness net.Conn
			var unmade error
			asks := probe != nil && run.Strategy != record.None && run.Strategy != record.Restart && !undo
			if asks {
				witness, unmade = net.DialTimeout("tcp", r.srv.Address, dialTimeout)
			}
			sleepUntil(o.StartNS + int64(ms)*1e6)
			p := server.PatchOutcome{Undo: undo, QueuedNS: now()}
			p.Over, err = how.change(in, undo)
			p.DoneNS = now()
			p.Memory = memory(in.pid)
			if err != nil {
				p.Error = err.Error()
			}
			o.Patches = append(o.Patches, p)
			// A restart leaves no connection that is older.
			if asks && unmade != nil {
				o.Probes = append(o.Probes, server.ProbeOutcome{Patched: true, Older: true, Error: unmade.Error()})
			} else if asks {
				o.Probes = append(o.Probes, ask(probe, witness, true, true))
				witness.Close()
			}
		}
	}()
	samples := cl.open(o.StartNS, time.Duration(run.DurationMS)*time.Millisecond, o.Rate, r.plan.Seed+uint64(n))
	<-patched
	o.ServerPct, o.ClientPct = r.shares(in).since(before)
	if run.Strategy == record.Restart {
		o.ServerPct = 0 // of more than one process
	}
	if probe != nil && run.Strategy != record.None {
		o.Probes = append(o.Probes, r.fresh(probe, len(run.PatchAtMS)%2 == 1))
	}
	o.Requests, o.Lost, o.Wrong, o.Dropped = int64(len(samples)), cl.lost, cl.wrong, cl.ended.Load()
	o.Complaints = cl.complaints
	if n := cl.dials.Load() - int64(r.plan.Clients) - o.Dropped; n > 0 {
		o.Complaints = append(o.Complaints, fmt.Sprintf("%d connections made anew by clients, of their own accord", n))
	}
	o.Samples = filepath.Join(outDir, fmt.Sprintf("samples-%d", n))
	return o, writeSamples(o.Samples, samples)
}

// fresh asks over a new connection.
func (r *runner) fresh(p *server.Probe, patched bool) server.ProbeOutcome {
	conn, err := net.DialTimeout("tcp", r.srv.Address, dialTimeout)
	if err != nil {
		return server.ProbeOutcome{Patched: patched, Error: err.Error()}
	}
	defer conn.Close()
	return ask(p, conn, patched, false)
}

func ask(p *server.Probe, conn net.Conn, patched, older bool) server.ProbeOutcome {
	o := server.ProbeOutcome{Patched: patched, Older: older}
	conn.SetDeadline(time.Now().Add(time.Minute))
	var err error
	if o.Defect, o.Said, err = p.Ask(conn); err != nil {
		o.Error = err.Error()
	}
	return o
}

func writeSamples(path string, samples []server.Sample) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	if err := errors.Join(binary.Write(f, binary.LittleEndian, samples), f.Close()); err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return nil
}

// method is how the code of a running server is changed.
type method interface {
	env() []string // of the server
	// change has the server run the program with the fix, or without it again,
	// and returns when no thread can run the other.
	change(in *instance, undo bool) (server.Over, error)
}

func (r *runner) method(s record.Strategy) (method, error) {
	switch s {
	case record.None:
		return nothing{}, nil
	case record.Restart:
		return restart{r}, nil
	case record.WaitFree, record.Barrier, record.StopWorld:
		if r.plan.Patch == "" {
			return nil, fmt.Errorf("patch by strategy %s: the plan has no patch", s)
		}
		return preloaded{r.plan.Patch, s, r.srv.Sites}, nil
	}
	return nil, fmt.Errorf("patch: no strategy %q", s)
}

type nothing struct{}

func (nothing) env() []string { return nil }

func (nothing) change(*instance, bool) (server.Over, error) { return server.Over{}, nil }

type restart struct{ r *runner }

func (restart) env() []string { return nil }

func (m restart) change(in *instance, undo bool) (server.Over, error) {
	var none server.Over
	program := m.r.plan.With
	if undo {
		program = m.r.plan.Without
	}
	if err := in.end(); err != nil {
		return none, err
	}
	if err := m.r.prepare(program); err != nil {
		return none, err
	}
	log, err := os.OpenFile(serverLog, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return none, fmt.Errorf("restart server: %w", err)
	}
	defer log.Close()
	return none, m.r.serve(in, nil, log)
}

// In a machine the agent's limits are root's; what a server wants of the kernel
// is set once.
func tune() error {
	for path, value := range map[string]string{
		"/proc/sys/vm/overcommit_memory": "1",    // as redis asks for
		"/proc/sys/net/core/somaxconn":   "4096", // as every current distribution
		"/proc/sys/vm/mm_view":           "2",    // also for programs under a filter
	} {
		if err := os.WriteFile(path, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	return nil
}
