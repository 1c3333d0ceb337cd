package server

import "time"

// recall calls clients again after a pause, all that wait for it together.
type recall struct {
	server  *Server
	pause   time.Duration
	prepare func(c *conn) // is called with each before
	waiting []*conn
	timer   timer
}

func newRecall(s *Server, pause time.Duration, prepare func(c *conn)) *recall {
	r := &recall{server: s, pause: pause, prepare: prepare}
	r.timer.call = r.callNow
	return r
}

// add has a client called again that does not wait yet.
func (r *recall) add(c *conn) {
	r.waiting = append(r.waiting, c)
	if !r.timer.timer.Pending() {
		r.server.set(&r.timer, r.pause)
	}
}

func (r *recall) callNow() {
	for _, c := range r.waiting {
		r.prepare(c)
		if c.fd >= 0 {
			r.server.loop.Again(c.fd)
		}
	}
	clear(r.waiting)
	r.waiting = r.waiting[:0]
}
