package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/bench/agent"
	"github.com/scache/scache/bench/floor"
	"github.com/scache/scache/bench/sink"
	"github.com/scache/scache/internal/master"
)

// The names of the servers that are compared.
const (
	ours      = "scache"
	oursFIFO  = ours + " fifo" // connection_cache_reuse_order
	oursLIFO  = ours + " lifo"
	stock     = "stock"
	theFloor  = "floor"
	bare      = "scache bare"
	bareAgain = "bare again"
	bareFloor = "floor bare"
)

// program is a server's file. The one named bare is ours, in the scenario without
// what was there beforehand and what disturbs: so that both are compared at the
// same time. bareAgain is another of these: what chance does to a p99. bareFloor is that of the floor,
// which remembers what is bound.
type program struct {
	name, file string
	arguments  []string // as in master.cf
}

// server is a running server and the sink where its clients' connections go.
type server struct {
	name   string
	daemon *master.Daemon
	sink   *sink.Process
	cached int // connections saved beforehand
	bound  int
	failed string // why it does not take part any more
}

// What the servers are made for: bytes of labels and properties of what is bound, and seconds.
const (
	mostText   = 2_000_000_000
	longestTTL = 24 * 60 * 60
)

// startServer starts a server as master(8) would. Times to live, time-outs and limits
// are beyond what any run takes. failed is called if the sink stops by itself.
func startServer(p program, config *agent.Config, cpus *unix.CPUSet, failed func(error)) (*server, error) {
	s := &server{name: p.name}
	var err error
	if s.sink, err = sink.Start(failed); err != nil {
		return nil, err
	}
	if err = pin(s.sink.PID(), config.CPUs); err != nil {
		s.close()
		return nil, err
	}
	s.daemon, err = master.Start(master.Config{
		Binary:       p.file,
		Unprivileged: true,
		Chroot:       true,
		Args:         p.arguments,
		Env:          floor.Environment(config.Properties()),
		MainCF: fmt.Sprintf("max_idle = 1d\nconnection_cache_status_update_time = 1d\nconnection_cache_ttl_limit = %d\n"+
			"connection_cache_binding_limit = %d\nconnection_cache_text_limit = %d\n", longestTTL, math.MaxInt32, math.MaxInt32),
	})
	if err == nil {
		err = pin(s.daemon.PID, cpus)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return s, nil
}

func (s *server) bare() bool { return s.name == bare || s.name == bareAgain || s.name == bareFloor }

// scenario is what this server has to do.
func (s *server) scenario(sc Scenario) Scenario {
	if s.bare() {
		return sc.bare()
	}
	return sc
}

// connect connects clients.
func (s *server) connect(ctx context.Context, config agent.Config) (*agent.Fleet, error) {
	config.Socket, config.Sink = s.daemon.SocketPath, s.sink.Address
	f, err := agent.Connect(ctx, config)
	return f, s.explain(err)
}

// explain adds what the daemon has logged to an error that it may have caused.
func (s *server) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	log := s.daemon.Texts()
	if n := len(log); n > 0 {
		return fmt.Errorf("%s: %w; its last word: %s", s.name, err, log[n-1])
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

// checkCached fails if the server has closed what was saved beforehand.
func (s *server) checkCached() error {
	counts, err := s.sink.Counts()
	if open := counts.Opened - counts.Closed; err == nil && open < int64(s.cached) {
		err = fmt.Errorf("of %s connections cached beforehand it has closed %s", grouped(s.cached), grouped(s.cached-int(open)))
	}
	return s.explain(err)
}

var maxima = regexp.MustCompile(`^statistics: max simultaneous domains=(\d+)`)

// checkBound fails if the server, by its statistics, has never had all that was bound beforehand.
func (s *server) checkBound() error {
	for _, line := range s.daemon.Texts() {
		if found := maxima.FindStringSubmatch(line); found != nil {
			if had, err := strconv.Atoi(found[1]); err != nil || had < s.bound {
				return fmt.Errorf("of %s destinations bound beforehand it has had %s", grouped(s.bound), found[1])
			}
		}
	}
	return nil
}

// finish ends the server as a reload does. Then every connection that was opened
// must be closed: what is not has been lost.
func (s *server) finish() error {
	s.daemon.CloseStatus()
	state, err := s.daemon.Wait(10 * time.Second)
	if err == nil && state.ExitCode() != 0 {
		err = fmt.Errorf("it ended with %v", state)
	}
	if err == nil {
		err = s.checkBound()
	}
	if err == nil {
		_, err = s.sink.AwaitClosed(10 * time.Second)
	}
	return s.explain(err)
}

// close ends the server and the sink, whatever they are doing.
func (s *server) close() {
	if s.daemon != nil {
		s.daemon.Close()
	}
	if s.sink != nil {
		s.sink.Close()
	}
}
