// SPDX-License-Identifier: Apache-2.0

package record

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/records.md instead of comparing it")

const docsPath = "../../docs/records.md"

// docs/records.md is made from the types and their comments, so it can neither
// forget a field nor describe one that is gone.
func TestDocs(t *testing.T) {
	want := docs(t)
	if *update {
		if err := os.WriteFile(docsPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date: go test ./analysis/record -run TestDocs -update", docsPath)
	}
}

func docs(t *testing.T) string {
	t.Helper()
	structs := map[string]*ast.StructType{}
	about := map[string]string{}
	for _, name := range []string{"types.go", "manifest.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				ts, ok := s.(*ast.TypeSpec)
				if !ok {
					continue
				}
				if st, ok := ts.Type.(*ast.StructType); ok {
					structs[ts.Name.Name] = st
					about[ts.Name.Name] = g.Doc.Text()
				}
			}
		}
	}
	var b strings.Builder
	b.WriteString(`<!-- Made from analysis/record by its test: go test ./analysis/record -run TestDocs -update -->

# Records

A run leaves two files from which everything else can be made again:
` + "`manifest.json`" + ` says what the machine was, ` + "`records.jsonl`" + ` what happened.

`)
	fmt.Fprintf(&b, "`records.jsonl` is JSON Lines, schema %d: one line, one record. Records come in units. A unit is all\n", Schema)
	b.WriteString(`that one boot of a virtual machine yielded: a line of kind ` + "`boot`" + `, any number of lines of other kinds, and a line of
kind ` + "`end`" + ` with a count and a checksum. A unit without its end does not count. The file only grows, by whole units;
one that a kill cut short is at the end, and is cut off when the run resumes. The order of the units means nothing.
A record is referred to by the key of its unit.

Times ending in ` + "`_ns`" + ` are nanoseconds of the time base of their boot:

| time base | a nanosecond is | fit for |
| --- | --- | --- |
| kvm | real time, with hardware virtualisation | everything |
| tcg | real time of an emulated machine | ratios between things measured in the same boot |
| icount | 2^-icount_shift of an instruction: virtual time | costs in instructions, the same on every machine |

Histograms are HdrHistogram's compressed V2 encoding in base64: nanoseconds, up to an hour, three significant digits.

`)
	section := func(heading string, typ reflect.Type) {
		name := typ.Name()
		fmt.Fprintf(&b, "## %s\n\n%s\n\n| field | type | meaning |\n| --- | --- | --- |\n", heading, prose(about[name]))
		var shared string
		for _, f := range structs[name].Fields.List {
			if text := strings.TrimSpace(strings.ReplaceAll(f.Doc.Text(), "\n", " ")); text != "" {
				shared = text
			}
			for _, id := range f.Names {
				sf, ok := typ.FieldByName(id.Name)
				if !ok {
					t.Fatalf("%s.%s is in the source only", name, id.Name)
				}
				tag, rest, _ := strings.Cut(sf.Tag.Get("json"), ",")
				if tag == "" {
					t.Errorf("%s.%s has no name in JSON", name, id.Name)
				}
				if shared == "" {
					shared = strings.ToLower(id.Name[:1]) + id.Name[1:] + "."
				}
				opt := ""
				if rest != "" {
					opt = ", optional"
				}
				fmt.Fprintf(&b, "| `%s` | %s%s | %s |\n", tag, typeName(sf.Type), opt, shared)
			}
		}
		b.WriteString("\n")
	}
	section("A line", reflect.TypeFor[Line]())
	section("boot", reflect.TypeFor[Boot]())
	section("complaint", reflect.TypeFor[Complaint]())
	section("cell", reflect.TypeFor[Cell]())
	section("trial", reflect.TypeFor[Trial]())
	section("program", reflect.TypeFor[Program]())
	section("counts", reflect.TypeFor[Counts]())
	section("latency", reflect.TypeFor[Latency]())
	section("over", reflect.TypeFor[Over]())
	section("move", reflect.TypeFor[Move]())
	section("span", reflect.TypeFor[Span]())
	section("outcome", reflect.TypeFor[Outcome]())
	section("memory", reflect.TypeFor[Memory]())
	section("micro", reflect.TypeFor[Micro]())
	section("end", reflect.TypeFor[End]())
	section("manifest.json", reflect.TypeFor[Manifest]())
	section("kernel", reflect.TypeFor[Kernel]())
	section("host", reflect.TypeFor[Host]())
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// prose drops the Go name that a doc comment begins with.
func prose(doc string) string {
	doc = strings.TrimSpace(doc)
	_, rest, ok := strings.Cut(doc, " ")
	if !ok {
		return doc
	}
	rest = strings.TrimPrefix(rest, "is ")
	return strings.ToUpper(rest[:1]) + rest[1:]
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[*Hist]():
		return "histogram"
	case t == reflect.TypeFor[Seed]():
		return "seed (hexadecimal string)"
	case t.PkgPath() == "time":
		return "date"
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Map:
		return "object of " + typeName(t.Elem())
	case t.Kind() == reflect.Struct:
		return "[" + strings.ToLower(t.Name()) + "](#" + strings.ToLower(t.Name()) + ")"
	case strings.HasPrefix(t.Kind().String(), "int"):
		return "integer"
	}
	return t.Kind().String()
}
