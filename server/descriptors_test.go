package server

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What takes long to be taken apart is not closed by the loop.
func TestSlowSockets(t *testing.T) {
	newSocket := func(domain, kind int) int {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skipf("socket: %v", err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	empty, far := socketPair(t)
	loaded, sender := socketPair(t)
	sendRights(t, sender, "\x00", far)
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		fd   int
		slow bool
	}{
		{"a TCP socket", newSocket(unix.AF_INET, unix.SOCK_STREAM), false},
		{"a UDP socket", newSocket(unix.AF_INET, unix.SOCK_DGRAM), false},
		{"a UNIX-domain socket", empty, false},
		{"one with a descriptor in its queue", loaded, true},
		{"one for datagrams, of which an empty one may have some", newSocket(unix.AF_UNIX, unix.SOCK_DGRAM), true},
		{"a netlink socket", newSocket(unix.AF_NETLINK, unix.SOCK_RAW), true},
		{"a pipe", pipe[0], false}, // which is no socket, and goes its own way
	} {
		if got := slow(c.fd); got != c.slow {
			t.Errorf("%s: %v, want %v", c.what, got, c.slow)
		}
	}
	unix.Close(pipe[0])
	unix.Close(pipe[1])
}

// A socket that a client has acknowledged is not looked at once more before it is closed, as the client
// has it as well; what a client did not live to acknowledge is, and what is no socket.
func TestClosedAfterLastLook(t *testing.T) {
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	socket, _ := socketPair(t)
	place, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(place)
	for _, c := range []struct {
		what            string
		fd              int
		acknowledged    bool
		dropped, closed int
	}{
		{"a socket", socket, true, 1, 0},
		{"a socket of a client that is gone", socket, false, 0, 1},
		{"a pipe", pipe[0], true, 0, 1},
		{"a place in the file system", place, true, 0, 1},
	} {
		b := newBusyServer(t, Config{Log: discard{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1})
		dropped, closed := 0, 0
		b.cache.drop = func(int) { dropped++ }
		b.cache.close = func(int) { closed++ }
		duplicate, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		b.descriptors.open++
		b.save(b.store.Prepare([]byte("e"), nil), duplicate, 60, nil)
		wake := func() { b.client.Ready(b.client.fd, true) }
		say(b.far, find("e"))
		wake()
		say(b.far, "dummy\x00\x00\x00")
		wake()
		if c.acknowledged {
			say(b.far, "dummy\x00\x00\x00")
		} else {
			read(b.far, make([]byte, 1000))
			unix.Shutdown(b.far, unix.SHUT_WR)
		}
		wake()
		if dropped != c.dropped || closed != c.closed {
			t.Errorf("%s: %d dropped, %d closed; want %d, %d", c.what, dropped, closed, c.dropped, c.closed)
		}
		unix.Close(duplicate)
		b.finish()
	}
}

// A client that closes what it has acknowledged before we do may make it linger in our hands; that ends long
// before the socket would.
func TestAcknowledgedAndClosed(t *testing.T) {
	conn, peer := lingeringSocket(t) // for a minute
	defer peer.Close()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	conn.Close()
	b := newBusyServer(t, Config{Log: discard{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1})
	defer b.finish()
	b.descriptors.open++
	b.save(b.store.Prepare([]byte("e"), nil), ours, 60, nil)
	say(b.far, find("e")+"dummy\x00\x00\x00")
	b.client.Ready(b.client.fd, false)
	read(b.far, make([]byte, 1000))
	read(b.far, make([]byte, 1)) // the descriptor, which is closed with it
	say(b.far, "dummy\x00\x00\x00")
	began := time.Now()
	b.client.Ready(b.client.fd, false)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the loop stood still for %v", took)
	}
	if b.counters.taken != 1 {
		t.Error("not taken")
	}
}
