// SPDX-License-Identifier: Apache-2.0

// Package house holds the repository to its own rules: imports go down only,
// and the documents name nothing that is not there.
package house

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const module = "github.com/wflp/wflp"

// root is the top of the checkout, seen from here.
const root = "../.."

// layers are all packages, the lowest first. A package may import what is in
// the layers below its own, and nothing else of this module.
var layers = [][]string{
	{"analysis/record", "analysis/stats", "internal/build", "kernel/control", "kernel/mmview", "realworld/patch", "vmimages/guestproto", "workloads", "workloads/wire/schemagen"},
	{"fuzz/driver", "fuzz/fuzzwire", "kernel", "plots", "realworld/program", "realworld/server", "vmimages", "vmimages/agent", "vmimages/qemu", "workloads/wire", "workloads/wire/gen"},
	{"fuzz/oracle", "fuzz/scenario", "realworld/load", "vmimages/vm", "workloads/code"},
	{"analysis/report", "fuzz/conform", "fuzz/model", "realworld/guest", "workloads/trial"},
	{"evaluation", "fuzz/guest"},
	{"fuzz/attempt"},
	{"fuzz/finding"},
	{"fuzz/campaign"},
	{"fuzz/matrix"},
	{"cmd/wflp", "internal/house"},
}

// confined may import of this module only what is listed, whatever their layer:
// the machine knows nothing of what a run means, a verdict depends on nothing
// but spec and trace, a report on nothing but records.
var confined = map[string][]string{
	"analysis/record":     {},
	"analysis/stats":      {},
	"plots":               {"analysis/record", "analysis/stats"},
	"analysis/report":     {"analysis/record", "analysis/stats", "plots"},
	"realworld/patch":     {},
	"realworld/program":   {"internal/build", "realworld/patch"},
	"realworld/server":    {"analysis/record"},
	"realworld/load":      {"analysis/record", "kernel/control", "realworld/server"},
	"vmimages/guestproto": {},
	"vmimages/agent":      {"vmimages/guestproto"},
	"vmimages/qemu":       {"internal/build"},
	"vmimages/vm":         {"internal/build", "kernel", "vmimages", "vmimages/guestproto", "vmimages/qemu"},
	"workloads":           {},
	"fuzz/conform":        {"kernel", "vmimages", "vmimages/guestproto", "vmimages/vm"},
	"fuzz/oracle":         {"workloads", "workloads/wire"},
	"fuzz/driver":         {},
	"fuzz/scenario":       {"fuzz/driver", "fuzz/fuzzwire"},
	"fuzz/model":          {"fuzz/fuzzwire", "fuzz/oracle", "fuzz/scenario"},
}

// wrongImports lists what is against the rules in a map of packages to what of
// this module they import.
func wrongImports(imports map[string][]string) []string {
	layer := map[string]int{}
	for i, l := range layers {
		for _, p := range l {
			layer[p] = i
		}
	}
	var wrong []string
	for p, list := range imports {
		if _, ok := layer[p]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s is in no layer: give it its place in internal/house and docs/architecture.md", p))
			continue
		}
		for _, q := range list {
			only, bound := confined[p]
			if l, ok := layer[q]; ok && l >= layer[p] {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which is not below it", p, q))
			} else if bound && !slices.Contains(only, q) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, and may import only %v", p, q, only))
			}
		}
	}
	for p := range layer {
		if _, ok := imports[p]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s has a layer and does not exist", p))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// Imports of tests count, too: what a test needs, whoever works on the package
// must understand.
func TestImportsGoDown(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}`, "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	imports := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Fields(line)
		p := strings.TrimPrefix(fields[0], module+"/")
		imports[p] = nil
		for _, q := range fields[1:] {
			// An external test imports its own package.
			if rel, ours := strings.CutPrefix(q, module+"/"); ours && rel != p && !slices.Contains(imports[p], rel) {
				imports[p] = append(imports[p], rel)
			}
		}
	}
	for _, w := range wrongImports(imports) {
		t.Error(w)
	}
}

// What the check must catch.
func TestWrongImportsAreSeen(t *testing.T) {
	sound := func() map[string][]string {
		m := map[string][]string{}
		for _, l := range layers {
			for _, p := range l {
				m[p] = nil
			}
		}
		return m
	}
	if w := wrongImports(sound()); len(w) > 0 {
		t.Fatalf("imports of nothing are wrong: %v", w)
	}
	for _, c := range []struct{ from, to string }{
		{"workloads", "workloads/wire"},    // up
		{"vmimages/vm", "fuzz/oracle"},     // sideways
		{"fuzz/oracle", "analysis/record"}, // down, and yet not allowed
		{"workloads/newcomer", "kernel"},   // a package without a place
	} {
		m := sound()
		m[c.from] = append(m[c.from], c.to)
		if w := wrongImports(m); len(w) != 1 || !strings.HasPrefix(w[0], c.from+" ") {
			t.Errorf("%s importing %s: %v", c.from, c.to, w)
		}
	}
	m := sound()
	delete(m, "plots")
	if w := wrongImports(m); len(w) != 1 {
		t.Errorf("a package that is gone: %v", w)
	}
}

// documents are the ones that people read first, by their names.
func documents(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]string{}
	for _, n := range append(names, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(root, n)
		docs[rel] = string(text)
	}
	return docs
}

var (
	fenceRE = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	spanRE  = regexp.MustCompile("`([^`\n]+)`")
	linkRE  = regexp.MustCompile(`\]\(([^)#\s]+)`)
	wordRE  = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// snippets are the stretches of a document that are code: lines of blocks that
// are no C, and spans.
func snippets(text string) []string {
	var out []string
	for _, m := range fenceRE.FindAllStringSubmatch(text, -1) {
		if m[1] != "c" {
			out = append(out, strings.Split(m[2], "\n")...)
		}
	}
	for _, m := range spanRE.FindAllStringSubmatch(fenceRE.ReplaceAllString(text, ""), -1) {
		out = append(out, m[1])
	}
	return out
}

// commands splits a snippet at what a shell would end a command at.
func commands(snippet string) [][]string {
	var out [][]string
	for _, c := range regexp.MustCompile(`\s#.*|&&|\|\|?|;`).Split(snippet, -1) {
		if f := strings.Fields(c); len(f) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// missingTargets lists what a make command asks for and no Makefile has.
func missingTargets(args []string) []string {
	dir, targets := ".", []string{}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-C" && i+1 < len(args):
			dir = args[i+1]
			i++
		case strings.HasPrefix(a, "-") || strings.Contains(a, "="):
		case wordRE.MatchString(a):
			targets = append(targets, a)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, dir, "Makefile"))
	if err != nil {
		return []string{dir + "/Makefile"}
	}
	return slices.DeleteFunc(targets, func(name string) bool {
		return regexp.MustCompile(`(?m)^([a-z-]+ )*` + name + `( [a-z-]+)*:`).Match(text)
	})
}

// program is the source of cmd/wflp without its tests.
func program(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "cmd", "wflp", "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("find cmd/wflp: %v", err)
	}
	var all strings.Builder
	for _, n := range names {
		if strings.HasSuffix(n, "_test.go") {
			continue
		}
		text, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func missingFlags(source string, args []string) []string {
	if len(args) == 0 || !wordRE.MatchString(args[0]) {
		return nil
	}
	var missing []string
	if !strings.Contains(source, `name: "`+args[0]+`"`) && args[0] != "help" {
		missing = append(missing, args[0])
	}
	for _, a := range args[1:] {
		if a == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if strings.HasPrefix(a, "-") && name != "h" && !strings.Contains(source, `"`+name+`"`) {
			missing = append(missing, a)
		}
	}
	return missing
}

func TestDocumentedCommandsExist(t *testing.T) {
	source := program(t)
	seen := 0
	for doc, text := range documents(t) {
		for _, s := range snippets(text) {
			for _, c := range commands(s) {
				for len(c) > 1 && strings.Contains(c[0], "=") { // VARIABLE=VALUE before a command
					c = c[1:]
				}
				var missing []string
				switch c[0] {
				case "make":
					missing = missingTargets(c[1:])
				case "wflp", "build/wflp":
					missing = missingFlags(source, c[1:])
				default:
					continue
				}
				seen++
				if len(missing) > 0 {
					t.Errorf("%s: %q: there is no %v", doc, strings.Join(c, " "), missing)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands were found in the documents: this test is blind", seen)
	}
	if len(missingTargets([]string{"evaluat"})) != 1 || len(missingTargets([]string{"-C", "kernel/libwflp", "selftest"})) != 1 ||
		len(missingFlags(source, []string{"bot"})) != 1 || len(missingFlags(source, []string{"vm", "-variants", "debug", "--", "-x"})) != 1 {
		t.Error("commands that do not exist are not seen")
	}
}

func TestDocumentedPathsExist(t *testing.T) {
	patches, err := filepath.Glob(filepath.Join(root, "kernel", "patches", "*.patch"))
	if err != nil {
		t.Fatal(err)
	}
	var series strings.Builder
	for _, p := range patches {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		series.Write(text)
	}
	// A path is meant for one of ours if it begins as one, unless the series has
	// a file of that name: then it is in the kernel's tree.
	ours := regexp.MustCompile(`^(analysis|cmd|docs|evaluation|fuzz|internal|kernel|plots|tools|vmimages|workloads|\.ci)/[\w./*-]*$`)
	exists := func(path string) bool {
		found, err := filepath.Glob(filepath.Join(root, path))
		return err == nil && len(found) > 0 || strings.Contains(series.String(), "\n+++ b/"+path+"\n")
	}
	for doc, text := range documents(t) {
		for _, m := range linkRE.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(m[1], "://") && !exists(filepath.Join(filepath.Dir(doc), m[1])) {
				t.Errorf("%s: link to %s, which is not there", doc, m[1])
			}
		}
		for _, s := range snippets(text) {
			for _, w := range strings.Fields(s) {
				if ours.MatchString(w) && !exists(w) {
					t.Errorf("%s: %s is not there", doc, w)
				}
			}
		}
	}
	if exists("docs/nothing.md") || !exists("docs/records.md") {
		t.Error("what exists is not told from what does not")
	}
}

// The program in README.md is built as a reader would, with the library's
// sources in place of an installed one, and does what the text says.
func TestReadmeProgramRuns(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var source string
	for _, m := range fenceRE.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "c" {
			source = m[2]
			break
		}
	}
	if source == "" {
		t.Fatal("README.md has no program")
	}
	lib := filepath.Join(root, "kernel", "libwflp")
	srcs, err := filepath.Glob(filepath.Join(lib, "src", "*.c"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	main, bin := filepath.Join(dir, "demo.c"), filepath.Join(dir, "demo")
	if err := os.WriteFile(main, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I" + filepath.Join(lib, "include"), "-I" + filepath.Join(lib, "src"), "-o", bin, main}, srcs...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("build the program of README.md: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin).CombinedOutput()
	if err != nil {
		t.Fatalf("run the program of README.md: %v\n%s", err, out)
	}
	if got := string(out); !strings.HasPrefix(got, "answer 1\nanswer 2\n") {
		t.Errorf("the program of README.md says\n%s", got)
	}
}
