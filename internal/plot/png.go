package plot

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// fine is how many pixels of the picture one of a plain screen has.
const fine = 2

// raster is a canvas of pixels.
type raster struct {
	image *image.RGBA
	faces map[float64]font.Face // by size
	err   error
}

func newPNG(size point) *raster {
	c := &raster{image: image.NewRGBA(image.Rect(0, 0, int(size.x*fine), int(size.y*fine))), faces: map[float64]font.Face{}}
	draw.Draw(c.image, c.image.Bounds(), image.NewUniform(rgb(ground)), image.Point{}, draw.Src)
	return c
}

// rgb reads a color as #rrggbb.
func rgb(hex string) color.RGBA {
	c := color.RGBA{A: 255}
	_, _ = fmt.Sscanf(hex, "#%02x%02x%02x", &c.R, &c.G, &c.B) // all are of this package
	return c
}

// fill fills what is inside a closed line, and touches no pixel outside of its bounds.
func (c *raster) fill(outline []point, hex string) {
	least, most := outline[0], outline[0]
	for _, p := range outline {
		least = point{min(least.x, p.x), min(least.y, p.y)}
		most = point{max(most.x, p.x), max(most.y, p.y)}
	}
	corner := image.Pt(int(math.Floor(least.x*fine)), int(math.Floor(least.y*fine)))
	size := image.Pt(int(math.Ceil(most.x*fine)), int(math.Ceil(most.y*fine))).Sub(corner)
	r := vector.NewRasterizer(size.X, size.Y)
	for i, p := range outline {
		x, y := float32(p.x*fine-float64(corner.X)), float32(p.y*fine-float64(corner.Y))
		if i == 0 {
			r.MoveTo(x, y)
		} else {
			r.LineTo(x, y)
		}
	}
	r.ClosePath()
	r.Draw(c.image, image.Rectangle{corner, corner.Add(size)}, image.NewUniform(rgb(hex)), image.Point{})
}

func (c *raster) line(points []point, color string, width, dash float64) {
	along := 0.
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		long := math.Hypot(b.x-a.x, b.y-a.y)
		if dash == 0 {
			c.stroke(a, b, color, width)
			continue
		}
		at := func(d float64) point { return point{a.x + (b.x-a.x)*d/long, a.y + (b.y-a.y)*d/long} }
		for d := 0.; d < long; {
			next := min(long, d+dash-math.Mod(along, dash))
			if int(along/dash)%2 == 0 {
				c.stroke(at(d), at(next), color, width)
			}
			along += max(next-d, 1e-9)
			d = next
		}
	}
}

// stroke draws a straight line as a rectangle.
func (c *raster) stroke(a, b point, color string, width float64) {
	long := math.Hypot(b.x-a.x, b.y-a.y)
	if long == 0 {
		return
	}
	x, y := (b.y-a.y)/long*width/2, (a.x-b.x)/long*width/2
	c.fill([]point{{a.x + x, a.y + y}, {b.x + x, b.y + y}, {b.x - x, b.y - y}, {a.x - x, a.y - y}}, color)
}

func (c *raster) dot(at point, radius float64, color string) {
	const corners = 24
	outline := make([]point, corners)
	for i := range outline {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / corners)
		outline[i] = point{at.x + radius*cos, at.y + radius*sin}
	}
	c.fill(outline, color)
}

// face is the font in a size.
func (c *raster) face(size float64) (font.Face, error) {
	if f := c.faces[size]; f != nil {
		return f, nil
	}
	parsed, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, err
	}
	f, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: size * fine, DPI: 72, Hinting: font.HintingNone})
	c.faces[size] = f
	return f, err
}

func (c *raster) text(at point, s string, style textStyle) {
	face, err := c.face(style.size)
	if err != nil {
		c.err = err
		return
	}
	long := float64(font.MeasureString(face, s)) / 64
	if !style.up {
		d := font.Drawer{Dst: c.image, Src: image.NewUniform(rgb(style.color)), Face: face}
		d.Dot = fixed.Point26_6{X: fixed.Int26_6(64 * (at.x*fine - long*style.anchor)), Y: fixed.Int26_6(64 * at.y * fine)}
		d.DrawString(s)
		return
	}
	// Drawn lying, then turned to the left.
	high := int(style.size * fine * 1.5)
	lying := image.NewRGBA(image.Rect(0, 0, int(long)+2, high))
	base := int(style.size * fine)
	d := font.Drawer{Dst: lying, Src: image.NewUniform(rgb(style.color)), Face: face, Dot: fixed.P(0, base)}
	d.DrawString(s)
	turned := image.NewRGBA(image.Rect(0, 0, high, lying.Bounds().Dx()))
	for y := range high {
		for x := range lying.Bounds().Dx() {
			turned.Set(y, lying.Bounds().Dx()-1-x, lying.At(x, y))
		}
	}
	corner := image.Pt(int(at.x*fine)-base, int(at.y*fine-long*(1-style.anchor)))
	draw.Draw(c.image, turned.Bounds().Add(corner), turned, image.Point{}, draw.Over)
}

func (c *raster) write(w io.Writer) error {
	if c.err != nil {
		return fmt.Errorf("write text in a picture: %w", c.err)
	}
	return png.Encode(w, c.image)
}
