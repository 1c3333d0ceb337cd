// Bench measures connection cache servers side by side; see its -h.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/bench/floor"
	"github.com/scache/scache/bench/sink"
	"github.com/scache/scache/internal/lab"
)

func main() {
	sink.Main()
	options, err := parseOptions(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) { // as under nohup
		signals = append(signals, unix.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	err = run(ctx, options, os.Stdout, os.Stderr)
	if ctx.Err() != nil {
		err = errors.New("interrupted") // whatever has come of it
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one call of the program.
type bench struct {
	options  *Options
	programs []program // ours first
	dir      string    // for programs
	lister   string    // file of scachectl; empty: it is not built yet
	out      io.Writer // for tables
	json     io.Writer
	progress *progress
	fail     func(error)  // ends the run
	cpus     *unix.CPUSet // of the servers; nil: any
	results  Results
}

func run(ctx context.Context, options *Options, stdout, stderr *os.File) error {
	raiseLimit()
	b := &bench{options: options, out: stdout, json: stdout, progress: newProgress(stderr)}
	if err := b.prepare(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "scache-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.dir, b.fail = dir, cancel
	if options.JSON {
		b.out = stderr
	}
	defer b.progress.clear()
	if options.Pin {
		if b.cpus, options.Agents.CPUs = shareProcessors(); b.cpus == nil {
			return errors.New("-pin: there is one processor only")
		}
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	b.results.Machine = describeMachine()
	b.progress.clear()
	fmt.Fprintln(b.out, b.results.Machine)
	for _, p := range b.programs {
		fmt.Fprintf(b.out, "%s is %s\n", p.name, p.file)
	}
	err = b.measure(ctx)
	b.progress.clear()
	if cause := context.Cause(ctx); cause != nil {
		return cause // what else has gone wrong came of it
	}
	if err == nil {
		err = b.write()
	}
	return err
}

// build makes what is to be compared.
func (b *bench) build(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("servers are started as master(8) does, which takes root")
	}
	if _, err := lab.PostfixVersion(); err != nil {
		return fmt.Errorf("%w\n(servers are started as its master(8) does, and ask its postconf(1); `make need` installs it)", err)
	}
	b.results.Binary = b.options.Binary
	file := b.options.Binary
	if file == "" {
		b.progress.say("building scache")
		if file, err = lab.Build(ctx, b.dir); err != nil {
			return fmt.Errorf("%w\n(run this within the module, or name a program with -binary)", err)
		}
	}
	b.programs = append(b.programs, program{name: ours, file: file})
	if b.options.Versus != "" {
		b.programs = append(b.programs, program{name: stock, file: b.options.Versus})
	}
	if !b.options.Floor {
		return nil
	}
	file, err = floor.Build(ctx, b.dir)
	if errors.Is(err, floor.ErrNoCompiler) {
		fmt.Fprintf(b.out, "no floor: %v\n", err)
		return nil
	}
	b.programs = append(b.programs, program{name: theFloor, file: file})
	return err
}

// What a report takes at least.
const (
	reportDuration = 500 * time.Millisecond
	reportRounds   = 5
)

// measure does what the options ask for.
func (b *bench) measure(ctx context.Context) error {
	if b.options.Report != "" {
		b.options.Duration = max(b.options.Duration, reportDuration)
		b.options.Rounds = max(b.options.Rounds, reportRounds)
	}
	sweeps := b.options.Sweeps
	if b.options.Report != "" {
		sweeps = sweepNames
	}
	for _, name := range sweeps { // what cannot be is said before the first figure
		sweep, at := newSweep(name, descriptorLimit())
		if err := checkDescriptors(at(slices.Max(sweep.Points)).descriptors()); err != nil {
			return fmt.Errorf("-sweep %s: %w", name, err)
		}
	}
	custom := len(b.options.Workloads) > 0
	for _, w := range b.options.Workloads {
		o := b.options
		sc := Scenario{Workload: w, Clients: o.Agents.Clients, Endpoints: o.Agents.Endpoints, Cached: o.Cached, Bound: o.Bound,
			Stopped: o.Stopped, Rate: o.Rate, Listed: o.Listed}
		if _, err := b.scenario(ctx, sc, b.programs); err != nil {
			return err
		}
	}
	if b.options.Report != "" || !custom && len(sweeps) == 0 && !b.options.Burst && !b.options.TakeOvers {
		if err := b.goals(ctx); err != nil {
			return err
		}
	}
	for _, name := range sweeps {
		if err := b.sweep(ctx, name); err != nil {
			return err
		}
	}
	if b.options.Burst || b.options.Report != "" {
		if err := b.burst(ctx, theBurst()); err != nil {
			return err
		}
	}
	if b.options.TakeOvers || b.options.Report != "" {
		return b.takeOvers(ctx, theTakeOvers())
	}
	return nil
}

// scenario measures a scenario on fresh servers and prints its table.
func (b *bench) scenario(ctx context.Context, sc Scenario, programs []program) (*Outcome, error) {
	if sc.Listed {
		programs = programs[:1] // no other server has lists
		if err := b.buildLister(ctx); err != nil {
			return nil, err
		}
	}
	if sc != sc.bare() {
		programs = append(slices.Clone(programs), program{name: bare, file: b.programs[0].file})
	}
	if sc.disturbed() {
		programs = append(programs, program{name: bareAgain, file: b.programs[0].file})
	}
	if at := slices.IndexFunc(programs, func(p program) bool { return p.name == theFloor }); at >= 0 && sc.Bound > 0 {
		programs = append(programs, program{name: bareFloor, file: programs[at].file})
	}
	r, err := b.startRace(ctx, programs)
	if err != nil {
		return nil, err
	}
	defer r.close()
	outcome, err := r.run(ctx, sc)
	if err == nil {
		err = r.finish()
	}
	if err != nil {
		return nil, err
	}
	b.results.Outcomes = append(b.results.Outcomes, outcome)
	b.progress.clear()
	writeOutcome(b.out, outcome)
	return outcome, nil
}
