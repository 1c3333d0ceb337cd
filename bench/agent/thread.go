package agent

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/bench/sink"
)

// thread drives a share of the clients. It belongs to one goroutine at a time.
type thread struct {
	fleet  *Fleet
	config Config
	index  int
	socket socket
	poller poller
	dialer dialer
	random *rand.Rand
	texts  texts
	wants  [states][2][]byte
	mail   mailTexts
	buffer [1 << 17]byte

	clients []client
	idle    []int32 // clients without an operation
	busy    int     // clients with one
	counts  Counts

	run    Run
	result Result
	began  time.Time // when the warm-up was over
	now    int64     // nanoseconds since then
	end    int64     // when no more operations are begun
	next   int64     // open loop: when the next operation is due; fills: the number of the next
	step   int64     // from one to the next
}

func newThread(ctx context.Context, f *Fleet, config Config, index int) (*thread, error) {
	poller, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	t := &thread{
		fleet:  f,
		config: config,
		index:  index,
		poller: poller,
		dialer: newDialer(config.Sink),
		random: rand.New(rand.NewPCG(config.Seed, uint64(index))),
		texts:  newTexts(&config),
		mail:   newMailTexts(config.MessageSize),
	}
	t.expect()
	for number := index; number < config.Clients; number += config.Threads {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = t.add(number)
		}
	}
	for i := range t.clients {
		if err == nil {
			err = readAnnouncement(int(t.clients[i].fd))
		}
		if err == nil {
			err = t.poller.watch(t.clients[i].fd, key{client: int32(i)})
		}
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *thread) add(number int) error {
	fd, err := connect(t.config.Socket)
	if err != nil {
		return err
	}
	t.idle = append(t.idle, int32(len(t.clients)))
	t.clients = append(t.clients, client{fd: int32(fd), held: -1, number: number})
	return nil
}

func (t *thread) close() {
	for i := range t.clients {
		c := &t.clients[i]
		unix.Close(int(c.fd))
		if c.held >= 0 {
			reset(c.held)
		}
	}
	unix.Close(t.poller.fd)
}

// hold opens a connection for each client, and takes the greeting.
func (t *thread) hold() error {
	for i := range t.clients {
		if err := t.dial(&t.clients[i]); err != nil {
			return err
		}
	}
	for i := range t.clients {
		if err := readGreeting(int(t.clients[i].held), sink.Greeting); err != nil {
			return err
		}
	}
	return nil
}

// longestWait bounds how long a cancelled context goes unnoticed.
const longestWait = 50 * time.Millisecond

// unmeasured is the start of an operation whose end does not matter.
const unmeasured = math.MinInt64

// measure does a run: it begins operations until the time is over, and waits until
// they are finished, or the grace is over too.
func (t *thread) measure(ctx context.Context, run Run) error {
	t.prepare(run)
	edges := []int64{0, t.end}
	for {
		for len(edges) > 0 && t.now >= edges[0] {
			edges = edges[1:]
			if t.index == 0 && run.Edge != nil {
				run.Edge()
				t.tick()
			}
		}
		if err := t.begin(); err != nil {
			return err
		}
		if t.now >= t.end && t.busy == 0 {
			return nil
		}
		if t.now >= t.end+int64(run.Grace) {
			t.recordStalled()
			return nil
		}
		if err := ctx.Err(); err != nil {
			if run.to == 0 || err != context.DeadlineExceeded {
				return err
			}
			t.next = int64(run.to) // a fill ends in good order
		}
		if err := t.turn(t.timeout()); err != nil {
			return err
		}
	}
}

// prepare sets the clocks of a run.
func (t *thread) prepare(run Run) {
	t.run = run
	t.result = Result{Latency: newHistogram(), Elapsed: run.Duration}
	t.began = time.Now().Add(run.WarmUp)
	t.tick()
	t.end = int64(run.Duration)
	threads := t.config.Threads
	switch {
	case run.to > 0:
		t.end = forever
		t.next, t.step = int64(run.from+t.index), int64(threads)
	case run.Rate > 0:
		t.step = max(1, int64(float64(time.Second)*float64(threads)/run.Rate))
		t.next = t.now + t.step*int64(t.index)/int64(threads)
	default:
		t.next, t.step = 0, 0
	}
}

// forever is beyond all runs, and can be added to.
const forever = int64(1 << 62)

func (t *thread) tick() { t.now = int64(time.Since(t.began)) }

// clock is a time that goes on from run to run.
func (t *thread) clock() int64 { return t.began.UnixNano() + t.now }

// begin begins the operations that are due, as far as there are idle clients.
func (t *thread) begin() error {
	for len(t.idle) > 0 {
		start := t.now
		switch {
		case t.run.to > 0:
			if t.next >= int64(t.run.to) {
				if t.end == forever {
					t.end, t.result.Elapsed = t.now, time.Duration(t.now)
				}
				return nil
			}
		case t.run.Rate > 0:
			if t.next > t.now || t.next >= t.end {
				return nil
			}
			start = t.next
		case t.now >= t.end:
			return nil
		}
		last := len(t.idle) - 1
		c := &t.clients[t.idle[last]]
		t.idle = t.idle[:last]
		t.busy++
		c.start = start
		c.turn = int(t.next)
		t.next += t.step
		if err := t.start(c); err != nil {
			return t.explain(c, err)
		}
	}
	return nil
}

// timeout is how long to wait for replies.
func (t *thread) timeout() time.Duration {
	wait := longestWait
	if t.run.Rate > 0 && len(t.idle) > 0 && t.next < t.end {
		wait = min(wait, time.Duration(t.next-t.now))
	}
	if t.now < t.end {
		wait = min(wait, time.Duration(t.end-t.now))
	}
	return wait
}

// turn waits for replies and handles them.
func (t *thread) turn(timeout time.Duration) error {
	n, err := t.poller.wait(timeout)
	t.tick()
	if err != nil {
		return err
	}
	for i := range n {
		event := &t.poller.events[i]
		c := &t.clients[event.Fd]
		if event.Pad == 0 {
			err = t.heard(c)
		} else if c.state >= firstOfMail {
			err = t.heardMail(c)
		}
		if err != nil {
			return t.explain(c, err)
		}
	}
	return nil
}

// finished ends an operation.
func (t *thread) finished(c *client) error {
	t.tick() // others may have taken time since the turn began
	if t.now >= 0 && t.now < t.end {
		t.result.InTime++
	}
	if c.start != unmeasured {
		t.result.Ops++
		t.fleet.done.Add(1)
		if t.now >= 0 {
			t.record(t.now - c.start)
		}
	}
	c.state = idle
	t.busy--
	t.idle = append(t.idle, c.index(t))
	if !t.config.Glue || t.now >= t.end || t.run.Rate > 0 {
		return t.acknowledge(c)
	}
	return nil
}

func (t *thread) record(latency int64) {
	_ = t.result.Latency.RecordValue(min(latency, longestLatency)) // cannot fail
}

// recordStalled counts what has not been answered with the time it has taken so
// far, and also what was due at a fixed rate and could not even begin.
func (t *thread) recordStalled() {
	for i := range t.clients {
		if c := &t.clients[i]; c.state != idle {
			t.record(t.now - c.start)
			c.start = unmeasured
		}
	}
	if t.run.Rate > 0 {
		for ; t.next < t.end; t.next += t.step {
			t.record(t.now - t.next)
			t.result.Unstarted++
		}
	}
}

// drain waits for all clients to become idle.
func (t *thread) drain(ctx context.Context, limit time.Duration) error {
	for over := t.now + int64(limit); t.busy > 0; {
		if err := t.turn(longestWait); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if t.now > over {
			return fmt.Errorf("%d clients have had no answer in %v", t.busy, limit)
		}
	}
	return nil
}

func (t *thread) explain(c *client, err error) error {
	return fmt.Errorf("client %d %v: %w", c.number, c.state, err)
}
