package server

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

func socketPair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

func sendRights(t *testing.T, socket int, data string, fds ...int) {
	t.Helper()
	if err := unix.Sendmsg(socket, []byte(data), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
}

// logbook keeps the lines.
type logbook struct {
	sync.Mutex
	lines []string
}

func (l *logbook) add(line string) {
	l.Lock()
	defer l.Unlock()
	l.lines = append(l.lines, line)
}

func (l *logbook) Infof(format string, a ...any)    { l.add(fmt.Sprintf(format, a...)) }
func (l *logbook) Warningf(format string, a ...any) { l.add("warning: " + fmt.Sprintf(format, a...)) }

// running is a server in this process, on a socket of its own.
type running struct {
	*Server
	t    *testing.T
	log  *logbook
	path string
	done chan error
}

// run runs one with a cache, and with more, each on a socket with its name behind the path.
func run(t *testing.T, change func(*Config), more ...string) *running {
	t.Helper()
	r := &running{t: t, log: &logbook{}, path: filepath.Join(t.TempDir(), "s"), done: make(chan error, 1)}
	caches := []Cache{{Listeners: []int{r.listenAt(r.path)}}}
	for _, name := range more {
		caches = append(caches, Cache{Name: name, Listeners: []int{r.listenAt(r.path + name)}})
	}
	config := Config{Log: r.log, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}
	if change != nil {
		change(&config)
	}
	var err error
	if r.Server, err = New(config, caches...); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.Run() }()
	t.Cleanup(r.stop)
	return r
}

func (r *running) listenAt(path string) (listener int) {
	r.t.Helper()
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if r.Server == nil || !r.succeeded { // else it is closed, and its number may be another file's
			unix.Close(listener)
		}
	})
	if err := unix.Bind(listener, &unix.SockaddrUnix{Name: path}); err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Listen(listener, 100); err != nil {
		r.t.Fatal(err)
	}
	return listener
}

func (r *running) stop() {
	select {
	case <-r.done:
		return // it has stopped by itself
	default:
	}
	r.Stop()
	r.wait()
}

// wait returns when the server has stopped.
func (r *running) wait() {
	r.t.Helper()
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
	r.done <- nil
}

// dial connects and takes the announcement.
func (r *running) dial() int {
	r.t.Helper()
	fd := r.connect()
	// A server that hangs fails the test, and does not hang it.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		r.t.Fatal(err)
	}
	expect(r.t, fd, "protocol\x00connection_cache_protocol\x00\x00")
	return fd
}

// A listening socket that says who sends, as of a socket unit with PassCredentials=yes, does not say
// it to us: there is no room for it beside a descriptor. Who has connected before may lose one.
func TestWhoSendsIsNotAsked(t *testing.T) {
	r := &running{t: t, log: &logbook{}, path: filepath.Join(t.TempDir(), "s"), done: make(chan error, 1)}
	listener := r.listenAt(r.path)
	err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	if err != nil {
		t.Fatal(err)
	}
	early := r.connect()
	defer unix.Close(early)
	r.Server, err = New(Config{Log: r.log, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1},
		Cache{Listeners: []int{listener}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.Run() }()
	t.Cleanup(r.stop)
	client := r.dial()
	defer unix.Close(client)
	near, _ := socketPair(t)
	save(t, client, "50", "e", near)

	lost, _ := socketPair(t)
	say(early, "request\x00save_endp\x00ttl\x0050\x00label\x00e\x00property\x00p\x00\x00")
	expect(t, early, proto.Announcement+proto.DummyMessage)
	sendRights(t, early, "\x00", lost)
	if _, err := read(early, make([]byte, len(proto.AppendStatus(nil, proto.OK)))); err != nil {
		t.Fatal(err)
	}
	near, _ = socketPair(t)
	save(t, early, "50", "e", near)
}

func expect(t *testing.T, fd int, want string) {
	t.Helper()
	got := make([]byte, len(want))
	for n := 0; n < len(want); {
		m, err := read(fd, got[n:])
		if m <= 0 {
			t.Fatalf("read %q and then %d, %v; want %q", got[:n], m, err, want)
		}
		n += m
	}
	if string(got) != want {
		t.Fatalf("read %q, want %q", got, want)
	}
}

// read is read(2), but for interruptions: a socket with a time-out is not read
// again by itself after a signal, as Go's runtime sends them.
func read(fd int, buffer []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, buffer); err != unix.EINTR {
			return n, err
		}
	}
}

// say sends all of a text, if it can: a signal of Go's runtime may cut a long write short.
func say(fd int, text string) {
	for rest := []byte(text); len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil && err != unix.EINTR {
			return
		}
		rest = rest[max(n, 0):]
	}
}

const miss = "status\x002\x00property\x00\x00\x00"

func find(label string) string {
	return "request\x00find_endp\x00label\x00" + label + "\x00\x00"
}

func TestStopsWhenTheParentHangsUp(t *testing.T) {
	ours, theirs := socketPair(t)
	r := run(t, func(c *Config) { c.Parent = ours })
	client := r.dial()
	defer unix.Close(client)
	say(client, find("x"))
	unix.Shutdown(theirs, unix.SHUT_RDWR)
	expect(t, client, miss) // what has arrived is answered
	r.wait()
	if n, err := read(client, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("%d, %v; want the end of file", n, err)
	}
	if last := r.log.lines[len(r.log.lines)-1]; last != "statistics: address lookup hits=0 miss=1 success=0%" {
		t.Errorf("the last line is %q", last)
	}
}

func TestStopsWhenIdle(t *testing.T) {
	r := run(t, func(c *Config) { c.MaxIdle = 20 * time.Millisecond })
	r.wait()
}

// However often it was roused, the server hears the next word.
func TestStopsAfterManyWords(t *testing.T) {
	r := run(t, nil)
	client := r.dial()
	defer unix.Close(client)
	for range 300 {
		r.rouse()
		say(client, find("x")) // so that it was told before the next word
		expect(t, client, miss)
	}
	r.Stop()
	if n, err := read(client, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("%d, %v; want the end of file", n, err)
	}
	r.wait()
}

// A request that was begun can be ended, however many others have nothing to ask.
func TestStopWaitsForUnfinishedRequests(t *testing.T) {
	s := newBusyServer(t, Config{Log: discard{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1})
	defer unix.Close(s.wake)
	defer s.finish()
	all := []int{s.far}
	for range 20 {
		_, far := s.connect(t)
		all = append(all, far)
	}
	say(s.far, "request\x00save_endp\x00ttl\x005\x00label\x00x\x00property\x00p\x00\x00")
	s.client.Ready(s.client.fd, false)
	expect(t, s.far, "dummy\x00\x00\x00")
	s.beginStop()
	for range 100 { // each time the clients come in another order
		if s.continueStop(); s.cleared || s.stopped {
			t.Fatal("it has not waited")
		}
	}
	file, _ := socketPair(t)
	sendRights(t, s.far, "\x00", file)
	s.continueStop()
	s.farewell.closeSome()
	if s.continueStop(); !s.stopped {
		t.Error("it waits still")
	}
	expect(t, s.far, "status\x000\x00\x00")
	for _, far := range all {
		expectEnd(t, far, "")
		unix.Close(far)
	}
}

// Who was called by another goroutine, or was given a client, goes back to sleep.
func TestSleepsAgainWhenItWasRoused(t *testing.T) {
	turns := new(turns)
	r := run(t, func(c *Config) { c.Watchdog = turns })
	near, far := far(t)
	ours, err := unix.Dup(near)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		t.Fatal(err)
	}
	r.Introduce(ours)
	expect(t, far, proto.Announcement)
	r.rouse()
	waitFor(t, func() bool {
		before := turns.n.Load()
		time.Sleep(50 * time.Millisecond)
		return turns.n.Load() == before
	})
}

func TestFirstClientIsSaidOnce(t *testing.T) {
	calls := make(chan int, 10)
	r := run(t, func(c *Config) { c.FirstClient = func() { calls <- 1 } })
	for range 3 {
		unix.Close(r.dial())
	}
	r.stop()
	if len(calls) != 1 {
		t.Errorf("%d calls, want 1", len(calls))
	}
}

func TestAdoptedClientIsTheOnlyOne(t *testing.T) {
	ours, theirs := socketPair(t)
	fd, err := unix.Dup(ours)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Log: &logbook{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(fd); err != nil {
		t.Fatal(err)
	}
	say(theirs, find("x"))
	unix.Shutdown(theirs, unix.SHUT_WR)
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	expect(t, theirs, miss)
}

// A client that does not read is not read from, and when it reads again gets all
// its replies in order.
func TestUnreadRepliesAreBoundedAndKept(t *testing.T) {
	r := run(t, nil)
	client := r.dial()
	defer unix.Close(client)
	const requests = 20_000
	written := make(chan bool)
	go func() {
		for i := range requests {
			// Blocks when the server has stopped reading.
			say(client, find(fmt.Sprint(i)))
		}
		close(written)
	}()
	neighbour := r.dial()
	defer unix.Close(neighbour)
	for range 100 {
		say(neighbour, find("y"))
		expect(t, neighbour, miss)
	}
	for range requests {
		expect(t, client, miss)
	}
	<-written
}

func TestClientThatStopsIsDisconnected(t *testing.T) {
	r := run(t, func(c *Config) { c.IPCTimeout = 20 * time.Millisecond })
	idle, stopped := r.dial(), r.dial()
	defer unix.Close(idle)
	defer unix.Close(stopped)
	say(stopped, "request\x00find_endp\x00lab")
	if n, err := read(stopped, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("%d, %v; want the end of file", n, err)
	}
	say(idle, find("x"))
	expect(t, idle, miss)
}

// What it has begun to save takes no room when it is gone.
func TestClientThatStopsInASaveLeavesNothing(t *testing.T) {
	r := run(t, func(c *Config) { c.IPCTimeout = 20 * time.Millisecond })
	stopped, operator := r.dial(), r.dial()
	defer unix.Close(stopped)
	defer unix.Close(operator)
	say(stopped, "request\x00save_endp\x00ttl\x005\x00label\x00x\x00property\x00p\x00\x00")
	expectEnd(t, stopped, "dummy\x00\x00\x00")
	if n := counted(t, operator)["text_bytes"]; n != 0 {
		t.Errorf("%d bytes of text are kept", n)
	}
}

// What one client has to say does not keep the others waiting: it is taken in
// portions.
func TestOneWakeIsBounded(t *testing.T) {
	s, err := New(Config{Log: discard{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketPair(t)
	c := newConn(s, s.caches[0], ours)
	c.announce = true
	if err := s.admit(c); err != nil {
		t.Fatal(err)
	}
	say(theirs, strings.Repeat("\x00", 1000)+find("x")) // a thousand empty messages
	for wakes := 1; c.Ready(c.fd, false); wakes++ {
		if taken := 1000 + len(find("x")) - len(c.in.bytes); taken > wakes*wakeBudget {
			t.Fatalf("%d messages in %d wakes", taken, wakes)
		}
	}
	expect(t, theirs, "protocol\x00connection_cache_protocol\x00\x00"+miss)
}

// A cached connection that lingers when it is closed does not stop the server.
func TestLingeringCloseBlocksNobody(t *testing.T) {
	r := run(t, nil)
	client := r.dial()
	defer unix.Close(client)
	conn, peer := lingeringSocket(t)
	defer peer.Close()
	say(client, "request\x00save_endp\x00ttl\x001\x00label\x00x\x00property\x00p\x00\x00")
	expect(t, client, "dummy\x00\x00\x00")
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { sendRights(t, client, "\x00", int(fd)) })
	expect(t, client, "status\x000\x00\x00")
	conn.Close() // does not linger: the cache's is the last
	for {
		// Found: an empty message puts it back. At last it expires.
		say(client, find("x"))
		status := make([]byte, len(miss))
		if _, err := read(client, status); err != nil {
			t.Fatalf("the server does not answer: %v", err)
		}
		if string(status) == miss {
			return
		}
		read(client, make([]byte, 1)) // the property
		say(client, "\x00")
		time.Sleep(10 * time.Millisecond)
	}
}

// A client that vanishes with such a connection unread in its socket stops the
// server as little, and what is no socket does not wait behind what lingers.
func TestLingeringUnreadBlocksNobody(t *testing.T) {
	r := run(t, nil)
	neighbour, client := r.dial(), r.dial()
	defer unix.Close(neighbour)
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	say(neighbour, "request\x00save_endp\x00ttl\x001\x00label\x00pipe\x00property\x00\x00\x00")
	expect(t, neighbour, "dummy\x00\x00\x00")
	sendRights(t, neighbour, "\x00", pipe[1])
	expect(t, neighbour, "status\x000\x00\x00")
	unix.Close(pipe[1])

	conn, peer := lingeringSocket(t)
	defer peer.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// So many requests that the server does not get to the descriptor behind
	// them: it stops reading while its replies are not read.
	unix.SetNonblock(client, true)
	request := []byte(strings.Repeat(find("x"), 100))
	for err = nil; err == nil; {
		_, err = unix.Write(client, request)
	}
	for err = unix.EAGAIN; err == unix.EAGAIN; {
		raw.Control(func(fd uintptr) { err = unix.Sendmsg(client, []byte{0}, unix.UnixRights(int(fd)), nil, 0) })
		if err == unix.EAGAIN { // no room: read some replies
			read(client, make([]byte, 1<<14))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	go conn.Close() // lingers itself if the server has got to it all the same
	unix.Close(client)
	for range 100 {
		say(neighbour, find("x"))
		expect(t, neighbour, miss)
		time.Sleep(time.Millisecond)
	}
	// The connection lingers for three times as long.
	poll := []unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 20_000); n != 1 {
		t.Errorf("%d, %v; want the end of file of the pipe that has expired", n, err)
	}
}

// What follows a descriptor where none belongs is not reported by the kernel. It is
// answered all the same.
func TestBehindAMisplacedDescriptor(t *testing.T) {
	r := run(t, nil)
	client := r.dial()
	defer unix.Close(client)
	file, _ := socketPair(t)
	for range 20 {
		// Most often both are there before the server reads the first.
		sendRights(t, client, find("x"), file)
		say(client, find("y"))
		expect(t, client, miss+miss)
	}
}

// lingeringSocket returns a connection whose close blocks for a minute.
func lingeringSocket(t *testing.T) (conn, peer *net.TCPConn) {
	t.Helper()
	conn, peer, err := lab.TCPPair()
	if err != nil {
		t.Fatal(err)
	}
	conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil { // until the peer, who does not read, takes no more
		_, err = conn.Write(make([]byte, 1<<16))
	}
	if err := conn.SetLinger(60); err != nil {
		t.Fatal(err)
	}
	return conn, peer
}

func TestStatistics(t *testing.T) {
	log := &logbook{}
	start := time.Date(2026, 11, 3, 5, 7, 9, 0, time.Local)
	s := statistics{since: start}
	s.report(log, start, 0, false)
	if len(log.lines) != 0 {
		t.Errorf("nothing was counted, and %q logged", log.lines)
	}
	for range 2 {
		s.destinations.count(true)
	}
	s.destinations.count(false)
	s.endpoints.count(false)
	s.savedDestination(store.Size{Destinations: 2, Endpoints: 1, Connections: 9})
	s.savedEndpoint(store.Size{Destinations: 7, Endpoints: 3, Connections: 4})
	s.report(log, start.Add(time.Hour), 0, false)
	s.report(log, start.Add(2*time.Hour), 0, false)
	s.savedDestination(store.Size{Destinations: 1})
	s.report(log, start, 0, false)
	want := []string{
		"statistics: start interval Nov  3 05:07:09",
		"statistics: domain lookup hits=2 miss=1 success=66%",
		"statistics: address lookup hits=0 miss=1 success=0%",
		"statistics: max simultaneous domains=2 addresses=3 connection=4",
		"statistics: start interval Nov  3 07:07:09",
		"statistics: max simultaneous domains=1 addresses=0 connection=0",
	}
	if !slices.Equal(log.lines, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(log.lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestFaultsAreLoggedAtABoundedRate(t *testing.T) {
	log := &logbook{}
	f := faults{log: log}
	for range 1000 {
		f.warn(5, "client %d", 7)
	}
	f.warn(5+faultInterval, "later")
	want := append(slices.Repeat([]string{"warning: client 7"}, faultLines),
		fmt.Sprintf("warning: %d similar warnings were not logged", 1000-faultLines), "warning: later")
	if !slices.Equal(log.lines, want) {
		t.Errorf("logged %q", log.lines)
	}
}
