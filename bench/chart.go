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
	return terminalLines(lines, names, fmt.Sprintf("thousand operations a second, at %s %s", strings.Join(points, " "), s.Axis))
}

// terminalLines draws lines from zero up.
func terminalLines(lines [][]float64, names []string, caption string) string {
	var inks []asciigraph.AnsiColor
	for _, name := range names {
		inks = append(inks, colours[name].terminal)
	}
	return asciigraph.PlotMany(lines,
		asciigraph.Height(12), asciigraph.Width(64), asciigraph.LowerBound(0), asciigraph.Precision(0),
		asciigraph.SeriesColors(inks...),
		asciigraph.SeriesLegends(names...),
		asciigraph.Caption(caption))
}

// colour is a server's, on the terminal and in pictures.
type colour struct {
	terminal asciigraph.AnsiColor
	picture  color.Color
}

var colours = map[string]colour{
	ours:     {asciigraph.Green, color.RGBA{0x1b, 0x7f, 0x4c, 0xff}},
	oursFIFO: {asciigraph.Green, color.RGBA{0x1b, 0x7f, 0x4c, 0xff}},
	oursLIFO: {asciigraph.Blue, color.RGBA{0x2a, 0x5d, 0xb0, 0xff}},
	stock:    {asciigraph.Red, color.RGBA{0xc2, 0x3b, 0x22, 0xff}},
	theFloor: {asciigraph.Gray, color.RGBA{0x88, 0x88, 0x88, 0xff}},
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

// drawAll draws every sweep and the burst into a directory, and nothing where there
// is none.
func drawAll(r *Results, dir string) error {
	for _, s := range r.Sweeps {
		for _, d := range drawings {
			p, err := d.plot(s)
			if err != nil {
				return fmt.Errorf("draw %s: %w", s.Name, err)
			}
			if err := save(p, filepath.Join(dir, s.Name+"-"+d.name)); err != nil {
				return err
			}
		}
	}
	if r.Burst == nil {
		return nil
	}
	p, err := r.Burst.plot()
	if err != nil {
		return fmt.Errorf("draw the burst: %w", err)
	}
	return save(p, filepath.Join(dir, "burst"))
}

// save saves a picture as SVG and PNG.
func save(p *plot.Plot, file string) error {
	for _, ending := range []string{".svg", ".png"} {
		if err := p.Save(width, height, file+ending); err != nil {
			return err
		}
	}
	return nil
}

// newPlot is a picture without lines.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Title.Padding = title, vg.Points(8)
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.Legend.Left = true
	p.Legend.XOffs, p.Legend.Padding = vg.Points(6), vg.Points(3)
	p.Add(plotter.NewGrid())
	return p
}

// plot draws one figure of a sweep, on logarithmic axes.
func (d drawing) plot(s *Sweep) (*plot.Plot, error) {
	p := newPlot(s.Title, s.Axis, d.axis)
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plot.TickerFunc(roundTicks)
	var ticks []plot.Tick
	for _, n := range s.Points {
		ticks = append(ticks, plot.Tick{Value: place(s, n), Label: grouped(n)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	if d.legendTop {
		p.Legend.YOffs = height * 3 / 5 // Legend.Top would make room above
	}
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
		line.Color, dots.Color, dots.Shape = colours[server].picture, colours[server].picture, draw.CircleGlyph{}
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

// terminalChart draws the connections of all servers over time.
func (b *Burst) terminalChart() string {
	var lines [][]float64
	var names []string
	for _, r := range b.Remains {
		var line []float64
		for _, n := range r.Open {
			line = append(line, float64(n))
		}
		lines, names = append(lines, line), append(names, r.Server)
	}
	return terminalLines(lines, names, fmt.Sprintf("connections open, for %d seconds", b.Seconds))
}

// plot draws the same as a picture. Where lines are the same, the later one is
// within the earlier.
func (b *Burst) plot() (*plot.Plot, error) {
	p := newPlot("after a burst", "seconds", "connections open")
	var ticks []plot.Tick
	for second := range b.Seconds + 1 {
		ticks = append(ticks, plot.Tick{Value: float64(second), Label: fmt.Sprint(second)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	for i, r := range b.Remains {
		var points plotter.XYs
		for sample, n := range r.Open {
			points = append(points, plotter.XY{X: float64(sample) / burstSamples, Y: float64(n)})
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = colours[r.Server].picture, vg.Points(4.5-1.5*float64(i))
		p.Add(line)
		p.Legend.Add(r.Server, line)
	}
	p.Legend.YOffs = height / 3 // between the lines
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.1
	return p, nil
}
