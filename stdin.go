package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// standardInput returns a socket for the one client of option -S. It is standard
// input itself, if that is a socket, and so can carry descriptors, and standard
// output is the same; else requests and replies are copied between a socket and
// standard input and output. finish waits until standard output has the last reply.
func standardInput() (client int, finish func(), err error) {
	_, err = unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && sameFile(0, 1) {
		return 0, func() {}, nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("socketpair: %w", err)
	}
	far := os.NewFile(uintptr(pair[1]), "client")
	go func() {
		io.Copy(far, os.Stdin)
		unix.Shutdown(pair[1], unix.SHUT_WR)
	}()
	copied := make(chan struct{})
	go func() {
		io.Copy(os.Stdout, far)
		close(copied)
	}()
	return pair[0], func() { <-copied }, nil
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
