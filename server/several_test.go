package server

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Several caches share what the limit of descriptors allows: the fullest gives way, and
// clients keep their reserve.
func TestFullestGivesWay(t *testing.T) {
	s, err := New(Config{Log: discard{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1},
		Cache{Name: "a"}, Cache{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.finish()
	s.room = 5
	save := func(c *cache, n int) {
		ours, theirs := socketPair(t)
		client := newConn(s, c, ours)
		if err := s.admit(client); err != nil {
			t.Fatal(err)
		}
		for range n {
			say(theirs, "request\x00save_endp\x00ttl\x0060\x00label\x00e\x00property\x00\x00\x00")
			client.Ready(ours, false)
			file, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			sendRights(t, theirs, "\x00", file)
			unix.Close(file)
			client.Ready(ours, false)
		}
	}
	a, b := s.caches[0], s.caches[1]
	save(a, 1)
	save(b, 9)
	if a, b := a.store.Size().Connections, b.store.Size().Connections; a != 1 || b != 4 {
		t.Errorf("%d and %d connections, want 1 and 4", a, b)
	}
	save(a, 9)
	if a, b := a.store.Size().Connections, b.store.Size().Connections; a+b != 5 || b < 2 {
		t.Errorf("%d and %d connections, want 5 in all, and 2 kept by the one that was not busy", a, b)
	}
	// What waits for a reply to QUIT is no room for others, as long as there are descriptors.
	for range 3 {
		ours, _ := socketPair(t)
		waits, err := unix.Dup(ours)
		if err != nil || !s.farewell.linger(waits) {
			t.Fatal(err)
		}
	}
	save(a, 9)
	if n := s.cached(); n != 5 || len(s.farewell.lingering) != 3 {
		t.Errorf("%d connections, want 5, while %d of 3 wait", n, len(s.farewell.lingering))
	}
}

// A socket is its cache's in another process as well: what is saved through one is not found
// through another one.
func TestSocketsAreTakenOverWithTheirCaches(t *testing.T) {
	r := run(t, handsOver, "b").succeed()
	b := &running{t: t, path: r.path + "b"}
	for range 20 { // each socket is accepted from anew
		saves, finds := r.dial(), b.dial()
		near, _ := far(t)
		save(t, saves, "50", "e", near)
		say(finds, find("e"))
		expect(t, finds, miss)
		say(saves, find("e"))
		expect(t, saves, "status\x000\x00property\x00p\x00\x00")
		unix.Close(saves)
		unix.Close(finds)
	}
}
