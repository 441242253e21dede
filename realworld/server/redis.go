// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

var redisServer = Server{
	Name: "redis",
	Packages: []string{"redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1", "libssl3", "libsystemd0",
		"libcap2", "libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5", "libzstd1", "libstdc++6"},
	Binary:  "/usr/bin/redis-server",
	Unit:    "/lib/systemd/system/redis-server.service",
	Users:   []string{"redis"},
	Folders: []string{"/run/redis", "/var/lib/redis", "/var/log/redis"},
	Command: func(func(string) (string, error)) ([]string, error) {
		return []string{"/usr/bin/redis-server", "/etc/redis/redis.conf", "--supervised", "systemd", "--daemonize", "no",
			"--io-threads", "4", "--io-threads-do-reads", "yes"}, nil
	},
	// Besides the event loop the threads of its own, and those of the allocator.
	Sites:   "aeProcessEvents,IOThreadMain,bioProcessBackgroundJobs,libjemalloc.so.2",
	Address: "127.0.0.1:6379",
	Connect: func(dial Dial, id int) (Client, error) {
		// One connection, and no request twice: a retry would hide a loss.
		c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", PoolSize: 1, MaxRetries: -1, Protocol: 2, DisableIdentity: true,
			DialTimeout: clientTimeout, ReadTimeout: clientTimeout, WriteTimeout: clientTimeout, PoolTimeout: clientTimeout,
			DialerRetries: 1,
			Dialer:        func(_ context.Context, _, address string) (net.Conn, error) { return dial(address) }})
		return &redisClient{store: newStore(id), c: c}, c.Ping(context.Background()).Err()
	},
	Probes: []Probe{{Fix: "CVE-2025-32023", Ask: redisLongRuns}},
}

type redisClient struct {
	store
	c *redis.Client
}

func (r *redisClient) Close() error { return r.c.Close() }

func (r *redisClient) Do(rng *rand.Rand) error {
	ctx := context.Background()
	key, want := r.pick(rng)
	what := rng.IntN(100)
	switch {
	case want == "" || what < 10:
		value := r.next(key)
		if err := r.c.Set(ctx, key, value, 0).Err(); err != nil {
			r.forget(key)
			return fmt.Errorf("set: %w", err)
		}
		r.stored(key, value)
		return nil
	case what < 15: // what the fixes are in: scripts and the estimate of a set's size
		got, err := r.c.Eval(ctx, "local a, b = unpack({KEYS[1], ARGV[1]}) return redis.call('get', a) .. b", []string{key}, "!").Text()
		if errors.Is(err, redis.Nil) {
			err = wrong("eval: nothing")
		}
		if err != nil {
			return fmt.Errorf("eval: %w", err)
		}
		return r.check(key, strings.TrimSuffix(got, "!"))
	case what < 20:
		set := fmt.Sprintf("set:%d", r.id)
		if err := r.c.PFAdd(ctx, set, "one", "two", "three").Err(); err != nil {
			return fmt.Errorf("pfadd: %w", err)
		}
		n, err := r.c.PFCount(ctx, set).Result()
		if err != nil {
			return fmt.Errorf("pfcount: %w", err)
		}
		if n != 3 {
			return wrong("pfcount: %d, not 3", n)
		}
		return nil
	}
	got, err := r.c.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		r.forget(key)
		return wrong("get %s: the value that was stored is gone", key)
	}
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	return r.check(key, got)
}

// redisLongRuns stores a set whose runs of zeros sum up to 2^32 more than the
// registers that there are. Where the sum is not checked, it wraps to just the
// right number and the set passes for an empty one; no register is written.
func redisLongRuns(conn net.Conn) (bool, string, error) {
	const registers = 1 << 14
	// Sparse, and the last byte of the header says that no estimate is kept there.
	set := "HYLL\x01" + strings.Repeat("\x00", 10) + "\x80" + strings.Repeat("\x7f\xff", 1<<32/registers+1)
	r := bufio.NewReader(conn)
	ask := func(args ...string) (string, error) {
		var b strings.Builder
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, a := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
		}
		if _, err := conn.Write([]byte(b.String())); err != nil {
			return "", err
		}
		line, err := r.ReadString('\n')
		return strings.TrimSpace(line), err
	}
	if said, err := ask("SET", "long-runs", set); err != nil || said != "+OK" {
		return false, said, fmt.Errorf("store long runs: %q, %w", said, errors.Join(err, errNot(said == "+OK")))
	}
	said, err := ask("PFCOUNT", "long-runs")
	switch {
	case err != nil:
		return false, "", fmt.Errorf("count long runs: %w", err)
	case said == ":0":
		return true, said, nil
	case strings.HasPrefix(said, "-INVALIDOBJ"):
		return false, said, nil
	}
	return false, said, wrong("count long runs: %q", said)
}

func errNot(ok bool) error {
	if ok {
		return nil
	}
	return ErrWrong
}
