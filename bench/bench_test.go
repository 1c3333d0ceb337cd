package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/bench/agent"
	"github.com/scache/scache/bench/floor"
	"github.com/scache/scache/bench/sink"
	"github.com/scache/scache/internal/lab"
)

// programs are the servers that there are.
var programs []program

func TestMain(m *testing.M) {
	sink.Main()
	os.Exit(withPrograms(m))
}

func withPrograms(m *testing.M) int {
	raiseLimit()
	dir, err := os.MkdirTemp("", "scache-bench-test")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file, err := lab.Build(context.Background(), dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	programs = append(programs, program{name: ours, file: file})
	file, err = lab.StockScache()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	programs = append(programs, program{name: stock, file: file})
	if file, err := floor.Build(context.Background(), dir); err == nil {
		programs = append(programs, program{name: theFloor, file: file})
	} else if !errors.Is(err, floor.ErrNoCompiler) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// options are those of a command line.
func options(t *testing.T, arguments ...string) *Options {
	t.Helper()
	o, err := parseOptions(arguments, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func forEachServer(t *testing.T, config agent.Config, do func(*testing.T, *server)) {
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			s, err := startServer(p, &config, nil, func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			do(t, s)
		})
	}
}

// serveAll ends each server as it should end.
func serveAll(t *testing.T, config agent.Config, do func(*testing.T, *server)) {
	forEachServer(t, config, func(t *testing.T, s *server) {
		do(t, s)
		if t.Failed() {
			return
		}
		if err := s.finish(); err != nil { // also: opened = closed
			t.Error(err)
		}
	})
}

func connect(t *testing.T, s *server, config agent.Config) *agent.Fleet {
	t.Helper()
	f, err := s.connect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

const moment = 100 * time.Millisecond

// Every workload works with every server, what comes back is what was saved, and
// the counts add up.
func TestWorkloads(t *testing.T) {
	for _, c := range []struct {
		workload agent.Workload
		adjust   func(*agent.Config)
	}{
		{agent.Cycle, func(c *agent.Config) {}},
		{agent.Cycle, func(c *agent.Config) { c.Fresh, c.Glue = true, true }},
		{agent.Cycle, func(c *agent.Config) { c.Threads, c.LabelSize, c.PropertySize = 2, 3000, agent.MaxText }},
		{agent.Miss, func(c *agent.Config) {}},
		{agent.Bind, func(c *agent.Config) { c.Bound = 10 }},
		{agent.Deliver, func(c *agent.Config) {}},
		{agent.Deliver, func(c *agent.Config) { c.Hit = 0.5 }},
	} {
		config := options(t).Agents
		config.Clients, config.Verify = 20, true
		c.adjust(&config)
		t.Run(string(c.workload), func(t *testing.T) {
			serveAll(t, config, func(t *testing.T, s *server) { checkWorkload(t, s, config, c.workload) })
		})
	}
}

func checkWorkload(t *testing.T, s *server, config agent.Config, workload agent.Workload) {
	f := connect(t, s, config)
	run := agent.Run{Workload: workload, WarmUp: moment / 2, Duration: moment, Grace: 10 * time.Second}
	result, err := f.Run(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if result.InTime == 0 || result.Ops < result.InTime || result.Latency.TotalCount() < result.InTime || result.Stalled > 0 {
		t.Errorf("result %+v", result)
	}
	c := f.Counts()
	if c.Opened+c.Returned != c.Handed+c.Closed+c.Held {
		t.Errorf("does not add up: %+v", c)
	}
	cached := c.Handed - c.Returned // by the server
	switch workload {
	case agent.Cycle:
		if c.Handed != result.Ops || cached != 0 {
			t.Errorf("%d cycles, %+v", result.Ops, c)
		}
	case agent.Deliver:
		if c.Delivered != result.Ops || cached > int64(config.Clients) || cached == 0 {
			t.Errorf("%d deliveries, %+v", result.Ops, c)
		}
	default:
		if c.Opened != 0 {
			t.Errorf("%+v", c)
		}
	}
	f.Close()
	counts, err := s.sink.Counts()
	if err != nil || counts.Opened != c.Opened || counts.Messages != c.Delivered {
		t.Errorf("the sink has seen %+v, %v; the agents %+v", counts, err, c)
	}
}

// The agents allocate for a run, not for an operation: else the collector would be
// part of what they measure.
func TestOperationsDoNotAllocate(t *testing.T) {
	config := options(t).Agents
	config.Clients = 10
	s, err := startServer(programs[0], &config, nil, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, workload := range agent.Workloads {
		f := connect(t, s, config)
		var before, after runtime.MemStats
		run := agent.Run{Workload: workload, Duration: moment}
		run.Edge = func() { before, after = after, before; runtime.ReadMemStats(&after) }
		result, err := f.Run(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		if n := after.Mallocs - before.Mallocs; n > uint64(result.InTime)/10+50 {
			t.Errorf("%s: %d allocations in %d operations", workload, n, result.InTime)
		}
		f.Close()
	}
}

// What is stored beforehand is there, and is the server's.
func TestFill(t *testing.T) {
	config := options(t).Agents
	config.Clients = 7
	serveAll(t, config, func(t *testing.T, s *server) {
		f := connect(t, s, config)
		for _, fill := range []func(context.Context, int, int) (agent.Result, error){f.Cache, f.Bind} {
			for _, part := range [][2]int{{0, 100}, {100, 101}} {
				if result, err := fill(t.Context(), part[0], part[1]); err != nil || result.Ops != int64(part[1]-part[0]) {
					t.Fatalf("%d operations, %v; want those of %v", result.Ops, err, part)
				}
			}
		}
		if c := f.Counts(); c.Handed != 101 || c.Held != 0 {
			t.Errorf("%+v", c)
		}
		if n, err := s.daemon.FDCount(); err != nil || n < 101 {
			t.Errorf("the server has %d descriptors, %v", n, err)
		}
		over, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		if result, err := f.Cache(over, 101, 1_000_000); err != nil || result.Ops > 100 {
			t.Errorf("a fill without time: %d operations, %v", result.Ops, err)
		}
	})
}

func benchOf(t *testing.T, programs []program) *bench {
	return &bench{options: options(t), programs: programs, out: io.Discard, progress: newProgress(os.Stderr), fail: func(err error) { t.Error(err) }}
}

// A server that does not keep what it was given is not measured.
func TestLosses(t *testing.T) {
	for limit, sc := range map[string]Scenario{
		"connection_cache_size_limit=100":    {Workload: agent.Miss, Clients: 3, Cached: 200},
		"connection_cache_binding_limit=100": {Workload: agent.Bind, Clients: 3, Bound: 200},
		"connection_cache_size_limit=2":      {Workload: agent.Deliver, Clients: 5},
	} {
		p := program{name: ours, file: programs[0].file, arguments: []string{"-o", limit}}
		b := benchOf(t, []program{p})
		b.options = options(t, "-rounds", "1", "-duration", "50ms", "-calls=false")
		if _, err := b.scenario(t.Context(), sc, b.programs); err == nil {
			t.Errorf("%v with %s is measured", sc, limit)
		}
	}
}

// What a burst has left is kept in turn, or expires but for what is used.
func TestBurst(t *testing.T) {
	// Stock, too, can be held up for two seconds before it loses one.
	burst := &Burst{Connections: 20, TTL: 4, Rate: 100, Seconds: 6}
	b := benchOf(t, programs)
	if err := b.burst(t.Context(), burst); err != nil {
		t.Fatal(err)
	}
	kept := map[string]int{oursFIFO: 21, oursLIFO: 1, stock: 21} // with the one in use
	for _, r := range burst.Remains {
		if last := r.Open[len(r.Open)-1]; r.Open[0] != burst.Connections || last != kept[r.Server] {
			t.Errorf("%s: %d connections at last, want %d; all: %d", r.Server, last, kept[r.Server], r.Open)
		}
		delete(kept, r.Server)
	}
	if len(kept) > 0 {
		t.Errorf("not seen: %v", kept)
	}
}

// A server that stands still shows in the latency at a fixed rate of as many
// operations as were due meanwhile, though no more than the clients were begun.
func TestFixedRateSeesStall(t *testing.T) {
	const rate, stall = 500, 200 * time.Millisecond
	config := options(t).Agents
	config.Clients = 3
	serveAll(t, config, func(t *testing.T, s *server) {
		f := connect(t, s, config)
		time.AfterFunc(moment, func() {
			s.daemon.Signal(unix.SIGSTOP)
			time.Sleep(stall)
			s.daemon.Signal(unix.SIGCONT)
		})
		result, err := f.Run(t.Context(), agent.Run{Workload: agent.Miss, Rate: rate, Duration: moment + 2*stall, Grace: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(rate * (moment + 2*stall).Seconds()); result.Ops < want-1 || result.Ops > want+1 {
			t.Errorf("%d operations, want %d", result.Ops, want)
		}
		// Of those due in the stall's first half all waited for the second.
		slow := 0
		for _, bar := range result.Latency.Distribution() {
			if bar.From >= int64(stall/2) {
				slow += int(bar.Count)
			}
		}
		if want := int(rate * stall.Seconds() / 2); slow < want-want/5 {
			t.Errorf("%d operations took half of the stall or longer, want %d", slow, want)
		}
	})
}

// A server that dies in mid-round is an error, and nothing waits for it.
func TestServerDies(t *testing.T) {
	config := options(t).Agents
	config.Clients = 5
	forEachServer(t, config, func(t *testing.T, s *server) {
		f := connect(t, s, config)
		time.AfterFunc(moment, func() { s.daemon.Signal(unix.SIGKILL) })
		result, err := f.Run(t.Context(), agent.Run{Workload: agent.Cycle, Duration: time.Minute, Grace: time.Minute})
		if err == nil {
			t.Errorf("%d operations, and no error", result.Ops)
		}
	})
}

// What is cached is listed while others are served; a list that fails is an error.
func TestListed(t *testing.T) {
	b := benchOf(t, programs)
	b.dir = t.TempDir()
	b.options = options(t, "-rounds", "2", "-duration", "50ms")
	listed := Scenario{Workload: agent.Cycle, Clients: 3, Cached: 20, Listed: true}
	outcome, err := b.scenario(t.Context(), listed, b.programs)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{ours, bare, bareAgain} {
		if samples := outcome.standing(server).Samples; len(samples) != 2 || samples[1].Ops == 0 {
			t.Errorf("%s: %+v", server, samples)
		}
	}
	if len(outcome.Standings) != 3 {
		t.Errorf("outcome: %+v", outcome)
	}
	if b.lister, err = exec.LookPath("false"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.scenario(t.Context(), listed, b.programs); err == nil {
		t.Error("lists fail, and nobody notices")
	}
}

// Ours serves the others while a client has stopped in mid-request; stock does not,
// and the agents notice, and go on when it does.
func TestStoppedClient(t *testing.T) {
	config := options(t).Agents
	config.Clients = 5
	serveAll(t, config, func(t *testing.T, s *server) {
		f := connect(t, s, config)
		if err := f.Stop(2); err != nil {
			t.Fatal(err)
		}
		run := agent.Run{Workload: agent.Cycle, Duration: moment, Grace: 10 * time.Second}
		if s.name == stock {
			run.Grace = moment
		}
		result, err := f.Run(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		if s.name == stock && (result.Stalled != 5 || result.Latency.TotalCount() != 5 || result.Latency.Min() < int64(moment)) {
			t.Errorf("stock left %d clients without an answer, %d latencies from %d", result.Stalled, result.Latency.TotalCount(), result.Latency.Min())
		}
		if s.name != stock && (result.Stalled != 0 || result.Ops == 0) {
			t.Errorf("%d clients without an answer, %d operations", result.Stalled, result.Ops)
		}
		run.Grace = 10 * time.Second
		if result, err := f.Run(t.Context(), run); err != nil || result.Ops == 0 || result.Stalled != 0 {
			t.Errorf("afterwards: %+v, %v", result, err)
		}
		f.Close()
	})
}

// A whole call: a table, JSON that can be read, pictures, and nothing left behind.
func TestRun(t *testing.T) {
	temp, out := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	stdout, err := os.Create(filepath.Join(out, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(out, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	o := options(t, "-workloads", "cycle,bind", "-clients", "3", "-cached", "10", "-bound", "20", "-rounds", "2",
		"-duration", "30ms", "-json", "-binary", programs[0].file)
	if err := run(t.Context(), o, stdout, stderr); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(stdout.Name())
	var results Results
	if err := json.Unmarshal(text, &results); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if len(results.Outcomes) != 2 || len(results.Outcomes[0].standing(ours).Samples) != 2 || results.Outcomes[1].standing(bare).Samples[1].Ops == 0 ||
		len(results.Outcomes[0].Comparisons) < 2 || results.Outcomes[1].Comparisons[0].Throughput.Median <= 0 {
		t.Errorf("results: %s", text)
	}
	table, _ := os.ReadFile(stderr.Name())
	if !bytes.Contains(table, []byte("cycle, 3 clients, 10 cached, 20 bound")) {
		t.Errorf("table: %s", table)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What cannot be written in the end is said at the beginning.
func TestNowhereToWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o644)
	for _, flags := range [][]string{{"-out", file}, {"-report", filepath.Dir(file)}, {"-report", filepath.Join(file, "x")}} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := run(ctx, options(t, flags...), os.Stdout, os.Stderr); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", flags, err)
		}
	}
}

// Nobody else has the servers' processor.
func TestPin(t *testing.T) {
	servers, agents := shareProcessors()
	if servers == nil {
		t.Skip("one processor")
	}
	config := options(t).Agents
	config.CPUs = agents
	s, err := startServer(programs[0], &config, servers, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for pid, want := range map[int]*unix.CPUSet{s.daemon.PID: servers, s.sink.PID(): agents} {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, task := range tasks {
			id, _ := strconv.Atoi(task.Name())
			var got unix.CPUSet
			if err := unix.SchedGetaffinity(id, &got); err == nil && got != *want {
				t.Errorf("thread %d of %d has %v, want %v", id, pid, got, *want)
			}
		}
	}
}

// A cancelled run ends at once, and leaves no process and no file.
func TestInterrupt(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	err = run(ctx, options(t, "-workloads", "cycle", "-duration", "1h", "-binary", programs[0].file), null, null)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended with %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if strings.TrimSpace(string(children)) != "" {
		t.Errorf("processes are left: %s", children)
	}
}

// A server that is taken over again and again fails nobody and loses nothing.
func TestTakeOvers(t *testing.T) {
	b := benchOf(t, programs[:1])
	o := &TakeOvers{Cached: 500, Clients: 16, Rate: 2000, Times: 4}
	if err := b.takeOvers(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(o.Pauses) != o.Times || o.Lost != 0 || o.Cycles == 0 {
		t.Errorf("%d times, %d lost, %d cycles", len(o.Pauses), o.Lost, o.Cycles)
	}
}

// A server that does not begin, or is never replaced, is an error, and leaves no process and no file.
func TestTakeOverFails(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	file := filepath.Join(t.TempDir(), "server")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho nothing works >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := benchOf(t, []program{{name: ours, file: file}})
	if err := b.takeOvers(t.Context(), theTakeOvers()); err == nil || !strings.Contains(err.Error(), "nothing works") {
		t.Errorf("a server that ends: %v", err)
	}
	// This one is taken over, and told to leave in the midst.
	b = benchOf(t, programs[:1])
	ctx, cancel := context.WithTimeout(t.Context(), 5*takeOverPause)
	defer cancel()
	o := &TakeOvers{Cached: 10, Clients: 4, Rate: 500, Times: 100}
	if err := b.takeOvers(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
