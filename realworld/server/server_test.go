// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestServersAreWhole(t *testing.T) {
	for _, s := range servers {
		if got, err := ByName(s.Name); err != nil || got.Name != s.Name {
			t.Errorf("%s: %v", s.Name, err)
		}
		if len(s.Packages) == 0 || s.Binary == "" || s.Unit == "" || s.Address == "" || len(s.Users) == 0 || s.Command == nil || s.Connect == nil {
			t.Errorf("%s is not described wholly", s.Name)
		}
	}
	if _, err := ByName("sendmail"); err == nil {
		t.Error("any name is a program")
	}
}

func TestParseUnit(t *testing.T) {
	u, err := ParseUnit("[Service]\nUser=redis\n# NoNewPrivileges=true\nMemoryDenyWriteExecute=true\n" +
		"RestrictAddressFamilies=AF_INET AF_UNIX\nSystemCallFilter=@system-service\nSystemCallFilter=~ @privileged @resources\n")
	if err != nil {
		t.Fatal(err)
	}
	if u.User != "redis" || !u.DenyWriteExecute || !u.NoNewPrivileges || len(u.Families) != 2 {
		t.Errorf("unit: %+v", u)
	}
	for _, c := range []struct {
		call    string
		allowed bool
	}{
		{"epoll_wait", true}, {"prctl", true}, {"mmap", true}, {"execve", true}, {"exit_group", true},
		{"setuid", false},    // @privileged
		{"setrlimit", false}, // @resources
		{"ptrace", false},    // never was in
		{"mm_view_create", false},
	} {
		if got := slices.Contains(u.Allowed, c.call); got != c.allowed {
			t.Errorf("%s is allowed: %v", c.call, got)
		}
	}
	if u, err := ParseUnit("[Service]\n# MemoryDenyWriteExecute=true\n"); err != nil || u.NoNewPrivileges || u.DenyWriteExecute || len(u.Allowed) > 0 {
		t.Errorf("a unit that asks for nothing: %+v, %v", u, err)
	}
	for _, bad := range []string{"SystemCallFilter=@no-such-group", "SystemCallFilter=~@mount"} {
		if _, err := ParseUnit(bad); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}

func TestMemcachedConf(t *testing.T) {
	got := memcachedConf("# comment\n-d\nlogfile /var/log/memcached.log\n-m 64\n  -u memcache # who\n")
	if want := []string{memcachedProgram, "-m", "64", "-u", "memcache"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// answering is a connection to a server that answers as told.
func answering(t *testing.T, answer func(r *bufio.Reader, w io.Writer) error) net.Conn {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	go func() {
		r := bufio.NewReader(b)
		for answer(r, b) == nil {
		}
		b.Close()
	}()
	return a
}

func TestProbes(t *testing.T) {
	line := func(s string) func(*bufio.Reader, io.Writer) error {
		return func(r *bufio.Reader, w io.Writer) error {
			if _, err := r.ReadString('\n'); err != nil {
				return err
			}
			_, err := io.WriteString(w, s)
			return err
		}
	}
	web := func(code int, slow time.Duration) func(*bufio.Reader, io.Writer) error {
		return func(r *bufio.Reader, w io.Writer) error {
			// Header lines alone: what the probes send, Go's parser refuses.
			times := time.Duration(0)
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return err
				}
				switch {
				case strings.Contains(l, "1e30000000"):
					times = 1
				case strings.Contains(l, "1e60000000"):
					times = 2
				}
				if l == "\r\n" {
					break
				}
			}
			time.Sleep(times * slow)
			_, err := fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Length: 1\r\n\r\n.", code, http.StatusText(code))
			return err
		}
	}
	resp := func(count string) func(*bufio.Reader, io.Writer) error {
		return func(r *bufio.Reader, w io.Writer) error {
			var n int
			if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
				return err
			}
			for range n {
				var size int
				if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
					return err
				}
				if _, err := io.CopyN(io.Discard, r, int64(size)+2); err != nil {
					return err
				}
			}
			said := "+OK\r\n"
			if n == 2 {
				said = count
			}
			_, err := io.WriteString(w, said)
			return err
		}
	}
	requests := 0
	hiccup := func(r *bufio.Reader, w io.Writer) error {
		if requests++; requests == 2 {
			time.Sleep(200 * time.Millisecond)
		}
		return web(200, 0)(r, w)
	}
	for _, c := range []struct {
		server, fix string
		answer      func(*bufio.Reader, io.Writer) error
		defect, ok  bool
	}{
		{"memcached", "CVE-2023-46852", line("END\r\n"), true, true},
		{"memcached", "CVE-2023-46852", line("SERVER_ERROR malformed request\r\n"), false, true},
		{"memcached", "CVE-2023-46852", line("SERVER_ERROR backend failure\r\n"), false, false},
		{"redis", "CVE-2025-32023", resp(":0\r\n"), true, true},
		{"redis", "CVE-2025-32023", resp("-INVALIDOBJ Corrupted HLL object detected\r\n"), false, true},
		{"redis", "CVE-2025-32023", resp(":7\r\n"), false, false},
		{"haproxy", "CVE-2023-40225", web(200, 0), true, true},
		{"haproxy", "CVE-2023-40225", web(400, 0), false, true},
		{"haproxy", "CVE-2023-45539", web(503, 0), false, false},
		{"haproxy", "CVE-2025-11230", web(200, 200*time.Millisecond), true, true},
		{"haproxy", "CVE-2025-11230", web(200, 0), false, true},
		{"haproxy", "CVE-2025-11230", hiccup, false, true},
	} {
		s, err := ByName(c.server)
		if err != nil {
			t.Fatal(err)
		}
		defect, said, err := s.Probe(c.fix).Ask(answering(t, c.answer))
		if defect != c.defect || (err == nil) != c.ok {
			t.Errorf("%s, %s: defect %v, %q, %v", c.server, c.fix, defect, said, err)
		}
	}
	if memcached.Probe("CVE-0000-0000") != nil {
		t.Error("there is a probe for any fix")
	}
}

// The set of the probe must have more registers than there are by just 2^32,
// or it would be refused, or harm, where the defect is.
func TestLongRunsWrapExactly(t *testing.T) {
	all := make(chan string, 1)
	conn := answering(t, func(r *bufio.Reader, w io.Writer) error {
		sent, err := io.ReadAll(r)
		all <- string(sent)
		return errors.Join(io.EOF, err)
	})
	conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	redisLongRuns(conn)
	conn.Close()
	_, runs, ok := strings.Cut(<-all, "HYLL")
	if !ok {
		t.Fatal("no set was sent")
	}
	var sum int64
	for b := []byte(runs[12:]); len(b) > 1 && b[0]&0xc0 == 0x40; b = b[2:] {
		sum += int64(b[0]&0x3f)<<8 + int64(b[1]) + 1
	}
	if sum != 1<<32+1<<14 {
		t.Errorf("the runs sum up to %d", sum)
	}
}

func TestNoReply(t *testing.T) {
	for _, err := range []error{io.EOF, &net.OpError{Op: "read", Err: io.ErrClosedPipe}, &url.Error{Op: "Get", Err: io.EOF}} {
		if !NoReply(fmt.Errorf("get: %w", err)) {
			t.Errorf("%v is a reply", err)
		}
	}
	if NoReply(wrong("get: %d", 7)) {
		t.Error("a wrong reply is none")
	}
}

// Each package of a program has a version that it was tried with, and another
// one is named.
func TestPackagesAreKnown(t *testing.T) {
	known := pins()
	for _, s := range servers {
		for _, p := range s.Packages {
			if known[p] == "" {
				t.Errorf("%s: packages.txt has no version of %s", s.Name, p)
			}
		}
	}
	if got := OtherPackages(map[string]string{"libc6": known["libc6"]}); len(got) > 0 {
		t.Errorf("as it was: %v", got)
	}
	got := OtherPackages(map[string]string{"libc6": "3", "new": "1"})
	if len(got) != 2 || !strings.Contains(got[0], "libc6 is 3, tried with "+known["libc6"]) || !strings.Contains(got[1], "new is 1, not among") {
		t.Errorf("%q", got)
	}
}
