package main

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strings"

	"github.com/guptarohit/asciigraph"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// terminalChart draws the throughput of all servers, points side by side.
func terminalChart(s *Sweep) string {
	var lines [][]float64
	var names, points []string
	for _, server := range s.servers() {
		var line []float64
		known := false
		for _, f := range s.series(server, throughput) {
			known = known || f.known()
			line = append(line, float64(f)/1000)
		}
		if known {
			lines, names = append(lines, line), append(names, server)
		}
	}
	for _, n := range s.Points {
		points = append(points, grouped(n))
	}
	return asciigraph.PlotMany(lines,
		asciigraph.Height(12), asciigraph.Width(64), asciigraph.LowerBound(0), asciigraph.Precision(0),
		asciigraph.SeriesColors(asciigraph.Green, asciigraph.Red, asciigraph.Gray),
		asciigraph.SeriesLegends(names...),
		asciigraph.Caption(fmt.Sprintf("thousand operations a second, at %s %s", strings.Join(points, " "), s.Axis)))
}

// Colours of the servers in pictures.
var colours = map[string]color.Color{
	ours:     color.RGBA{0x1b, 0x7f, 0x4c, 0xff},
	stock:    color.RGBA{0xc2, 0x3b, 0x22, 0xff},
	theFloor: color.RGBA{0x88, 0x88, 0x88, 0xff},
}

const width, height = 8 * vg.Inch, 4.5 * vg.Inch

// drawing is a figure that gets a picture.
type drawing struct {
	name, axis string
	what       func(Sample) float64
	legendTop  bool // where there is room for it
}

var drawings = []drawing{
	{"throughput", "operations a second", throughput, false},
	{"p99", "99th percentile of the latency, microseconds", p99, true},
	{"cpu", "processor time of the server an operation, microseconds", cpu, true},
}

// drawAll draws every sweep into a directory, as SVG and PNG, and returns nothing
// where there is none.
func drawAll(r *Results, dir string) error {
	for _, s := range r.Sweeps {
		for _, d := range drawings {
			p, err := d.plot(s)
			if err != nil {
				return fmt.Errorf("draw %s: %w", s.Name, err)
			}
			for _, ending := range []string{".svg", ".png"} {
				if err := p.Save(width, height, filepath.Join(dir, s.Name+"-"+d.name+ending)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// plot draws one figure of a sweep, on logarithmic axes.
func (d drawing) plot(s *Sweep) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Title.Padding = s.Title, vg.Points(8)
	p.X.Label.Text, p.Y.Label.Text = s.Axis, d.axis
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plot.TickerFunc(roundTicks)
	var ticks []plot.Tick
	for _, n := range s.Points {
		ticks = append(ticks, plot.Tick{Value: place(s, n), Label: grouped(n)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.Legend.Left = true
	p.Legend.XOffs, p.Legend.Padding = vg.Points(6), vg.Points(3)
	if d.legendTop {
		p.Legend.YOffs = height * 3 / 5 // Legend.Top would make room above
	}
	p.Add(plotter.NewGrid())
	for _, server := range s.servers() {
		var points plotter.XYs
		for i, f := range s.series(server, d.what) {
			if f.known() && f > 0 {
				points = append(points, plotter.XY{X: place(s, s.Points[i]), Y: float64(f)})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, dots.Color, dots.Shape = colours[server], colours[server], draw.CircleGlyph{}
		line.Width = vg.Points(1.5)
		p.Add(line, dots)
		p.Legend.Add(server, line, dots)
	}
	p.Y.Min, p.Y.Max = p.Y.Min/1.5, p.Y.Max*1.5
	return p, nil
}

// roundTicks are 1, 2 and 5 times the powers of ten.
func roundTicks(from, to float64) (ticks []plot.Tick) {
	for power := math.Pow(10, math.Floor(math.Log10(from))); power <= to; power *= 10 {
		for _, factor := range []float64{1, 2, 5} {
			if value := factor * power; value >= from && value <= to {
				ticks = append(ticks, plot.Tick{Value: value, Label: grouped(int(value + 0.5))})
			}
		}
	}
	return ticks
}

// place is where a point stands on the logarithmic axis: 0 a step before the first
// number.
func place(s *Sweep, n int) float64 {
	if n == 0 {
		return float64(s.Points[1]) / 3
	}
	return float64(n)
}
