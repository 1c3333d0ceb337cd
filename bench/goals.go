package main

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/scache/scache/bench/agent"
)

// Goal is what a figure must reach, and whether it did.
type Goal struct {
	Workload string `json:"workload"`
	Goal     string `json:"goal"`
	Measured string `json:"measured"`
	Verdict  string `json:"verdict"`
}

const (
	manyCached = 15_000
	// leisureRate leaves room on two processors for who lists.
	leisureRate = 2_000
)

// goals measures all of the goals' scenarios and judges them.
func (b *bench) goals(ctx context.Context) error {
	// The largest of all, before the first.
	needed := max(Scenario{Clients: 64, Cached: manyCached}.descriptors(), b.memoryDescriptors())
	if err := checkDescriptors(needed); err != nil {
		return err
	}
	whole := b.options.Report != ""
	someBound, times, manyBound := 10_000, 30, 100_000 // for a minute; stock is as slow as what is bound is much
	if whole {
		someBound, times, manyBound = 20_000, 60, 1_000_000
	}
	var err error
	measure := func(sc Scenario, programs []program) (o *Outcome) {
		if err == nil {
			o, err = b.scenario(ctx, sc, programs)
		}
		if err != nil {
			return &Outcome{}
		}
		return o
	}
	// further is what there is no time for in a minute.
	further := func(sc Scenario) *Outcome {
		if !whole {
			return &Outcome{}
		}
		return measure(sc, b.programs)
	}
	// Where stock would need minutes, only we and the floor.
	var quick []program
	for _, p := range b.programs {
		if p.name != stock {
			quick = append(quick, p)
		}
	}
	var (
		cycle    = measure(Scenario{Workload: agent.Cycle, Clients: 64}, b.programs)
		thousand = measure(Scenario{Workload: agent.Cycle, Clients: 1000}, b.programs)
		cached   = measure(Scenario{Workload: agent.Cycle, Clients: 64, Cached: manyCached}, b.programs)
		_        = further(Scenario{Workload: agent.Cycle, Clients: 64, Endpoints: 1, Cached: manyCached})
		bind     = measure(Scenario{Workload: agent.Bind, Clients: 64, Bound: someBound}, b.programs)
		flat     = b.longer(func() *Outcome { return measure(Scenario{Workload: agent.Bind, Clients: 64, Bound: manyBound}, quick) })
		miss     = measure(Scenario{Workload: agent.Miss, Clients: 64}, b.programs)
		alone    = b.apart(func() *Outcome { return measure(Scenario{Workload: agent.Cycle, Clients: 1}, b.programs) })
		stopped  = b.longer(func() *Outcome { return measure(Scenario{Workload: agent.Cycle, Clients: 64, Stopped: 1}, b.programs) })
		listed   = b.longer(func() *Outcome {
			return further(Scenario{Workload: agent.Cycle, Clients: 64, Cached: manyCached, Listed: true})
		})
		leisure = b.longer(func() *Outcome {
			return further(Scenario{Workload: agent.Cycle, Clients: 64, Cached: manyCached, Rate: leisureRate, Listed: true})
		})
		_ = further(Scenario{Workload: agent.Deliver, Clients: 64})
	)
	if err != nil {
		return err
	}
	memory, err := b.memory(ctx)
	if err != nil {
		return err
	}
	j := judge{}
	j.atLeast("cycle, 64 clients", "10 times stock's throughput", cycle, throughput, 10)
	j.atMost("", "1.2 times the floor's CPU an operation", cycle, theFloor, cpu, 1.2)
	j.atLeast("cycle, 1,000 clients", "10 times stock's throughput", thousand, throughput, 10)
	j.atMost("", "a tenth of stock's p99", thousand, stock, p99, 0.1)
	j.atLeast(cached.Scenario.String(), "20 times stock's throughput", cached, throughput, 20)
	j.near("", "within 10 % of the same with none cached", cached)
	j.atLeast(bind.Scenario.String(), fmt.Sprintf("%d times stock's throughput", times), bind, throughput, figure(times))
	j.flat(flat.Scenario.String(), flat)
	j.atLeast("miss, 64 clients", "3 times stock's throughput", miss, throughput, 3)
	j.atMost("", "1.2 times the floor's CPU an operation", miss, theFloor, cpu, 1.2)
	j.atMost("one client alone, processors apart", "stock's p50", alone, stock, p50, 1)
	j.atMost("", "1.2 times the floor's p50", alone, theFloor, p50, 1.2)
	j.unchanged("one client stopped in mid-request", stopped)
	if whole {
		j.unchanged("15,000 cached are listed", listed)
		j.unchanged("the same, at 2,000 a second", leisure)
	}
	j.memory(memory)
	b.results.Goals = j.goals
	b.progress.clear()
	fmt.Fprintln(b.out, "\nThe goals. What is compared was measured round by round, side by side: the median of the ratios (min to max)")
	writeGoals(b.out, j.goals)
	return nil
}

// apart measures with server and agents on processors of their own, as -pin does. A
// single client sees hardly more than what it takes to wake the other side: five
// times as long on another processor as on the same, and else it is chance where.
func (b *bench) apart(measure func() *Outcome) *Outcome {
	servers, agents := b.cpus, b.options.Agents.CPUs
	defer func() { b.cpus, b.options.Agents.CPUs = servers, agents }()
	if b.cpus, b.options.Agents.CPUs = shareProcessors(); b.cpus == nil {
		return &Outcome{} // there is one only
	}
	return measure()
}

// longer measures in more and longer rounds for a report: what is to be told from chance is little.
func (b *bench) longer(measure func() *Outcome) *Outcome {
	rounds, duration := b.options.Rounds, b.options.Duration
	defer func() { b.options.Rounds, b.options.Duration = rounds, duration }()
	if b.options.Report != "" {
		b.options.Rounds, b.options.Duration = 3*rounds, 2*duration
	}
	return measure()
}

// judge collects goals.
type judge struct{ goals []Goal }

func (j *judge) atLeast(workload, goal string, o *Outcome, what func(Sample) float64, limit figure) {
	r := ratios(o.standing(ours).Samples, o.standing(stock).Samples, what)
	j.ratio(workload, "at least "+goal, r, r.Median >= limit)
}

func (j *judge) atMost(workload, goal string, o *Outcome, other string, what func(Sample) float64, limit figure) {
	r := ratios(o.standing(ours).Samples, o.standing(other).Samples, what)
	j.ratio(workload, "at most "+goal, r, figure(math.Round(float64(r.Median)*100)/100) <= limit) // no finer than it is shown
}

// near wants the throughput within 10 % of the bare server's, or above.
func (j *judge) near(workload, goal string, o *Outcome) {
	r := ratios(o.standing(ours).Samples, o.standing(bare).Samples, throughput)
	j.ratio(workload, goal, r, r.Median >= 0.9)
}

// flat wants as much of the throughput without what is bound as the floor keeps, or 10 % less. The floor has
// a hash of each in memory: no server that knows them does with less. Where it cannot be had, all is wanted.
func (j *judge) flat(workload string, o *Outcome) {
	kept := ratios(o.standing(ours).Samples, o.standing(bare).Samples, throughput)
	its := ratios(o.standing(theFloor).Samples, o.standing(bareFloor).Samples, throughput)
	most := figure(1)
	if its.Median.known() {
		most = min(most, its.Median)
	}
	j.ratio(workload, "flat: keeps what the floor keeps, within 10 %", kept, kept.Median >= 0.9*most)
	j.add("", "the floor, with a hash of each in memory", ratioText(its), "-")
}

// unchanged wants others to notice nothing of what disturbs, and tells how unchanged a p99 is when nothing does.
func (j *judge) unchanged(workload string, o *Outcome) {
	undisturbed := o.standing(bare).Samples
	r := ratios(o.standing(ours).Samples, undisturbed, p99)
	j.ratio(workload, "p99 of the others unchanged (within 10 %)", r, r.Median <= 1.1)
	j.add("", "undisturbed, once more", ratioText(ratios(o.standing(bareAgain).Samples, undisturbed, p99)), "-")
}

func (j *judge) ratio(workload, goal string, r spread, met bool) {
	if !r.Median.known() {
		j.add(workload, goal, "not measured here", "-")
		return
	}
	j.add(workload, goal, ratioText(r), verdict(met))
}

func (j *judge) add(workload, goal, measured, verdict string) {
	j.goals = append(j.goals, Goal{workload, goal, measured, verdict})
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "NOT MET"
}

// memory judges what the servers need while they are idle.
func (j *judge) memory(all []Memory) {
	var mine, theirs *Memory
	for i := range all {
		switch all[i].Server {
		case ours:
			mine = &all[i]
		case stock:
			theirs = &all[i]
		}
	}
	per := func(workload, goal string, bytes figure, limit figure) {
		j.add(workload, goal, short(float64(bytes)), verdict(bytes <= limit))
	}
	per("memory", "at most 400 bytes a cached connection", mine.PerConnection, 400)
	per("", "at most 600 bytes an idle client", mine.PerClient, 600)
	if theirs != nil {
		ratio := float64(mine.Base) / float64(theirs.Base)
		j.add("", "base at most twice stock's", fmt.Sprintf("x %s: %s to %s", short(ratio), bytesText(mine.Base), bytesText(theirs.Base)), verdict(ratio <= 2))
	}
	j.add("idle", "no wake-up while nothing is due", fmt.Sprintf("%d in %v", mine.WakeUps, idleTime), verdict(mine.WakeUps == 0))
}

func writeGoals(w io.Writer, goals []Goal) {
	for _, g := range goals {
		fmt.Fprintf(w, "  %-38s %-52s %-30s %s\n", g.Workload, g.Goal, g.Measured, g.Verdict)
	}
}
