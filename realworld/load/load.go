// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/realworld/server"
)

// clients are all connections to one server.
type clients struct {
	list  []server.Client
	dials atomic.Int64
	ended atomic.Int64 // connections, by the server
	// Guarded by mu.
	mu         sync.Mutex
	complaints []string
	lost       int64
	wrong      int64
}

// connect makes n clients, each with its connection. Network timeouts are the
// clients' own.
func connect(srv server.Server, n int) (*clients, error) {
	c := &clients{}
	for id := range n {
		cl, err := srv.Connect(func(address string) (net.Conn, error) {
			conn, err := net.DialTimeout("tcp", address, dialTimeout)
			if err != nil {
				return nil, err
			}
			c.dials.Add(1)
			return &watched{Conn: conn, clients: c, id: id}, nil
		}, id)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("connect client %d: %w", id, err)
		}
		c.list = append(c.list, cl)
	}
	if d := c.dials.Load(); d != int64(n) {
		c.close()
		return nil, fmt.Errorf("connect %d clients: they made %d connections", n, d)
	}
	return c, nil
}

// watched is a connection whose end, if it is the server's doing, counts: clients
// connect again without a word, also where the server has done nothing. net/http
// does so when it has not heard from its own writing goroutine for 50 ms.
type watched struct {
	net.Conn
	clients *clients
	id      int
	ended   atomic.Bool
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.check(err)
	return n, err
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.check(err)
	return n, err
}

func (w *watched) check(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) && !w.ended.Swap(true) {
		w.clients.ended.Add(1)
		w.clients.complain(fmt.Sprintf("connection of client %d: %v", w.id, err))
	}
}

const dialTimeout = 5 * time.Second

func (c *clients) close() {
	for _, cl := range c.list {
		cl.Close()
	}
}

// maxComplaints bounds what is kept of errors that repeat.
const maxComplaints = 10

func (c *clients) bad(err error) {
	c.complain(err.Error())
	c.mu.Lock()
	defer c.mu.Unlock()
	if server.NoReply(err) {
		c.lost++
	} else {
		c.wrong++
	}
}

func (c *clients) complain(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.complaints) < maxComplaints {
		c.complaints = append(c.complaints, text)
	}
}

// each runs f for each client at once and waits for all.
func (c *clients) each(f func(id int, cl server.Client)) {
	var wg sync.WaitGroup
	for id, cl := range c.list {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(id, cl)
		}()
	}
	wg.Wait()
}

// busy has all clients send one request after the other for some time, and
// returns how many a second that were.
func (c *clients) busy(d time.Duration, seed uint64) float64 {
	var done atomic.Int64
	start := now()
	end := start + d.Nanoseconds()
	c.each(func(id int, cl server.Client) {
		rng := rand.New(rand.NewPCG(seed, uint64(id)))
		for now() < end {
			if err := cl.Do(rng); err != nil {
				c.bad(err)
				return
			}
			done.Add(1)
		}
	})
	return float64(done.Load()) / (float64(now()-start) / 1e9)
}

// open sends requests at times that are drawn ahead: each client's are a Poisson
// process, and so is their sum. A request that cannot be sent in time, because
// the one before it has no reply yet, waits, and its latency counts.
func (c *clients) open(start int64, d time.Duration, rate float64, seed uint64) []server.Sample {
	samples := make([][]server.Sample, len(c.list))
	mean := float64(len(c.list)) / rate * 1e9
	c.each(func(id int, cl server.Client) {
		rng := rand.New(rand.NewPCG(seed, uint64(id)))
		at := float64(start)
		for {
			at += rng.ExpFloat64() * mean
			if int64(at) >= start+d.Nanoseconds() {
				return
			}
			sleepUntil(int64(at))
			s := server.Sample{ArrivalNS: int64(at)}
			for {
				err := cl.Do(rng)
				if err == nil {
					break
				}
				if s.Bad == 0 {
					c.bad(err)
				}
				s.Bad++
				if now() > start+d.Nanoseconds()+giveUp.Nanoseconds() {
					break
				}
				time.Sleep(retryAfter)
			}
			s.LatencyNS = now() - s.ArrivalNS
			samples[id] = append(samples[id], s)
		}
	})
	var all []server.Sample
	for _, s := range samples {
		all = append(all, s...)
	}
	return all
}

const (
	// retryAfter is how long a client waits before it tries a request again.
	retryAfter = time.Millisecond
	// giveUp is when the last request is given up, after the end of arrivals.
	giveUp = time.Minute
)

// now reads the clock that the library's times are of.
func now() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// sleepUntil does without the timers of the Go runtime, which are as coarse as
// a millisecond when all else sleeps.
func sleepUntil(at int64) {
	t := unix.NsecToTimespec(at)
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &t, nil) == unix.EINTR {
	}
}
