package server

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
)

// BenchmarkMiss is a look-up that finds nothing, from the client's write to its
// read, without epoll.
func BenchmarkMiss(b *testing.B) {
	s, err := New(Config{Log: discard{}, TTLLimit: 1e9, StatusUpdateTime: 1e9, IPCTimeout: 1e9, Parent: -1})
	if err != nil {
		b.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	c := newConn(s, fds[0], false)
	if err := s.admit(c); err != nil {
		b.Fatal(err)
	}
	request, reply := []byte(find("smtp\n192.0.2.1\n25\n0\n")), make([]byte, 100)
	var client wire.Wire
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Send(fds[1], request); err != nil {
			b.Fatal(err)
		}
		c.Ready(false)
		if n, err := client.Receive(fds[1], reply); n != len(miss) {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkWire is the system calls of BenchmarkMiss alone.
func BenchmarkWire(b *testing.B) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	request, reply, buffer := []byte(find("smtp\n192.0.2.1\n25\n0\n")), []byte(miss), make([]byte, readSize)
	var w wire.Wire
	b.ReportAllocs()
	for b.Loop() {
		w.Send(fds[1], request)
		w.Receive(fds[0], buffer)
		w.Send(fds[0], reply)
		w.Receive(fds[1], buffer)
	}
}

// BenchmarkSession is the session's part of BenchmarkMiss.
func BenchmarkSession(b *testing.B) {
	s, err := New(Config{Log: discard{}, TTLLimit: 1e9, StatusUpdateTime: 1e9, IPCTimeout: 1e9, Parent: -1})
	if err != nil {
		b.Fatal(err)
	}
	session := session{cache: &s.cache, out: make([]byte, 0, 100)}
	request := []byte(find("smtp\n192.0.2.1\n25\n0\n"))
	b.ReportAllocs()
	for b.Loop() {
		in := input{bytes: request, fd: -1}
		for session.step(&in) {
		}
		session.out = session.out[:0]
	}
}
