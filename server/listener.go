package server

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
	"github.com/scache/scache/timerwheel"
)

// listener accepts clients on one socket, which belongs to the caller of New or is in Server.inherited.
type listener struct {
	server *Server
	cache  *cache
	fd     int
	noRoom bool // for the client at the head of the queue
	retry  timerwheel.Timer[timed]
}

const (
	// acceptsPerWake bounds how long newcomers keep the others waiting.
	acceptsPerWake = 64
	// acceptPause is how long to leave the queue alone when there is no room for
	// a client, as at the descriptor limit. No event tells when there is: the
	// queue is reported when it grows, and room may be made by other processes.
	acceptPause = 50 * time.Millisecond
)

// ignoreSenders makes a socket not tell who sends, which takes the room of the descriptor that comes
// with it. A socket unit may have asked for that, and clients inherit it from the listening socket, since
// Linux 6.16 when they connect: so one that is in the queue already may still have it.
func ignoreSenders(socket int) {
	for _, option := range []int{unix.SO_PASSCRED, unix.SO_PASSSEC, unix.SO_PASSPIDFD} {
		_ = unix.SetsockoptInt(socket, unix.SOL_SOCKET, option, 0) // not all kernels know all three
	}
}

// Ready implements loop.Handler.
func (l *listener) Ready(int, bool) (again bool) {
	for range acceptsPerWake {
		fd, err := wire.Accept(l.fd)
		switch err {
		case nil:
			l.noRoom = false
			l.server.arrived(newConn(l.server, l.cache, fd))
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNABORTED:
		default:
			if l.server.farewell.closeOne() {
				continue
			}
			l.server.adaptToLimit()
			if !l.noRoom {
				l.noRoom = true
				l.cache.stats.delayedClients++
				l.cache.faults.warn(l.cache.now, "accept connection: %v", err)
			}
			l.server.timers.Set(&l.retry, l, l.cache.after(acceptPause))
			return false
		}
	}
	return true
}

// due implements timed.
func (l *listener) due() { l.server.loop.Again(l.fd) }
