package server

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/timerwheel"
)

// farewell closes the connections that leave the cache without a client, some in a
// turn, and says QUIT first to those that are to hear it.
type farewell struct {
	server    *Server
	queue     []leaving // from head on
	head      int
	lingering map[*lingering]struct{}
	buffer    [512]byte
}

// leaving is a connection that is out of the store and not closed yet.
type leaving struct {
	fd   int
	quit bool // say QUIT to it
}

const (
	// farewellsPerTurn bounds how long those that leave keep the clients waiting.
	farewellsPerTurn = 64
	// maxLingering bounds how many connections are open still for the reply to QUIT.
	// The others are closed without waiting for it.
	maxLingering = 1024
	lingerTime   = 2 * time.Second
	// drainReads bounds what is read of what the far end has sent, in buffers.
	drainReads = 64
)

var (
	quitCommand = []byte("QUIT\r\n")
	quitReply   = []byte("221") // RFC 5321, section 4.2.3
)

// add takes a connection that has left the store.
func (f *farewell) add(fd int, quit bool) {
	f.queue = append(f.queue, leaving{fd, quit})
}

// waiting reports whether there is something to close right now.
func (f *farewell) waiting() bool { return f.head < len(f.queue) }

// length is how many connections are not closed yet.
func (f *farewell) length() int { return len(f.queue) - f.head + len(f.lingering) }

// closeSome closes what is due in a turn.
func (f *farewell) closeSome() {
	for n := 0; f.waiting() && n < farewellsPerTurn; n++ {
		l := f.next()
		if !l.quit || !f.sayQuit(l.fd) || !f.linger(l.fd) {
			f.server.descriptors.close(l.fd)
		}
	}
}

func (f *farewell) next() leaving {
	l := f.queue[f.head]
	f.head++
	if f.head > len(f.queue)/2 { // else it would grow as long as it is never empty
		f.queue, f.head = f.queue[:copy(f.queue, f.queue[f.head:])], 0
	}
	return l
}

// closeOne closes one connection at once. It returns false if there is none.
func (f *farewell) closeOne() bool {
	if f.waiting() {
		l := f.next()
		if l.quit {
			f.sayQuit(l.fd)
		}
		f.server.descriptors.close(l.fd)
		return true
	}
	for l := range f.lingering {
		l.close()
		return true
	}
	return false
}

// closeAll closes everything, as well as it can be done at once.
func (f *farewell) closeAll() {
	for f.closeOne() {
	}
}

// sayQuit sends QUIT, and reports whether that was possible. What has arrived is read
// before: closing a TCP socket with unread input resets the connection, and the far
// end may lose the QUIT.
func (f *farewell) sayQuit(fd int) bool {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return false
	}
	if _, open := f.drain(fd); !open {
		return false
	}
	n, err := f.server.wire.Send(fd, quitCommand)
	return err == nil && n == len(quitCommand)
}

// drain reads what has arrived. It reports whether the reply to QUIT was there, and
// whether more may come.
func (f *farewell) drain(fd int) (replied, open bool) {
	for range drainReads {
		n, err := f.server.wire.Receive(fd, f.buffer[:])
		if err == unix.EAGAIN {
			return replied, true
		}
		if err != nil || n == 0 {
			return replied, false
		}
		replied = replied || bytes.Contains(f.buffer[:n], quitReply)
	}
	return replied, false
}

// lingering is a connection on which QUIT was said: it is open until the reply comes,
// or the end of file, or lingerTime is over.
type lingering struct {
	farewell *farewell
	fd       int
	timer    timerwheel.Timer[timed]
}

// linger keeps a connection, or returns false.
func (f *farewell) linger(fd int) bool {
	if len(f.lingering) >= maxLingering {
		return false
	}
	l := &lingering{farewell: f, fd: fd}
	if f.server.loop.Add(fd, l) != nil {
		return false
	}
	f.lingering[l] = struct{}{}
	f.server.timers.Set(&l.timer, l, f.server.clock.after(lingerTime))
	return true
}

// Ready implements loop.Handler.
func (l *lingering) Ready(int, bool) (again bool) {
	if replied, open := l.farewell.drain(l.fd); replied || !open {
		l.close()
	}
	return false
}

// due implements timed.
func (l *lingering) due() { l.close() }

func (l *lingering) close() {
	s := l.farewell.server
	delete(l.farewell.lingering, l)
	s.timers.Stop(&l.timer)
	s.loop.Remove(l.fd)
	s.descriptors.close(l.fd)
}
