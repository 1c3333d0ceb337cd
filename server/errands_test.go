package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// An errand goes on at once as long as nobody else asks for anything. Else it waits after each portion,
// whatever happens on its socket, until a turn ends a while later or for its timer.
func TestErrandsGiveWay(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			s := newBusyServer(t, Config{Log: &logbook{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1})
			defer unix.Close(s.wake)
			defer s.finish()
			defer unix.Close(s.far)
			cache, c, far := s.cache, s.client, s.far
			const bindings = 1000
			for i := range bindings {
				cache.store.SaveDestination(fmt.Append(nil, i), nil, nil, 1<<40)
			}
			say(far, string(proto.AppendAdmin(nil, proto.AdminList, "bindings")))
			paused := 0
			for again := true; again; {
				if busy {
					cache.counters.requests++ // of somebody else
				}
				again = c.Ready(c.fd, false)
				if !c.gaveWay {
					continue
				}
				paused++
				written := func() int { return cache.counters.sent + len(c.session.out) }
				before := written()
				if c.Ready(c.fd, false) || written() > before {
					t.Fatal("it has not given way")
				}
				timer := &s.errands.later.timer
				switch {
				case !timer.Timer.Pending():
					t.Fatal("nobody will call it again")
				case timer.Timer.When() < s.Server.clock.after(callLaterPause):
					t.Fatal("it waits with a short timer")
				}
				if paused%2 == 0 {
					s.timers.Stop(&timer.Timer)
					timer.due()
				} else {
					s.elapsed += errandPause - 1
					s.errands.goOn()
					if !c.gaveWay {
						t.Fatal("it goes on too soon")
					}
					s.elapsed++
					s.errands.goOn()
				}
				if c.gaveWay || timer.Timer.Pending() {
					t.Fatal("it does not go on, or its timer does")
				}
				again = true
			}
			if want := map[bool]int{false: 0, true: bindings/8 - 1}[busy]; paused != want {
				t.Errorf("it has given way %d times, want %d", paused, want)
			}
			list := &messages{t: t, fd: far}
			list.next()
			for range bindings {
				if list.next()["binding"] == "" {
					t.Fatal("the list is too short")
				}
			}
			if left := list.next(); len(left) > 0 {
				t.Errorf("the list goes on with %v", left)
			}
		})
	}
}

// Of several errands each gives way, but not for what was asked for before it began.
func TestAllErrandsGiveWay(t *testing.T) {
	s := newBusyServer(t, Config{Log: &logbook{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1})
	defer unix.Close(s.wake)
	defer s.finish()
	defer unix.Close(s.far)
	s.cache.counters.requests = 1000
	clients := []*conn{s.client}
	for range 2 {
		ours, theirs := socketPair(t)
		c := newConn(s.Server, s.cache, ours)
		if err := s.admit(c); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(theirs)
		clients = append(clients, c)
	}
	for _, c := range clients {
		c.session.begin(func() bool { return false })
		if s.errands.giveWay(c) {
			t.Error("an errand waits for nobody")
		}
	}
	s.cache.counters.requests++
	for i, c := range clients {
		if !s.errands.giveWay(c) {
			t.Errorf("errand %d does not give way", i)
		}
	}
	s.elapsed += errandPause
	s.errands.goOn()
	for i, c := range clients {
		if c.gaveWay {
			t.Errorf("errand %d does not go on", i)
		}
		if s.errands.giveWay(c) {
			t.Errorf("errand %d gives way, and nobody has asked for anything", i)
		}
	}
}

// A list should end before what is in it has expired.
func TestListKeepsUpWithExpiry(t *testing.T) {
	for _, c := range []struct{ connections, ttlLimit, inWake int }{
		{0, 2, 1}, {1000, 2, 1}, {2000, 2, 2}, {15_000, 2, 4}, {1 << 30, 1, 4}, {15_000, 60, 1}, {1 << 30, 1 << 30, 1},
	} {
		if n := wakeBudget / (1 + connectionCost(c.connections, c.ttlLimit)/bindingsPerMessage); n != c.inWake {
			t.Errorf("%d connections, %d s: %d in a wake, want %d", c.connections, c.ttlLimit, n, c.inWake)
		}
	}
}

// A pattern that takes long to match lets the others in after each label.
func TestSlowPatternGivesWay(t *testing.T) {
	r := run(t, nil)
	c := r.dial()
	defer unix.Close(c)
	const bindings = 100
	for i := range bindings {
		say(c, string(proto.AppendSaveDestination(nil, 60, fmt.Sprint(i, strings.Repeat("a", 1000)), "", "e")))
		expect(t, c, "status\x000\x00\x00")
	}
	turns := func() int {
		n, err := strconv.Atoi(ask(t, c, proto.AdminStatistics)["turns"])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := turns()
	if flushed := ask(t, c, proto.AdminFlush, "pattern", "*"+strings.Repeat("a", 500)+"b")["bindings"]; flushed != "0" {
		t.Errorf("%s bindings were flushed", flushed)
	}
	if n := turns() - before; n < bindings {
		t.Errorf("%d turns for %d bindings", n, bindings)
	}
}
