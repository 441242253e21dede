// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"time"
)

// Manifest says what a run was: manifest.json beside the log.
type Manifest struct {
	// Version of this format.
	Schema int `json:"schema"`
	// When the run began; the only date in all its files. A resumed run keeps it.
	Started time.Time `json:"started"`
	// quick, full, or the name of another profile.
	Profile string `json:"profile"`
	// Seed that every other seed of the run derives from.
	Seed Seed `json:"seed"`
	// Version of wflp: the commit, with -dirty if the tree differed from it.
	Version string `json:"version"`
	// Kernels by variant.
	Kernels map[string]Kernel `json:"kernels"`
	// Digest of the guest image.
	ImageDigest string `json:"image_digest,omitempty"`
	// Version of QEMU, and digest of its binary.
	QEMU       string `json:"qemu"`
	QEMUDigest string `json:"qemu_digest,omitempty"`
	// Time bases that the run uses, the first being the main one.
	TimeBases []TimeBase `json:"time_bases"`
	// Why this acceleration: what the probe of KVM said.
	Acceleration string `json:"acceleration"`
	// The machine that it ran on.
	Host Host `json:"host"`
	// Everything else that was set, as names and values.
	Config map[string]string `json:"config,omitempty"`
}

// Kernel is one built kernel.
type Kernel struct {
	Release string `json:"release"`
	Digest  string `json:"digest"`
	// Digest of the configuration file that it was built with.
	ConfigDigest string `json:"config_digest,omitempty"`
	// Version of the compiler.
	Compiler string `json:"compiler,omitempty"`
}

// Host is the machine that ran the virtual machines.
type Host struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	MemMiB int    `json:"mem_mib"`
	Kernel string `json:"kernel"`
	Distro string `json:"distro,omitempty"`
}

// ReadManifest reads the manifest of a run. The error is fs.ErrNotExist if there
// is none.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	b, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("read manifest %s: %w", path, err)
	}
	if m.Schema != Schema {
		return Manifest{}, fmt.Errorf("read manifest %s: schema %d, this program reads %d", path, m.Schema, Schema)
	}
	return m, nil
}

// WriteManifest writes the manifest of a run: whole or not at all.
func WriteManifest(dir string, m Manifest) error {
	m.Schema = Schema
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := writeFile(filepath.Join(dir, ManifestName), append(b, '\n')); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// Begin is what a run does first: it writes the manifest into dir, or, if dir
// has one already, checks that it describes the same run and returns it, with
// the date of the first start.  Records of different kernels, seeds or machines
// must not meet in one log, so a difference is an error that lists the fields.
func Begin(dir string, m Manifest) (Manifest, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Manifest{}, fmt.Errorf("begin run: %w", err)
	}
	old, err := ReadManifest(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.Schema = Schema
		return m, WriteManifest(dir, m)
	case err != nil:
		return Manifest{}, err
	}
	if d := old.Differences(m); len(d) > 0 {
		return Manifest{}, fmt.Errorf("resume run %s: it was begun with other %v; choose another folder or remove it", dir, d)
	}
	return old, nil
}

// Differences names the fields in which two manifests differ, dates aside.
func (m Manifest) Differences(o Manifest) []string {
	m.Started, o.Started = time.Time{}, time.Time{}
	m.Schema, o.Schema = 0, 0
	var names []string
	a, b := fields(m), fields(o)
	for name, v := range a {
		if !reflect.DeepEqual(v, b[name]) {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func fields(m Manifest) map[string]any {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // a struct of plain values
	}
	f := map[string]any{}
	if err := json.Unmarshal(b, &f); err != nil {
		panic(err)
	}
	return f
}

// writeFile replaces path: a kill at any moment leaves the old content or the new.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
