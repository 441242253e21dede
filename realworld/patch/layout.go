// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"debug/dwarf"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// shapes is what the debugging information of an object file says of its types
// and functions.
type shapes struct {
	types  map[string]shape
	protos map[string]string // of functions, without qualifiers
	files  map[string]string // where functions are defined
}

// shape is the layout of a structure, or the values of an enumeration.
type shape struct {
	size    int64
	members map[string]string
	enum    bool
}

type die struct {
	*dwarf.Entry
	children []*die
}

func (o *object) shapes(dir string) (*shapes, error) {
	d, err := o.debug(dir)
	if err != nil {
		return nil, err
	}
	s := &shapes{types: map[string]shape{}, protos: map[string]string{}, files: map[string]string{}}
	all := map[dwarf.Offset]*die{}
	var stack []*die
	var list []*die
	var files []*dwarf.LineFile
	r := d.Reader()
	for {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("read debugging information of %s: %w", o.path, err)
		}
		if e == nil {
			break
		}
		if e.Tag == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		if e.Tag == dwarf.TagCompileUnit {
			if lr, err := d.LineReader(e); err == nil && lr != nil {
				files = lr.Files()
			}
		}
		n := &die{Entry: e}
		all[e.Offset] = n
		list = append(list, n)
		if len(stack) > 0 {
			up := stack[len(stack)-1]
			up.children = append(up.children, n)
		}
		if e.Children {
			stack = append(stack, n)
		}
	}
	names := map[dwarf.Offset]string{} // of types without one, the typedef's
	for _, n := range list {
		if off, ok := n.Val(dwarf.AttrType).(dwarf.Offset); ok && n.Tag == dwarf.TagTypedef {
			names[off] = n.name()
		}
	}
	g := &graphOfTypes{all: all, names: names}
	for _, n := range list {
		switch n.Tag {
		case dwarf.TagStructType, dwarf.TagUnionType, dwarf.TagClassType, dwarf.TagEnumerationType:
			name := g.typeName(n.Offset, 0)
			if n.Val(dwarf.AttrDeclaration) != nil {
				continue
			}
			sh := g.shape(n)
			if !strings.Contains(name, "{") {
				s.add(name, sh)
			} else if sh.enum {
				// Of no name: numbers, each known by its own.
				for what, value := range sh.members {
					s.add("enumerator "+what, shape{size: sh.size, members: map[string]string{what: value}, enum: true})
				}
			} // all others are part of another, and shown there
		case dwarf.TagSubprogram:
			name := n.name()
			if name == "" || n.Val(dwarf.AttrDeclaration) != nil {
				continue
			}
			args := []string{}
			for _, c := range n.children {
				if c.Tag == dwarf.TagFormalParameter {
					args = append(args, g.typeName(c.typ(), 0))
				} else if c.Tag == dwarf.TagUnspecifiedParameters {
					args = append(args, "...")
				}
			}
			s.protos[name] = g.typeName(n.typ(), 0) + " (" + strings.Join(args, ", ") + ")"
			if i, ok := n.Val(dwarf.AttrDeclFile).(int64); ok && int(i) < len(files) && files[i] != nil {
				s.files[name] = files[i].Name
			}
		}
	}
	return s, nil
}

// add keeps a type; several may have a name, in functions.
func (s *shapes) add(name string, sh shape) {
	for key, i := name, 2; ; key, i = fmt.Sprintf("%s (%d)", name, i), i+1 {
		if _, taken := s.types[key]; !taken {
			s.types[key] = sh
			return
		}
	}
}

func (n *die) name() string { s, _ := n.Val(dwarf.AttrName).(string); return s }

func (n *die) typ() dwarf.Offset { off, _ := n.Val(dwarf.AttrType).(dwarf.Offset); return off }

func (n *die) size() int64 { v, _ := n.Val(dwarf.AttrByteSize).(int64); return v }

type graphOfTypes struct {
	all   map[dwarf.Offset]*die
	names map[dwarf.Offset]string
}

// typeName spells a type, without qualifiers. A type that has no name of any
// kind is spelled out.
func (g *graphOfTypes) typeName(off dwarf.Offset, depth int) string {
	n := g.all[off]
	if n == nil {
		return "void"
	}
	if depth > 20 {
		return "..."
	}
	switch n.Tag {
	case dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType:
		return g.typeName(n.typ(), depth+1)
	case dwarf.TagPointerType:
		return g.typeName(n.typ(), depth+1) + " *"
	case dwarf.TagSubroutineType:
		return "function"
	case dwarf.TagArrayType:
		s := g.typeName(n.typ(), depth+1)
		for _, c := range n.children {
			if c.Tag == dwarf.TagSubrangeType {
				if count, ok := c.Val(dwarf.AttrCount).(int64); ok {
					s += fmt.Sprintf("[%d]", count)
				} else if top, ok := c.Val(dwarf.AttrUpperBound).(int64); ok {
					s += fmt.Sprintf("[%d]", top+1)
				} else {
					s += "[]"
				}
			}
		}
		return s
	}
	word := map[dwarf.Tag]string{dwarf.TagStructType: "struct ", dwarf.TagUnionType: "union ", dwarf.TagClassType: "class ", dwarf.TagEnumerationType: "enum "}[n.Tag]
	if name := n.name(); name != "" {
		return word + name
	}
	if name := g.names[off]; name != "" {
		return name
	}
	sh := g.shape(n)
	return fmt.Sprintf("%s{%d: %s}", word, sh.size, strings.Join(sh.lines(), ", "))
}

func (g *graphOfTypes) sizeOf(off dwarf.Offset, depth int) int64 {
	n := g.all[off]
	if n == nil || depth > 20 || n.Tag == dwarf.TagArrayType {
		return 0 // of an array the name says it
	}
	if n.Tag == dwarf.TagPointerType || n.Val(dwarf.AttrByteSize) != nil {
		return n.size()
	}
	return g.sizeOf(n.typ(), depth+1)
}

func (g *graphOfTypes) shape(n *die) shape {
	sh := shape{size: n.size(), members: map[string]string{}, enum: n.Tag == dwarf.TagEnumerationType}
	for i, c := range n.children {
		name := c.name()
		switch c.Tag {
		case dwarf.TagEnumerator:
			sh.members[name] = fmt.Sprint(c.Val(dwarf.AttrConstValue))
		case dwarf.TagMember:
			if name == "" {
				name = fmt.Sprintf("(member %d)", i+1)
			}
			at, _ := c.Val(dwarf.AttrDataMemberLoc).(int64)
			where := fmt.Sprintf("at %d", at)
			if bit, ok := c.Val(dwarf.AttrDataBitOffset).(int64); ok {
				where = fmt.Sprintf("at bit %d, %v bits", bit, c.Val(dwarf.AttrBitSize))
			}
			sh.members[name] = fmt.Sprintf("%s, %d bytes, %s", g.typeName(c.typ(), 1), g.sizeOf(c.typ(), 0), where)
		}
	}
	return sh
}

func (sh shape) lines() []string {
	var list []string
	for name, what := range sh.members {
		list = append(list, name+": "+what)
	}
	sort.Strings(list)
	return list
}

// differences says how a type is another than before. New values of an
// enumeration change nothing for those that there were.
func (sh shape) differences(was shape) []string {
	var list []string
	for name, what := range was.members {
		if now, ok := sh.members[name]; !ok {
			list = append(list, fmt.Sprintf("%s is gone (was %s)", name, what))
		} else if now != what {
			list = append(list, fmt.Sprintf("%s was %s, is %s", name, what, now))
		}
	}
	for name, what := range sh.members {
		if _, ok := was.members[name]; !ok && !sh.enum {
			list = append(list, fmt.Sprintf("%s is new (%s)", name, what))
		}
	}
	sort.Strings(list)
	if sh.size != was.size {
		list = append([]string{fmt.Sprintf("%d bytes, was %d", sh.size, was.size)}, list...)
	}
	return list
}

// shapeChange is a type whose layout differs, or a function with another
// prototype.
type shapeChange struct {
	name string
	how  []string
	in   []string // sources
}

// shapesOf compares types and prototypes in all object files that are not
// equal to the byte. Files holds where functions of the new build come from.
func (c *comparison) shapesOf() (types, protos []shapeChange, files map[*object]map[string]string, err error) {
	found := map[string]*shapeChange{}
	files = map[*object]map[string]string{}
	note := func(list *[]string, key string, how []string, in string) {
		if len(how) == 0 {
			return
		}
		if found[key] == nil {
			found[key] = &shapeChange{how: how}
			*list = append(*list, key)
		}
		found[key].in = append(found[key].in, in)
	}
	var typeKeys, protoKeys []string
	for _, n := range c.new.objects {
		o := c.twin[n]
		if o == nil {
			continue
		}
		a, err := os.ReadFile(filepath.Join(c.old.dir, o.path))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read object file: %w", err)
		}
		b, err := os.ReadFile(filepath.Join(c.new.dir, n.path))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read object file: %w", err)
		}
		if bytes.Equal(a, b) {
			continue
		}
		was, err := o.shapes(c.old.dir)
		if err != nil {
			return nil, nil, nil, err
		}
		now, err := n.shapes(c.new.dir)
		if err != nil {
			return nil, nil, nil, err
		}
		files[n] = now.files
		for name, sh := range now.types {
			if before, ok := was.types[name]; ok {
				note(&typeKeys, name, sh.differences(before), n.source)
			}
		}
		for name, proto := range now.protos {
			if before, ok := was.protos[name]; ok && before != proto {
				note(&protoKeys, name+"()", []string{fmt.Sprintf("was %s, is %s", before, proto)}, n.source)
			}
		}
	}
	pick := func(keys []string) []shapeChange {
		sort.Strings(keys)
		var list []shapeChange
		for _, k := range keys {
			found[k].name = k
			list = append(list, *found[k])
		}
		return list
	}
	return pick(typeKeys), pick(protoKeys), files, nil
}
