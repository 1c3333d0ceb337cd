package store

import "github.com/scache/scache/internal/table"

// A Walk visits what is stored, in no particular order: what is there from its beginning to
// its end once, and nothing twice, whatever comes and goes meanwhile. It is two numbers,
// and the store knows nothing of it: every connection and every binding has a place that it keeps, the
// walk goes from place to place, and passes over what was saved after it has begun.
type Walk struct {
	last  uint64 // stamp: of what was saved last before it began
	place int
}

// Walk begins a walk, which visits either connections or bindings.
func (s *Store) Walk() Walk { return Walk{last: s.last} }

// Precedes reports whether something with that serial number was saved after the walk
// began.
func (w *Walk) Precedes(serial uint64) bool { return serial > w.last }

// placesPerLook bounds how many places one call looks at.
const placesPerLook = 64

// NextConnection returns the next connection of a walk. It may be nil though there are more.
func (s *Store) NextConnection(w *Walk) (c *Connection, more bool) {
	for range placesPerLook {
		if w.place >= s.connections.Len() {
			return nil, false
		}
		c := *s.connections.At(w.place)
		w.place++
		if c != nil && !w.Precedes(c.serial) {
			return c, true
		}
	}
	return nil, true
}

// NextBinding returns the next binding of a walk, if any. There may be none though there
// are more.
func (s *Store) NextBinding(w *Walk) (b Binding, any, more bool) {
	for range placesPerLook {
		if w.place >= s.places.Len() {
			return b, false, false
		}
		b := *s.places.At(w.place)
		w.place++
		if b != nil && !w.Precedes(b.serial) {
			return s.view(b), true, true
		}
	}
	return b, false, true
}

// DropBinding takes a binding out of the store.
func (s *Store) DropBinding(b Binding) { s.dropBinding(b.of) }

// Connection returns the connection with that descriptor, nil if it is not in the store.
func (s *Store) Connection(fd int) *Connection { return *s.connections.At(fd) }

// Oldest returns the connection saved first at an endpoint, nil if it has none. It stays in the
// store.
func (s *Store) Oldest(endpoint []byte) *Connection {
	if e := s.lookupEndpoint(endpoint); e != nil {
		return e.oldest
	}
	return nil
}

// FirstBinding returns the first binding of a destination.
func (s *Store) FirstBinding(destination []byte) (b Binding, ok bool) {
	if d := s.lookupDestination(destination); d != nil {
		return s.view(d.first), true
	}
	return b, false
}

// Reach returns how many bindings a destination has, and how many connections their endpoints
// have. It looks at the first bindings only, so many at most.
func (s *Store) Reach(destination []byte, look int) (bindings, connections int) {
	d := s.lookupDestination(destination)
	if d == nil {
		return 0, 0
	}
	for b, n := d.first, 0; b != nil && n < look; b, n = b.next, n+1 {
		connections += int(b.endpoint.connections)
	}
	return d.bindings, connections
}

// places are where the bindings are, as descriptors are where the connections are.
type places struct {
	table.Table[*binding]
	next int32
	free []int32
}

func (p *places) take() int32 {
	if last := len(p.free) - 1; last >= 0 {
		place := p.free[last]
		p.free = p.free[:last]
		return place
	}
	p.next++
	return p.next - 1
}

func (p *places) give(place int32) {
	*p.At(int(place)) = nil
	p.free = append(p.free, place)
}
