package chaos

import (
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// drawing is a picture of one figure over time.
type drawing struct {
	name, axis string
	figure     func(sample) float64
}

var drawings = []drawing{
	{"throughput", "requests a second, of clients that behave", func(s sample) float64 { return s.throughput }},
	{"descriptors", "descriptors of the daemon", func(s sample) float64 { return float64(s.descriptors) }},
	{"memory", "resident memory of the daemon, MB", func(s sample) float64 { return float64(s.memory) / 1e6 }},
}

// draw draws all pictures into a directory, as SVG and PNG.
func (m *monitor) draw(dir string) error {
	for _, d := range drawings {
		p, err := d.plot(m.samples)
		if err != nil {
			return err
		}
		for _, ending := range []string{".svg", ".png"} {
			if err := p.Save(8*vg.Inch, 4.5*vg.Inch, filepath.Join(dir, d.name+ending)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d drawing) plot(samples []sample) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Title.Padding = d.axis, vg.Points(8)
	p.X.Label.Text = "seconds"
	p.Y.Min = 0
	points := make(plotter.XYs, len(samples))
	for i, s := range samples {
		points[i] = plotter.XY{X: s.at.Seconds(), Y: d.figure(s)}
	}
	line, err := plotter.NewLine(points)
	if err != nil {
		return nil, err
	}
	line.Color = color.RGBA{0x1b, 0x7f, 0x4c, 0xff}
	p.Add(plotter.NewGrid(), line)
	p.Y.Max *= 1.1
	return p, nil
}
