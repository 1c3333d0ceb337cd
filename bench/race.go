package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scache/scache/bench/agent"
)

// race measures several servers that run side by side, one at a time: A B C A B C.
type race struct {
	bench   *bench
	servers []*server
	rounds  int
	calls   bool // count system calls
}

// startRace starts servers.
func (b *bench) startRace(ctx context.Context, programs []program) (*race, error) {
	r := &race{bench: b, rounds: b.options.Rounds, calls: b.options.Calls}
	for _, p := range programs {
		if err := ctx.Err(); err != nil {
			r.close()
			return nil, err
		}
		s, err := startServer(p, &b.options.Agents, b.cpus, b.fail)
		if err != nil {
			r.close()
			return nil, err
		}
		r.servers = append(r.servers, s)
	}
	return r, nil
}

func (r *race) close() {
	for _, s := range r.servers {
		s.close()
	}
}

// finish ends the servers, and fails if one has lost a connection.
func (r *race) finish() error {
	var errs []error
	for _, s := range r.servers {
		errs = append(errs, s.finish())
	}
	return errors.Join(errs...)
}

// Outcome is what a scenario has given.
type Outcome struct {
	Scenario    Scenario     `json:"scenario"`
	Standings   []Standing   `json:"servers"`
	Comparisons []Comparison `json:"ratios"`
}

// Comparison is ours to another, round by round.
type Comparison struct {
	To         string `json:"scache_to"`
	Throughput spread `json:"throughput"`
	P99        spread `json:"p99"`
	AtMost     bool   `json:"p99_at_most"` // the other's latency was longer than could be told
	CPU        spread `json:"server_cpu_per_op"`
}

func (c Comparison) String() string {
	atMost := ""
	if c.AtMost {
		atMost = "at most "
	}
	return fmt.Sprintf("%s to %s: throughput %s, p99 %s%s, CPU an operation %s", ours, c.To, ratioText(c.Throughput), atMost, ratioText(c.P99), ratioText(c.CPU))
}

// compare fills in the comparisons.
func (o *Outcome) compare() {
	mine := o.standing(ours).Samples
	for _, other := range []string{stock, theFloor, bare} {
		their := o.standing(other)
		if theirs := their.Samples; len(theirs) > 0 && len(mine) > 0 {
			o.Comparisons = append(o.Comparisons, Comparison{
				other, ratios(mine, theirs, throughput), ratios(mine, theirs, p99), their.stalled() > 0, ratios(mine, theirs, cpu),
			})
		}
	}
}

// Standing is one server's part in it.
type Standing struct {
	Server   string   `json:"server"`
	Samples  []Sample `json:"rounds"`
	Calls    figure   `json:"system_calls_per_op"`
	Resident int64    `json:"resident_bytes"`
	Note     string   `json:"note,omitempty"` // why something is missing
}

func (o *Outcome) standing(server string) *Standing {
	for i := range o.Standings {
		if o.Standings[i].Server == server {
			return &o.Standings[i]
		}
	}
	return &Standing{Server: server, Calls: unknown}
}

// run measures one scenario with all servers that can follow.
func (r *race) run(ctx context.Context, sc Scenario) (*Outcome, error) {
	if err := checkDescriptors(sc.descriptors()); err != nil {
		return nil, fmt.Errorf("%v: %w", sc, err)
	}
	sc.Apart = r.bench.cpus != nil
	outcome := &Outcome{Scenario: sc}
	for _, s := range r.servers {
		standing := Standing{Server: s.name, Calls: unknown}
		switch {
		case s.name == theFloor && !sc.floorCan():
			standing.Note = "fixed replies do not do here"
		case s.failed == "":
			if err := r.fill(ctx, s, s.scenario(sc)); err != nil {
				return nil, err
			}
			standing.Note = s.failed
		default:
			standing.Note = s.failed
		}
		outcome.Standings = append(outcome.Standings, standing)
	}
	for round := range r.rounds {
		for i, s := range r.servers {
			standing := &outcome.Standings[i]
			if standing.Note != "" {
				continue
			}
			r.bench.progress.say("%v: round %d of %d, %s", sc, round+1, r.rounds, s.name)
			sample, err := r.round(ctx, s, s.scenario(sc))
			if err != nil {
				return nil, err
			}
			standing.Samples = append(standing.Samples, sample)
		}
	}
	for i, s := range r.servers {
		if standing := &outcome.Standings[i]; standing.Note == "" {
			if err := s.checkCached(); err != nil {
				return nil, err
			}
			if err := r.afterwards(ctx, s, s.scenario(sc), standing); err != nil {
				return nil, err
			}
		}
	}
	outcome.compare()
	return outcome, nil
}

// fillClients is how many clients store what is to be there beforehand.
const fillClients = 16

// fill stores what is to be there beforehand, on top of what is there. A server
// that is too slow fails, and takes no further part.
func (r *race) fill(ctx context.Context, s *server, sc Scenario) error {
	binds := sc.Bound - s.bound
	if sc.Cached <= s.cached && binds <= 0 {
		return nil
	}
	config := r.bench.options.Agents
	config.Clients, config.Threads = fillClients, 1
	if sc.Workload == agent.Cycle { // a delivery expects that the greeting has been read
		config.Endpoints = sc.Endpoints
	}
	f, err := s.connect(ctx, config)
	if err != nil {
		return err
	}
	defer f.Close()
	limited, cancel := context.WithTimeout(ctx, r.bench.options.Fill)
	defer cancel()
	stop := r.bench.progress.follow(func() string {
		return fmt.Sprintf("%v: %s has stored %s", sc, s.name, grouped(int(f.Done())))
	})
	defer stop()
	fill := func(have *int, want int, what string, do func(context.Context, int, int) (agent.Result, error)) error {
		if *have >= want || s.failed != "" {
			return nil
		}
		result, err := do(limited, *have, want)
		*have += int(result.Ops)
		if err == nil && *have < want && ctx.Err() == nil {
			s.failed = fmt.Sprintf("too slow: %s of %s %s in %v", grouped(*have), grouped(want), what, r.bench.options.Fill)
		}
		return errors.Join(s.explain(err), ctx.Err())
	}
	if err := fill(&s.cached, sc.Cached, "connections", f.Cache); err != nil {
		return err
	}
	if binds <= 0 {
		return s.checkCached()
	}
	return errors.Join(fill(&s.bound, sc.Bound, "destinations", f.Bind), s.checkCached())
}

// cache has a fleet save so many connections, within the time to fill.
func (b *bench) cache(ctx context.Context, f *agent.Fleet, connections int) error {
	ctx, cancel := context.WithTimeout(ctx, b.options.Fill)
	defer cancel()
	result, err := f.Cache(ctx, 0, connections)
	if err == nil && result.Ops < int64(connections) {
		err = fmt.Errorf("too slow: %d of %d connections in %v", result.Ops, connections, b.options.Fill)
	}
	return err
}

// fleet connects a scenario's clients.
func (r *race) fleet(ctx context.Context, s *server, sc Scenario) (*agent.Fleet, error) {
	config := r.bench.options.Agents
	config.Clients, config.Endpoints, config.Bound = sc.Clients, sc.Endpoints, sc.Bound
	f, err := s.connect(ctx, config)
	if err != nil {
		return nil, err
	}
	if sc.Workload == agent.Cycle {
		if err := f.Hold(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// run is a round of a scenario. The warm-up leaves even a slow server time for an
// operation of each client. The grace does so too; but none is to be hoped for from
// a server that waits for a client that has stopped.
func (s Scenario) run(duration time.Duration) agent.Run {
	run := agent.Run{
		Workload: s.Workload,
		Rate:     s.Rate,
		WarmUp:   duration/5 + time.Duration(s.Clients)*250*time.Microsecond,
		Duration: duration,
		Grace:    30 * time.Second,
	}
	if s.Stopped > 0 {
		run.Grace = 200 * time.Millisecond
	}
	return run
}

// round measures one round on one server.
func (r *race) round(ctx context.Context, s *server, sc Scenario) (sample Sample, err error) {
	f, err := r.fleet(ctx, s, sc)
	if err != nil {
		return sample, err
	}
	defer f.Close()
	if err := f.Stop(sc.Stopped); err != nil {
		return sample, s.explain(err)
	}
	if sc.Listed {
		end := r.bench.listAgain(ctx, s)
		defer func() { err = errors.Join(err, end()) }()
	}
	var used []time.Duration // at both ends of the measured time
	var readErr error
	run := sc.run(r.bench.options.Duration)
	run.Edge = func() {
		now, err := cpuTime(s.daemon)
		used, readErr = append(used, now), errors.Join(readErr, err)
	}
	result, err := f.Run(ctx, run)
	if err = errors.Join(err, readErr); err != nil {
		return sample, s.explain(err)
	}
	return newSample(result, used[1]-used[0]), nil
}

// afterwards asks for what would disturb the rounds.
func (r *race) afterwards(ctx context.Context, s *server, sc Scenario, standing *Standing) (err error) {
	if standing.Resident, err = resident(s.daemon); err != nil {
		return s.explain(err)
	}
	if !r.calls || sc.disturbed() || s.bare() {
		return nil
	}
	r.bench.progress.say("%v: system calls, %s", sc, s.name)
	f, err := r.fleet(ctx, s, sc)
	if err != nil {
		return err
	}
	defer f.Close()
	var result agent.Result
	calls, err := countCalls(s.daemon.PID, func() error {
		result, err = f.Run(ctx, sc.run(r.bench.options.Duration/2))
		return s.explain(err)
	})
	switch {
	case errors.Is(err, errNoTracer):
		return nil
	case err == nil && result.Ops > 0:
		standing.Calls = figure(float64(calls) / float64(result.Ops))
	}
	return err
}
