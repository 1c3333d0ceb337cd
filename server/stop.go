package server

import (
	"time"

	"golang.org/x/sys/unix"
)

// stopGrace is how long clients in the middle of a request may take to end it
// when the server stops. Under master(8) others are waiting for our successor
// meanwhile.
const stopGrace = 100 * time.Millisecond

// farewellGrace is how long the replies to QUIT may take then.
const farewellGrace = 500 * time.Millisecond

// beginStop makes the server stop as soon as no request is unfinished. Who is not
// accepted yet stays in the queue, for a successor on the same socket.
func (s *Server) beginStop() {
	if s.stopping {
		return
	}
	s.stopping = true
	for _, l := range s.listeners {
		s.timers.Stop(&l.retry)
		s.loop.Remove(l.fd)
	}
	s.set(&s.grace, stopGrace)
	s.beat()
}

// continueStop answers what has arrived, because a request that is unread when its
// client is closed costs the client an error, and stops if all is answered.
func (s *Server) continueStop() {
	busy := false
	for c := range s.clients {
		if c.Ready(c.fd, true) { // true: so that it reads until there is nothing more, however short a read is
			s.loop.Again(c.fd)
			busy = true
		}
		busy = busy || c.fd >= 0 && c.session.waiting()
	}
	if !busy {
		s.clear()
	}
	if s.cleared && s.farewell.length() == 0 {
		s.stopped = true
	}
}

// clear closes all clients and cached connections. What is said to these takes a moment
// longer.
func (s *Server) clear() {
	if s.cleared {
		return
	}
	s.cleared = true
	for c := range s.clients {
		c.close()
	}
	for _, c := range s.caches {
		c.store.Clear()
	}
	s.set(&s.grace, farewellGrace)
}

// loseGrace ends the waiting for clients, and then that for farewells.
func (s *Server) loseGrace() {
	if s.cleared {
		s.stopped = true
		return
	}
	s.clear()
}

// finish closes everything that the server owns.
func (s *Server) finish() {
	s.clear() // after an error
	s.farewell.closeAll()
	if !s.succeeded { // else the successor counts on
		for _, c := range s.caches {
			c.reportStatistics()
		}
	}
	closeAll(s.inherited)
	s.loop.Close()
	// The eventfd stays open: Stop may be called still, and must not write to
	// another file that got its number.
}

// parent watches the parent's descriptor, on which nothing is ever received.
type parent struct{ *Server }

// Ready implements loop.Handler.
func (p parent) Ready(_ int, hangup bool) bool {
	if hangup {
		p.beginStop()
	}
	return false
}

// waker watches the eventfd that other goroutines write.
type waker struct{ *Server }

// Ready implements loop.Handler.
func (w waker) Ready(fd int, _ bool) bool {
	var count [8]byte
	_, _ = unix.Read(fd, count[:]) // first: what is wanted after it is another event
	select {
	case fd := <-w.introduced:
		c := newConn(w.Server, w.caches[0], fd)
		c.introduced = true
		w.arrived(c)
	default:
	}
	if w.stopAsked.Load() {
		w.beginStop()
	}
	return false
}
