package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/server"
)

// socket is a listening socket of "scache serve".
type socket struct {
	path    string
	fd      int         // -1: another server listens on it, from which we take over
	created fs.FileInfo // what was made at path; nil: nothing
	claimed bool        // it was taken over
}

// cache returns the cache of the socket.
func (s socket) cache() server.Cache {
	c := server.Cache{Name: s.path}
	if s.fd >= 0 {
		c.Listeners = []int{s.fd}
	}
	return c
}

// errListening is returned when another server listens on a socket.
var errListening = errors.New("another server is listening")

// openSockets makes the listening sockets, all or none. shared is whether another server may be
// listening on some, which are left to it.
func openSockets(paths []string, mode uint32, shared bool) (opened []socket, err error) {
	for _, path := range paths {
		s, err := listen(path, mode)
		if shared && errors.Is(err, errListening) {
			s, err = socket{path: path, fd: -1}, nil
		}
		if errors.Is(err, errListening) {
			err = fmt.Errorf("%w; -takeover takes over from it, if it is a scache serve", err)
		}
		if err != nil {
			closeSockets(opened)
			return nil, err
		}
		opened = append(opened, s)
	}
	return opened, nil
}

// closeSockets closes the sockets, and unlinks those that are still the ones that were
// made. What was made at a path that was taken over nobody knows: it is unlinked if it is a
// socket on which nobody listens, now that the server has closed its own.
func closeSockets(sockets []socket) {
	for i := range sockets {
		sockets[i].close()
	}
}

func (s *socket) close() {
	if !s.claimed && s.created == nil {
		return
	}
	// If the lock cannot be had, a socket that another one makes at this moment may be unlinked.
	if unlock, err := lockDirectory(s.path, time.Second); err == nil {
		defer unlock()
	}
	switch {
	case s.claimed:
		_ = removeStale(s.path) // or it is somebody else's
	case s.created != nil:
		unix.Close(s.fd)
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(s.created, now) {
			os.Remove(s.path)
		}
	}
}

// claimSockets makes those ours on which another server listened.
func claimSockets(sockets []socket) {
	for i := range sockets {
		sockets[i].claimed = sockets[i].created == nil
	}
}

// listenBacklog is how many clients may wait to be accepted; the kernel lowers it
// to net.core.somaxconn.
const listenBacklog = 4096

// longestPath is that of a socket, in bytes: a NUL byte ends it.
const longestPath = len(unix.RawSockaddrUnix{}.Path) - 1

// listen creates a listening socket with permissions mode. A socket that is there
// already is replaced if nobody listens on it; anything else is left alone.
func listen(path string, mode uint32) (s socket, err error) {
	if len(path) > longestPath {
		return s, fmt.Errorf("%s: the path of a socket has %d bytes at most", path, longestPath)
	}
	unlock, err := lockDirectory(path, 10*time.Second)
	if err != nil {
		return s, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return s, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, fmt.Errorf("socket: %w", err)
	}
	created, err := bind(fd, path, mode)
	if err != nil {
		unix.Close(fd)
		return s, err
	}
	return socket{path: path, fd: fd, created: created}, nil
}

// lockDirectory keeps out others of us that make sockets beside path: two that start at a time must
// not take each other's, bound but not yet listening, for a stale one. Others than us may lock it
// as well: they are waited for, but not for ever.
func lockDirectory(path string, patience time.Duration) (unlock func(), err error) {
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("the directory of the socket %s: %w", path, err)
	}
	err = again(patience, func() error { return unix.Flock(int(directory.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		directory.Close()
		return nil, fmt.Errorf("flock %s: %w", directory.Name(), err)
	}
	return func() { directory.Close() }, nil
}

// again does what would block (EAGAIN) again and again, until it does not or patience is at an end.
func again(patience time.Duration, do func() error) error {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if err := do(); !errors.Is(err, unix.EAGAIN) || !time.Now().Before(end) {
			return err
		}
	}
}

func bind(fd int, path string, mode uint32) (created fs.FileInfo, err error) {
	// The mask, not a chmod afterwards: at no time may others connect.
	old := unix.Umask(0o777 &^ int(mode))
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", path, err)
	}
	if created, err = os.Lstat(path); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return created, nil
}

// removeStale makes way for a new socket at path.
func removeStale(path string) error {
	found, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(probe)
	// EAGAIN is a queue that is full: somebody listens.
	switch err := unix.Connect(probe, &unix.SockaddrUnix{Name: path}); err {
	case nil, unix.EAGAIN:
		return fmt.Errorf("%w on %s", errListening, path)
	case unix.ECONNREFUSED:
		return os.Remove(path)
	default:
		return fmt.Errorf("connect to %s, to see whether a server is listening on it: %w", path, err)
	}
}
