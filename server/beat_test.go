package server

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// turns counts those of a loop, and can make it hang.
type turns struct {
	n    atomic.Int64
	hang atomic.Pointer[chan struct{}]
}

func (t *turns) Busy() {
	t.n.Add(1)
	if gate := t.hang.Load(); gate != nil {
		<-*gate
	}
}

func (t *turns) Idle() {}

const patience = 20 * time.Second

func nextBeat(t *testing.T, beats <-chan Status) Status {
	t.Helper()
	select {
	case s := <-beats:
		return s
	case <-time.After(patience):
		t.Fatal("no beat")
		panic("unreachable")
	}
}

// Without a Heartbeat a change is told, later and once, and a server with nothing to do
// does not wake up.
func TestBeatAfterChanges(t *testing.T) {
	t.Parallel()
	beats, turns := make(chan Status, 100), new(turns)
	r := run(t, func(c *Config) {
		c.Beat = func(s Status) { beats <- s }
		c.Watchdog = turns
	})
	c := r.dial()
	defer unix.Close(c)
	say(c, find("x"))
	expect(t, c, miss)
	file, _ := socketPair(t)
	say(c, "request\x00save_endp\x00ttl\x0060\x00label\x00x\x00property\x00p\x00\x00")
	expect(t, c, "dummy\x00\x00\x00")
	sendRights(t, c, "\x00", file)
	expect(t, c, "status\x000\x00\x00")
	if got, want := nextBeat(t, beats), (Status{Clients: 1, Connections: 1, Misses: 1}); got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	before := turns.n.Load()
	time.Sleep(2 * beatPause / 5)
	if woken := turns.n.Load() - before; woken > 1 { // a signal of Go's runtime can be one
		t.Errorf("%d turns with nothing to do", woken)
	}
	r.Stop()
	if got := nextBeat(t, beats); !got.Stopping {
		t.Errorf("told %+v at the end", got)
	}
	if len(beats) > 0 {
		t.Errorf("told %+v after the end", <-beats)
	}
}

const oneMiss = "statistics: address lookup hits=0 miss=1 success=0%"

func (l *logbook) count(line string) (n int) {
	l.Lock()
	defer l.Unlock()
	for _, other := range l.lines {
		if other == line {
			n++
		}
	}
	return n
}

// A Heartbeat comes without any change, and not from a loop that hangs. Look-ups are counted since
// the start, whatever was reported meanwhile.
func TestHeartbeat(t *testing.T) {
	beats, turns := make(chan Status, 1000), new(turns)
	r := run(t, func(c *Config) {
		c.Beat = func(s Status) { beats <- s }
		c.Heartbeat = 5 * time.Millisecond
		c.Watchdog = turns
		c.StatusUpdateTime = 20 * time.Millisecond
	})
	c := r.dial()
	defer unix.Close(c)
	for nextBeat(t, beats).Clients == 0 {
	}
	const misses = 3
	for reported := range misses {
		say(c, find("x"))
		expect(t, c, miss)
		for r.log.count(oneMiss) <= reported {
			nextBeat(t, beats)
		}
	}
	for len(beats) > 0 {
		<-beats
	}
	if got := nextBeat(t, beats); got != (Status{Clients: 1, Misses: misses}) {
		t.Errorf("told %+v after %d misses", got, misses)
	}
	gate := make(chan struct{})
	turns.hang.Store(&gate)
	before := turns.n.Load()
	for turns.n.Load() == before {
		time.Sleep(time.Millisecond)
	}
	// It hangs now.
	for len(beats) > 0 {
		<-beats
	}
	time.Sleep(100 * time.Millisecond)
	if len(beats) > 0 {
		t.Error("a beat from a loop that hangs")
	}
	turns.hang.Store(nil)
	close(gate)
	nextBeat(t, beats)
}
