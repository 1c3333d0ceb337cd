package server

import "time"

// Status is how the server does, all caches together.
type Status struct {
	Clients      int
	Connections  int // cached
	Hits, Misses int // look-ups since the start
	Stopping     bool
}

// beatPause is how long a change of the status waits to be told, so that a busy server
// does not tell each.
const beatPause = 5 * time.Second

// beats tells Config.Beat the status.
type beats struct {
	told    Status
	regular timer // each Config.Heartbeat
	change  timer // pending since the status is another one than was told
}

func (s *Server) startBeats() {
	s.beats.regular.call = func() {
		s.beat()
		s.set(&s.beats.regular, s.config.Heartbeat)
	}
	s.beats.change.call = func() {
		if s.status() != s.beats.told {
			s.beat()
		}
	}
	if s.config.Beat != nil && s.config.Heartbeat > 0 {
		s.set(&s.beats.regular, s.config.Heartbeat)
	}
}

func (s *Server) beat() {
	if s.config.Beat != nil && !s.succeeded { // else that is the successor's
		s.beats.told = s.status()
		s.config.Beat(s.beats.told)
	}
}

// noticeChange is called at the end of a turn. After the last change there is one beat more,
// and then no wake-up.
func (s *Server) noticeChange() {
	if s.config.Beat != nil && !s.beats.change.Pending() && s.status() != s.beats.told {
		s.set(&s.beats.change, beatPause)
	}
}

func (s *Server) status() Status {
	status := Status{Clients: len(s.clients), Connections: s.cached(), Stopping: s.stopping}
	for _, c := range s.caches {
		all := c.stats.lookups()
		status.Hits += all.hits
		status.Misses += all.misses
	}
	return status
}
