package ctl

import (
	"fmt"
	"image/color"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/scache/scache/internal/lab"
)

// The dashboard, while Postfix delivers: each panel shows something. Grafana itself is not to be
// had here, so what it would draw is drawn from the same file, asked of a real Prometheus.
func TestDashboardOfPostfix(t *testing.T) {
	t.Parallel()
	m := startMail(t, lab.Config{Scache: scache, Main: caching, SMTPProcs: 10}, lab.SinkConfig{})
	p := watchWith(t, exporter(t, m.socket()))
	p.wantData("scache_up") // so that the waves are seen
	rounds, dir := 2, t.TempDir()
	if *capture != "" {
		rounds, dir = 30, *capture
	}
	began := time.Now()
	for i := range rounds {
		m.deliver(10 + 30*(i%3))
		time.Sleep(time.Second) // a wave is over
	}
	picture := newPicture(panels(t))
	for _, panel := range panels(t) {
		idle := panel.Title == "Signs of trouble" || panel.Title == "Paused"
		var lines []line
		if err := lab.Poll(limit(t), func() bool { // until it has been asked for often enough
			lines = p.lines(panel, began)
			return len(lines) > 0 && (idle || largest(lines) > 0)
		}); err != nil || idle && largest(lines) > 0 {
			t.Fatalf("panel %q shows %d lines, and at most %v", panel.Title, len(lines), largest(lines))
		}
		for i := range lines { // as it would stand in a Postfix that is not a test's
			lines[i].name = strings.ReplaceAll(lines[i].name, m.QueueDir(), "/var/spool/postfix")
		}
		must(t, picture.draw(panel, lines))
	}
	must(t, os.MkdirAll(dir, 0o755))
	must(t, picture.save(filepath.Join(dir, "dashboard.png")))
}

// line is a line of a panel.
type line struct {
	name   string
	points plotter.XYs // seconds since 1970, and values
}

func largest(lines []line) (value float64) {
	for _, l := range lines {
		for _, point := range l.points {
			value = max(value, point.Y)
		}
	}
	return value
}

// lines evaluates the expressions of a panel from some time on.
func (p *prometheus) lines(panel panel, from time.Time) (lines []line) {
	p.t.Helper()
	for _, target := range panel.Targets {
		parameters := url.Values{"query": {target.expression("3s")}, "step": {"0.5"},
			"start": {seconds(from)}, "end": {seconds(time.Now())}}
		answer := decode[struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Values [][2]any
				}
			}
		}](p.t, get(p.t, "http://"+p.address+"/api/v1/query_range?"+parameters.Encode()))
		for _, r := range answer.Data.Result {
			l := line{name: regexp.MustCompile(`{{(\w+)}}`).ReplaceAllStringFunc(target.LegendFormat, func(label string) string {
				return r.Metric[strings.Trim(label, "{}")]
			})}
			for _, v := range r.Values {
				at, _ := v[0].(float64)
				value, _ := v[1].(string)
				if y, err := strconv.ParseFloat(value, 64); err == nil && !math.IsNaN(y) {
					l.points = append(l.points, plotter.XY{X: at, Y: y})
				}
			}
			if len(l.points) > 0 {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

// seconds is a time as Prometheus takes it.
func seconds(t time.Time) string { return fmt.Sprintf("%.3f", float64(t.UnixMilli())/1000) }

// picture is a dashboard, drawn.
type picture struct {
	image *vgimg.Canvas
	all   draw.Canvas
}

// A dashboard's grid, as Grafana has it, is 24 units wide.
const unitWidth, unitHeight = 46 * vg.Millimeter / 4, 8 * vg.Millimeter

func newPicture(panels []panel) *picture {
	height := 0
	for _, p := range panels {
		height = max(height, p.GridPos.Y+p.GridPos.H)
	}
	plot.DefaultFont.Variant = "Sans"
	image := vgimg.New(24*unitWidth, vg.Length(height)*unitHeight)
	return &picture{image, draw.New(image)}
}

var inks = []color.Color{
	color.RGBA{0x1b, 0x7f, 0x4c, 0xff}, color.RGBA{0x2a, 0x5d, 0xb0, 0xff}, color.RGBA{0xd9, 0x8a, 0x00, 0xff},
	color.RGBA{0xc2, 0x3b, 0x22, 0xff}, color.RGBA{0x7a, 0x3f, 0x9d, 0xff}, color.RGBA{0x4a, 0x9a, 0xa8, 0xff}, color.RGBA{0x77, 0x77, 0x77, 0xff},
}

// draw draws a panel in its place.
func (p *picture) draw(panel panel, lines []line) error {
	at, size := panel.GridPos, p.all.Rectangle.Max
	left, top := vg.Length(at.X)*unitWidth, size.Y-vg.Length(at.Y)*unitHeight
	place := draw.Canvas{Canvas: p.all.Canvas, Rectangle: vg.Rectangle{
		Min: vg.Point{X: left, Y: top - vg.Length(at.H)*unitHeight}, Max: vg.Point{X: left + vg.Length(at.W)*unitWidth, Y: top}}}
	place = draw.Crop(place, 3*vg.Millimeter, -3*vg.Millimeter, 3*vg.Millimeter, -2*vg.Millimeter)
	format := units[panel.FieldConfig.Defaults.Unit]
	if format == nil {
		return fmt.Errorf("panel %q: unit %q", panel.Title, panel.FieldConfig.Defaults.Unit)
	}
	drawing := plot.New()
	drawing.Title.Text = panel.Title
	if panel.Type == "stat" {
		drawing.HideAxes()
		drawing.Draw(place)
		points := lines[0].points
		place.FillText(text.Style{Color: inks[0], Font: font.From(plot.DefaultFont, 24), XAlign: draw.XCenter, YAlign: draw.YCenter, Handler: plot.DefaultTextHandler},
			place.Center(), format(points[len(points)-1].Y))
		return nil
	}
	drawing.Add(plotter.NewGrid())
	drawing.X.Tick.Marker = plot.TimeTicks{Format: "15:04:05"}
	drawing.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick {
		ticks := plot.DefaultTicks{}.Ticks(low, high)
		for i := range ticks {
			if ticks[i].Label != "" {
				ticks[i].Label = format(ticks[i].Value)
			}
		}
		return ticks
	})
	for i, l := range lines {
		drawn, err := plotter.NewLine(l.points)
		if err != nil {
			return err
		}
		drawn.Color, drawn.Width = inks[i%len(inks)], vg.Points(1.5)
		drawing.Add(drawn)
		drawing.Legend.Add(l.name, drawn)
	}
	drawing.Legend.Top, drawing.Legend.Left = true, true
	highest := largest(lines)
	drawing.Y.Min, drawing.Y.Max = 0, max(highest*(1.1+0.12*float64(len(lines))), 1e-9) // room for the legend
	if highest == 0 {
		drawing.Y.Max = 1
	}
	drawing.Draw(place)
	return nil
}

// units are what the numbers of a panel mean.
var units = map[string]func(float64) string{
	"short":       func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) },
	"ops":         func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) + "/s" },
	"percentunit": func(v float64) string { return strconv.FormatFloat(100*v, 'g', 4, 64) + "%" },
	"s": func(v float64) string {
		return time.Duration(v * float64(time.Second)).Round(100 * time.Nanosecond).String()
	},
	"bytes": func(v float64) string { return humanize.IBytes(uint64(max(v, 0))) },
}

func (p *picture) save(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = vgimg.PngCanvas{Canvas: p.image}.WriteTo(f)
	return err
}
