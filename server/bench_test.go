package server

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
	"github.com/scache/scache/proto"
)

// handClient is a client of a server that is called by hand, without epoll.
type handClient struct {
	tb     testing.TB
	conn   *conn
	fd     int
	wire   wire.Wire
	buffer [1000]byte
}

func newHandClient(tb testing.TB) *handClient {
	s, err := New(Config{Log: discard{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{})
	if err != nil {
		tb.Fatal(err)
	}
	near, far, err := socketpair()
	if err != nil {
		tb.Fatal(err)
	}
	c := &handClient{tb: tb, conn: newConn(s, s.caches[0], near), fd: far}
	if err := s.admit(c.conn); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.finish()
		unix.Close(far)
	})
	return c
}

// say sends a message and receives a reply of a certain length.
func (c *handClient) say(msg []byte, reply int) {
	if _, err := c.wire.Send(c.fd, msg); err != nil {
		c.tb.Fatal(err)
	}
	c.hear(reply)
}

func (c *handClient) hear(reply int) {
	c.conn.Ready(c.conn.fd, false)
	if reply == 0 {
		return
	}
	if n, err := c.wire.Receive(c.fd, c.buffer[:]); n != reply {
		c.tb.Fatal(n, err)
	}
}

// BenchmarkMiss is a look-up that finds nothing, from the client's write to its
// read.
func BenchmarkMiss(b *testing.B) {
	b.ReportAllocs()
	c := newHandClient(b)
	request := []byte(find("smtp\n192.0.2.1\n25\n0\n"))
	for b.Loop() {
		c.say(request, len(miss))
	}
}

// BenchmarkCycle saves a connection and finds it.
func BenchmarkCycle(b *testing.B) {
	b.ReportAllocs()
	c := newHandClient(b)
	cached, _, err := socketpair()
	if err != nil {
		b.Fatal(err)
	}
	const label, property = "smtp\n192.0.2.1\n25\n0\n", "example.com\nmx.example.com\n192.0.2.1\n25\n"
	save := proto.AppendSaveEndpoint(nil, 2, label, property)
	look, dummy := []byte(find(label)), []byte(proto.DummyMessage)
	hit := len(proto.AppendEndpointReply(nil, proto.OK, []byte(property)))
	saved := len(proto.AppendStatus(nil, proto.OK))
	for b.Loop() {
		c.say(save, len(proto.DummyMessage))
		if err := c.wire.SendDescriptor(c.fd, cached); err != nil {
			b.Fatal(err)
		}
		c.hear(saved)
		c.say(look, hit)
		if _, err := c.wire.Send(c.fd, dummy); err != nil {
			b.Fatal(err)
		}
		c.conn.Ready(c.conn.fd, false)
		_, fd, _, err := c.wire.ReceiveDescriptor(c.fd, c.buffer[:1])
		if err != nil || fd < 0 {
			b.Fatal(fd, err)
		}
		unix.Close(fd)
		c.say(dummy, 0)
	}
}

func socketpair() (near, far int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return fds[0], fds[1], err
}

// BenchmarkWire is the system calls of BenchmarkMiss alone.
func BenchmarkWire(b *testing.B) {
	near, far, err := socketpair()
	if err != nil {
		b.Fatal(err)
	}
	request, reply, buffer := []byte(find("smtp\n192.0.2.1\n25\n0\n")), []byte(miss), make([]byte, readSize)
	var w wire.Wire
	b.ReportAllocs()
	for b.Loop() {
		w.Send(far, request)
		w.Receive(near, buffer)
		w.Send(near, reply)
		w.Receive(far, buffer)
	}
}

// BenchmarkSession is the session's part of BenchmarkMiss.
func BenchmarkSession(b *testing.B) {
	s, err := New(Config{Log: discard{}, TTLLimit: 1e9, StatusUpdateTime: 1e9, IPCTimeout: 1e9, Parent: -1}, Cache{})
	if err != nil {
		b.Fatal(err)
	}
	session := session{cache: s.caches[0], out: make([]byte, 0, 100)}
	request := []byte(find("smtp\n192.0.2.1\n25\n0\n"))
	b.ReportAllocs()
	for b.Loop() {
		in := input{bytes: request, fd: -1}
		for session.step(&in) {
		}
		session.out = session.out[:0]
	}
}
