package server

import (
	"time"

	"github.com/scache/scache/internal/table"
	"github.com/scache/scache/internal/wire"
	"github.com/scache/scache/store"
)

// watch sees to it that no connection is handed out that its far end has closed. Those
// that rest in the cache are registered with the loop, and leave the cache when the
// far end hangs up; the last look is taken when one is found.
//
// Most connections are found again within milliseconds. To register those would cost
// them two system calls for nothing, so it is left until they have rested for a while.
type watch struct {
	server        *Server
	cache         *cache
	quits         table.Table[bool] // those saved last with each descriptor, under a policy
	sockets       table.Table[bool] // what was a socket when it was looked at last
	fresh, rested []saving          // of this period, and of the one before
	timer         timer
}

// saving is a connection's, which may have been found meanwhile, and put back.
type saving struct{ fd, serial, returned uint32 }

func savingOf(c *store.Connection) saving {
	return saving{uint32(c.FD()), uint32(c.Serial()), uint32(c.Returned())}
}

const (
	// restTime is how long a connection rests, at least, before it is registered.
	restTime = 100 * time.Millisecond
	// watchesPerTurn bounds how many are registered in a turn.
	watchesPerTurn = 64
	// maxSpareSavings bounds the room that is kept for savings after a burst.
	maxSpareSavings = 1 << 14
)

func newWatch(s *Server, c *cache) *watch {
	w := &watch{server: s, cache: c}
	w.timer.call = w.due
	return w
}

// polite notes whether QUIT is to be said on a descriptor that is saved under a policy.
func (w *watch) polite(fd int, quit bool) { *w.quits.At(fd) = quit }

// quit reports whether QUIT is to be said on a connection that leaves the cache. Such a connection is
// also unfit as soon as its far end speaks unasked.
func (w *watch) quit(fd int) bool {
	if w.cache.judge == nil {
		return w.server.config.Quit
	}
	return *w.quits.At(fd)
}

// begin is called with a connection that has come into the store.
func (w *watch) begin(c *store.Connection) {
	w.fresh = append(w.fresh, savingOf(c))
	if !w.timer.Pending() {
		w.server.set(&w.timer, restTime)
	}
}

// end is called with the descriptor of one that has left the store, before it is
// handed over or closed.
func (w *watch) end(fd int) {
	w.server.loop.Remove(fd)
}

// due registers what has rested long enough.
func (w *watch) due() {
	budget := watchesPerTurn
	for len(w.rested) > 0 && budget > 0 {
		last := len(w.rested) - 1
		s := w.rested[last]
		w.rested = w.rested[:last]
		if c := w.cache.store.Connection(int(s.fd)); c != nil && savingOf(c) == s {
			budget--
			w.register(int(s.fd))
		}
	}
	switch {
	case len(w.rested) > 0:
		w.server.set(&w.timer, 0)
	case len(w.fresh) > 0:
		if cap(w.rested) > maxSpareSavings {
			w.rested = nil
		}
		w.rested, w.fresh = w.fresh, w.rested
		w.server.set(&w.timer, restTime)
	}
}

// register asks the loop for hang-ups. Only sockets have any; to ask others can block.
// It may have been done before, for one that was found and put back.
func (w *watch) register(fd int) {
	if socket, _ := wire.Lingers(fd); !socket {
		return
	}
	register := w.server.loop.Watch
	if w.quit(fd) {
		register = w.server.loop.Add
	}
	_ = register(fd, w) // if it fails, there is the last look
}

// socket reports whether a descriptor that was found is known to be a socket.
func (w *watch) socket(fd int) bool { return w != nil && *w.sockets.At(fd) }

// Ready implements loop.Handler.
func (w *watch) Ready(fd int, _ bool) (again bool) {
	if why, unfit := w.look(fd); unfit {
		w.cache.store.Remove(w.cache.store.Connection(fd), why)
	}
	return false
}

// look reports whether a connection is unfit to be handed out.
func (w *watch) look(fd int) (why store.Reason, unfit bool) {
	seen := w.server.wire.Look(fd)
	*w.sockets.At(fd) = seen.Socket
	switch {
	case seen.Closed:
		return store.HungUp, true
	case seen.Unread && w.quit(fd):
		return store.Unsolicited, true
	}
	return 0, false
}
