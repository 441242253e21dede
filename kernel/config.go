// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// option is one requested setting; an empty Value asks for the option to be off.
type option struct {
	Name, Value string
	// From is the fragment that asked last.
	From string
}

// mergeFragments reads the fragments of a variant. A later request for an
// option replaces an earlier one, inside a fragment it is a mistake.
func mergeFragments(repoRoot string, names []string) ([]option, error) {
	var order []string
	merged := map[string]option{}
	for _, name := range names {
		path := filepath.Join(repoRoot, "kernel", "config", name+".config")
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read config fragment: %w", err)
		}
		opts, err := parseFragment(string(data))
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		for _, o := range opts {
			o.From = name
			if _, ok := merged[o.Name]; !ok {
				order = append(order, o.Name)
			}
			merged[o.Name] = o
		}
	}
	var out []option
	for _, n := range order {
		out = append(out, merged[n])
	}
	return out, nil
}

var (
	optionRE = regexp.MustCompile(`^(CONFIG_[A-Za-z0-9_]+)=(.+)$`)
	offRE    = regexp.MustCompile(`^# (CONFIG_[A-Za-z0-9_]+) is not set$`)
)

// parseFragment reads lines CONFIG_X=value and "# CONFIG_X is not set".
// Other comments are for people; they start with "#" too, so a misspelt "is not
// set" line would be lost without a sound, hence the second look at them.
func parseFragment(text string) ([]option, error) {
	var opts []option
	seen := map[string]int{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " \t")
		var o option
		if m := optionRE.FindStringSubmatch(line); m != nil {
			o = option{Name: m[1], Value: m[2]}
			if o.Value == "n" {
				o.Value = ""
			}
		} else if m := offRE.FindStringSubmatch(line); m != nil {
			o = option{Name: m[1]}
		} else if line == "" || strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# CONFIG_") {
			continue
		} else {
			return nil, fmt.Errorf("line %d: neither an option nor a comment: %q", i+1, line)
		}
		if first := seen[o.Name]; first != 0 {
			return nil, fmt.Errorf("line %d: %s was set on line %d already", i+1, o.Name, first)
		}
		seen[o.Name] = i + 1
		opts = append(opts, o)
	}
	return opts, nil
}

// formatOptions is the text that is added to a .config.
func formatOptions(opts []option) string {
	var sb strings.Builder
	for _, o := range opts {
		if o.Value == "" {
			fmt.Fprintf(&sb, "# %s is not set\n", o.Name)
		} else {
			fmt.Fprintf(&sb, "%s=%s\n", o.Name, o.Value)
		}
	}
	return sb.String()
}

// checkConfig compares what was asked for with the .config that kconfig made
// of it: kconfig drops a request whose dependencies are not met and says nothing.
// exempt are options that the source does not have (the series' own, without it).
func checkConfig(asked []option, dotConfig string, exempt func(name string) bool) error {
	have := map[string]string{}
	for _, line := range strings.Split(dotConfig, "\n") {
		if m := optionRE.FindStringSubmatch(line); m != nil {
			have[m[1]] = m[2]
		}
	}
	var wrong []string
	for _, o := range asked {
		got := have[o.Name]
		if got == o.Value || exempt(o.Name) {
			continue
		}
		show := func(v string) string {
			if v == "" {
				return "off"
			}
			return v
		}
		wrong = append(wrong, fmt.Sprintf("%s: asked for %s by %s.config, is %s", o.Name, show(o.Value), o.From, show(got)))
	}
	if len(wrong) == 0 {
		return nil
	}
	sort.Strings(wrong)
	return fmt.Errorf("check kernel config: %d options did not take effect\n  %s", len(wrong), strings.Join(wrong, "\n  "))
}

// seriesOption says whether an option is one that the series is to add.
func seriesOption(name string) bool {
	return name == "CONFIG_MM_VIEW" || strings.HasPrefix(name, "CONFIG_MM_VIEW_")
}

// absentOptions tells the options of the series that this series (none for
// stock, or an early part of it) does not define. Asking for them is no error;
// asking for one that it does define and not getting it is.
func absentOptions(series []Patch) func(name string) bool {
	return func(name string) bool {
		if !seriesOption(name) {
			return false
		}
		define := regexp.MustCompile(`(?m)^\+(menu)?config ` + regexp.QuoteMeta(strings.TrimPrefix(name, "CONFIG_")) + `\s*$`)
		for _, p := range series {
			if define.Match(p.Data) {
				return false
			}
		}
		return true
	}
}
