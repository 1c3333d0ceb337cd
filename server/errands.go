package server

// errands lets admin requests that have much to do give way to other clients. One portion delays these
// by no more than a request of their own would. But portion after portion without a pause makes this a
// process that never sleeps; the kernel lets it wait for those that do, and its clients with it.
type errands struct {
	server   *Server
	requests int // of delivery agents, at the last look
	later    *recall
}

func newErrands(s *Server) errands {
	return errands{server: s, later: newRecall(s, tick, func(c *conn) bool {
		c.gaveWay = false
		return true
	})}
}

// giveWay is called when a client's errand has done a portion. If it returns true, as others are
// served, the errand waits for a moment, and is called again then.
func (e *errands) giveWay(c *conn) bool {
	before := e.requests
	if e.requests = e.server.requests(); e.requests == before {
		return false
	}
	c.gaveWay = true
	e.later.add(c)
	return true
}

// requests is how many there were, but for admin requests.
func (s *Server) requests() (n int) {
	for _, c := range s.caches {
		n += c.counters.requests - c.counters.admin
	}
	return n
}
