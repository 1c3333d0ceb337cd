package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/bench/agent"
	"github.com/scache/scache/bench/sink"
)

// TakeOvers is what the agents notice when "scache serve" is told, again and again, to let
// another process take over. Their requests come at a fixed rate, so a pause is somebody's
// latency, and they fail at the first reply that is wrong and the first connection to the
// server that breaks.
type TakeOvers struct {
	Cached  int             `json:"cached"`
	Clients int             `json:"clients"`
	Rate    float64         `json:"cycles_per_second"`
	Times   int             `json:"times"`
	Cycles  int64           `json:"cycles"`
	Longest time.Duration   `json:"longest_latency_ns"`
	Quiet   time.Duration   `json:"longest_latency_undisturbed_ns"`
	Pauses  []time.Duration `json:"pauses_ns"` // as the servers have logged them
	Lost    int             `json:"lost"`      // connections that were neither found nor there at the end
}

const takeOverPause = 400 * time.Millisecond

func theTakeOvers() *TakeOvers {
	return &TakeOvers{Cached: 15_000, Clients: 64, Rate: 5_000, Times: 10}
}

// takeOvers measures ours: no other server can do that.
func (b *bench) takeOvers(ctx context.Context, o *TakeOvers) error {
	if err := checkDescriptors(Scenario{Cached: o.Cached, Clients: o.Clients}.descriptors()); err != nil {
		return err
	}
	s, err := startServing(b.programs[0].file, b.cpus)
	if err != nil {
		return err
	}
	defer s.close()
	sink, err := sink.Start(b.fail)
	if err != nil {
		return err
	}
	defer sink.Close()
	if err := pin(sink.PID(), b.options.Agents.CPUs); err != nil {
		return err
	}
	if err := o.measure(ctx, b, s, sink); err != nil {
		return err
	}
	b.results.TakeOvers = o
	b.progress.clear()
	writeTakeOvers(b.out, o)
	if o.Lost != 0 {
		return fmt.Errorf("%s: %s lost", ours, count(o.Lost, "connection is", "connections are"))
	}
	return nil
}

func (o *TakeOvers) measure(ctx context.Context, b *bench, s *serving, sink *sink.Process) error {
	config := b.options.Agents
	config.Socket, config.Sink, config.Clients, config.Verify = s.socket, sink.Address, o.Clients, true
	fleet, err := agent.Connect(ctx, config)
	if err != nil {
		return err
	}
	defer fleet.Close()
	b.progress.say("take-over: saving %d connections", o.Cached)
	if err := b.cache(ctx, fleet, o.Cached); err != nil {
		return err
	}
	duration := time.Duration(o.Times+1) * takeOverPause
	run := agent.Run{Workload: agent.Cycle, Rate: o.Rate, Duration: duration, WarmUp: takeOverPause, Grace: 10 * time.Second}
	b.progress.say("take-over: %d clients, undisturbed", o.Clients)
	result, err := fleet.Run(ctx, run)
	if err != nil {
		return err
	}
	o.Quiet = time.Duration(result.Latency.Max())
	b.progress.say("take-over: %d clients, %d times", o.Clients, o.Times)
	disturbing, leave := context.WithCancel(ctx)
	disturbed := make(chan error, 1)
	go func() { disturbed <- o.disturb(disturbing, s) }()
	result, err = fleet.Run(ctx, run)
	if err != nil {
		leave()
	}
	err = errors.Join(err, <-disturbed) // in any case: it knows which process serves
	leave()
	if err != nil {
		return err
	}
	o.Cycles, o.Longest = result.Ops, time.Duration(result.Latency.Max())
	// What the agents have, and what the server should have, is open at the sink.
	open, err := sink.Counts()
	if err != nil {
		return err
	}
	counts := fleet.Counts()
	o.Lost = int(counts.Held + counts.Handed - counts.Returned - (open.Opened - open.Closed))
	return nil
}

// disturb has the server taken over so many times.
func (o *TakeOvers) disturb(ctx context.Context, s *serving) error {
	for range o.Times {
		if err := sleep(ctx, takeOverPause); err != nil {
			return err
		}
		pause, err := s.takeOver()
		if err != nil {
			return err
		}
		o.Pauses = append(o.Pauses, pause)
	}
	return nil
}

// serving is "scache serve", one process after the other.
type serving struct {
	directory, socket string
	first             *exec.Cmd
	pid               int // of the one that serves
	log               *os.File
	lines             *bufio.Scanner // of the log
}

// servingLimit is how long a process may take to begin, to be replaced and to end.
const servingLimit = 10 * time.Second

func startServing(file string, cpus *unix.CPUSet) (*serving, error) {
	directory, err := os.MkdirTemp("", "scache-bench")
	if err != nil {
		return nil, err
	}
	log, stderr, err := os.Pipe()
	if err != nil {
		os.RemoveAll(directory)
		return nil, err
	}
	s := &serving{directory: directory, socket: filepath.Join(directory, "s"), log: log, lines: bufio.NewScanner(log)}
	s.first = exec.Command(file, "serve", "-socket", s.socket, "-ttl-limit", "24h")
	s.first.Stderr = stderr
	err = s.first.Start()
	stderr.Close()
	if err != nil {
		log.Close()
		os.RemoveAll(directory)
		return nil, err
	}
	s.pid = s.first.Process.Pid
	if _, err = s.await(listening); err == nil {
		err = pin(s.pid, cpus) // its successors, too
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

var (
	listening = regexp.MustCompile(`\[(\d+)\]: version .* listening on`)
	tookOver  = regexp.MustCompile(`process (\d+) has taken over: .* within (\S+)`)
)

// await reads the log up to a line, and returns what the expression's groups have found.
func (s *serving) await(line *regexp.Regexp) ([]string, error) {
	last := ""
	_ = s.log.SetReadDeadline(time.Now().Add(servingLimit)) // pipes have it
	for s.lines.Scan() {
		last = s.lines.Text()
		if found := line.FindStringSubmatch(last); found != nil {
			return found[1:], nil
		}
	}
	return nil, fmt.Errorf("scache serve: %w; its last word: %s", cmp.Or(s.lines.Err(), errors.New("it has ended")), last)
}

// takeOver makes another process take over, and returns how long nobody has served.
func (s *serving) takeOver() (time.Duration, error) {
	if err := unix.Kill(s.pid, unix.SIGHUP); err != nil {
		return 0, fmt.Errorf("kill %d: %w", s.pid, err)
	}
	found, err := s.await(tookOver)
	if err != nil {
		return 0, err
	}
	if s.pid, err = strconv.Atoi(found[0]); err != nil {
		return 0, err
	}
	return time.ParseDuration(found[1])
}

// close ends the process that serves, and returns when all have ended.
func (s *serving) close() {
	_ = unix.Kill(s.pid, unix.SIGTERM)
	_ = s.log.SetReadDeadline(time.Now().Add(servingLimit))
	if _, err := io.Copy(io.Discard, s.log); err != nil { // else nobody has the other end
		_ = unix.Kill(s.pid, unix.SIGKILL)
		_ = s.first.Process.Kill()
	}
	_ = s.first.Wait()
	s.log.Close()
	os.RemoveAll(s.directory)
}

func (o *TakeOvers) String() string {
	return fmt.Sprintf("%s cached, %s, at %s cycles a second; taken over %d times in %v",
		count(o.Cached, "connection", "connections"), count(o.Clients, "client", "clients"), grouped(int(o.Rate)), o.Times, time.Duration(o.Times+1)*takeOverPause)
}

// table has what the agents have noticed.
func (o *TakeOvers) table() [][]string {
	var longest time.Duration
	for _, p := range o.Pauses {
		longest = max(longest, p)
	}
	return [][]string{
		{"cycles", "failed", "connections lost", "clients disconnected", "longest pause", "longest latency", "the same, undisturbed"},
		{grouped(int(o.Cycles)), "0", grouped(o.Lost), "0", longest.String(), o.Longest.String(), o.Quiet.String()},
	}
}

// writeTakeOvers prints a table. A failure or a disconnected client would have ended the run.
func writeTakeOvers(w io.Writer, o *TakeOvers) {
	fmt.Fprintf(w, "\ntake-over: %v\n", o)
	writeColumns(w, o.table())
}
