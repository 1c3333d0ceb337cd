package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/scache/scache/bench/agent"
)

// Memory is what a server needs, and does, while nothing happens.
type Memory struct {
	Server        string `json:"server"`
	Base          int64  `json:"base_bytes"` // after some work, with nothing stored and nobody connected
	PerConnection figure `json:"bytes_per_cached_connection"`
	PerClient     figure `json:"bytes_per_idle_client"`
	WakeUps       int64  `json:"idle_wake_ups"` // in idleTime, with all that stored and connected
	Note          string `json:"note,omitempty"`
}

const (
	memoryConnections = 5_000
	memoryClients     = 4_000
	// settleTime is for what a server does of itself after work, such as
	// giving memory back.
	settleTime = 1500 * time.Millisecond
	// restTime is for what a server does about connections that stay for a while.
	restTime = 500 * time.Millisecond
	idleTime = 2 * time.Second
)

// memoryDescriptors is how many it takes: all idle clients are ours at the same time.
func (b *bench) memoryDescriptors() int {
	return max(len(b.programs)*memoryClients, memoryConnections+memoryClients) + 100
}

// memory measures the servers' memory step by step, and then how idle they are.
func (b *bench) memory(ctx context.Context) ([]Memory, error) {
	r, err := b.startRace(ctx, b.programs)
	if err != nil {
		return nil, err
	}
	defer r.close()
	results := make([]Memory, len(r.servers))
	for i, s := range r.servers {
		results[i].Server = s.name
		fleet, err := r.grow(ctx, s, &results[i])
		if err != nil {
			return nil, err
		}
		defer fleet.Close()
	}
	if err := r.idle(ctx, results); err != nil {
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	b.results.Memory = results
	b.progress.clear()
	writeMemory(b.out, results)
	return results, nil
}

// grow measures the memory of one server. The clients that it returns are idle.
func (r *race) grow(ctx context.Context, s *server, m *Memory) (*agent.Fleet, error) {
	r.bench.progress.say("memory: %s", s.name)
	work := Scenario{Workload: agent.Cycle, Clients: 64}
	if _, err := r.round(ctx, s, work); err != nil {
		return nil, err
	}
	var err error
	if m.Base, err = resident(s.daemon); err != nil {
		return nil, s.explain(err)
	}
	if err := r.fill(ctx, s, Scenario{Workload: agent.Cycle, Clients: 1, Cached: memoryConnections}); err != nil {
		return nil, err
	}
	m.Note = s.failed
	if err := sleep(ctx, restTime); err != nil {
		return nil, err
	}
	filled, err := resident(s.daemon)
	if err != nil {
		return nil, s.explain(err)
	}
	config := r.bench.options.Agents
	config.Clients = memoryClients
	fleet, err := s.connect(ctx, config)
	if err != nil {
		return nil, err
	}
	connected, err := resident(s.daemon)
	if err != nil {
		fleet.Close()
		return nil, s.explain(err)
	}
	m.PerConnection = figure(float64(filled-m.Base) / float64(s.cached))
	m.PerClient = figure(float64(connected-filled) / memoryClients)
	return fleet, nil
}

// idle counts wake-ups.
func (r *race) idle(ctx context.Context, results []Memory) error {
	r.bench.progress.say("idle: all servers")
	if err := sleep(ctx, settleTime); err != nil {
		return err
	}
	for _, after := range []bool{false, true} {
		for i, s := range r.servers {
			n, err := wakeUps(s.daemon)
			if err != nil {
				return s.explain(err)
			}
			results[i].WakeUps = n - results[i].WakeUps
		}
		if !after {
			if err := sleep(ctx, idleTime); err != nil {
				return err
			}
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func writeMemory(w io.Writer, all []Memory) {
	fmt.Fprintf(w, "\nmemory: %s connections cached, then %s idle clients; wake-ups in %v of idleness\n", grouped(memoryConnections), grouped(memoryClients), idleTime)
	rows := [][]string{memoryHeadings}
	for _, m := range all {
		rows = append(rows, m.row())
	}
	writeColumns(w, rows)
}

var memoryHeadings = []string{"", "base", "a connection", "a client", "wake-ups"}

func (m *Memory) row() []string {
	if m.Note != "" {
		return []string{m.Server, m.Note}
	}
	return []string{m.Server, bytesText(m.Base), short(float64(m.PerConnection)) + "B", short(float64(m.PerClient)) + "B", fmt.Sprint(m.WakeUps)}
}
