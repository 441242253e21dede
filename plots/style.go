// SPDX-License-Identifier: Apache-2.0

// Package plots draws the figures of the evaluation: pure functions from
// numbers to pictures, in one style.
//
// The style is made for a page of two columns and for a copier: a figure is one
// column (3.4 in) or two (7 in) wide at the size of print, lines differ in dash
// pattern and marker as well as in colour, names stand beside their lines rather
// than in a legend, and each figure says at its foot what a unit of time is in it
// and what n is.  The same numbers give the same bytes.
package plots

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"time"

	pdf "codeberg.org/go-pdf/fpdf"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgpdf"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Widths on paper.
const (
	OneColumn  = 3.4 * vg.Inch
	TwoColumns = 7 * vg.Inch
)

// Sizes of text and strength of lines.
const (
	labelSize = vg.Length(7.5)
	tickSize  = vg.Length(6.5)
	noteSize  = vg.Length(5.8)
	thin      = vg.Length(0.4)
	axisWidth = vg.Length(0.5)
	lineWidth = vg.Length(1.0)
)

var (
	ink   = color.NRGBA{0x1a, 0x1a, 0x1a, 0xff}
	soft  = color.NRGBA{0x66, 0x66, 0x66, 0xff}
	faint = color.NRGBA{0xe2, 0xe2, 0xe2, 0xff}
	shade = color.NRGBA{0xf1, 0xf0, 0xea, 0xff}
)

func init() {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	// A PDF carries the date of its making and lists its fonts in the order of a
	// map; both would make two equal figures differ.
	fixed := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	pdf.SetDefaultCreationDate(fixed)
	pdf.SetDefaultModificationDate(fixed)
	pdf.SetDefaultCatalogSort(true)
}

// A look is how one line is told from the others, in colour and without.
type look struct {
	color color.NRGBA
	dash  []vg.Length
	glyph draw.GlyphDrawer
	width vg.Length
}

// The colours keep apart under the common kinds of colour blindness, and the
// pairs that meet most often (waitfree and barrier, create and fork) also differ
// in lightness.
var looks = map[string]look{
	"none":      {color.NRGBA{0x75, 0x75, 0x75, 0xff}, []vg.Length{1, 1.6}, draw.CrossGlyph{}, lineWidth},
	"waitfree":  {color.NRGBA{0x0b, 0x4f, 0x9c, 0xff}, nil, draw.CircleGlyph{}, 1.3},
	"barrier":   {color.NRGBA{0xd5, 0x5e, 0x00, 0xff}, []vg.Length{4, 1.8}, draw.SquareGlyph{}, 1.2},
	"naive":     {color.NRGBA{0x1a, 0x1a, 0x1a, 0xff}, []vg.Length{5, 1.5, 1, 1.5}, draw.TriangleGlyph{}, lineWidth},
	"stopworld": {color.NRGBA{0x8e, 0x3a, 0x80, 0xff}, []vg.Length{2.5, 1.5}, draw.PyramidGlyph{}, lineWidth},
	"restart":   {color.NRGBA{0x7a, 0x5c, 0x1e, 0xff}, []vg.Length{6, 2, 1, 2, 1, 2}, draw.BoxGlyph{}, lineWidth},

	"create":         {color.NRGBA{0x0b, 0x4f, 0x9c, 0xff}, nil, draw.CircleGlyph{}, 1.2},
	"seal":           {color.NRGBA{0x00, 0x7f, 0x66, 0xff}, []vg.Length{4, 1.6}, draw.TriangleGlyph{}, lineWidth},
	"enter-last":     {color.NRGBA{0xb0, 0x5a, 0x9b, 0xff}, []vg.Length{5, 1.2, 1, 1.2}, draw.RingGlyph{}, lineWidth},
	"retire":         {color.NRGBA{0x1a, 0x1a, 0x1a, 0xff}, []vg.Length{1, 1.6}, draw.RingGlyph{}, lineWidth},
	"fork-exit-wait": {color.NRGBA{0x7a, 0x2b, 0x00, 0xff}, []vg.Length{2, 1.2}, draw.BoxGlyph{}, lineWidth},

	"enter":   {color.NRGBA{0xb0, 0x5a, 0x9b, 0xff}, []vg.Length{1.4, 1.4}, draw.PyramidGlyph{}, lineWidth},
	"write":   {color.NRGBA{0x9a, 0x6b, 0x00, 0xff}, []vg.Length{5, 1.5, 1, 1.5}, draw.BoxGlyph{}, lineWidth},
	"pull":    {color.NRGBA{0x3f, 0x90, 0xc5, 0xff}, []vg.Length{2.6, 1.4}, draw.PlusGlyph{}, lineWidth},
	"close":   {color.NRGBA{0x75, 0x75, 0x75, 0xff}, []vg.Length{6, 2}, draw.CrossGlyph{}, lineWidth},
	"fork":    {color.NRGBA{0xc4, 0x45, 0x00, 0xff}, []vg.Length{4, 1.2, 1, 1.2, 1, 1.2}, draw.SquareGlyph{}, 1.3},
	"guided":  {color.NRGBA{0x0b, 0x4f, 0x9c, 0xff}, nil, draw.CircleGlyph{}, 1.3},
	"blind":   {color.NRGBA{0xd5, 0x5e, 0x00, 0xff}, []vg.Length{4, 1.8}, draw.SquareGlyph{}, 1.2},
	"free":    {color.NRGBA{0x75, 0x75, 0x75, 0xff}, []vg.Length{1, 1.6}, draw.CrossGlyph{}, lineWidth},
	"p50":     {color.NRGBA{0x75, 0x75, 0x75, 0xff}, nil, draw.CircleGlyph{}, 0.9},
	"p99":     {color.NRGBA{0x0b, 0x4f, 0x9c, 0xff}, nil, draw.CircleGlyph{}, 1.1},
	"p99.9":   {color.NRGBA{0x0b, 0x4f, 0x9c, 0xff}, []vg.Length{4, 1.8}, draw.SquareGlyph{}, lineWidth},
	"max":     {color.NRGBA{0x1a, 0x1a, 0x1a, 0xff}, []vg.Length{1, 1.4}, draw.CrossGlyph{}, lineWidth},
	"default": {ink, nil, draw.CircleGlyph{}, lineWidth},
}

func lookOf(key string) look {
	if l, ok := looks[key]; ok {
		return l
	}
	return looks["default"]
}

func (l look) line() draw.LineStyle {
	return draw.LineStyle{Color: l.color, Width: l.width, Dashes: l.dash}
}

func (l look) marker(r vg.Length) draw.GlyphStyle {
	return draw.GlyphStyle{Color: l.color, Radius: r, Shape: l.glyph}
}

func style(size vg.Length, c color.Color) text.Style {
	return text.Style{
		Color:   c,
		Font:    font.From(plot.DefaultFont, size),
		Handler: plot.DefaultTextHandler,
	}
}

// Figure is a picture that can be drawn in every format.
type Figure struct {
	// Name of its files, without extension.
	Name string
	// Width and height on paper.
	W, H vg.Length
	// Note at its foot: the time base and n.
	Note string

	draw func(draw.Canvas)
}

// Formats that Render knows.
var Formats = []string{"pdf", "svg", "png"}

// pngDPI makes two columns 2100 pixels wide.
const pngDPI = 300

// Render draws the figure in one format.
func (f Figure) Render(format string) ([]byte, error) {
	var c vg.CanvasWriterTo
	switch format {
	case "pdf":
		c = pdfCanvas{vgpdf.New(f.W, f.H)}
	case "svg":
		c = vgsvg.New(f.W, f.H)
	case "png":
		c = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(f.W, f.H), vgimg.UseDPI(pngDPI), vgimg.UseBackgroundColor(color.White))}
	default:
		return nil, fmt.Errorf("render figure %s: unknown format %q", f.Name, format)
	}
	dc := draw.New(c)
	if f.Note != "" {
		s := style(noteSize, soft)
		s.XAlign, s.YAlign = draw.XRight, draw.YBottom
		dc.FillText(s, vg.Point{X: dc.Max.X - 1, Y: dc.Min.Y + 1}, f.Note)
		dc = draw.Crop(dc, 0, 0, noteSize+3, 0)
	}
	f.draw(dc)
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("render figure %s: %w", f.Name, err)
	}
	if format == "svg" {
		// Who lacks the font gets one of the same widths, not a serif.
		return []byte(strings.ReplaceAll(b.String(), "font-family:Liberation Sans;",
			"font-family:'Liberation Sans',Arimo,Arial,Helvetica,sans-serif;")), nil
	}
	return b.Bytes(), nil
}

// pdfCanvas hands text to the PDF in the code page that its fonts are embedded
// with; the canvas of the library writes the bytes of UTF-8, and "µ" reads "Âµ".
type pdfCanvas struct{ *vgpdf.Canvas }

func (c pdfCanvas) FillString(f font.Face, pt vg.Point, s string) {
	c.Canvas.FillString(f, pt, codePage(s))
}

// codePage has a question mark for what the code page lacks; a test sees to it
// that no figure needs one.
func codePage(s string) string {
	out, err := encoding.ReplaceUnsupported(charmap.Windows1252.NewEncoder()).String(s)
	if err != nil {
		return s
	}
	return strings.ReplaceAll(out, "\x1a", "?")
}

// Save writes the figure into dir, in all formats.
func (f Figure) Save(dir string) error {
	for _, format := range Formats {
		b, err := f.Render(format)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name+"."+format), b, 0o644); err != nil {
			return fmt.Errorf("save figure %s: %w", f.Name, err)
		}
	}
	return nil
}
