package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/scache/scache/bench/agent"
	"github.com/scache/scache/internal/lab"
)

// installed is -vs for Postfix's own scache, wherever that is.
const installed = "installed"

const help = `Bench measures a connection cache server under the load of many delivery agents,
side by side with Postfix's own scache and with the floor: a bare epoll server in C
with fixed replies, which shows what the kernel alone costs, and the memory of what is bound.

  go run ./bench                          the goals of this project, in a minute
  go run ./bench -workloads cycle,miss -clients 500 -rounds 5 -duration 2s
  go run ./bench -workloads cycle -cached 15000 -vs ""     ours and the floor only
  go run ./bench -workloads cycle -cached 15000 -endpoints 1  each rests for a while
  go run ./bench -workloads cycle -clients 200 -rate 3000  a fixed rate: latencies
                                          count from when a request was due
  go run ./bench -workloads cycle -stopped 1  one more client, stopped in mid-request
  go run ./bench -workloads cycle -cached 15000 -rate 2000 -listed  beside scachectl list
  go run ./bench -workloads deliver -hit 0.9  what smtp(8) does, with mail
  go run ./bench -sweep clients,cached,bound -out charts   growth, with pictures
  go run ./bench -burst                   what is left of a burst, by the order in which
                                          connections are used again: ours in both,
                                          and stock; takes ten seconds
  go run ./bench -takeover                what the agents notice of a new process in the
                                          server's place, with 15,000 connections cached
  go run ./bench -report bench/RESULTS.md all of it; takes ten minutes

Workloads, one operation of each:
  cycle     save_endp and find_endp: two hand-overs of a TCP connection
  miss      find_endp of what is not there
  bind      save_dest of a destination that is bound already
  deliver   find_dest; RSET, or connect and greet; a message; save_dest and save_endp

All servers are started as master(8) would, and measured in turn, A B C A B C. Tables
have the medians of the rounds, also of the longest latencies, and processor time and
memory of the server alone; ratios are taken round by round: median (min to max). The
agents, an SMTP sink for each server, and all files are gone when it ends. The exit
status is 0 if all went well, whatever the goals say, 1 if a server, the sink or a
reply failed, 2 for a wrong command line.

Flags:
`

// Options are the command line.
type Options struct {
	Agents   agent.Config // all but the addresses
	Cached   int
	Bound    int
	Stopped  int
	Rate     float64
	Listed   bool
	Duration time.Duration
	Rounds   int
	Fill     time.Duration

	Workloads []agent.Workload // empty: the goals
	Sweeps    []string
	Burst     bool
	TakeOvers bool
	Binary    string
	Versus    string
	Floor     bool
	Calls     bool
	Pin       bool
	JSON      bool
	Out       string
	Report    string
}

// parseOptions returns flag.ErrHelp if help was asked for and given.
func parseOptions(arguments []string, output io.Writer) (*Options, error) {
	o := &Options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.Usage = func() {
		fmt.Fprint(output, help)
		flags.PrintDefaults()
	}
	workloads := flags.String("workloads", "", "measure these `workloads` (cycle,miss,bind,deliver) as the flags below say, instead of the goals")
	sweeps := flags.String("sweep", "", "measure growth over these (`clients,cached,bound`)")
	flags.BoolVar(&o.Burst, "burst", false, "watch the connections of a burst in a cache with little to do, in place of the goals")
	flags.BoolVar(&o.TakeOvers, "takeover", false, "have another process take over from ours again and again, in place of the goals")
	flags.StringVar(&o.Report, "report", "", "measure the goals, all sweeps, the burst and take-overs, longer, and write the results to this `file` and pictures beside it")
	flags.StringVar(&o.Out, "out", "", "write pictures (SVG and PNG) and results.json into this `directory`")
	flags.BoolVar(&o.JSON, "json", false, "write the results to standard output as JSON; the tables go to standard error")

	flags.StringVar(&o.Binary, "binary", "", "`file` of our daemon (default: it is built from this module)")
	flags.StringVar(&o.Versus, "vs", installed, "`file` of the server to compare with; the default is Postfix's own scache, if there is one; \"\" is none")
	flags.BoolVar(&o.Floor, "floor", true, "compare with the floor, if there is a C compiler")
	flags.BoolVar(&o.Calls, "calls", true, "count system calls in a further short round, if there is perf or strace")

	flags.BoolVar(&o.Pin, "pin", false, "give the servers a processor of their own, and the agents and sinks the others; steadier on a busy machine")
	flags.DurationVar(&o.Duration, "duration", 200*time.Millisecond, fmt.Sprintf("how long a round takes; at least %v with -report", reportDuration))
	flags.IntVar(&o.Rounds, "rounds", 3, fmt.Sprintf("`number` of rounds for each server; at least %d with -report; a sweep takes half of them", reportRounds))
	flags.DurationVar(&o.Fill, "fill", 30*time.Second, "how long a server may take to store what is to be there beforehand, or it is left out")
	flags.Uint64Var(&o.Agents.Seed, "seed", 1, "of all that is random")

	flags.IntVar(&o.Agents.Clients, "clients", 64, "`number` of clients")
	flags.IntVar(&o.Cached, "cached", 0, "`number` of connections cached beforehand; a cycle with -endpoints takes them in turn, nothing else does")
	flags.IntVar(&o.Bound, "bound", 0, "`number` of destinations bound beforehand; bind refreshes these at random")
	flags.IntVar(&o.Stopped, "stopped", 0, "`number` of further clients that stop in mid-request")
	flags.Float64Var(&o.Rate, "rate", 0, "`operations` a second to begin at fixed times; 0: each client begins as soon as it has finished")
	flags.BoolVar(&o.Listed, "listed", false, "list what is cached, again and again (scachectl list); ours only")
	flags.IntVar(&o.Agents.Threads, "threads", 1, "`number` of threads that drive the clients")
	flags.IntVar(&o.Agents.Endpoints, "endpoints", 0, "`number` of endpoints that all clients share; 0: each has its own")
	flags.IntVar(&o.Agents.TTL, "ttl", 3600, "time to live that clients ask for, in `seconds`")
	flags.IntVar(&o.Agents.LabelSize, "label", 32, "size of labels in `bytes`")
	flags.IntVar(&o.Agents.PropertySize, "property", 64, "size of properties in `bytes`")
	flags.IntVar(&o.Agents.MessageSize, "message", 2000, "size of a message's body in `bytes` (deliver)")
	flags.Float64Var(&o.Agents.Hit, "hit", 1, "`share` of connections that are saved after use and so found (deliver)")
	flags.BoolVar(&o.Agents.Fresh, "fresh", false, "close what comes back and save a new connection each time (cycle)")
	flags.BoolVar(&o.Agents.Glue, "glue", false, "send the dummy that ends a find with the next request; smtp(8) sends it at once")
	flags.BoolVar(&o.Agents.Verify, "verify", false, "look at every connection that comes back whether it is the one saved")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	err := o.complete(*workloads, *sweeps, flags.Args())
	if err == nil {
		err = o.unused(flags)
	}
	if err != nil {
		fmt.Fprintf(output, "bench: %v (bench -h explains)\n", err)
	}
	return o, err
}

// sweepNames are what growth can be measured over.
var sweepNames = []string{"clients", "cached", "bound"}

// complete takes lists apart and checks what flag does not.
func (o *Options) complete(workloads, sweeps string, rest []string) error {
	for _, name := range list(workloads) {
		if !slices.Contains(agent.Workloads, agent.Workload(name)) {
			return fmt.Errorf("-workloads: there is no workload %q", name)
		}
		o.Workloads = append(o.Workloads, agent.Workload(name))
	}
	for _, name := range list(sweeps) {
		if !slices.Contains(sweepNames, name) {
			return fmt.Errorf("-sweep: there is no sweep over %q", name)
		}
		o.Sweeps = append(o.Sweeps, name)
	}
	if o.Versus == installed {
		var err error
		if o.Versus, err = lab.StockScache(); err != nil && !errors.Is(err, lab.ErrNotInstalled) {
			return err
		}
	}
	if err := o.Agents.Check(); err != nil {
		return err
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument: %s", rest[0])
	case o.Rounds < 1 || o.Duration < time.Millisecond || o.Duration > time.Hour || o.Fill <= 0:
		return errors.New("there must be a round, of a millisecond to an hour, and time to fill")
	case o.Rate != 0 && !(o.Rate >= 0.01 && o.Rate <= 1e6): // nor NaN
		return errors.New("a rate must be 0.01 to 1,000,000 operations a second, or 0")
	case o.Agents.TTL < 1 || o.Agents.TTL > longestTTL:
		return fmt.Errorf("a time to live must be 1 to %d seconds", longestTTL)
	case o.Bound > mostText/(2*o.Agents.LabelSize+o.Agents.PropertySize+1):
		return fmt.Errorf("what is bound must have %s bytes of labels and properties at most", grouped(mostText))
	case o.Cached < 0 || o.Bound < 0 || o.Stopped < 0 || o.Agents.Threads < 1 || o.Agents.Endpoints < 0 || o.Agents.MessageSize < 0:
		return errors.New("a number is too small")
	case o.Agents.Glue && o.Rate > 0:
		return errors.New("-glue: at a fixed rate nobody knows when the next request comes")
	}
	return nil
}

// unused refuses flags that would change nothing.
func (o *Options) unused(flags *flag.FlagSet) (err error) {
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "clients", "cached", "bound", "stopped", "rate", "listed":
			if len(o.Workloads) == 0 {
				err = fmt.Errorf("-%s is for -workloads", f.Name)
			}
		case "endpoints":
			if len(o.Workloads) == 0 && len(o.Sweeps) == 0 {
				err = errors.New("-endpoints is for -workloads and -sweep")
			}
		}
	})
	return err
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}
