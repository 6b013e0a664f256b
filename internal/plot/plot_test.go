package plot

import (
	"bytes"
	"encoding/xml"
	"image"
	"image/png"
	"math"
	"slices"
	"strings"
	"testing"
)

var sample = Chart{
	Title: "Mean <time>", X: "load", Y: "ms", Log: true,
	Series: []Series{
		{"adaptive", []float64{0.6, 0.8, 1.1}, []float64{700, 740, 1300}},
		{"round & round", []float64{0.6, 0.8, 1.1}, []float64{1700, 4500, 81_000}},
	},
}

func drawn(t *testing.T, name string, charts ...Chart) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, name, charts...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSVGHasTheLinesAndTheirNames(t *testing.T) {
	text := drawn(t, "a.svg", sample)
	if err := xml.Unmarshal(text, new(struct{})); err != nil {
		t.Fatalf("no XML: %v\n%s", err, text)
	}
	for _, want := range []string{"Mean &lt;time&gt;", "round &amp; round", ">load<", ">1000<", ">100k<", colors[0], colors[1]} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if n := strings.Count(string(text), "<circle"); n != 6 {
		t.Errorf("%d points, want 6", n)
	}
}

func TestPNGHasTheColorsOfTheLines(t *testing.T) {
	picture, err := png.Decode(bytes.NewReader(drawn(t, "a.PNG", sample, sample, sample)))
	if err != nil {
		t.Fatal(err)
	}
	if size := picture.Bounds().Size(); size != image.Pt(int(2*width*fine), int(2*height*fine)) {
		t.Errorf("three charts have %v pixels, want two by two", size)
	}
	for _, hex := range []string{colors[0], colors[1], black} {
		found := 0
		for y := range int(height * fine) {
			for x := range int(width * fine) {
				if picture.At(x, y) == rgb(hex) {
					found++
				}
			}
		}
		if found < 50 {
			t.Errorf("%d pixels of %s", found, hex)
		}
	}
}

func TestWriteKnowsItsFormats(t *testing.T) {
	if err := Write(new(bytes.Buffer), "a.jpg", sample); err == nil || !strings.Contains(err.Error(), "want a name that ends in .svg or .png") {
		t.Errorf("%v", err)
	}
}

func TestAxesEndAtWholeNumbers(t *testing.T) {
	for _, c := range []struct {
		what  string
		chart Chart
		ticks []float64
	}{
		{"from 0", Chart{Series: []Series{{Y: []float64{0.9, 0.3}}}}, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{"of tens", Chart{Series: []Series{{Y: []float64{98, 40}}}}, []float64{0, 20, 40, 60, 80, 100}},
		{"below 0", Chart{Series: []Series{{Y: []float64{-7, 12}}}}, []float64{-10, -5, 0, 5, 10, 15}},
		{"of one value", Chart{Series: []Series{{Y: []float64{0}}}}, []float64{-0.1, -0.05, 0, 0.05, 0.1}},
		{"logarithmic", Chart{Log: true, Series: []Series{{Y: []float64{700, 5200, 0, math.NaN()}}}}, []float64{500, 1000, 2000, 5000, 10_000}},
		{"logarithmic, of one value", Chart{Log: true, Series: []Series{{Y: []float64{100}}}}, []float64{100}},
		{"of nothing", Chart{}, []float64{0, 0.5, 1, 1.5, 2}},
	} {
		a := axisOf(&c.chart, true)
		same := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
		if !slices.EqualFunc(a.ticks, c.ticks, same) {
			t.Errorf("%s: %v, want %v", c.what, a.ticks, c.ticks)
		}
		if !(a.least < a.most) {
			t.Errorf("%s: from %v to %v", c.what, a.least, a.most)
		}
	}
	for v, want := range map[float64]string{0: "0", math.Copysign(0, -1): "0", 0.30000000000000004: "0.3", 5000: "5000", 200_000: "200k", 12_500: "12.5k"} {
		if got := label(v); got != want {
			t.Errorf("%v is written %s, want %s", v, got, want)
		}
	}
}

// Names stand below one another, within the chart, where many lines end at one place.
func TestNamesDoNotOverlap(t *testing.T) {
	const lines = 18
	for _, end := range []float64{1.01, 0.5, 0} {
		var c Chart
		for range lines {
			c.Series = append(c.Series, Series{"x", []float64{1, 2}, []float64{1, end}})
		}
		var texts heights
		d := drawing{on: &texts}
		d.chart(&c)
		slices.Sort(texts.names)
		for i, at := range texts.names {
			if i > 0 && at-texts.names[i-1] < lineHigh-1e-9 || at < top || at > height-bottom+lineHigh {
				t.Errorf("of lines that end at %v the names stand at %v", end, texts.names)
				break
			}
		}
		if len(texts.names) != lines {
			t.Errorf("%d names", len(texts.names))
		}
	}
}

// heights is a canvas that notes where the names of lines stand.
type heights struct {
	svg
	names []float64
}

func (h *heights) text(at point, s string, _ textStyle) {
	if s == "x" {
		h.names = append(h.names, at.y)
	}
}
