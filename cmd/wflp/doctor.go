// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wflp/wflp/kernel"
	"github.com/wflp/wflp/vmimages/vm"
)

func init() {
	register(subcommand{
		name: "doctor", about: "say what machine this is, what works, what is missing and how to get it",
		run: runDoctor,
	})
}

// diagnosis is one line of the doctor.
type diagnosis struct {
	Name string `json:"name"`
	// State is ok, note (works, but know this), or missing.
	State  string `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // a command
}

// report is all the doctor has to say.
type report struct {
	Machine   map[string]string `json:"machine"`
	Diagnoses []diagnosis       `json:"diagnoses"`
	Mode      string            `json:"default_mode,omitempty"`
	Healthy   bool              `json:"healthy"`
}

func runDoctor(ctx context.Context, inv *invocation) error {
	fs := inv.flags("doctor")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := inv.parse(fs); err != nil {
		return err
	}
	b, err := inv.builder()
	if err != nil {
		return err
	}
	b.Log = nil
	r, err := examine(ctx, b)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(inv.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		for _, k := range []string{"system", "processor", "memory", "disk", "cache"} {
			fmt.Fprintf(inv.stdout, "%-10s %s\n", k, r.Machine[k])
		}
		fmt.Fprintln(inv.stdout)
		for _, d := range r.Diagnoses {
			fmt.Fprintf(inv.stdout, "%-8s %-16s %s\n", d.State, d.Name, d.Detail)
			if d.Fix != "" {
				fmt.Fprintf(inv.stdout, "%-8s %-16s fix: %s\n", "", "", d.Fix)
			}
		}
	}
	if !r.Healthy {
		return silentExit(exitInfrastructure)
	}
	return nil
}

func examine(ctx context.Context, b *kernel.Builder) (report, error) {
	r := report{Machine: machineFacts(b.CacheDir), Healthy: true}
	add := func(d diagnosis) {
		r.Diagnoses = append(r.Diagnoses, d)
		if d.State == "missing" {
			r.Healthy = false
		}
	}
	if runtime.GOARCH != "amd64" {
		add(diagnosis{"architecture", "missing", "the mechanism and its tests are for x86-64, this is " + runtime.GOARCH, ""})
	}
	packages, err := neededPackages(ctx, b.RepoRoot)
	if err != nil {
		return r, err
	}
	for _, d := range packages {
		add(d)
	}
	if version, err := vm.QEMUVersion(ctx); err == nil {
		add(diagnosis{"QEMU", "ok", version, ""})
		kvm, err := vm.KVM(ctx, b.CacheDir)
		switch {
		case err != nil:
			add(diagnosis{"KVM", "note", err.Error(), ""})
		case kvm.Usable:
			add(diagnosis{"KVM", "ok", kvm.Reason, ""})
			r.Mode = string(vm.Measured)
		default:
			add(diagnosis{"KVM", "note", "not used, times are emulated: " + kvm.Reason, kvmFix()})
			r.Mode = string(vm.Fast)
		}
	}
	if r.Mode != "" {
		add(diagnosis{"default mode", "ok", r.Mode, ""})
	}
	pin, err := kernel.ReadPin(b.RepoRoot)
	if err != nil {
		return r, err
	}
	add(diagnosis{"kernel source", "ok", pin.Package + " " + pin.Version, ""})
	for _, v := range kernel.Variants() {
		// Asking for the digest would fetch the source; a glance at the
		// cache is enough here.
		have, _ := filepath.Glob(filepath.Join(b.CacheDir, "kernels", v.Name+"-*"))
		d := diagnosis{"kernel " + v.Name, "ok", fmt.Sprintf("%d in the cache", len(have)), ""}
		if len(have) == 0 {
			d.State, d.Detail, d.Fix = "note", "not built yet (made when needed, some minutes)", "wflp kernel build "+v.Name
		}
		add(d)
	}
	return r, nil
}

func machineFacts(cache string) map[string]string {
	facts := map[string]string{"cache": cache, "processor": fmt.Sprintf("%s, %d usable", vm.CPUModel(), runtime.NumCPU())}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		facts["system"] = "Linux " + unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:])
	}
	if data, err := os.ReadFile("/etc/os-release"); err == nil {
		for _, line := range strings.Split(string(data), "\n") {
			if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				facts["system"] = strings.Trim(name, `"`) + ", " + facts["system"]
			}
		}
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		facts["memory"] = fmt.Sprintf("%d MiB", si.Totalram*uint64(si.Unit)>>20)
	}
	dir := cache
	for dir != "/" {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil {
			facts["disk"] = fmt.Sprintf("%d GiB free for the cache (about 15 are needed for all kernels)", st.Bavail*uint64(st.Bsize)>>30)
			break
		}
		dir = filepath.Dir(dir)
	}
	return facts
}

// neededPackages asks the bootstrap script, which alone knows what is needed.
func neededPackages(ctx context.Context, root string) ([]diagnosis, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(root, "tools", "bootstrap.sh"), "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list needed packages: %w", err)
	}
	var present []string
	var ds []diagnosis
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name, state, ok := strings.Cut(line, "\t")
		if !ok {
			return nil, fmt.Errorf("list needed packages: odd line %q", line)
		}
		if state == "ok" {
			present = append(present, name)
			continue
		}
		d := diagnosis{name, state, "not installed", "apt-get install " + name}
		if strings.HasPrefix(name, "go ") {
			d.Fix = "make bootstrap"
		}
		ds = append(ds, d)
	}
	return append([]diagnosis{{"software", "ok", strings.Join(present, ", "), ""}}, ds...), nil
}

// kvmFix is the command that may help where KVM is there but not for us.
func kvmFix() string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		return `sudo adduser "$USER" kvm   # then log in again`
	}
	if err == nil {
		f.Close()
	}
	return ""
}
