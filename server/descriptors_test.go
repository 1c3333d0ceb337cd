package server

import (
	"testing"

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
