// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	"github.com/bradfitz/gomemcache/memcache"
)

const memcachedProgram = "/usr/bin/memcached"

// Debian's memcached with what its build leaves out: the proxy, which passes
// requests on to another memcached.
var memcached = Server{
	Name:     "memcached",
	Packages: []string{"memcached", "libevent-2.1-7", "libsasl2-2", "libssl3"},
	Binary:   memcachedProgram,
	Unit:     "/lib/systemd/system/memcached.service",
	Users:    []string{"memcache"},
	Folders:  []string{"/run/memcached"},
	Files: map[string]string{"/etc/memcached.lua": `function mcp_config_pools(old)
  return mcp.pool({mcp.backend("behind", "127.0.0.1", "11212")})
end
function mcp_config_routes(pool)
  mcp.attach(mcp.CMD_ANY_STORAGE, function(r) return pool(r) end)
end
`},
	Command: func(read func(string) (string, error)) ([]string, error) {
		// The package's script copies it to /etc.
		conf, err := read("/usr/share/memcached/memcached.conf.default")
		if err != nil {
			return nil, err
		}
		return append(memcachedConf(conf), "-t", "4", "-o", "proxy_config=/etc/memcached.lua"), nil
	},
	Beside: []Process{{[]string{memcachedProgram, "-u", "memcache", "-l", "127.0.0.1", "-p", "11212", "-t", "1"}, "127.0.0.1:11212"}},
	// Workers wait in libevent, all others in a function of their own.
	Sites: "libevent-2.1.so.7,logger_thread,lru_maintainer_thread,slab_rebalance_thread,item_crawler_thread,assoc_maintenance_thread," +
		"_proxy_config_thread,_proxy_manager_thread",
	Address: "127.0.0.1:11211",
	Connect: func(dial Dial, id int) (Client, error) {
		c := memcache.New("127.0.0.1:11211")
		c.Timeout, c.MaxIdleConns = clientTimeout, 1
		c.DialContext = func(_ context.Context, _, address string) (net.Conn, error) { return dial(address) }
		return &memcacheClient{store: newStore(id), c: c}, c.Ping()
	},
	Probes: []Probe{{Fix: "CVE-2023-46852", Ask: memcachedBlanks}},
}

// memcachedConf is what systemd-memcached-wrapper makes of its configuration.
func memcachedConf(conf string) []string {
	argv := []string{memcachedProgram}
	for _, line := range strings.Split(conf, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "-d") && !strings.HasPrefix(line, "-h") {
			argv = append(argv, strings.Fields(line)...)
		}
	}
	return argv
}

type memcacheClient struct {
	store
	c *memcache.Client
}

func (m *memcacheClient) Close() error { return m.c.Close() }

func (m *memcacheClient) Do(rng *rand.Rand) error {
	key, want := m.pick(rng)
	if want == "" || rng.IntN(10) == 0 {
		value := m.next(key)
		if err := m.c.Set(&memcache.Item{Key: key, Value: []byte(value)}); err != nil {
			m.forget(key)
			return fmt.Errorf("set: %w", err)
		}
		m.stored(key, value)
		return nil
	}
	item, err := m.c.Get(key)
	if err == memcache.ErrCacheMiss {
		m.forget(key)
		return wrong("get %s: the value that was stored is gone", key)
	}
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	return m.check(key, string(item.Value))
}

// memcachedBlanks asks for two keys, with more blanks before the first than the
// fix lets through, and fewer than would overflow anything.
func memcachedBlanks(conn net.Conn) (bool, string, error) {
	if _, err := fmt.Fprintf(conn, "get%sa b\r\n", strings.Repeat(" ", 40)); err != nil {
		return false, "", fmt.Errorf("ask with blanks: %w", err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	line = strings.TrimSpace(line)
	switch {
	case err != nil:
		return false, "", fmt.Errorf("ask with blanks: %w", err)
	case line == "END":
		return true, line, nil
	case strings.Contains(line, "malformed request"):
		return false, line, nil
	}
	return false, line, wrong("ask with blanks: %q", line)
}
