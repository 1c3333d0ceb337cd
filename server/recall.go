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
