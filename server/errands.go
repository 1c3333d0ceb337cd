package server

// errands lets admin requests that have much to do give way to other clients. A portion keeps these
// waiting for no longer than what they ask for takes. But if one followed the other as long as there are
// any, the kernel would let them wait as well: a process that never sleeps has to share the
// processor with those that do.
type errands struct {
	server   *Server
	portions int     // done since the last look
	requests int     // of delivery agents, at the last look
	waiting  []*conn // for the timer
	timer    timer
}

// portionsAtOnce is how many are done between two looks at whether others are served.
const portionsAtOnce = 4

func newErrands(s *Server) errands {
	e := errands{server: s}
	e.timer.call = s.resumeErrands
	return e
}

// giveWay is called when a client's errand has done a portion. If it returns true the errand waits for a moment,
// and is called again then.
func (e *errands) giveWay(c *conn) bool {
	if e.portions++; e.portions < portionsAtOnce {
		return false
	}
	before := e.requests
	e.portions, e.requests = 0, e.server.requests()
	if e.requests == before {
		return false
	}
	c.gaveWay = true
	e.waiting = append(e.waiting, c)
	if !e.timer.timer.Pending() {
		e.server.set(&e.timer, tick)
	}
	return true
}

// resumeErrands goes on with all that wait.
func (s *Server) resumeErrands() {
	for _, c := range s.errands.waiting {
		c.gaveWay = false
		if c.fd >= 0 {
			s.loop.Again(c.fd)
		}
	}
	clear(s.errands.waiting)
	s.errands.waiting = s.errands.waiting[:0]
}

// requests is how many there were, but for admin requests.
func (s *Server) requests() (n int) {
	for _, c := range s.caches {
		n += c.counters.requests - c.counters.admin
	}
	return n
}
