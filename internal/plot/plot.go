// Package plot draws line charts as SVG and PNG.
package plot

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Chart is a chart of lines over one axis.
type Chart struct {
	Title  string
	X, Y   string // names of the axes, with their units
	Log    bool   // the Y axis is logarithmic; values must be above 0, others are left out
	Series []Series
}

// Series is a line with a point for each value.
type Series struct {
	Name string
	X, Y []float64
}

// Formats are the endings of files that Write knows.
var Formats = []string{".svg", ".png"}

// Write draws charts beside one another, in the format of a file's name.
func Write(w io.Writer, name string, charts ...Chart) error {
	columns := int(math.Ceil(math.Sqrt(float64(len(charts)))))
	rows := (len(charts) + columns - 1) / max(columns, 1)
	size := point{float64(columns) * width, float64(rows) * height}
	var on canvas
	switch ext := strings.ToLower(filepath.Ext(name)); ext {
	case ".svg":
		on = newSVG(size)
	case ".png":
		on = newPNG(size)
	default:
		return fmt.Errorf("draw %s: want a name that ends in %s", name, strings.Join(Formats, " or "))
	}
	for i := range charts {
		d := drawing{on, point{float64(i%columns) * width, float64(i/columns) * height}}
		d.chart(&charts[i])
	}
	return on.write(w)
}

// Size of a chart and of what is around its lines, in pixels of a plain screen.
const (
	width  = 660.
	height = 400.
	left   = 64.
	top    = 44.
	right  = 188. // for the names of the lines
	bottom = 52.
)

// Sizes of text.
const (
	titleSize = 15.
	textSize  = 12.
	lineHigh  = 17. // between names of lines
)

type point struct{ x, y float64 }

// canvas is what a chart is drawn on.
type canvas interface {
	// line joins points; a dash of 0 is a whole line.
	line(points []point, color string, width, dash float64)
	dot(at point, radius float64, color string)
	// text writes a line whose anchor is at a point: 0 its begin, 0.5 its middle, 1
	// its end; up turns it to the left.
	text(at point, s string, style textStyle)
	write(w io.Writer) error
}

type textStyle struct {
	size   float64
	anchor float64
	color  string
	up     bool
}

// Colors of text and lines of the frame, and of the lines: those of Okabe and Ito, which
// color-blind people tell apart.
const (
	black  = "#222222"
	grey   = "#666666"
	pale   = "#dddddd"
	ground = "#ffffff"
)

var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#a0a000"}

// dashes are those of the lines after each round of colors.
var dashes = []float64{0, 6, 2}

// drawing draws one chart at its place.
type drawing struct {
	on canvas
	at point
}

func (d *drawing) p(x, y float64) point { return point{d.at.x + x, d.at.y + y} }

func (d *drawing) chart(c *Chart) {
	d.on.text(d.p(left, 26), c.Title, textStyle{size: titleSize, color: black})
	x, y := axisOf(c, false), axisOf(c, true)
	x.from, x.to, y.from, y.to = left, width-right, height-bottom, top
	for _, tick := range y.ticks {
		at := y.place(tick)
		d.on.line([]point{d.p(left, at), d.p(width-right, at)}, pale, 1, 0)
		d.on.text(d.p(left-6, at+4), label(tick), textStyle{size: textSize, anchor: 1, color: grey})
	}
	for _, tick := range x.ticks {
		at := x.place(tick)
		d.on.line([]point{d.p(at, height-bottom), d.p(at, height-bottom+4)}, grey, 1, 0)
		d.on.text(d.p(at, height-bottom+18), label(tick), textStyle{size: textSize, anchor: 0.5, color: grey})
	}
	d.on.line([]point{d.p(left, top), d.p(left, height-bottom), d.p(width-right, height-bottom)}, grey, 1, 0)
	d.on.text(d.p((left+width-right)/2, height-12), c.X, textStyle{size: textSize, anchor: 0.5, color: black})
	d.on.text(d.p(16, (top+height-bottom)/2), c.Y, textStyle{size: textSize, anchor: 0.5, color: black, up: true})
	d.lines(c, &x, &y)
}

// lines draws the lines, and their names beside their ends: near them, and below one
// another.
func (d *drawing) lines(c *Chart, x, y *axis) {
	type name struct {
		at   float64
		text string
		n    int
	}
	var names []name
	for i, s := range c.Series {
		points, end := d.points(&s, x, y)
		color, dash := style(i)
		d.on.line(points, color, 2, dash)
		for _, p := range points {
			d.on.dot(p, 3, color)
		}
		names = append(names, name{end, s.Name, i})
	}
	slices.SortStableFunc(names, func(a, b name) int { return int(math.Copysign(1, a.at-b.at)) })
	for i := range names {
		if i > 0 {
			names[i].at = max(names[i].at, names[i-1].at+lineHigh)
		}
	}
	if n := len(names); n > 0 { // back up where they reach below the chart
		for i, most := n-1, height-bottom; i >= 0; i, most = i-1, names[i].at-lineHigh {
			names[i].at = min(names[i].at, most)
		}
	}
	for _, n := range names {
		color, dash := style(n.n)
		d.on.line([]point{d.p(width-right+10, n.at), d.p(width-right+30, n.at)}, color, 2, dash)
		d.on.text(d.p(width-right+36, n.at+4), n.text, textStyle{size: textSize, color: black})
	}
}

// points are those of a series, from left to right, and where its last one is.
func (d *drawing) points(s *Series, x, y *axis) (points []point, end float64) {
	end = height - bottom
	for i := range min(len(s.X), len(s.Y)) {
		if !y.shows(s.Y[i]) || !x.shows(s.X[i]) {
			continue
		}
		end = y.place(s.Y[i])
		points = append(points, d.p(x.place(s.X[i]), end))
	}
	slices.SortStableFunc(points, func(a, b point) int { return int(math.Copysign(1, a.x-b.x)) })
	if n := len(points); n > 0 {
		end = points[n-1].y - d.at.y
	}
	return points, end
}

func style(i int) (color string, dash float64) {
	return colors[i%len(colors)], dashes[i/len(colors)%len(dashes)]
}

// axis has the range of its values, and where it is drawn.
type axis struct {
	least, most float64
	log         bool
	ticks       []float64
	from, to    float64
}

// shows reports whether a value can be drawn.
func (a *axis) shows(v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!a.log || v > 0)
}

func (a *axis) place(v float64) float64 {
	least, most := a.least, a.most
	if a.log {
		least, most, v = math.Log(least), math.Log(most), math.Log(v)
	}
	return a.from + (a.to-a.from)*(v-least)/(most-least)
}

// axisOf is the axis for all values of a chart.
func axisOf(c *Chart, isY bool) axis {
	a := axis{least: math.Inf(1), most: math.Inf(-1), log: isY && c.Log}
	for _, s := range c.Series {
		values := s.X
		if isY {
			values = s.Y
		}
		for _, v := range values {
			if a.shows(v) {
				a.least, a.most = min(a.least, v), max(a.most, v)
			}
		}
	}
	if a.least > a.most { // no values
		a.least, a.most = 1, 2
	}
	switch {
	case a.log:
		a.logTicks()
	case isY && a.least >= 0:
		a.least = 0
		a.linearTicks(isY)
	default:
		a.linearTicks(isY)
	}
	return a
}

// logTicks are at 1, 2 and 5 times the powers of 10, from the last below the values to
// the first above.
func (a *axis) logTicks() {
	steps := []float64{1, 2, 5}
	var all []float64
	for e := math.Floor(math.Log10(a.least)) - 1; e <= math.Ceil(math.Log10(a.most))+1; e++ {
		for _, s := range steps {
			all = append(all, s*math.Pow(10, e))
		}
	}
	for i, t := range all {
		above := i+1 == len(all) || all[i+1] > a.least*1.0000001
		if above && (i == 0 || all[i-1] < a.most/1.0000001) {
			a.ticks = append(a.ticks, t)
		}
	}
	a.least, a.most = a.ticks[0], a.ticks[len(a.ticks)-1]
	if a.least == a.most {
		a.most *= 2
	}
}

// linearTicks are about five at whole multiples of 1, 2 or 5. A Y axis ends at ticks, an
// X axis somewhat beyond its values.
func (a *axis) linearTicks(ends bool) {
	if a.most == a.least {
		a.least, a.most = a.least-max(math.Abs(a.least), 1)*0.1, a.most+max(math.Abs(a.most), 1)*0.1
	}
	step := math.Pow(10, math.Floor(math.Log10((a.most-a.least)/5)))
	for _, times := range []float64{5, 2} {
		if (a.most-a.least)/(step*times) >= 3 {
			step *= times
			break
		}
	}
	if ends {
		a.least, a.most = math.Floor(a.least/step+1e-9)*step, math.Ceil(a.most/step-1e-9)*step
	} else {
		margin := (a.most - a.least) * 0.04
		a.least, a.most = a.least-margin, a.most+margin
	}
	for i := math.Ceil(a.least/step - 1e-9); i*step <= a.most+step*1e-9; i++ {
		a.ticks = append(a.ticks, i*step)
	}
}

// label is a tick as people write it.
func label(v float64) string {
	if v != 0 && math.Abs(v) >= 10_000 {
		return strconv.FormatFloat(v/1000, 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(math.Round(v*1e6)/1e6+0, 'f', -1, 64) // + 0: without the sign of -0
}
