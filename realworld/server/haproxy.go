// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// Backend is where a server behind haproxy listens; Body is its answer to a path.
const Backend = "127.0.0.1:8081"

// Body is what the server behind haproxy says to a path.
func Body(path string) string { return "body of " + path + strings.Repeat(".", 100) }

var haproxy = Server{
	Name: "haproxy",
	Packages: []string{"haproxy", "libcrypt1", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0", "libssl3", "libsystemd0",
		"libcap2", "libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5", "libzstd1", "libstdc++6"},
	Binary:  "/usr/sbin/haproxy",
	Unit:    "/lib/systemd/system/haproxy.service",
	Users:   []string{"haproxy"},
	Folders: []string{"/run/haproxy", "/var/lib/haproxy"},
	Files: map[string]string{"/etc/haproxy/site.cfg": `global
	nbthread 4
frontend site
	bind 127.0.0.1:8080
	http-request set-var(txn.n) req.hdr(x-json),json_query('$.n')
	http-request return status 200 content-type text/plain string "n" if { path /json }
	default_backend application
backend application
	server one ` + Backend + "\n"},
	Command: func(func(string) (string, error)) ([]string, error) {
		return []string{"/usr/sbin/haproxy", "-Ws", "-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/site.cfg", "-p", "/run/haproxy.pid", "-S", "/run/haproxy-master.sock"}, nil
	},
	Worker:  true,
	Sites:   "_do_poll,run_thread_poll_loop",
	Beside:  []Process{{[]string{"/bin/wflp-load", "backend"}, Backend}},
	Address: "127.0.0.1:8080",
	Connect: func(dial Dial, id int) (Client, error) {
		t := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true,
			DialContext: func(_ context.Context, _, address string) (net.Conn, error) { return dial(address) }}
		h := &httpClient{c: &http.Client{Transport: t, Timeout: clientTimeout}, id: id}
		return h, h.Do(rand.New(rand.NewPCG(0, 0)))
	},
	Probes: []Probe{
		{Fix: "CVE-2023-40225", Ask: haproxyRefuses("GET /probe HTTP/1.1\r\nHost: site\r\nContent-Length:\r\n\r\n")},
		{Fix: "CVE-2023-45539", Ask: haproxyRefuses("GET /probe#fragment HTTP/1.1\r\nHost: site\r\n\r\n")},
		{Fix: "CVE-2025-11230", Ask: haproxyExponent},
	},
}

type httpClient struct {
	c  *http.Client
	id int
}

func (h *httpClient) Close() error {
	h.c.CloseIdleConnections()
	return nil
}

func (h *httpClient) Do(rng *rand.Rand) error {
	path := fmt.Sprintf("/client/%d/%d", h.id, rng.Uint32())
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:8080"+path, nil)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	req.Header.Set("X-Json", `{"n": 12.5e3}`)
	resp, err := h.c.Do(req)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if resp.StatusCode != http.StatusOK || string(body) != Body(path) {
		return wrong("get %s: %s, %.60q", path, resp.Status, body)
	}
	return nil
}

// exchange sends a request over a connection and reads the reply to its end.
func exchange(conn net.Conn, r *bufio.Reader, request string) (*http.Response, error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// haproxyRefuses sends a request that the server behind must never see.
func haproxyRefuses(request string) func(net.Conn) (bool, string, error) {
	return func(conn net.Conn) (bool, string, error) {
		resp, err := exchange(conn, bufio.NewReader(conn), request)
		switch {
		case err != nil:
			return false, "", fmt.Errorf("send what is to be refused: %w", err)
		case resp.StatusCode == http.StatusBadRequest:
			return false, resp.Status, nil
		case resp.StatusCode == http.StatusOK:
			return true, resp.Status, nil
		}
		return false, resp.Status, wrong("send what is to be refused: %s", resp.Status)
	}
}

// haproxyExponent has haproxy read a number of which it once made as many
// multiplications as the exponent says: some tenths of a second of one thread,
// and microseconds after the fix. A small exponent, on the same connection, is
// what it is compared with; and since anything takes long where a thread has to
// wait for its processor, twice the exponent must take longer still.
func haproxyExponent(conn net.Conn) (bool, string, error) {
	r := bufio.NewReader(conn)
	said := ""
	ask := func(exponent int) (time.Duration, error) {
		start := time.Now()
		resp, err := exchange(conn, r, fmt.Sprintf("GET /json HTTP/1.1\r\nHost: site\r\nX-Json: {\"n\": 1e%d}\r\n\r\n", exponent))
		if err != nil {
			return 0, fmt.Errorf("send a number: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			return 0, wrong("send a number: %s", resp.Status)
		}
		took := time.Since(start)
		said += fmt.Sprintf("1e%d: %v ", exponent, took.Round(time.Microsecond))
		return took, nil
	}
	const many = 30_000_000
	for range 5 {
		var took [3]time.Duration
		for i, exponent := range []int{1, many, 2 * many} {
			var err error
			if took[i], err = ask(exponent); err != nil {
				return false, strings.TrimSpace(said), err
			}
			if i == 1 && took[1] <= 10*took[0]+20*time.Millisecond {
				return false, strings.TrimSpace(said), nil
			}
		}
		if took[2] >= took[1]*3/2 {
			return true, strings.TrimSpace(said), nil
		}
	}
	return false, strings.TrimSpace(said), wrong("send a number: no two times are like each other")
}
