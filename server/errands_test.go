package server

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// An errand goes on at once as long as nobody else asks for anything, and else waits for its timer
// after some portions, whatever happens on its socket.
func TestErrandsGiveWay(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			s, err := New(Config{Log: &logbook{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{})
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(s.wake)
			defer s.finish()
			cache := s.caches[0]
			const bindings = 1000
			for i := range bindings {
				cache.store.SaveDestination(fmt.Append(nil, i), nil, nil, 1<<40)
			}
			near, far, err := socketpair()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(far)
			c := newConn(s, cache, near, false)
			s.descriptors.open++
			if err := s.admit(c); err != nil {
				t.Fatal(err)
			}
			say(far, string(proto.AppendAdmin(nil, proto.AdminList, "bindings")))
			paused := 0
			for again := true; again; {
				if busy {
					cache.counters.requests++ // of somebody else
				}
				again = c.Ready(near, false)
				if !c.gaveWay {
					continue
				}
				paused++
				written := func() int { return cache.counters.sent + len(c.session.out) }
				before := written()
				if c.Ready(near, false) || written() > before {
					t.Fatal("it has not given way")
				}
				if !s.errands.timer.timer.Pending() {
					t.Fatal("nobody will call it again")
				}
				s.timers.Stop(&s.errands.timer.timer)
				s.errands.timer.due()
				again = true
			}
			if want := map[bool]int{false: 0, true: bindings / (portionsAtOnce * wakeBudget)}[busy]; paused != want {
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
