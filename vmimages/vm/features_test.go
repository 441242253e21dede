// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"slices"
	"strings"
	"testing"

	"github.com/wflp/wflp/kernel"
)

func TestFeatures(t *testing.T) {
	for _, tc := range []struct {
		f            feature
		qemu, kernel string
	}{
		{bare{}, "-nodefaults -no-user-config -display none -no-reboot", "panic=-1 oops=panic loglevel=5 printk.devkmsg=on nokaslr norandmaps"},
		{execution{Measured, 7, 4, 4, hostTLB}, "-M pc -accel kvm -cpu host,la57=off", ""},
		{execution{Fast, 7, 4, 4, hostTLB}, "-M pc -accel tcg,thread=multi,tb-size=256 -cpu max,la57=off", "tsc=reliable lpj=12000000"},
		{execution{Fast, 7, 5, 4, hostTLB}, "-M pc -accel tcg,thread=multi,tb-size=256 -cpu max", "tsc=reliable lpj=12000000"},
		{
			execution{Deterministic, 7, 4, 4, hostTLB},
			"-M pc -accel tcg,thread=single -icount shift=4,sleep=off -rtc base=2024-01-01T00:00:00,clock=vm -seed 7 -cpu max,la57=off",
			"tsc_early_khz=1000000 tsc=reliable lpj=4000000",
		},
		{execution{Fast, 7, 5, 4, plainTLB}, "-M pc -accel tcg,thread=multi,tb-size=256 -cpu max,pcid=off,invpcid=off", "tsc=reliable lpj=12000000"},
		{execution{Fast, 7, 4, 4, adversarialTLB}, "-M pc -accel tcg,thread=multi,tb-size=256 -cpu max,adversarial-tlb=on,la57=off", "tsc=reliable lpj=12000000"},
		{memory(256), "-m 256M", ""},
		{processors{n: 64}, "-smp 64", ""},
		{ownFirmware(""), "", ""},
		{ownFirmware("/share"), "-L /share", ""},
		{turns{seed: 5}, "", ""},
		{turns{5, 12}, "-device isa-icount-slices,id=slices,iobase=0x5f0,seed=5,bits=12", ""},
		{steadyCode{Fast, 2, false}, "", "mm_view_hooks=on"},
		{steadyCode{Fast, 2, true}, "", ""},
		{steadyCode{Fast, 1, false}, "", ""},
		{steadyCode{Deterministic, 2, false}, "", ""},
		{steadyCode{Measured, 2, false}, "", ""},
		{processors{n: 3, apart: true}, "-smp 3,sockets=3", ""},
		{nodes{0, 2, 256}, "", ""},
		{
			nodes{2, 4, 257},
			"-object memory-backend-ram,id=mem0,size=128M -numa node,nodeid=0,memdev=mem0,cpus=0-1 " +
				"-object memory-backend-ram,id=mem1,size=129M -numa node,nodeid=1,memdev=mem1,cpus=2-3", "",
		},
		{
			nodes{3, 2, 192},
			"-object memory-backend-ram,id=mem0,size=64M -numa node,nodeid=0,memdev=mem0,cpus=0-0 " +
				"-object memory-backend-ram,id=mem1,size=64M -numa node,nodeid=1,memdev=mem1,cpus=1-1 " +
				"-object memory-backend-ram,id=mem2,size=64M -numa node,nodeid=2,memdev=mem2", "",
		},
		{console("/a,b"), "-serial file:/a,,b", "console=ttyS0"},
		{exitDevice{}, "-device isa-debug-exit,iobase=0xf4,iosize=1", ""},
		{
			outputPort{"/o", "p"},
			"-device virtio-serial-pci,ioeventfd=off -chardev file,id=out,path=/o -device virtserialport,chardev=out,name=p", "",
		},
		{bootFiles{"/k", "/i"}, "-kernel /k -initrd /i", ""},
		{kernelWords{"a=b", "c"}, "", "a=b c"},
	} {
		if got := strings.Join(tc.f.qemu(), " "); got != tc.qemu {
			t.Errorf("%#v: qemu\n got %s\nwant %s", tc.f, got, tc.qemu)
		}
		if got := strings.Join(tc.f.kernel(), " "); got != tc.kernel {
			t.Errorf("%#v: kernel\n got %s\nwant %s", tc.f, got, tc.kernel)
		}
	}
}

func TestKernelLineIsOneArgument(t *testing.T) {
	got := arguments([]feature{memory(64), console("/c"), kernelWords{"x"}})
	want := []string{"-m", "64M", "-serial", "file:/c", "-append", "console=ttyS0 x"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKernelImagePerModeAndVariant(t *testing.T) {
	for _, tc := range []struct {
		mode    Mode
		variant string
		levels  int
		want    string
	}{
		{Fast, "release", 0, "/k/vmlinux"},
		{Deterministic, "debug", 4, "/k/vmlinux"},
		{Measured, "release", 0, "/k/bzImage"},
		{Fast, "kasan", 0, "/k/bzImage"},
		{Fast, "debug", 5, "/k/bzImage"},
	} {
		args, err := Command(Config{Mode: tc.mode, Levels: tc.levels, Kernel: kernel.Built{Variant: tc.variant, Dir: "/k"}})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.Index(args, "-kernel")
		if args[i+1] != tc.want {
			t.Errorf("%s %s: boots %s, want %s", tc.mode, tc.variant, args[i+1], tc.want)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no mode":     {},
		"odd mode":    {Mode: "slow"},
		"many cpus":   {Mode: Fast, CPUs: MaxCPUs + 1},
		"minus cpus":  {Mode: Fast, CPUs: -1},
		"little room": {Mode: Fast, MemMiB: 32},
		"many nodes":  {Mode: Fast, Nodes: MaxNodes + 1, MemMiB: 4096},
		"minus nodes": {Mode: Fast, Nodes: -1},
		"thin nodes":  {Mode: Fast, Nodes: 4, MemMiB: 255},
		"odd levels":  {Mode: Fast, Levels: 3},
		"long slices": {Mode: Fast, SliceBits: MaxSliceBits + 1},
		"odd slices":  {Mode: Fast, SliceBits: NoSlices - 1},
	} {
		if _, err := Command(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Command(Config{Mode: Fast}); err != nil {
		t.Errorf("defaults: %v", err)
	}
}
