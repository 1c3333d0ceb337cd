package server

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/store"
)

// How connections leave the cache without a client.

// far returns a connection's two ends: far has a time-out.
func far(t *testing.T) (near, far int) {
	t.Helper()
	near, far = socketPair(t)
	if err := unix.SetsockoptTimeval(far, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// save saves a connection and keeps no copy.
func save(t *testing.T, client int, ttl, label string, near int) {
	t.Helper()
	say(client, "request\x00save_endp\x00ttl\x00"+ttl+"\x00label\x00"+label+"\x00property\x00p\x00\x00")
	expect(t, client, "dummy\x00\x00\x00")
	sendRights(t, client, "\x00", near)
	expect(t, client, "status\x000\x00\x00")
	// The number is free for others, so what the test closes at its end must be
	// another file.
	replacement, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Dup3(replacement, near, unix.O_CLOEXEC)
	unix.Close(replacement)
}

// expectEnd wants these bytes and the end of file.
func expectEnd(t *testing.T, fd int, want string) {
	t.Helper()
	if want != "" {
		expect(t, fd, want)
	}
	if n, err := read(fd, make([]byte, 1)); n != 0 || err != nil {
		t.Fatalf("read %d, %v; want the end of file", n, err)
	}
}

func TestQuitIsSaid(t *testing.T) {
	r := run(t, func(c *Config) {
		c.Quit = true
		c.Limits.Connections = 2
	})
	client := r.dial()
	defer unix.Close(client)
	near1, expired := far(t)
	near2, evicted := far(t)
	near3, shut := far(t)
	save(t, client, "1", "a", near1)
	expect(t, expired, "QUIT\r\n")
	say(expired, "221 bye\r\n")
	expectEnd(t, expired, "")

	save(t, client, "5", "a", near2)
	save(t, client, "50", "a", near3)
	near4, kept := far(t)
	save(t, client, "60", "a", near4)
	expect(t, evicted, "QUIT\r\n")
	unix.Shutdown(evicted, unix.SHUT_WR) // an end of file will do
	expectEnd(t, evicted, "")

	r.Stop()
	for _, fd := range []int{shut, kept} {
		expect(t, fd, "QUIT\r\n")
		say(fd, "221 bye\r\n")
		expectEnd(t, fd, "")
	}
	r.wait()
}

// Without a reply the connection is closed all the same.
func TestQuitWithoutReply(t *testing.T) {
	r := run(t, func(c *Config) { c.Quit = true })
	client := r.dial()
	defer unix.Close(client)
	near, expired := far(t)
	save(t, client, "1", "a", near)
	expectEnd(t, expired, "QUIT\r\n")
	near, shut := far(t)
	save(t, client, "50", "a", near)
	r.Stop()
	expectEnd(t, shut, "QUIT\r\n")
	r.wait()
}

func TestQuitIsNotSaid(t *testing.T) {
	for name, quit := range map[string]bool{"none": false, "hung up": true} {
		t.Run(name, func(t *testing.T) {
			r := run(t, func(c *Config) { c.Quit = quit })
			client := r.dial()
			defer unix.Close(client)
			near, far := far(t)
			save(t, client, "1", "a", near)
			if quit {
				unix.Shutdown(far, unix.SHUT_WR)
			}
			expectEnd(t, far, "")
		})
	}
}

// One whose far end spoke unasked is not handed out where SMTP is spoken; elsewhere
// it is, with what it said.
func TestUnsolicitedBytes(t *testing.T) {
	for _, quit := range []bool{true, false} {
		r := run(t, func(c *Config) { c.Quit = quit })
		client := r.dial()
		defer unix.Close(client)
		near, far := far(t)
		save(t, client, "50", "a", near)
		say(far, "421 too long idle\r\n")
		say(client, find("a"))
		if quit {
			expect(t, client, miss)
			expect(t, far, "QUIT\r\n")
		} else {
			expect(t, client, "status\x000\x00property\x00p\x00\x00")
		}
	}
}

// A far end that hangs up has its connection out of the cache without a look-up; and a
// look-up does not find one, however short ago that was.
func TestHangUp(t *testing.T) {
	r := run(t, nil)
	client := r.dial()
	defer unix.Close(client)
	near, far1 := far(t)
	save(t, client, "50", "a", near)
	unix.Shutdown(far1, unix.SHUT_WR)
	expectEnd(t, far1, "")
	for range 100 {
		near, far := far(t)
		save(t, client, "50", "a", near)
		unix.Shutdown(far, unix.SHUT_WR)
		say(client, find("a"))
		expect(t, client, miss)
	}
	r.stop()
	if last := r.log.lines[len(r.log.lines)-1]; !strings.HasPrefix(last, "closed: expired=0 evicted=0 hung-up=101 ") {
		t.Errorf("logged %q", last)
	}
}

// What never was a connection, or is none, is not taken for one that hung up.
func TestNoHangUp(t *testing.T) {
	r := run(t, func(c *Config) { c.Quit = true })
	client := r.dial()
	defer unix.Close(client)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var pipe [2]int
	unix.Pipe2(pipe[:], unix.O_CLOEXEC)
	say(pipe[1], "unread")
	unix.Close(pipe[1])
	tcp, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	local, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	udp, _ := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	null, _ := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	all := []int{int(file.Fd()), pipe[0], tcp, local, udp, null}
	for _, fd := range all {
		say(client, "request\x00save_endp\x00ttl\x0050\x00label\x00a\x00property\x00p\x00\x00")
		expect(t, client, "dummy\x00\x00\x00")
		sendRights(t, client, "\x00", fd)
		expect(t, client, "status\x000\x00\x00")
	}
	time.Sleep(3 * restTime) // to be registered, and looked at
	for range all {
		say(client, find("a"))
		expect(t, client, "status\x000\x00property\x00p\x00\x00")
		say(client, "dummy\x00\x00\x00")
		expect(t, client, "\x00")
		say(client, "dummy\x00\x00\x00")
	}
	for _, fd := range all[1:] {
		unix.Close(fd)
	}
}

// However many expire at a time: all far ends get their QUIT, and the rest linger no longer.
func TestManyExpire(t *testing.T) {
	const n = 200
	r := run(t, func(c *Config) { c.Quit = true })
	client := r.dial()
	defer unix.Close(client)
	var fars []int
	for range n {
		near, far := far(t)
		save(t, client, "1", "a", near)
		fars = append(fars, far)
	}
	for i, fd := range fars {
		expect(t, fd, "QUIT\r\n")
		if i%2 == 0 {
			say(fd, "221 2.0.0 Bye\r\n")
		}
		say(client, find("x"))
		expect(t, client, miss)
	}
	for _, fd := range fars {
		expectEnd(t, fd, "")
	}
	r.stop()
	if r.farewell.length() > 0 {
		t.Error("something lingers")
	}
	if want := r.base; r.descriptors.open != want {
		t.Errorf("%d descriptors are counted at the end, %d at the start", r.descriptors.open, want)
	}
}

// What could block is closed by goroutines, which are gone when it is.
func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	r := run(t, nil)
	client := r.dial()
	for range 20 {
		var pipe [2]int
		unix.Pipe2(pipe[:], unix.O_CLOEXEC)
		save(t, client, "1", "a", pipe[0])
		unix.Close(pipe[1])
	}
	unix.Close(client)
	r.stop()
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d at the start", runtime.NumGoroutine(), before)
		}
	}
}

func TestMoreStatistics(t *testing.T) {
	log := &logbook{}
	s := statistics{}
	s.closed[store.Expired] = 3
	s.report(log, time.Now(), 0, false)
	s.closed[store.Evicted] = 1
	s.lowered = 2
	s.report(log, time.Now(), 7, false)
	s.report(log, time.Now(), 7, false)
	want := []string{"closed: expired=0 evicted=1 hung-up=0 unsolicited=0 shutdown=0 flushed=0 client-gone=0; displaced bindings=7 lowered ttl=2 refused saves=0 lost descriptors=0 delayed clients=0 delayed hand-overs=0 disconnected clients=0"}
	if !slices.Equal(log.lines, want) {
		t.Errorf("logged %q, want %q", log.lines, want)
	}
}

func TestLoweredTimeToLive(t *testing.T) {
	r := run(t, func(c *Config) { c.TTLLimit = 2 * time.Second })
	client := r.dial()
	defer unix.Close(client)
	near, _ := far(t)
	for range 3 {
		say(client, "request\x00save_dest\x00ttl\x0045\x00label\x00d\x00property\x00\x00label\x00e\x00\x00")
		expect(t, client, "status\x000\x00\x00")
	}
	save(t, client, "45", "a", near)
	r.stop()
	var warnings []string
	for _, line := range r.log.lines {
		if strings.HasPrefix(line, "warning: ") {
			warnings = append(warnings, line)
		}
	}
	who := fmt.Sprintf("(pid %d, uid %d)", unix.Getpid(), unix.Getuid())
	if len(warnings) != 1 || !strings.Contains(warnings[0], who) || !strings.HasSuffix(warnings[0], "asked 45s, granted 2s") {
		t.Errorf("logged %q, want a warning of %s", warnings, who)
	}
	if last := r.log.lines[len(r.log.lines)-1]; !strings.Contains(last, " lowered ttl=4 ") {
		t.Errorf("the last line is %q", last)
	}
}

// A client that finds and puts back all the time leaves no more to watch than there is.
func TestWatchForgetsWhatWasPutBack(t *testing.T) {
	s, err := New(Config{Log: &logbook{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Run()
	defer s.Stop()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	c := s.caches[0]
	c.save(c.store.Prepare([]byte("e"), nil), pair[0], 60, nil)
	for range 10 * watchesPerTurn {
		c.putBack(c.findEndpoint([]byte("e")))
	}
	c.watch.due() // all of these have been there for a while
	c.watch.due()
	if n := len(c.watch.rested) + len(c.watch.fresh); n > 0 {
		t.Errorf("%d are still to be looked at, of one connection", n)
	}
}

// What leaves while others do takes the room of those that have left.
func TestFarewellsAreForgotten(t *testing.T) {
	var f farewell
	for range 100 {
		f.add(3, false)
	}
	for range 100_000 {
		f.add(3, false)
		f.next()
	}
	if f.length() != 100 || cap(f.queue) > 1000 {
		t.Errorf("%d wait, and there is room for %d", f.length(), cap(f.queue))
	}
}

// However many have come at once, all that rest are watched.
func TestManyAreWatched(t *testing.T) {
	s := newBusyServer(t, Config{Log: discard{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1})
	defer unix.Close(s.wake)
	defer s.finish()
	defer unix.Close(s.far)
	const many = 3 * watchesPerTurn
	var fars []int
	for range many {
		near, far, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(far)
		fars = append(fars, far)
		s.descriptors.open++
		s.save(s.store.Prepare([]byte("e"), nil), near, 60, nil)
	}
	for watch := s.cache.watch; watch.timer.Pending(); {
		s.timers.Stop(&watch.timer.Timer)
		watch.due()
	}
	for _, far := range fars {
		unix.Shutdown(far, unix.SHUT_WR)
	}
	for range many { // each turn takes some
		if err := s.loop.Wait(0); err != nil {
			t.Fatal(err)
		}
		s.loop.Dispatch()
	}
	if left := s.cached(); left > 0 {
		t.Errorf("%d of %d are kept, and their far ends have hung up", left, many)
	}
}

// One whose far end speaks unasked leaves without a look-up where SMTP is spoken.
func TestUnsolicitedBytesAreNoticed(t *testing.T) {
	r := run(t, func(c *Config) { c.Quit = true })
	client := r.dial()
	defer unix.Close(client)
	near, far := far(t)
	save(t, client, "50", "a", near)
	say(far, "421 too long idle\r\n")
	expect(t, far, "QUIT\r\n")
	if n := counted(t, client); n["closed_unsolicited"] != 1 {
		t.Errorf("%v", n)
	}
}

// Behind QUIT a connection is open until the reply to that comes, whatever else does, or the end of file. No time
// passes here.
func TestReplyToQuitIsAwaited(t *testing.T) {
	s := newHandClient(t).conn.server
	turn := func() (waiting int) {
		t.Helper()
		if err := s.loop.Wait(0); err != nil {
			t.Fatal(err)
		}
		s.loop.Dispatch()
		return s.figures().closing
	}
	for _, end := range []func(far int){
		func(far int) { say(far, "221 2.0.0 Bye\r\n") },
		func(far int) { unix.Shutdown(far, unix.SHUT_WR) },
	} {
		near, far, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(far)
		s.descriptors.open++
		s.farewell.add(near, true)
		s.farewell.closeSome()
		expect(t, far, "QUIT\r\n")
		say(far, "250 x\r\n")
		if turn() != 1 {
			t.Error("closed before the reply")
		}
		end(far)
		if turn() != 0 {
			t.Error("not closed")
		}
		expectEnd(t, far, "")
	}
}
