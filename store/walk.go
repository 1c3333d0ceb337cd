package store

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
