package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// standardInput returns a socket for the one client of option -S. It is standard
// input itself, if that is a socket, and so can carry descriptors, and standard
// output is the same; else requests and replies are copied between a socket and
// standard input and output. finished is closed when standard output has the last reply.
func standardInput() (client int, finished chan struct{}, err error) {
	finished = make(chan struct{})
	_, err = unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && sameFile(0, 1) {
		close(finished)
		return 0, finished, nil
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
	go func() {
		io.Copy(os.Stdout, far)
		unix.Shutdown(pair[1], unix.SHUT_RDWR) // if nobody reads that any longer, nothing more is asked for
		close(finished)
	}()
	return pair[0], finished, nil
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// waitForOutput waits until the last reply is out, but not for long if a signal wants us to end.
func waitForOutput(finished chan struct{}, stopAsked bool) {
	var end <-chan time.Time
	if stopAsked {
		end = time.After(time.Second)
	}
	select {
	case <-finished:
	case <-end:
	}
}
