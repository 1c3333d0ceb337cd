package store

import "bytes"

// An endpoint exists as long as a connection or a binding refers to it.
type endpoint struct {
	label          []byte
	oldest, newest *Connection
	connections    int32
	references     int32
	terms          *Terms // may be nil
	hash           uint64 // of label
}

// refer returns the endpoint of that label with one more reference, and makes it
// if need be.
func (s *Store) refer(label []byte) *endpoint {
	hash := s.hash(label)
	e := s.endpoint(hash, label)
	if e == nil {
		e = s.freeEndpoints.take()
		e.label = remember(e.label, label)
		s.size.Text += len(label)
		e.hash = hash
		s.endpoints.add(hash, e)
	}
	e.references++
	return e
}

func (s *Store) release(e *endpoint) {
	if e.references--; e.references > 0 {
		return
	}
	s.endpoints.remove(e.hash, is(e))
	s.size.Text -= len(e.label)
	e.label = trim(e.label)
	e.terms = nil
	s.freeEndpoints.give(e)
}

// perEndpoint is how many connections an endpoint may have; 0 or less is no bound.
func (s *Store) perEndpoint(e *endpoint) int {
	if e.terms != nil && e.terms.PerEndpoint != 0 {
		return e.terms.PerEndpoint
	}
	return s.Limits.PerEndpoint
}

func (s *Store) order(e *endpoint) Order {
	if e.terms != nil {
		return e.terms.Order
	}
	return s.Order
}

// soonestLook is how many connections of an endpoint are looked at for the one that
// expires first.
const soonestLook = 64

// soonest returns the connection that expires first, the oldest of several. They
// stand in the order of saving, which is that of expiring unless their times to live
// differ; if they do, it is the first of the oldest 64.
func (e *endpoint) soonest() *Connection {
	soonest := e.oldest
	for c, n := soonest.newer, 1; c != nil && n < soonestLook; c, n = c.newer, n+1 {
		if c.timer.When() < soonest.timer.When() {
			soonest = c
		}
	}
	return soonest
}

func (s *Store) lookupEndpoint(label []byte) *endpoint { return s.endpoint(s.hash(label), label) }

func (s *Store) endpoint(hash uint64, label []byte) *endpoint {
	return item(s.endpoints.find(hash, func(e **endpoint) bool { return bytes.Equal((*e).label, label) }))
}

// A destination exists as long as it has a binding.
type destination struct {
	label       []byte
	first, last *binding
	bindings    int
}

func (s *Store) lookupDestination(label []byte) *destination {
	return item(s.destinations.find(s.hash(label), func(d **destination) bool { return bytes.Equal((*d).label, label) }))
}

// item is what was found in an index, or nil.
func item[T any](found **T) *T {
	if found == nil {
		return nil
	}
	return *found
}

// is tells an item of an index from others.
func is[T any](item *T) func(**T) bool { return func(other **T) bool { return *other == item } }
