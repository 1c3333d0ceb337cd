package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/scache/scache/bench/agent"
)

// Burst is what becomes of the connections to one endpoint that a burst of mail has
// left in the cache, while a single agent goes on: it takes one, has it for as long
// as a delivery takes, and saves it again with a full time to live.
type Burst struct {
	Connections int       `json:"connections"`
	TTL         int       `json:"ttl_seconds"`
	Rate        float64   `json:"cycles_per_second"`
	Seconds     int       `json:"seconds"` // that the agent goes on
	Remains     []Remains `json:"servers"`
}

// Remains is what one server has kept.
type Remains struct {
	Server string `json:"server"`
	Cycles int64  `json:"cycles"`
	Open   []int  `json:"open"` // connections at the sink, burstSamples times a second
}

const burstSamples = 4

// theBurst goes three times to live, and well within one of them the agent comes
// round: stock's may be a second shorter.
func theBurst() *Burst {
	return &Burst{Connections: 200, TTL: 3, Rate: 125, Seconds: 9}
}

// burstPrograms are ours in both orders, and stock. The floor knows no endpoints.
func (b *bench) burstPrograms() (programs []program) {
	file := b.programs[0].file
	programs = []program{
		{oursFIFO, file, []string{"-o", "connection_cache_reuse_order=fifo"}},
		{oursLIFO, file, []string{"-o", "connection_cache_reuse_order=lifo"}},
	}
	for _, p := range b.programs {
		if p.name == stock {
			programs = append(programs, p)
		}
	}
	return programs
}

// burst watches all servers at the same time: it is not about speed.
func (b *bench) burst(ctx context.Context, burst *Burst) error {
	r, err := b.startRace(ctx, b.burstPrograms())
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.burst(ctx, burst); err != nil {
		return err
	}
	if err := r.finish(); err != nil {
		return err
	}
	b.results.Burst = burst
	b.progress.clear()
	writeBurst(b.out, burst)
	return nil
}

func (r *race) burst(ctx context.Context, burst *Burst) error {
	all := r.bench.options.Agents
	config := agent.Config{
		Clients: 1, Endpoints: 1, TTL: burst.TTL,
		LabelSize: all.LabelSize, PropertySize: all.PropertySize, CPUs: all.CPUs,
	}
	var fleets []*agent.Fleet
	for _, s := range r.servers {
		f, err := s.connect(ctx, config)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := r.bench.cache(ctx, f, burst.Connections); err != nil {
			return s.explain(err)
		}
		fleets = append(fleets, f)
	}
	began := time.Now()
	stop := r.bench.progress.follow(func() string {
		return fmt.Sprintf("after a burst: %.0f of %d seconds", time.Since(began).Seconds(), burst.Seconds)
	})
	defer stop()
	burst.Remains = make([]Remains, len(r.servers))
	errs := make([]error, len(r.servers))
	var watching sync.WaitGroup
	for i, s := range r.servers {
		burst.Remains[i].Server = s.name
		watching.Go(func() { errs[i] = s.explain(burst.watch(ctx, s, fleets[i], began, &burst.Remains[i])) })
	}
	watching.Wait()
	return errors.Join(errs...)
}

// watch has the agent go on, and counts the connections now and then.
func (b *Burst) watch(ctx context.Context, s *server, f *agent.Fleet, began time.Time, remains *Remains) error {
	for sample := range b.Seconds*burstSamples + 1 {
		until := began.Add(time.Duration(sample) * time.Second / burstSamples)
		run := agent.Run{Workload: agent.Cycle, Rate: b.Rate, Duration: time.Until(until), Grace: 10 * time.Second}
		result, err := f.Run(ctx, run)
		if err != nil {
			return err
		}
		counts, err := s.sink.Counts()
		if err != nil {
			return err
		}
		remains.Cycles += result.Ops
		remains.Open = append(remains.Open, int(counts.Opened-counts.Closed))
	}
	return nil
}

func (b *Burst) String() string {
	return fmt.Sprintf("%s of one endpoint with a time to live of %d seconds; then one agent makes %.0f cycles a second",
		count(b.Connections, "connection", "connections"), b.TTL, b.Rate)
}

// table has a line for each server, and a column for each second.
func (b *Burst) table() (rows [][]string) {
	head := []string{"open after"}
	for second := range b.Seconds + 1 {
		head = append(head, fmt.Sprintf("%ds", second))
	}
	rows = append(rows, append(head, "cycles"))
	for _, r := range b.Remains {
		row := []string{r.Server}
		for second := range b.Seconds + 1 {
			row = append(row, grouped(r.Open[second*burstSamples]))
		}
		rows = append(rows, append(row, grouped(int(r.Cycles))))
	}
	return rows
}

// writeBurst prints a table and a chart.
func writeBurst(w io.Writer, b *Burst) {
	fmt.Fprintf(w, "\nafter a burst: %v\n", b)
	writeColumns(w, b.table())
	fmt.Fprintln(w)
	fmt.Fprintln(w, b.terminalChart())
}
