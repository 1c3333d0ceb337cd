package server

import "time"

// recall calls clients again after a pause, all that wait for it together.
type recall struct {
	server  *Server
	pause   time.Duration
	ready   func(c *conn) bool // is asked after a pause whether to call now, or after another one
	waiting []*conn
	timer   timer
}

func newRecall(s *Server, pause time.Duration, ready func(c *conn) bool) *recall {
	r := &recall{server: s, pause: pause, ready: ready}
	r.timer.call = r.callNow
	return r
}

// add has a client, which must not be waiting yet, called again after the pause.
func (r *recall) add(c *conn) {
	r.waiting = append(r.waiting, c)
	r.begin()
}

func (r *recall) begin() {
	if !r.timer.Pending() {
		r.server.set(&r.timer, r.pause)
	}
}

func (r *recall) callNow() {
	r.server.timers.Stop(&r.timer.Timer)
	left := r.waiting[:0]
	for _, c := range r.waiting {
		switch {
		case c.fd < 0:
		case r.ready(c):
			r.server.loop.Again(c.fd)
		default:
			left = append(left, c)
		}
	}
	clear(r.waiting[len(left):])
	if r.waiting = left; len(left) > 0 {
		r.begin()
	}
}

// unreported is what a client has to be called again for, as no event tells of it. See DECISIONS.
type unreported struct {
	later     bool // the server calls it again in a while
	prolonged bool // callLater was called again meanwhile: the pause begins anew
	unasked   bool // the server calls it again now, though no event may have come
	behind    bool // the next read tells what stands behind a descriptor
	glued     bool // something stood behind the last descriptor
}

// assumeDrained says that there is nothing more to read, most probably. If there is,
// it is found a little later.
func (c *conn) assumeDrained() {
	c.drained = true
	c.callLater()
}

// callLaterPause is how long a client waits for something that no event tells of.
const callLaterPause = 20 * time.Millisecond

// callLater calls the client again after a pause, which begins anew with each call.
func (c *conn) callLater() {
	if c.prolonged = c.later; !c.later {
		c.later = true
		c.server.later.add(c)
	}
}

// waitedEnough reports whether the client has been quiet since the pause began.
func (c *conn) waitedEnough() bool {
	if c.prolonged {
		c.prolonged = false
		return false
	}
	c.later, c.unasked = false, true
	return true
}

// learn is told whether a read has found something. Of reads right behind a descriptor, or made only
// because the pause was over, it learns whether this client sends on without waiting for the status.
func (c *conn) learn(found bool) {
	if c.behind || c.unasked && found {
		c.glued = found
	}
	c.behind, c.unasked = false, false
}
