// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/realworld/server"
)

// confine takes from the calling thread what the unit takes from its service,
// by the filters that systemd 252 installs.
func confine(u server.Unit) error {
	if !u.NoNewPrivileges {
		return nil // no filter without it
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	policies, err := policies(u)
	if err != nil {
		return err
	}
	for _, p := range policies {
		if err := seccomp.LoadFilter(seccomp.Filter{Policy: p}); err != nil {
			return fmt.Errorf("install filter: %w", err)
		}
	}
	return nil
}

func policies(u server.Unit) ([]seccomp.Policy, error) {
	var out []seccomp.Policy
	if len(u.Families) > 0 {
		var others seccomp.ArgumentConditions
		for _, f := range u.Families {
			n, ok := map[string]uint64{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6}[f]
			if !ok {
				return nil, fmt.Errorf("install filter: address family %s is not known here", f)
			}
			others = append(others, seccomp.Condition{Argument: 0, Operation: seccomp.NotEqual, Value: n})
		}
		out = append(out, deny(unix.EAFNOSUPPORT, seccomp.NameWithConditions{Name: "socket", Conditions: others}))
	}
	if u.DenyWriteExecute {
		exec := func(name string, argument uint32, bits ...uint64) seccomp.NameWithConditions {
			n := seccomp.NameWithConditions{Name: name}
			for _, b := range bits {
				n.Conditions = append(n.Conditions, seccomp.Condition{Argument: argument, Operation: seccomp.BitsSet, Value: b})
			}
			return n
		}
		const shmExec = 0o100000
		out = append(out, deny(unix.EPERM, exec("mmap", 2, unix.PROT_WRITE, unix.PROT_EXEC), exec("mprotect", 2, unix.PROT_EXEC),
			exec("pkey_mprotect", 2, unix.PROT_EXEC), exec("shmat", 2, shmExec)))
	}
	if len(u.Allowed) > 0 {
		info, err := arch.GetInfo("")
		if err != nil {
			return nil, fmt.Errorf("install filter: %w", err)
		}
		p := seccomp.Policy{DefaultAction: seccomp.ActionKillProcess, Syscalls: []seccomp.SyscallGroup{{Action: seccomp.ActionAllow}}}
		for _, name := range u.Allowed {
			// The lists have the calls of all architectures.
			if _, ok := info.SyscallNames[name]; ok {
				p.Syscalls[0].Names = append(p.Syscalls[0].Names, name)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func deny(errno unix.Errno, calls ...seccomp.NameWithConditions) seccomp.Policy {
	return seccomp.Policy{DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{{Action: seccomp.ActionErrno | seccomp.Action(errno), NamesWithCondtions: calls}}}
}
