// SPDX-License-Identifier: Apache-2.0

package patch

// The sections of a patch file besides code and data, as wflp-patch.h has them.
const (
	formatVersion = 1

	secHead    = ".wflp.head"
	secObjects = ".wflp.objects"
	secFuncs   = ".wflp.funcs"
	secSyms    = ".wflp.syms"
	secStr     = ".wflp.str"
	secOrigin  = ".wflp.origin"

	byName   = 0xffffffff // rawSym.Object: whatever has the name
	symTLS   = 1          // rawSym.Flags: Addr counts from the start of the TLS segment
	funcPart = 2          // rawFunc.Flags: no function, but code that must be on no stack
)

var magic = [8]byte{'W', 'F', 'L', 'P', 'A', 'T', 'C', 'H'}

type rawHead struct {
	Magic                                          [8]byte
	Version, HeadSize                              uint32
	ObjectCount, FunctionCount, SymbolCount, Flags uint32
	ID                                             [32]byte
	NameOff, Pad                                   uint32
}

type rawObject struct {
	NameOff, BuildIDSize uint32
	BuildID              [32]byte
}

type rawFunc struct {
	Object, NewSymbol uint32
	OldAddr, OldSize  uint64
	OldSHA256         [32]byte
	NameOff, Flags    uint32
}

type rawSym struct {
	Symbol, Object uint32
	Addr           uint64
	NameOff, Flags uint32
}
