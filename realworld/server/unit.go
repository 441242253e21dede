// SPDX-License-Identifier: Apache-2.0

package server

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// Unit is what of a service's confinement can matter to code that is changed:
// its user and its filters of system calls. Namespaces, mounts and capabilities
// are not among them.
type Unit struct {
	User             string   `json:"user,omitempty"` // empty: root
	NoNewPrivileges  bool     `json:"no_new_privileges,omitempty"`
	DenyWriteExecute bool     `json:"deny_write_execute,omitempty"`
	Families         []string `json:"families,omitempty"` // of addresses; empty: all
	Allowed          []string `json:"allowed,omitempty"`  // system calls; empty: all
}

// ParseUnit reads a systemd unit.
func ParseUnit(text string) (Unit, error) {
	var u Unit
	for _, line := range strings.Split(text, "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		switch key {
		case "User":
			u.User = value
		case "NoNewPrivileges":
			u.NoNewPrivileges = yes(value)
		case "MemoryDenyWriteExecute":
			u.DenyWriteExecute = yes(value)
		case "RestrictAddressFamilies":
			u.Families = append(u.Families, strings.Fields(value)...)
		case "SystemCallFilter":
			names, deny := strings.CutPrefix(value, "~")
			if deny && len(u.Allowed) == 0 {
				return u, fmt.Errorf("read unit: a list of denied system calls without one of allowed calls (%s) is not known here", value)
			}
			for _, name := range strings.Fields(names) {
				calls, err := expand(name)
				if err != nil {
					return u, fmt.Errorf("read unit: %w", err)
				}
				if deny {
					u.Allowed = slices.DeleteFunc(u.Allowed, func(c string) bool { return slices.Contains(calls, c) })
				} else {
					u.Allowed = append(u.Allowed, calls...)
				}
			}
		}
	}
	if len(u.Allowed) > 0 {
		// systemd adds what no program does without.
		calls, err := expand("@default")
		if err != nil {
			return u, fmt.Errorf("read unit: %w", err)
		}
		u.Allowed = append(u.Allowed, calls...)
		slices.Sort(u.Allowed)
		u.Allowed = slices.Compact(u.Allowed)
	}
	// A filter needs it, and systemd turns it on for services that are not root.
	u.NoNewPrivileges = u.NoNewPrivileges || u.DenyWriteExecute || len(u.Allowed)+len(u.Families) > 0
	return u, nil
}

func yes(value string) bool { return slices.Contains([]string{"yes", "true", "on", "1"}, value) }

//go:embed syscalls.txt
var syscallGroups string

// expand lists the system calls of a group, or the one of that name.
func expand(name string) ([]string, error) {
	if !strings.HasPrefix(name, "@") {
		return []string{name}, nil
	}
	var calls []string
	found := false
	in := ""
	for _, line := range strings.Split(syscallGroups, "\n") {
		switch word := strings.TrimSpace(line); {
		case word == "" || strings.HasPrefix(word, "#"):
		case !strings.HasPrefix(line, " "):
			in = word
			found = found || in == name
		case in == name:
			sub, err := expand(word)
			if err != nil {
				return nil, err
			}
			calls = append(calls, sub...)
		}
	}
	if !found {
		return nil, fmt.Errorf("there is no group of system calls %s in systemd 252", name)
	}
	return calls, nil
}
