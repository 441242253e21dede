// SPDX-License-Identifier: Apache-2.0

// Package server describes real programs as they are run in a guest: their
// Debian packages and configuration, the requests that their clients send and
// how a reply is known to be right, and for a fix the request that shows
// whether the defect is there. A program is one file of this package.
package server

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
)

// Server is one program.
type Server struct {
	Name string
	// Packages are Debian's, for the configuration, the unit and the libraries.
	Packages []string
	// Binary is where the unit has the program.
	Binary string
	// Unit is the path of the systemd unit, whose user and sandbox are kept to.
	Unit string
	// Files are what the packages do not bring, by path: what an administrator
	// writes for the use that is made of the program here.
	Files map[string]string
	// Users are the system users that the packages' scripts make.
	Users []string
	// Folders are what these scripts or the unit make, each owned by the first
	// of Users.
	Folders []string
	// Command is what the unit starts; read gives a file of the guest.
	Command func(read func(path string) (string, error)) ([]string, error)
	// Worker: the program that serves is a child of the one that is started.
	Worker bool
	// Sites are the calls at which a thread may go over to a patch, as the
	// preloaded library takes them; empty: any that blocks.
	Sites string
	// Beside are further processes that the program needs, started before it, on
	// the clients' processors.
	Beside []Process
	// Address is where clients connect to.
	Address string
	// Connect makes one client with one connection.
	Connect func(dial Dial, id int) (Client, error)
	Probes  []Probe
}

// Process is a process that listens.
type Process struct {
	Argv    []string
	Address string
}

// Dial makes a connection to an address.
type Dial func(address string) (net.Conn, error)

// Client sends requests over one connection, one at a time.
type Client interface {
	// Do sends one request and checks the reply. See NoReply for its errors.
	Do(rng *rand.Rand) error
	Close() error
}

// ErrWrong says that a reply came and is not the one to the request.
var ErrWrong = errors.New("wrong reply")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrWrong}, args...)...)
}

// NoReply says whether an error of a client's means that no reply came; all
// others are about the reply.
func NoReply(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Probe shows, without harm, whether a defect is there.
type Probe struct {
	Fix string // as the fix is called
	// Ask sends the request over a connection to Address that may be older than
	// a patch. Once: the connection is not used again.
	Ask func(conn net.Conn) (defect bool, said string, err error)
}

// servers are all programs.
var servers = []Server{memcached, redisServer, haproxy}

// Names lists the programs.
func Names() []string {
	var names []string
	for _, s := range servers {
		names = append(names, s.Name)
	}
	return names
}

// ByName finds a program.
func ByName(name string) (Server, error) {
	for _, s := range servers {
		if s.Name == name {
			return s, nil
		}
	}
	return Server{}, fmt.Errorf("find program %q: there are %v", name, Names())
}

// Probe finds the probe for a fix; nil if there is no harmless one.
func (s Server) Probe(fix string) *Probe {
	i := slices.IndexFunc(s.Probes, func(p Probe) bool { return p.Fix == fix })
	if i < 0 {
		return nil
	}
	return &s.Probes[i]
}
