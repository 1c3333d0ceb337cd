package server

import "time"

// errands lets admin requests that have much to do give way to other clients. A portion delays these by
// no more than a request of their own would. While they are served, the next portion waits for a pause and
// then for the end of a turn, when they have their replies and are at work themselves. It waits without a
// timer for that: of one so short the processor has to be told before each sleep, which costs a virtual
// machine more than the list does.
type errands struct {
	server *Server
	paused time.Duration // since the start: when one last began to wait
	later  *recall       // those that wait, and a timer for when there are no turns any longer
}

const errandPause = time.Millisecond

func newErrands(s *Server) errands {
	return errands{server: s, later: newRecall(s, callLaterPause, func(c *conn) bool {
		c.gaveWay = false
		return true
	})}
}

// giveWay is called when a client's errand has done a portion. If it returns true, as others are
// served, the errand waits, and is called again then.
func (e *errands) giveWay(c *conn) bool {
	before := c.session.others
	if c.session.others = e.server.requests(); before == noneYet || c.session.others == before {
		return false
	}
	c.gaveWay = true
	e.paused = e.server.elapsed
	e.later.add(c)
	return true
}

// goOn calls what has waited for long enough. A turn ends with it.
func (e *errands) goOn() {
	if len(e.later.waiting) > 0 && e.server.elapsed-e.paused >= errandPause {
		e.later.callNow()
	}
}

// noneYet is session.others before the first portion.
const noneYet = -1

// requests is how many there were, but for admin requests.
func (s *Server) requests() (n int) {
	for _, c := range s.caches {
		n += c.counters.requests - c.counters.admin
	}
	return n
}
