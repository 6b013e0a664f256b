package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// svg is a canvas of text.
type svg struct {
	size point
	body bytes.Buffer
}

func newSVG(size point) *svg { return &svg{size: size} }

func (c *svg) line(points []point, color string, width, dash float64) {
	if len(points) == 0 {
		return
	}
	var list strings.Builder
	for i, p := range points {
		if i > 0 {
			list.WriteByte(' ')
		}
		fmt.Fprintf(&list, "%.1f,%.1f", p.x, p.y)
	}
	dashes := ""
	if dash > 0 {
		dashes = fmt.Sprintf(` stroke-dasharray="%g"`, dash)
	}
	fmt.Fprintf(&c.body, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%g"%s/>`+"\n", list.String(), color, width, dashes)
}

func (c *svg) dot(at point, radius float64, color string) {
	fmt.Fprintf(&c.body, `<circle cx="%.1f" cy="%.1f" r="%g" fill="%s"/>`+"\n", at.x, at.y, radius, color)
}

func (c *svg) text(at point, s string, style textStyle) {
	anchor := map[float64]string{0: "start", 0.5: "middle", 1: "end"}[style.anchor]
	turn := ""
	if style.up {
		turn = fmt.Sprintf(` transform="rotate(-90 %.1f %.1f)"`, at.x, at.y)
	}
	fmt.Fprintf(&c.body, `<text x="%.1f" y="%.1f" font-size="%g" text-anchor="%s" fill="%s"%s>`, at.x, at.y, style.size, anchor, style.color, turn)
	_ = xml.EscapeText(&c.body, []byte(s))
	c.body.WriteString("</text>\n")
}

func (c *svg) write(w io.Writer) error {
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%[1]g" height="%[2]g" font-family="sans-serif">
<rect width="100%%" height="100%%" fill="%s"/>
%s</svg>
`, c.size.x, c.size.y, ground, c.body.String())
	return err
}
