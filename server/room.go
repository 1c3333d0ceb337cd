package server

import (
	"cmp"
	"slices"

	"github.com/scache/scache/store"
)

// What gives way when descriptors, or memory for clients, are scarce.

// adaptToLimit bounds the number of connections by the descriptor limit, which others
// can change while we run. If it was lowered, clients need their reserve again.
func (s *Server) adaptToLimit() {
	s.descriptors.readLimit()
	before := s.room
	s.room = s.descriptors.room(s.base)
	for _, c := range s.caches {
		if c.lowering != nil {
			if s.room != before { // else it goes on, and does not begin anew
				c.lower()
			}
			continue
		}
		c.store.Limits = c.bounded()
		for c.store.Size().Connections > c.bounded().Connections {
			c.store.Evict()
		}
	}
	for s.cached() > s.room {
		s.fullest().store.Evict()
	}
}

// bounded are the limits as far as the descriptors allow.
func (c *cache) bounded() store.Limits {
	bounded := c.limits
	if bounded.Connections == 0 || bounded.Connections > *c.room {
		bounded.Connections = *c.room
	}
	return bounded
}

// makeRoomIfFull makes room for one more connection, if it would need the descriptors of clients.
// A cache that is alone sees to these by its own limit. Of several the fullest gives way, so that a
// busy one cannot empty the others.
func (s *Server) makeRoomIfFull() {
	switch {
	case s.descriptors.scarce():
		s.makeRoom()
	case len(s.caches) > 1 && s.cached() >= s.room:
		s.fullest().store.Evict()
	}
}

// makeRoom makes room for one more descriptor, if it can.
func (s *Server) makeRoom() {
	if !s.farewell.closeOne() && s.fullest().store.Evict() {
		s.farewell.closeOne()
	}
}

// cached is the number of connections in all caches.
func (s *Server) cached() (n int) {
	for _, c := range s.caches {
		n += c.store.Size().Connections
	}
	return n
}

func (s *Server) fullest() *cache {
	return slices.MaxFunc(s.caches, func(a, b *cache) int {
		return cmp.Compare(a.store.Size().Connections, b.store.Size().Connections)
	})
}

// hold notes that we keep so many more bytes for clients.
func (s *Server) hold(bytes int) {
	s.held += bytes
	if bytes > 0 {
		s.relieve()
	}
}

// relievedAtOnce bounds how many are disconnected at a time, each of whom is sought among all.
const relievedAtOnce = 8

// relieve disconnects some for whom we keep most, if it is too much in all. done says that it is
// not, or not any longer.
func (s *Server) relieve() (done bool) {
	limit := s.config.ClientMemory
	for n := 0; limit > 0 && s.held > limit && len(s.clients) > 0; n++ {
		if n == relievedAtOnce {
			return false
		}
		var greedy *conn
		for c := range s.clients {
			if greedy == nil || c.held > greedy.held {
				greedy = c
			}
		}
		greedy.session.cache.stats.disconnected++
		greedy.session.fault("disconnected: %d bytes of unfinished requests and unread replies, and more than connection_cache_client_memory_limit with those of others", greedy.held)
		greedy.close()
	}
	return true
}
