// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"context"
	"debug/elf"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// source is a program as files by name.
type source map[string]string

// with is the source with texts replaced, each of which must be there.
func (s source) with(t *testing.T, edits ...string) source {
	t.Helper()
	out := maps.Clone(s)
	for i := 0; i < len(edits); i += 3 {
		name, old, new := edits[i], edits[i+1], edits[i+2]
		if !strings.Contains(out[name], old) {
			t.Fatalf("%s does not contain %q", name, old)
		}
		out[name] = strings.Replace(out[name], old, new, 1)
	}
	return out
}

// cflags are Debian's, as far as they shape code.
var cflags = []string{"-g", "-O2", "-fPIE", "-fstack-protector-strong", "-Werror", "-ffunction-sections", "-fdata-sections"}

// compile builds a program in a folder of its own, as a package does: one object
// file for each source.
func (s source) compile(t *testing.T, flags ...string) *Program {
	t.Helper()
	dir := t.TempDir()
	gcc := func(args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "gcc", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gcc %v: %v\n%s", args, err, out)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := []string{"-pie", "-pthread", "-o", "prog"}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if strings.HasSuffix(name, ".c") && !strings.HasPrefix(name, "unused") {
			gcc(append(append(slices.Clone(cflags), "-ffile-prefix-map="+dir+"=."), append(flags, "-c", name)...)...)
			link = append(link, strings.TrimSuffix(name, ".c")+".o")
		}
	}
	gcc(link...)
	p, err := Open(dir, "prog")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// server is a program with all that a fix may meet.
var server = source{
	"server.h": `
#include <stdio.h>
struct request { int id; char name[12]; };
enum state { IDLE, BUSY };
int handle(struct request *r, int n);
int account(int n);
static inline int checked(int n) { return n < 100 ? n * 7 : -1; }
void setup(int n);
int shared(int n);
int unproto(int n);
int calls_unproto(int n);
extern const int limits[4];
`,
	"main.c": `
#include "server.h"
#include <pthread.h>
static int parse(const char *s) { int n = 0; while (*s) n = n * 10 + *s++; setup(n); return n; }
static volatile int stop;
void loop(int n)
{
	struct request r = { .id = n, .name = "name" };
	while (!stop)
		printf("%d\n", handle(&r, n++) + calls_unproto(n));
}
int main(int argc, char **argv)
{
	int n = parse(argv[argc - 1]);
	loop(n);
	return 0;
}
`,
	"handle.c": `
#include "server.h"
static int count;
static int table[3] = { 1, 2, 3 };
static __attribute__((noinline)) int note(int n) { count += n; return count + table[n & 1]++; }
static __attribute__((noinline)) int twice(int n) { return n + n + shared(n); }
int (*hook)(int) = twice;
static __attribute__((noinline)) int step(int n) { static int steps = 3; steps += n; return steps; }
int handle(struct request *r, int n)
{
	if (n > 1000)
		return note(n) + step(n);
	return note(r->id) + checked(n) + hook(n) + account(n);
}
`,
	"account.c": `
#include "server.h"
static int count;
static __attribute__((noinline)) int note(int n) { count -= n; return count ^ limits[n & 3]; }
int account(int n)
{
	if (__builtin_expect(n == 12345, 0))
		fprintf(stderr, "account %d is not there\n", n);
	return note(n) + checked(n + 1);
}
`,
	"shared.c": `
#include "server.h"
const int limits[4] = { 10, 20, 30, 40 };
static int level;
void setup(int n) { level = n; }
int shared(int n) { return level + limits[n & 1]; }
`,
	"unproto.c": `
int unproto(int n) { return n * 3; }
`,
	"callsun.c": `
int unproto();
int calls_unproto(int n) { return unproto(n) + 1; }
`,
}

func judgeBuilds(t *testing.T, old, new *Program, touched ...string) *Result {
	t.Helper()
	r, err := Judge(Request{Name: "test", Old: old, New: new, Loops: []string{"loop"}, Touched: touched})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kinds(r *Result) []Kind {
	var list []Kind
	for _, reason := range r.Refused {
		if !slices.Contains(list, reason.Kind) {
			list = append(list, reason.Kind)
		}
	}
	return list
}

func TestJudgement(t *testing.T) {
	was := server.compile(t)
	for _, c := range []struct {
		name     string
		edits    []string
		flags    []string
		touched  string
		refused  []Kind
		says     string // in a reason, its evidence or a note
		replaced []string
		added    string
		carried  string
	}{
		{name: "a function", edits: []string{"account.c", "count -= n", "count -= n + 1"}, replaced: []string{"note (account.c)"}},
		{name: "its literal only", edits: []string{"account.c", "is not there", "is nowhere."}, replaced: []string{"account"}},
		{name: "a number only", edits: []string{"account.c", "n + 1", "n + 2"}, replaced: []string{"account"}},
		{name: "an address is taken of it", edits: []string{"handle.c", "n + n", "n - n"}, replaced: []string{"twice (handle.c)"}, says: "whose address is in hook"},
		{name: "an inline function in a header", edits: []string{"server.h", "n * 7", "n * 9"}, touched: "server.h", replaced: []string{"account", "handle"},
			says: "changed by what the compiler put into them"},
		{name: "a new function", edits: []string{"account.c", "int account(", "static __attribute__((noinline)) int extra(int n) { return n ^ count; }\nint account(",
			"account.c", "return note(n)", "return extra(n) + note(n)"}, replaced: []string{"account"}, added: "extra (account.c)"},
		{name: "a new variable", edits: []string{"account.c", "count -= n;", "static int calls = 5; count -= n + calls++;"}, replaced: []string{"note (account.c)"}, carried: "calls (account.c)"},
		{name: "a new variable before another", edits: []string{"handle.c", "static int steps = 3; ", "static int more; static int steps = 3; more++; "}, replaced: []string{"step (handle.c)"}, carried: "more (handle.c)"},
		{name: "a new enumerator", edits: []string{"server.h", "BUSY }", "BUSY, GONE }", "account.c", "count -= n", "count -= n + GONE"}, replaced: []string{"note (account.c)"}},
		{name: "a function that only a constant table names", edits: []string{"account.c", "static int count;", "static int count;\nstatic const int own[4] = { 7, 8, 9, 1 };", "account.c", "limits[", "own["},
			replaced: []string{"note (account.c)"}, carried: "own (account.c)"},
		{name: "a prototype, with all callers", edits: []string{"server.h", "account(int n)", "account(int n, int m)", "account.c", "account(int n)", "account(int n, int m)", "account.c", "note(n)", "note(n + m)",
			"handle.c", "account(n)", "account(n, 4)"}, replaced: []string{"account", "handle"}, says: "all who call it are in the patch"},

		{name: "a structure grows", edits: []string{"server.h", "int id;", "int id; int flags;"}, refused: []Kind{Layout, Running}, says: "flags is new"},
		{name: "members swapped", edits: []string{"server.h", "int id; char name[12];", "char name[12]; int id;"}, refused: []Kind{Layout, Running}, says: "id was int, 4 bytes, at 0, is int, 4 bytes, at 12"},
		{name: "a type that nobody used before", edits: []string{"server.h", "IDLE, BUSY", "OFF, IDLE, BUSY", "account.c", "count -= n", "enum state s = BUSY; count -= n + s"}, replaced: []string{"note (account.c)"}},
		{name: "a variable's first value", edits: []string{"handle.c", "{ 1, 2, 3 }", "{ 1, 2, 4 }"}, refused: []Kind{Data}, says: "table (handle.c)"},
		{name: "a static variable of a function", edits: []string{"handle.c", "steps = 3", "steps = 4"}, refused: []Kind{Data}, says: "steps (handle.c)"},
		{name: "a variable grows", edits: []string{"handle.c", "table[3] = { 1, 2, 3 }", "table[4] = { 1, 2, 3 }"}, refused: []Kind{Data}, says: "16 bytes, was 12"},
		{name: "a table that others read", edits: []string{"shared.c", "40 }", "41 }"}, refused: []Kind{Data}, says: "note (account.c) refers to it and is not in the patch"},
		{name: "a thread-local variable", edits: []string{"account.c", "count -= n;", "static __thread int mine; count -= n + mine++;"}, refused: []Kind{Data}, says: "thread-local"},
		{name: "a constructor", edits: []string{"account.c", "int account(", "static __attribute__((constructor)) void early(void) { count = 9; }\nint account("}, refused: []Kind{Data}, says: ".init_array"},
		{name: "only at the start", edits: []string{"main.c", "n * 10", "n * 16"}, refused: []Kind{StartOnly, Running}, says: "main runs only when the program starts"},
		{name: "only at the start, called", edits: []string{"shared.c", "level = n", "level = n & 15"}, refused: []Kind{StartOnly}, says: "main > setup"},
		{name: "the loop itself", edits: []string{"main.c", "n++", "n += 2"}, refused: []Kind{Running}, says: "loop is on the stack"},
		{name: "not compiled in", edits: []string{"account.c", "count -= n;", "count -= n;\n#ifdef AUDIT\ncount--;\n#endif\n"}, touched: "account.c", refused: []Kind{NotBuilt}, says: "account.c is compiled, but"},
		{name: "a file that is not compiled", touched: "unused.c", refused: []Kind{NotBuilt}, says: "unused.c is not compiled into prog"},
		{name: "a prototype, with a caller that knows none, and too short", edits: []string{"unproto.c", "(int n) { return n * 3", "(long n) { return n * 5"}, refused: []Kind{Signature, Unsupported}, says: "calls_unproto calls it and is not in the patch"},
		{name: "no sections", flags: []string{"-fno-function-sections"}, edits: []string{"account.c", "n + 1", "n + 2"}, refused: []Kind{Unsupported}, says: "account.o was not compiled with -ffunction-sections"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := was
			if c.flags != nil {
				before = server.compile(t, c.flags...)
			}
			r := judgeBuilds(t, before, server.with(t, c.edits...).compile(t, c.flags...), c.touched)
			if got := kinds(r); !slices.Equal(got, c.refused) {
				t.Errorf("refused for %v, want %v: %+v", got, c.refused, r.Refused)
			}
			var said strings.Builder
			for _, reason := range r.Refused {
				said.WriteString(reason.Text + "\n" + strings.Join(reason.Evidence, "\n") + "\n")
			}
			said.WriteString(strings.Join(r.Notes, "\n"))
			if !strings.Contains(said.String(), c.says) {
				t.Errorf("nothing says %q:\n%s", c.says, said.String())
			}
			if c.refused != nil {
				if _, err := r.File(nil); err == nil {
					t.Error("a patch is written all the same")
				}
				return
			}
			if !slices.Equal(r.Replaced, c.replaced) {
				t.Errorf("replaced are %v, want %v", r.Replaced, c.replaced)
			}
			if got := strings.Join(r.Added, " "); got != c.added {
				t.Errorf("added is %q, want %q", got, c.added)
			}
			if got := strings.Join(r.Carried, " "); got != c.carried {
				t.Errorf("carried is %q, want %q", got, c.carried)
			}
		})
	}
}

// The same source twice is the same program, however often it is built.
func TestEqualBuildsDoNotDiffer(t *testing.T) {
	c := compare(server.compile(t), server.compile(t))
	if len(c.changed)+len(c.data)+len(c.fresh)+len(c.gone) != 0 {
		t.Errorf("changed %v, data %v, new %v, gone %v", c.changed, c.data, c.fresh, c.gone)
	}
}

// made is a patch and what it was made from.
func made(t *testing.T, edits ...string) (*Program, *Info, []byte) {
	t.Helper()
	was := server.compile(t)
	r := judgeBuilds(t, was, server.with(t, edits...).compile(t))
	if len(r.Refused) > 0 {
		t.Fatalf("refused: %+v", r.Refused)
	}
	file, err := r.File([]byte(`{"from": "a test"}`))
	if err != nil {
		t.Fatal(err)
	}
	info, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	return was, info, file
}

// static finds a static symbol by source and name, without what Open does.
func static(t *testing.T, p *Program, source, name string) uint64 {
	t.Helper()
	f, err := elf.Open(filepath.Join(p.dir, p.path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	now := ""
	for _, s := range list {
		if elf.ST_TYPE(s.Info) == elf.STT_FILE {
			now = s.Name
		} else if now == source && s.Name == name {
			return s.Value
		}
	}
	t.Fatalf("%s has no %s", source, name)
	return 0
}

func (i *Info) symbol(t *testing.T, name string) Symbol {
	t.Helper()
	for _, s := range i.Symbols {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("the patch does not refer to %s: %+v", name, i.Symbols)
	return Symbol{}
}

// Two files have functions and variables of the same names.
func TestStaticNamesStayApart(t *testing.T) {
	for file, edit := range map[string][2]string{"account.c": {"count -= n", "count -= n + 1"}, "handle.c": {"count += n", "count += n + 1"}} {
		p, info, _ := made(t, file, edit[0], edit[1])
		if len(info.Functions) != 1 || info.Functions[0].Addr != static(t, p, file, "note") {
			t.Errorf("%s: replaced is %+v", file, info.Functions)
		}
		if s := info.symbol(t, "count"); s.ByName || s.Addr != static(t, p, file, "count") {
			t.Errorf("%s: count is %+v", file, s)
		}
	}
}

// A static variable of a function keeps its place though the compiler has
// given it another number.
func TestNumberedVariableIsFound(t *testing.T) {
	p, info, _ := made(t, "handle.c", "{ count += n;", "{ static int calls; calls++; count += n;", "handle.c", "steps += n;", "steps += n + 1;")
	if s := info.symbol(t, "steps.0"); s.Addr != static(t, p, "handle.c", "steps.0") {
		t.Errorf("steps is %+v", s)
	}
}

// An address that the program may have taken before must stay the same.
func TestTakenAddressIsTheOldOne(t *testing.T) {
	p, info, _ := made(t, "handle.c", "n + n", "n - n", "handle.c", "return note(r->id)", "if (hook != twice) return 0; return note(r->id)")
	if s := info.symbol(t, "twice"); s.Addr != static(t, p, "handle.c", "twice") {
		t.Errorf("twice is %+v", s)
	}
}

// A call between functions of the patch does not go through the old one.
func TestCallsStayInside(t *testing.T) {
	_, info, _ := made(t, "account.c", "count -= n", "count -= n + 1", "account.c", "checked(n + 1)", "checked(n + 2)")
	for _, s := range info.Symbols {
		if s.Name == "note" {
			t.Errorf("account calls the old note: %+v", s)
		}
	}
}

func TestSymbolsOfOthersGoByName(t *testing.T) {
	_, info, _ := made(t, "account.c", "is not there", "is nowhere.")
	for _, name := range []string{"__fprintf_chk", "fprintf"} {
		for _, s := range info.Symbols {
			if s.Name == name && s.ByName {
				return
			}
		}
	}
	t.Errorf("the C library's function is not bound by name: %+v", info.Symbols)
}

// Seldom run parts and functions that are no more must be on no stack.
func TestPartsAreLeft(t *testing.T) {
	cold := server.with(t, "server.h", "void setup(", "void fail(int n) __attribute__((cold, noreturn));\nvoid setup(",
		"account.c", "	return note(n)", "	if (n == 77)\n\t\tfail(n);\n\treturn note(n)",
		"shared.c", "void setup(", "void fail(int n) { printf(\"%d\", n); __builtin_trap(); }\nvoid setup(")
	was := cold.compile(t)
	r := judgeBuilds(t, was, cold.with(t, "account.c", "n == 77", "n == 78").compile(t))
	if len(r.Refused) > 0 || !slices.Equal(r.Replaced, []string{"account"}) {
		t.Fatalf("%+v", r)
	}
	file, err := r.File(nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	want := static(t, was, "account.c", "account.cold")
	if len(info.Functions) != 2 || !info.Functions[0].Replaced || info.Functions[1].Replaced || info.Functions[1].Addr != want {
		t.Errorf("functions are %+v, want account and, at %#x, account.cold", info.Functions, want)
	}
}

// What the linker accepts is an object file; and no tool has anything to
// complain of.
func TestFileIsAnObject(t *testing.T) {
	_, _, file := made(t, "account.c", "is not there", "is nowhere.")
	name := filepath.Join(t.TempDir(), "p.o")
	if err := os.WriteFile(name, file, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ld", "-r", "--fatal-warnings", "-o", name + ".out", name}, {"readelf", "-aW", "--debug-dump=frames", name}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%v: %v\n%s", args, err, stderr.String())
		}
		if args[0] == "readelf" && !strings.Contains(string(out), " FDE ") {
			t.Errorf("there is nothing to unwind with:\n%s", out)
		}
	}
}

func TestDamageIsSeen(t *testing.T) {
	_, info, file := made(t, "account.c", "is not there", "is nowhere.")
	if info.Name != "test" || string(info.Origin) != `{"from": "a test"}` || len(info.BuildID) != 20 {
		t.Errorf("%+v", info)
	}
	at := bytes.Index(file, []byte("is nowhere."))
	bad := bytes.Clone(file)
	bad[at] ^= 1
	for name, data := range map[string][]byte{"a byte": bad, "cut": file[:len(file)-100], "empty": nil, "another object": []byte("\x7fELF")} {
		if _, err := Read(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What the package needs of a build, it asks for.
func TestUnsuitableProgram(t *testing.T) {
	p := server.compile(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = p.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	run("strip", "-o", "stripped", "prog")
	run("sh", "-c", "gcc -no-pie -o fixed *.o")
	run("sh", "-c", "gcc -pie -Wl,--build-id=none -o nameless *.o")
	for name, want := range map[string]string{"stripped": "stripped", "fixed": "position-independent", "nameless": "build id", "missing": "no such file"} {
		if _, err := Open(p.dir, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An object file that is newer than the program is not the program's.
	run("sh", "-c", "sed -i 's/n + 1/n + 3/' account.c && gcc -g -O2 -fPIE -ffunction-sections -fdata-sections -c account.c")
	if _, err := Open(p.dir, "prog"); err == nil || !strings.Contains(err.Error(), "the code of .text.account") {
		t.Errorf("another object file is taken: %v", err)
	}
	if _, err := Judge(Request{Old: p, New: p, Loops: []string{"nowhere"}}); err == nil || !strings.Contains(err.Error(), "the loop nowhere") {
		t.Errorf("a loop that is not there: %v", err)
	}
}

// An enumerator in the middle renumbers those behind it: functions that know
// their numbers are other code and so in the patch, and what the old ones have
// left in memory is what refuses it.
func TestRenumberedEnumerators(t *testing.T) {
	keep := []string{"account.c", "count -= n;", "if (n == BUSY) count = BUSY; else count -= n;"}
	for name, edits := range map[string][]string{
		"kept in a variable of the type": {"account.c", "static int count;", "static enum state now; static int count;", "account.c", "count -= n;", "if (n == 7) now = BUSY; count -= n + now;"},
		"kept in a number":               keep,
		"of no name, kept in a number":   append([]string{"server.h", "enum state {", "enum {"}, keep...),
	} {
		t.Run(name, func(t *testing.T) {
			was := server.with(t, edits...)
			r := judgeBuilds(t, was.compile(t), was.with(t, "server.h", "IDLE, BUSY", "OFF, IDLE, BUSY").compile(t), "")
			if got := kinds(r); !slices.Equal(got, []Kind{Layout}) {
				t.Errorf("refused for %v: %+v, replaced %v", got, r.Refused, r.Replaced)
			}
		})
	}
}
