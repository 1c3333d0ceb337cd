package main

import (
	"context"
	"fmt"
	"io"

	"github.com/scache/scache/bench/agent"
)

// Sweep is how the servers do while something grows.
type Sweep struct {
	Name   string     `json:"name"`
	Title  string     `json:"title"`
	Axis   string     `json:"axis"`
	Points []int      `json:"points"` // of what grows
	Runs   []*Outcome `json:"runs"`   // one for each point
}

// newSweep plans a sweep as far as a limit of descriptors lets, two points at least.
func newSweep(name string, limit int) (*Sweep, func(int) Scenario) {
	upTo := func(largest int, points ...int) (fit []int) {
		for i, p := range points {
			if p < largest || i == 0 {
				fit = append(fit, p)
			}
		}
		return append(fit, max(largest, points[1]))
	}
	switch name {
	case "clients":
		largest := min(5000, limit/2-100)
		return &Sweep{Name: name, Title: "cycle", Axis: "clients", Points: upTo(largest, 1, 4, 16, 64, 250, 1000, 2500)},
			func(n int) Scenario { return Scenario{Workload: agent.Cycle, Clients: n} }
	case "cached":
		largest := min(100_000, limit-min(limit/8, mostReserve)-300)
		return &Sweep{Name: name, Title: "cycle, 64 clients", Axis: "connections cached beforehand",
				Points: upTo(largest, 0, 1000, 2500, 5000, 10_000, 15_000, 30_000, 60_000)},
			func(n int) Scenario { return Scenario{Workload: agent.Cycle, Clients: 64, Cached: n} }
	default: // bound
		return &Sweep{Name: name, Title: "bind, 64 clients", Axis: "destinations bound beforehand",
				Points: []int{0, 1000, 5000, 20_000, 100_000, 300_000, 1_000_000}},
			func(n int) Scenario { return Scenario{Workload: agent.Bind, Clients: 64, Bound: n} }
	}
}

// sweep measures at every point, with the same servers: what is there grows. A
// server that is too slow to fill drops out.
func (b *bench) sweep(ctx context.Context, name string) error {
	sweep, at := newSweep(name, descriptorLimit())
	r, err := b.startRace(ctx, b.programs)
	if err != nil {
		return err
	}
	defer r.close()
	// There are many points: one that is off shows.
	r.rounds, r.calls = (r.rounds+1)/2, false
	for _, n := range sweep.Points {
		sc := at(n)
		sc.Endpoints = b.options.Agents.Endpoints
		outcome, err := r.run(ctx, sc)
		if err != nil {
			return err
		}
		sweep.Runs = append(sweep.Runs, outcome)
	}
	if err := r.finish(); err != nil {
		return err
	}
	b.results.Sweeps = append(b.results.Sweeps, sweep)
	b.progress.clear()
	writeSweep(b.out, sweep)
	return nil
}

// series is one server's figures, point by point; unknown where it has none.
func (s *Sweep) series(server string, what func(Sample) float64) []figure {
	var figures []figure
	for _, run := range s.Runs {
		var values []float64
		for _, sample := range run.standing(server).Samples {
			values = append(values, what(sample))
		}
		figures = append(figures, spreadOf(values).Median)
	}
	return figures
}

// servers are those that take part.
func (s *Sweep) servers() (names []string) {
	for _, standing := range s.Runs[0].Standings {
		names = append(names, standing.Server)
	}
	return names
}

// writeSweep prints a table and a chart.
func writeSweep(w io.Writer, s *Sweep) {
	fmt.Fprintf(w, "\n%s, by the number of %s", s.Title, s.Axis)
	writeSweepTable(w, s)
	fmt.Fprintln(w)
	fmt.Fprintln(w, terminalChart(s))
}

func writeSweepTable(w io.Writer, s *Sweep) {
	fmt.Fprintln(w)
	head := []string{s.Name}
	for _, server := range s.servers() {
		head = append(head, server+" ops/s", "p99", "CPU/op", "RSS")
	}
	rows := [][]string{head}
	for i, n := range s.Points {
		row := []string{grouped(n)}
		for _, server := range s.servers() {
			row = append(row,
				short(float64(s.series(server, throughput)[i])),
				microText(s.series(server, p99)[i]),
				microText(s.series(server, cpu)[i]),
				bytesText(s.Runs[i].standing(server).Resident))
		}
		rows = append(rows, row)
	}
	writeColumns(w, rows)
	for _, server := range s.servers() {
		if note := s.Runs[len(s.Runs)-1].standing(server).Note; note != "" {
			fmt.Fprintf(w, "  %s drops out: %s\n", server, note)
		}
	}
}
