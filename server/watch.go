package server

import (
	"time"

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
	server *Server
	wire   wire.Wire
	// unsolicited is whether a connection is unfit, too, on which the far end spoke.
	unsolicited bool

	fresh, rested []resting // saved in this period, and in the one before
	timer         timer
	watched       []*watched // by descriptor
}

// resting is a connection that was saved, and may have been found meanwhile.
type resting struct {
	connection *store.Connection
	serial     uint64
}

const (
	// restTime is how long a connection rests, at least, before it is registered.
	restTime = 100 * time.Millisecond
	// watchesPerTurn bounds how many are registered in a turn.
	watchesPerTurn = 64
)

// begin is called with a connection that has come into the store.
func (w *watch) begin(c *store.Connection) {
	w.fresh = append(w.fresh, resting{c, c.Serial()})
	if !w.timer.timer.Pending() {
		w.server.set(&w.timer, restTime)
	}
}

// due registers what has rested long enough.
func (w *watch) due() {
	budget := watchesPerTurn
	for len(w.rested) > 0 && budget > 0 {
		last := len(w.rested) - 1
		r := w.rested[last]
		w.rested[last] = resting{}
		w.rested = w.rested[:last]
		if c := r.connection; c.Serial() == r.serial && c.Stored() {
			budget--
			w.register(c)
		}
	}
	switch {
	case len(w.rested) > 0:
		w.server.set(&w.timer, 0)
	case len(w.fresh) > 0:
		w.rested, w.fresh = w.fresh, w.rested
		w.server.set(&w.timer, restTime)
	}
}

// register asks the loop for hang-ups. Only sockets have any; to ask others can block.
func (w *watch) register(c *store.Connection) {
	fd := c.FD()
	if socket, _ := wire.Lingers(fd); !socket {
		return
	}
	for fd >= len(w.watched) {
		w.watched = append(w.watched, nil)
	}
	h := w.watched[fd]
	if h == nil {
		h = &watched{watch: w}
		w.watched[fd] = h
	}
	if h.connection != nil {
		return // it was found and put back, and stands in the queue twice
	}
	register := w.server.loop.Watch
	if w.unsolicited {
		register = w.server.loop.Add
	}
	if register(fd, h) == nil { // else there is the last look
		h.connection = c
	}
}

// end is called before a connection that was in the store is handed over or closed.
func (w *watch) end(fd int) {
	if fd < len(w.watched) && w.watched[fd] != nil && w.watched[fd].connection != nil {
		w.watched[fd].connection = nil
		w.server.loop.Remove(fd)
	}
}

// look reports whether a connection is unfit to be handed out.
func (w *watch) look(fd int) (why store.Reason, unfit bool) {
	closed, unread := w.wire.HungUp(fd)
	switch {
	case closed:
		return store.HungUp, true
	case unread && w.unsolicited:
		return store.Unsolicited, true
	}
	return 0, false
}

// watched is a connection that is registered with the loop.
type watched struct {
	watch      *watch
	connection *store.Connection // nil: none at present
}

// Ready implements loop.Handler.
func (h *watched) Ready(bool) (again bool) {
	if why, unfit := h.watch.look(h.connection.FD()); unfit {
		h.watch.server.cache.store.Remove(h.connection, why)
	}
	return false
}
