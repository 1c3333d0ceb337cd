package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/timerwheel"
)

// A request that is too long goes on where it was: what has been looked at of it is not looked at
// again, or a part of it could be taken for another request.
func TestTakeOverInARequestThatIsTooLong(t *testing.T) {
	r := run(t, handsOver)
	client := r.dial()
	defer unix.Close(client)
	say(client, "request\x00find_endp\x00label\x00"+strings.Repeat("x", maxMessage))
	r.settled()
	say(client, "\x00request\x00find_endp\x00label\x00hidden\x00")
	r.settled()
	r.succeed()
	say(client, "\x00request\x00save_dest\x00ttl\x0050\x00label\x00d\x00property\x00p\x00label\x00e\x00\x00")
	expect(t, client, "status\x001\x00property\x00\x00\x00status\x000\x00\x00")
}

// What clients make us keep is charged in another process as well.
func TestTakeOverCountsWhatClientsMakeUsKeep(t *testing.T) {
	r := run(t, handsOver)
	half, save := r.dial(), r.dial()
	defer unix.Close(half)
	defer unix.Close(save)
	say(half, find(strings.Repeat("x", 1<<20))[:1<<20])
	say(save, "request\x00save_endp\x00ttl\x0050\x00label\x00e\x00property\x00"+strings.Repeat("x", 1<<20)+"\x00\x00")
	expect(t, save, proto.DummyMessage)
	operator := r.dial()
	defer unix.Close(operator)
	const least = 2 << 20
	if before := counted(t, operator)["client_memory_bytes"]; before < least {
		t.Fatalf("%d bytes before", before)
	}
	r.succeed().settled()
	if after := counted(t, operator)["client_memory_bytes"]; after < least {
		t.Errorf("%d bytes, of two clients with a mebibyte each", after)
	}
}

// settled returns when the server has taken what was sent to it before.
func (r *running) settled() {
	r.t.Helper()
	client := r.dial()
	defer unix.Close(client)
	// A turn may leave something of a long request to the next ones.
	for range 2 * maxMessage / readSize {
		say(client, find("nothing"))
		expect(r.t, client, miss)
	}
}

// Bindings that made room for others are in the log of who reports next.
func TestTakeOverReportsDisplacedBindings(t *testing.T) {
	r := run(t, func(c *Config) { handsOver(c); c.Limits.Bindings = 2 })
	client := r.dial()
	defer unix.Close(client)
	bind := func(label string) {
		say(client, "request\x00save_dest\x00ttl\x0050\x00label\x00"+label+"\x00property\x00p\x00label\x00e\x00\x00")
		expect(t, client, "status\x000\x00\x00")
	}
	for _, label := range []string{"a", "b", "c", "d", "e"} {
		bind(label)
	}
	r = r.succeed().succeed()
	bind("f")
	r.stop()
	if log := r.log.from(0); !strings.Contains(log, "; displaced bindings=4 ") {
		t.Errorf("the log says %s", log)
	}
}

// restored is the client of a server as another one has it, which has its own descriptors of all.
func (b *busyServer) restored(t *testing.T) *conn {
	t.Helper()
	next := newBusyServer(t, Config{Log: discard{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1})
	unix.Close(next.far)
	next.client.close()
	t.Cleanup(func() {
		next.finish()
		unix.Close(next.wake)
	})
	record, descriptors := b.client.record()
	var own []int
	for _, fd := range descriptors {
		duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, duplicate)
	}
	if len(own) != record.Descriptors() {
		t.Fatalf("%d descriptors, %d in the record", len(own), record.Descriptors())
	}
	next.descriptors.open += len(own)
	if err := next.restoreClient(next.cache, record, own); err != nil {
		t.Fatal(err)
	}
	for c := range next.clients {
		return c
	}
	t.Fatal("there is no client")
	return nil
}

// newHandingServer is one that is called by hand, and whose end is the test's.
func newHandingServer(t *testing.T, change func(*Config)) *busyServer {
	t.Helper()
	config := Config{Log: discard{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1, HandOver: true}
	if change != nil {
		change(&config)
	}
	s := newBusyServer(t, config)
	t.Cleanup(func() {
		s.finish()
		unix.Close(s.wake)
		unix.Close(s.far)
	})
	return s
}

// A client that hangs has no more time for it in another process.
func TestTimeOfAClientIsTakenOver(t *testing.T) {
	s := newHandingServer(t, nil)
	if restored := s.restored(t); restored.timer.Pending() {
		t.Error("one that owes nothing is waited for")
	}
	say(s.far, find("x")[:10])
	s.client.Ready(s.client.fd, false)
	restored := s.restored(t)
	if !s.client.timer.Pending() || !restored.timer.Pending() || restored.timer.When() != s.client.timer.When() {
		t.Errorf("waited for: %v, until %d; before: %v, until %d",
			restored.timer.Pending(), restored.timer.When(), s.client.timer.Pending(), s.client.timer.When())
	}
}

// A descriptor that has come when its client's turn was over is saved by another process, or leaves with
// the client.
func TestDescriptorThatWasNotUsedYet(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		t.Run(fmt.Sprint("leaves ", leaves), func(t *testing.T) {
			s := newHandingServer(t, nil)
			say(s.far, "request\x00save_endp\x00ttl\x0050\x00label\x00e\x00property\x00p\x00\x00")
			s.client.Ready(s.client.fd, false)
			expect(t, s.far, proto.DummyMessage)
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pipe[0])
			s.descriptors.open++
			s.client.in.bytes, s.client.in.fd = []byte{0}, pipe[1]
			restored := s.restored(t)
			s.client.close()
			s.descriptors.settle()
			if n, err := read(pipe[0], make([]byte, 1)); n > 0 || err != unix.EAGAIN {
				t.Fatalf("%d, %v; want it open", n, err)
			}
			if leaves {
				restored.close()
				awaitEndOfPipe(t, pipe[0])
				return
			}
			restored.Ready(restored.fd, false)
			expect(t, s.far, "status\x000\x00\x00")
			if n := restored.server.cached(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// awaitEndOfPipe returns when no descriptor of its other end is open any longer.
func awaitEndOfPipe(t *testing.T, fd int) {
	t.Helper()
	waitFor(t, func() bool {
		n, err := read(fd, make([]byte, 1))
		return n == 0 && err == nil
	})
}

// Statistics are due when they would have been, but not later than in a successor's own time.
func TestTimeOfStatisticsIsTakenOver(t *testing.T) {
	r := run(t, handsOver)
	due := r.report.When()
	r = r.giveTo(successorOf(r, func(c *Config) { c.StatusUpdateTime = 3 * time.Hour }), func(s *Server) {
		if s.report.When() != due {
			t.Errorf("due at %d, before it was at %d", s.report.When(), due)
		}
	})
	r.giveTo(successorOf(r, func(c *Config) { c.StatusUpdateTime = time.Minute }), func(s *Server) {
		if s.report.When() > s.clock.after(time.Minute) {
			t.Errorf("due at %d, it is %d", s.report.When(), s.clock.now)
		}
	})
}

// However old the predecessor, a successor without clients waits for some as long as any other server.
func TestIdlenessBeginsAnew(t *testing.T) {
	s := newHandingServer(t, func(c *Config) { c.MaxIdle = time.Minute })
	s.client.close()
	s.continueClock(&handover.Hello{Started: monotonic() - time.Hour.Nanoseconds()})
	s.continueTimers(&handover.Stopped{StatisticsDue: 1 << 40})
	if !s.idle.Pending() || s.idle.When() != s.Server.clock.after(time.Minute) {
		t.Errorf("pending: %v, due at %d, and it is %d", s.idle.Pending(), s.idle.When(), s.Server.clock.now)
	}
}

// When all was handed over the predecessor times nothing any longer but its farewells: neither clients nor
// connections, which are another process' now.
func TestPredecessorTimesNothing(t *testing.T) {
	log := &logbook{}
	old := newHandingServer(t, func(c *Config) { c.Log, c.Quit = log, true })
	put := func() (near, far int) {
		near, far, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(far) })
		old.descriptors.open++
		return near, far
	}
	near, cached := put()
	old.save(old.store.Prepare([]byte("e"), nil), near, 50, nil)
	near, left := put()
	old.farewell.add(near, true)
	old.farewell.closeSome()
	say(old.far, find("x")[:10])
	old.client.Ready(old.client.fd, false)
	watch := &old.cache.watch.timer
	if !old.client.timer.Pending() || !watch.Pending() || len(old.farewell.lingering) != 1 {
		t.Fatalf("client %v, watch %v, farewells %d", old.client.timer.Pending(), watch.Pending(), len(old.farewell.lingering))
	}

	next, err := New(Config{Log: discard{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{})
	if err != nil {
		t.Fatal(err)
	}
	successor, theirs := old.connect(t)
	defer unix.Close(theirs)
	successor.announce = true
	confirmed := make(chan error)
	go func() {
		predecessor, err := next.TakeOver(theirs, "")
		if err == nil {
			err = predecessor.Confirm()
		}
		confirmed <- err
	}()
	for successor.session.state != succeeding {
		successor.Ready(successor.fd, false)
	}
	old.transfer = old.newTransfer(successor)
	for !old.succeeded && successor.fd >= 0 {
		old.transfer.proceed()
	}
	if err := <-confirmed; err != nil {
		t.Fatal(err)
	}
	defer unix.Close(next.wake)
	defer next.finish()

	if old.client.timer.Pending() || watch.Pending() {
		t.Errorf("timed: client %v, watch %v", old.client.timer.Pending(), watch.Pending())
	}
	lines := log.length()
	old.Server.clock.now += timerwheel.Tick(time.Hour / tick)
	old.expire()
	if n := old.farewell.length(); n != 0 || old.cached() != 0 {
		t.Errorf("%d connections are to be closed, %d are cached", n, old.cached())
	}
	if log := log.from(lines); log != "" {
		t.Errorf("the log says %s", log)
	}
	expectEnd(t, left, "QUIT\r\n")
	if n, err := read(cached, make([]byte, 10)); err != unix.EAGAIN {
		t.Errorf("%d bytes, %v, on a connection that is another process'", n, err)
	}
}
